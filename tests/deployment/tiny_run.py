"""A run of a tiny network, as the modeling notebook would leave it, and what its service must answer."""

import base64
import json
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import requests
import tensorflow as tf

from tdsp_vision.deployment.backends import LocalBackend, LocalService
from tdsp_vision.deployment.deployment import Deployment
from tdsp_vision.modeling import metrics
from tdsp_vision.modeling.batches import preprocess
from tdsp_vision.paths import OutputPaths

IMAGE_SIZE = 32
MODEL = "/v1/models/tiny"
PREDICT = f"{MODEL}:predict"
CLASSES = ["benign", "malignant"]


@dataclass
class Exported:
    """A run, its model and where it was exported to."""

    outputs: OutputPaths
    version_folder: Path
    model: keras.Model
    info: dict

    def says(self, encoded: list[bytes]) -> dict[str, np.ndarray]:
        """What the Keras model says after the one preprocess: scores float32 [n, K], familiar float32 [n, 1]."""
        pictures = [preprocess(tf.constant(data), IMAGE_SIZE).numpy() for data in encoded]
        return {name: values.numpy() for name, values in self.model(np.stack(pictures), training=False).items()}

    def scores(self, encoded: list[bytes]) -> np.ndarray:
        """The scores of these."""
        return self.says(encoded)["scores"]


def decide(scores: np.ndarray, info: dict) -> list[str]:
    """The labels that the run itself gives."""
    return metrics.decide(scores, info["classes"], info["positive_class"], info["threshold"]).tolist()


def write_run(folder: Path, classes: list[str], positive_class: str, threshold: float | list[float], seed: int = 7):
    """A run folder with a tiny network of random weights, large enough that its scores differ between pictures."""
    keras.utils.set_random_seed(seed)
    x = images = keras.Input([IMAGE_SIZE, IMAGE_SIZE, 3])
    normalization, wide = keras.layers.BatchNormalization(), keras.initializers.RandomNormal(stddev=4.0)
    for layer in (keras.layers.Rescaling(1 / 127.5, -1), keras.layers.Conv2D(6, 5, 2, use_bias=False), normalization):
        x = layer(x)
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu")(keras.layers.ReLU()(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    scores = keras.layers.Dense(len(classes), "softmax", kernel_initializer=wide, name="scores")(x)
    familiar = keras.layers.Dense(1, "sigmoid", kernel_initializer=wide, name="familiar")(x)
    model, rng = keras.Model(images, {"scores": scores, "familiar": familiar}), np.random.default_rng(seed)
    normalization.set_weights([w + rng.uniform(-0.2, 0.2, w.shape) for w in normalization.get_weights()])
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    head = {"dataset": "tiny", "classes": classes, "positive_class": positive_class, "image_size": IMAGE_SIZE}
    (folder / "metrics.json").write_text(json.dumps(head | {"validation": {"threshold": threshold}}))
    return model


def serve(version_folder: Path) -> LocalService:
    """An embedded server of a version in `<outputs>/ds/serving/<model>/`; it ends with this process."""
    dataset, model = version_folder.parents[2], version_folder.parent.name
    outputs = OutputPaths(str(dataset.parent), dataset.name)
    return Deployment(outputs, model).create(version_folder, LocalBackend()).service()


def send(service, method: str, path: str, body: bytes | None = None, **headers: str) -> requests.Response:
    """One request with the path exactly as written, past any proxy."""
    with requests.Session() as http:
        http.trust_env = False
        prepared = http.prepare_request(requests.Request(method, service.url, data=body, headers=headers))
        prepared.url = service.url + path
        return http.send(prepared, timeout=60)


def json_body(content) -> bytes:
    return json.dumps(content).encode()


def b64(data: bytes) -> dict:
    return {"b64": base64.b64encode(data).decode()}


def png(width: int, height: int) -> bytes:
    """A black PNG of one bit a pixel: 16,000 x 16,000 of them take 31 kB."""
    parts = {b"IHDR": struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)}
    parts |= {b"IDAT": zlib.compress(bytes(height * (1 + -(-width // 8))), 9), b"IEND": b""}
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
