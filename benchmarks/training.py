"""Training speed, in images per second: what the input costs, which precision is fast, what frozen stages save.

    python benchmarks/training.py [--only input|precision|stages] [--photos FOLDER] [--seconds 20] [--rounds 5]

The things compared take turns, each for `--seconds` in each round, so that whatever else the machine does hits all of
them. Printed are medians over the rounds and the median of the ratio to the first line. Every step is a whole one:
forward, backward, AdamW. All pictures are 224 px, batches hold 32.

input      EfficientNet-Lite0 from one batch in memory against files that are read, decoded, resized and augmented
precision  ResNet-18 and -50 in float32 and bfloat16, what PRECISION="auto" picks, and the same networks in a plain
           PyTorch loop in bfloat16. PyTorch is needed for nothing else here: `pip install torch`; without it that
           line is left out.
stages     EfficientNet-Lite0: the last stages from cached activations against all of it from files
"""

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import keras
import numpy as np
import tensorflow as tf
import torch_training
from featurize import resized_copies
from tdsp_vision.modeling.dnn import freeze_batch_normalization
from tdsp_vision.modeling.imgaug_numpy2 import iaa
from tdsp_vision.modeling.partial import activation_batches, cached_activations, split_backbone
from tdsp_vision.modeling.precision import choose_precision, with_precision
from tdsp_vision.modeling.resnets import RESNETS
from torch_training import BATCH, SIZE, Clock

from tdsp_vision.modeling.backbones import build_backbone, stage_ends
from tdsp_vision.modeling.batches import training_batches
from tdsp_vision.paths import SAMPLE_DATA

ENDLESS = 10**6  # epochs or steps: each measurement ends by the clock
FLIPS = iaa.Sequential([iaa.Fliplr(0.5), iaa.Flipud(0.5)])
DERMOSCOPY = iaa.Sequential(
    [
        iaa.Fliplr(0.5),
        iaa.Flipud(0.5),
        iaa.Affine(rotate=(-180, 180), scale=(0.9, 1.2), mode="reflect"),
        iaa.Multiply((0.85, 1.15)),
        iaa.LinearContrast((0.85, 1.15)),
    ]
)
Rate = Callable[[float], float]  # seconds to measure for -> images per second


@click.command()
@click.option("--only", type=click.Choice(["input", "precision", "stages"]), default=None, help="one part; else all")
@click.option("--photos", type=click.Path(path_type=Path, exists=True), default=SAMPLE_DATA / "lesions")
@click.option("--images", default=512, help="files, made from the photos")
@click.option("--side", default=256, help="their side in pixels")
@click.option("--seconds", default=20.0, help="for each measurement")
@click.option("--rounds", default=5)
def main(only: str | None, photos: Path, images: int, side: int, seconds: float, rounds: int) -> None:
    """Print one table for each part."""
    print(f"batches of {BATCH} images of {SIZE} px, {rounds} rounds of {seconds:g} s; images/s (lowest to highest)")
    with tempfile.TemporaryDirectory() as folder:
        files = resized_copies(sorted(photos.rglob("*.jpg")), side, images, Path(folder) / "files")
        if only in (None, "input"):
            compare(f"input, {side} px files", input_contestants(files), seconds, rounds)
        if only in (None, "precision"):
            for name in ("resnet18", "resnet50"):
                compare(f"precision, {name}", precision_contestants(name), seconds, rounds)
        if only in (None, "stages"):
            compare("stages", stage_contestants(files, Path(folder) / "features"), seconds, rounds)


def compare(title: str, contestants: dict[str, Rate], seconds: float, rounds: int) -> None:
    """Let the contestants take turns; print a line for each, with its ratio to the first."""
    rates = np.array([[rate(seconds) for rate in contestants.values()] for _ in range(rounds)])
    print(f"\n{title}")
    for name, own in zip(contestants, rates.T, strict=True):
        ratio = np.median(own / rates[:, 0])
        print(f"  {name:44s} {np.median(own):7.1f} ({own.min():.0f}-{own.max():.0f}), ratio {ratio:.2f}", flush=True)


