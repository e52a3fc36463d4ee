"""A run of a tiny network, as the modeling notebook would leave it, and what its service must answer."""

import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tdsp_vision.modeling.batches import preprocess

IMAGE_SIZE = 32


@dataclass
class Exported:
    """A run folder, its model and where it was exported to."""

    run_folder: Path
    version_folder: Path
    model: keras.Model
    info: dict

    def scores(self, encoded: list[bytes]) -> np.ndarray:
        """What the Keras model says after the one preprocess, float32 [n, K]."""
        pictures = [preprocess(tf.constant(data), IMAGE_SIZE).numpy() for data in encoded]
        return np.asarray(self.model(np.stack(pictures), training=False))


def decide(scores: np.ndarray, info: dict) -> list[str]:
    """The decision rule in plain Python."""
    labels = []
    for row in scores:
        ranked = sorted(zip(row, info["classes"], strict=True), key=lambda pair: -pair[0])
        if not info["positive_class"]:
            labels.append(ranked[0][1])
        elif row[info["classes"].index(info["positive_class"])] >= info["threshold"]:
            labels.append(info["positive_class"])
        else:
            labels.append(next(name for _, name in ranked if name != info["positive_class"]))
    return labels


def write_run(folder: Path, classes: list[str], positive_class: str, threshold: float | None) -> keras.Model:
    """A run folder with a tiny network of random weights, large enough that its scores differ between pictures."""
    keras.utils.set_random_seed(7)
    layers = [
        keras.layers.Rescaling(1 / 127.5, offset=-1),
        keras.layers.Conv2D(6, 5, strides=2, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(len(classes), kernel_initializer=keras.initializers.RandomNormal(stddev=4.0)),
        keras.layers.Softmax(),
    ]
    model = keras.Sequential([keras.Input([IMAGE_SIZE, IMAGE_SIZE, 3]), *layers])
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    metrics = {"dataset": "tiny", "classes": classes, "positive_class": positive_class, "image_size": IMAGE_SIZE}
    metrics["validation"] = {"threshold": threshold}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return model
