"""ResNet-18, -34, -50, -101, -152: float32 images [n, S, S, 3], 0 to 255, to float32 [n, 512] or [n, 2048].

He et al. 2015, arXiv:1512.03385, as KerasHub builds them (strides in the 3 x 3 convolutions). The result holds plain
Keras layers only, so a saved model loads where KerasHub is not installed.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from tdsp_vision.modeling.pretrained import IMAGENET_OFFSET, IMAGENET_SCALE

# Kind of block, and blocks in each of the four stages (paper, table 1).
RESNETS = {
    "resnet18": ("basic_block", [2, 2, 2, 2]),
    "resnet34": ("basic_block", [3, 4, 6, 3]),
    "resnet50": ("bottleneck_block", [3, 4, 6, 3]),
    "resnet101": ("bottleneck_block", [3, 4, 23, 3]),
    "resnet152": ("bottleneck_block", [3, 8, 36, 3]),
}


def build_resnet(name: str, image_size: int, preset: Path | None = None) -> keras.Model:
    """The network for images of `image_size` pixels.

    Args:
        name: one of `RESNETS`.
        preset: folder of a KerasHub preset (config.json, model.weights.h5, image_converter.json with the
            normalization) or of a timm model (config.json, model.safetensors); None for random weights.

    Raises:
        ValueError: if the folder does not hold this network.
    """
    source, scale, offset = _from_preset(name, preset) if preset else (_random(name), IMAGENET_SCALE, IMAGENET_OFFSET)
    normalize = keras.layers.Rescaling(scale, offset, dtype="float32", name="normalize")

    def call(layer, x, **options):
        """The normalization goes before the first layer: after its padding, zeros would not be the mean colour."""
        return layer(normalize(x) if layer.name == "conv1_pad" else x, **options)

    images = keras.Input((image_size, image_size, 3), name="images")
    body = keras.models.clone_model(source, input_tensors=images, call_function=call)
    if preset:
        for layer in body.layers:
            if layer.weights:
                layer.set_weights(source.get_layer(layer.name).get_weights())
    features = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(body.output)
    return keras.Model(images, features, name=name)


def resnet_stage_ends(names: Iterable[str]) -> list[str]:
    """Layers that end the stem and the four stages; `names` in the order of the network."""
    ends = {match[1]: match[0] for name in names if (match := re.fullmatch(r"stack(\d)_block\d+_out", name))}
    return ["pool1_pool", *ends.values()]


def _kerashub():
    """KerasHub, imported late because that takes seconds; the hubs behind it are told not to report usage."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import keras_hub

    return keras_hub


def _structure(name: str) -> dict:
    block, blocks = RESNETS[name]
    filters = [64, 128, 256, 512]
    structure = {"block_type": block, "stackwise_num_blocks": blocks, "stackwise_num_filters": filters}
    return structure | {"use_pre_activation": False}


def _random(name: str) -> keras.Model:
    stem = {"input_conv_filters": [64], "input_conv_kernel_sizes": [7]}
    return _kerashub().models.ResNetBackbone(**_structure(name), **stem, stackwise_num_strides=[1, 2, 2, 2])


def _from_preset(name: str, folder: Path) -> tuple[keras.Model, list[float], list[float]]:
    """The network in a preset folder, and scale and offset of its normalization, one per channel."""
    hub = _kerashub()
    try:
        network = hub.models.ResNetBackbone.from_preset(str(folder), dtype=keras.config.dtype_policy())
        converter = None
        if (folder / "image_converter.json").is_file() or (folder / "model.safetensors").is_file():
            converter = hub.layers.ResNetImageConverter.from_preset(str(folder))
    except Exception as error:  # KerasHub, h5py and safetensors have no error in common
        raise ValueError(f"{folder} cannot be read as a preset of {name}: {' '.join(str(error).split())}") from error
    for key, value in _structure(name).items():
        if getattr(network, key) != value:
            raise ValueError(f"{folder} does not hold {name}: its {key} is {getattr(network, key)}, not {value}.")
    if converter is None:
        return network, IMAGENET_SCALE, IMAGENET_OFFSET
    scale, offset = converter.scale or 1.0, converter.offset or 0.0
    return network, np.broadcast_to(scale, 3).tolist(), np.broadcast_to(offset, 3).tolist()