def input_contestants(files: list[Path]) -> dict[str, Rate]:
    """1 less the ratio is what the input costs."""
    model = classifier(build_backbone("efficientnet_lite0", SIZE))
    targets = np.arange(len(files)) % 2
    pipelines = {"files": None, "files, flips": FLIPS, "files, dermoscopy": DERMOSCOPY}
    data = {"one batch in memory": one_batch()} | {
        name: training_batches(files, targets, SIZE, BATCH, 0, ENDLESS, augmenter=augmenter)
        for name, augmenter in pipelines.items()
    }
    return {name: keras_rate(model, batches) for name, batches in data.items()}


def precision_contestants(name: str) -> dict[str, Rate]:
    """The same network by precision; `auto` is one of them and marked."""
    auto, _ = choose_precision("auto", name)
    contestants = {}
    for policy in dict.fromkeys(["float32", "mixed_bfloat16", auto]):
        with with_precision(policy):
            model = classifier(build_backbone(name, SIZE, "none"), frozen_statistics=False)
        contestants[policy + (" (PRECISION=auto)" if policy == auto else "")] = keras_rate(model, one_batch())
    if importlib.util.find_spec("torch"):
        contestants["PyTorch, bfloat16"] = torch_rate(name)
    else:
        print(f"\nPyTorch is not installed, so {name} is not compared with it (pip install torch).")
    return contestants


def stage_contestants(files: list[Path], folder: Path) -> dict[str, Rate]:
    """Full refinement, then one to four stages; also prints what filling each cache takes."""
    backbone = build_backbone("efficientnet_lite0", SIZE)
    targets = np.arange(len(files)) % 2
    every = training_batches(files, targets, SIZE, BATCH, 0, ENDLESS)
    contestants = {f"all {len(stage_ends(backbone))} stages, from files": keras_rate(classifier(backbone), every)}
    for stages in range(1, 5):
        frozen, rest = split_backbone(backbone, stages)
        start = time.perf_counter()
        activations = cached_activations(frozen, files, SIZE, folder, quiet=True)
        rate, size = len(files) / (time.perf_counter() - start), activations[0].nbytes / 1000
        batches = activation_batches(activations, targets, BATCH, 0, ENDLESS)
        name = f"last {stages}, cached at {rate:.0f}/s, {size:.0f} kB each"
        contestants[name] = keras_rate(classifier(rest), batches)
    return contestants


def classifier(part: keras.Model, frozen_statistics: bool = True) -> keras.Model:
    """A backbone, or the end of one, with a head, compiled; its layers compute as they were built."""
    x = keras.layers.Dropout(0.2)(part.output)
    model = keras.Model(part.input, keras.layers.Dense(2, activation="softmax", dtype="float32")(x))
    if frozen_statistics:
        freeze_batch_normalization(model)
    model.compile(keras.optimizers.AdamW(1e-5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def one_batch() -> tf.data.Dataset:
    """The same images again and again: training without any input to wait for."""
    images = np.random.default_rng(0).uniform(0, 255, (BATCH, SIZE, SIZE, 3)).astype("float32")
    return tf.data.Dataset.from_tensors((images, np.arange(BATCH) % 2)).repeat()


def keras_rate(model: keras.Model, batches: tf.data.Dataset) -> Rate:
    """Measures `fit`."""

    def rate(seconds: float) -> float:
        clock = Clock(seconds)

        def step(batch: int, logs: dict) -> None:
            model.stop_training = clock.step()

        callback = keras.callbacks.LambdaCallback(on_train_batch_end=step)
        model.fit(batches, steps_per_epoch=ENDLESS, verbose=0, shuffle=False, callbacks=[callback])
        return clock.rate

    return rate


def torch_rate(name: str) -> Rate:
    """Measures `torch_training.py`, which waits while others are measured."""
    kind, blocks = RESNETS[name]
    command = [sys.executable, torch_training.__file__, kind, *map(str, blocks)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def rate(seconds: float) -> float:
        print(seconds, file=process.stdin, flush=True)
        return float(process.stdout.readline())

    return rate


if __name__ == "__main__":
    main()
