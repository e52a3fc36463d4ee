"""AlexNet: float32 images [n, S, S, 3], 0 to 255, to float32 [n, 4096], S at least 95.

The variant of torchvision, which follows "One weird trick for parallelizing convolutional neural networks"
(Krizhevsky 2014, arXiv:1404.5997): one column, no local response normalization, 64 to 384 channels. The features are
the second fully connected layer after its ReLU (`fc7`). Torchvision's documentation, "AlexNet": 61,100,840 parameters
with the classifier (4096 to 1000) that is left out here.
"""

from pathlib import Path

import keras
import numpy as np

from tdsp_vision.modeling.pretrained import IMAGENET_OFFSET, IMAGENET_SCALE
from tdsp_vision.modeling.weights import fill

CHANNELS, UNITS = (64, 192, 384, 256, 256), 4096
GRID = 6  # cells per side of the picture that fc6 sees, whatever the resolution
LEAST = 95  # pixels; with fewer the last pooling leaves one cell, which Keras cannot pool to more inside a graph
MODULES = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10, "fc6": 1, "fc7": 4}  # torchvision's numbers
STAGE_ENDS = ["pool1", "pool2", "conv3_relu", "conv4_relu", "pool5", "fc6_relu", "features"]


def build_alexnet(image_size: int, channels: tuple[int, ...] = CHANNELS, units: int = UNITS) -> keras.Model:
    """The network with random weights, for images of `image_size` pixels.

    Args:
        channels: of the five convolutions; torchvision's by default.
        units: of the two fully connected layers, and so the number of features.
    """
    layers = keras.layers
    images = keras.Input((image_size, image_size, 3), name="images")
    x = layers.Rescaling(IMAGENET_SCALE, IMAGENET_OFFSET, dtype="float32", name="normalize")(images)
    x = layers.ZeroPadding2D(2, name="conv1_pad")(x)  # "same" would put its zeros elsewhere with strides over 1
    for number, (width, kernel) in enumerate(zip(channels, (11, 5, 3, 3, 3), strict=True), start=1):
        steps = {"strides": 4, "padding": "valid"} if number == 1 else {"padding": "same"}
        x = layers.Conv2D(width, kernel, **steps, kernel_initializer="he_normal", name=f"conv{number}")(x)
        x = layers.ReLU(name=f"conv{number}_relu")(x)
        if number in (1, 2, 5):
            x = layers.MaxPooling2D(3, 2, name=f"pool{number}")(x)
    x = layers.AdaptiveAveragePooling2D(GRID, name="grid")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dropout(0.5, name="dropout6")(x)
    x = layers.Dense(units, kernel_initializer="he_normal", name="fc6")(x)
    x = layers.ReLU(name="fc6_relu")(x)
    x = layers.Dropout(0.5, name="dropout7")(x)
    x = layers.Dense(units, kernel_initializer="he_normal", name="fc7")(x)
    features = layers.ReLU(dtype="float32", name="features")(x)
    return keras.Model(images, features, name="alexnet")


def load_alexnet(backbone: keras.Model, path: Path) -> None:
    """Give the network the weights of a checkpoint in torchvision's format; ValueError if they do not fit."""
    fill(backbone, path, "AlexNet", _tensor_names, _to_keras)


def _tensor_names(layer: keras.layers.Layer) -> list[str]:
    if not layer.weights:
        return []
    group = "features" if layer.name.startswith("conv") else "classifier"
    return [f"{group}.{MODULES[layer.name]}.{kind}" for kind in ("weight", "bias")]


def _to_keras(layer: keras.layers.Layer, tensor: np.ndarray) -> np.ndarray:
    """PyTorch has outputs first and flattens channels, rows, columns; Keras has outputs last, channels innermost."""
    if layer.name == "fc6" and tensor.ndim == 2 and tensor.shape[1] % GRID**2 == 0:
        cells = tensor.reshape(len(tensor), -1, GRID, GRID)
        return cells.transpose(2, 3, 1, 0).reshape(-1, len(tensor))
    return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
