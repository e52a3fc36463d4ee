"""What several tests of the modeling stage share: small pictures, a small random network, the packaged weights."""

import warnings
from collections.abc import Callable
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from tdsp_vision.modeling.backbones import build_backbone, weights_file
from tdsp_vision.modeling.weights import read_checkpoint

SIZE = 32


@pytest.fixture(scope="session")
def checkpoint() -> dict[str, np.ndarray]:
    """The packaged ImageNet weights, by tensor name."""
    return read_checkpoint(weights_file("efficientnet_lite0", "imagenet"))


@pytest.fixture(scope="session")
def small_backbone() -> keras.Model:
    """EfficientNet-Lite0 for 32 px, with its ImageNet weights: random ones let no signal through to the end."""
    return build_backbone("efficientnet_lite0", SIZE)


@pytest.fixture(scope="session")
def tiny_network() -> keras.Model:
    """A network of one convolution, 32 px to 4 numbers: for tests that are about files and not about networks."""
    keras.utils.set_random_seed(1)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 5, 2), keras.layers.GlobalAveragePooling2D()]
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers])


@pytest.fixture
def strict_figures():
    """Every warning is an error, and no figure stays open."""
    plt.close("all")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    assert plt.get_fignums() == []


@pytest.fixture
def pictures(tmp_path) -> Callable[[int], list[Path]]:
    """Makes `count` different picture files of different sizes, JPEG and PNG in turn."""

    def make(count: int) -> list[Path]:
        rng = np.random.default_rng(5)
        files = []
        for number in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, [4, 6, 3], dtype=np.uint8))
            file = tmp_path / f"picture{number:02}.{'png' if number % 2 else 'jpg'}"
            coarse.resize((40 + 3 * number, 50 - number)).save(file)
            files.append(file)
        return files

    return make
