"""A tiny run, its export, a server for it, and pictures in every format, built once for all tests here."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny_run import CLASSES, IMAGE_SIZE, Exported, serve, write_run

from tdsp_vision.deployment.export import export_model
from tdsp_vision.modeling.batches import preprocess
from tdsp_vision.paths import OutputPaths


def _exported(folder: Path, classes: list[str], positive_class: str, threshold: float | list[float]) -> Exported:
    outputs = OutputPaths(str(folder), "ds")
    model = write_run(outputs.runs / "r1", classes, positive_class, threshold)
    info = {"classes": classes, "positive_class": positive_class, "threshold": threshold}
    return Exported(outputs, export_model(outputs.runs / "r1", outputs.serving("tiny")), model, info)


@pytest.fixture(scope="session")
def two_classes(tmp_path_factory, photos) -> Exported:
    """benign and malignant, with a threshold that calls about half of the photos malignant."""
    probe = write_run(tmp_path_factory.mktemp("probe") / "r", CLASSES, "malignant", 0.5)
    pictures = np.stack([preprocess(tf.constant(photo), IMAGE_SIZE).numpy() for photo in photos])
    scores = np.sort(np.asarray(probe(pictures)["scores"])[:, 1])
    middle = len(scores) // 2
    threshold = float((scores[middle - 1] + scores[middle]) / 2)
    return _exported(tmp_path_factory.mktemp("two"), CLASSES, "malignant", threshold)


@pytest.fixture(scope="session")
def three_classes(tmp_path_factory) -> Exported:
    """Three classes of unequal shares, none of them positive."""
    return _exported(tmp_path_factory.mktemp("three"), ["dotted", "leopard", "striped"], "", [0.7, 0.2, 0.1])


@pytest.fixture(scope="session")
def photos() -> list[bytes]:
    """24 different pictures as JPEG, of different sizes."""
    rng = np.random.default_rng(3)
    encoded = []
    for _ in range(24):
        coarse = rng.integers(0, 256, [4, 5, 3], dtype=np.uint8)
        size = tuple(int(side) for side in rng.integers(32, 90, 2))
        encoded.append(_encoded(Image.fromarray(coarse).resize(size), "JPEG", quality=90))
    return encoded


@pytest.fixture(scope="session")
def every_format() -> dict[str, bytes]:
    """One picture in every kind of the two formats that a data set holds, by its name."""
    gradient = np.linspace(0, 255, 40 * 50 * 3).reshape(40, 50, 3).astype(np.uint8)
    gradient[10:20, 10:30] = [200, 30, 60]
    image = Image.fromarray(gradient)
    deep = Image.fromarray(np.linspace(0, 65535, 40 * 50).reshape(40, 50).astype(np.uint16))
    translucent = image.copy()
    translucent.putalpha(90)
    return {
        "JPEG": _encoded(image, "JPEG"),
        "JPEG gray": _encoded(image.convert("L"), "JPEG"),
        "JPEG CMYK": _encoded(image.convert("CMYK"), "JPEG"),
        "JPEG progressive": _encoded(image, "JPEG", progressive=True),
        "PNG": _encoded(image, "PNG"),
        "PNG palette": _encoded(image.convert("P"), "PNG"),
        "PNG 16 bit": _encoded(deep, "PNG"),
        "PNG alpha": _encoded(translucent, "PNG"),
    }


@pytest.fixture(scope="session")
def service(two_classes):
    """The two-class model behind the embedded server."""
    running = serve(two_classes.version_folder)
    yield running
    running.stop()


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
