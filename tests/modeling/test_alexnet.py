"""AlexNet: torchvision's network, layer by layer as defined, from checkpoints in torchvision's format."""

from collections import OrderedDict

import keras
import numpy as np
import pytest
import tensorflow as tf
from legacy_checkpoint import Saved, Writer

from tdsp_vision.modeling.alexnet import LEAST, build_alexnet, load_alexnet
from tdsp_vision.modeling.backbones import build_backbone, pooled_layers

CHANNELS, UNITS = (4, 6, 8, 6, 5), 10  # a small network of the same structure
OUTPUTS = ["pool1", "pool2", "conv3_relu", "conv4_relu", "pool5", "grid", "fc6_relu", "features"]


def _tensors(channels=CHANNELS, units=UNITS, classes=3) -> OrderedDict:
    """Random weights by the names and in the shapes of torchvision's state dict, classifier included."""
    rng = np.random.default_rng(0)
    shapes, before = {}, 3
    for place, width, kernel in zip((0, 3, 6, 8, 10), channels, (11, 5, 3, 3, 3), strict=True):
        shapes[f"features.{place}"] = (width, before, kernel, kernel)
        before = width
    shapes |= {"classifier.1": (units, before * 36), "classifier.4": (units, units), "classifier.6": (classes, units)}
    tensors = OrderedDict()
    for name, shape in shapes.items():
        scale = np.sqrt(2 / np.prod(shape[1:]))
        tensors[f"{name}.weight"] = rng.normal(0, scale, shape).astype(np.float32)
        tensors[f"{name}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float32)
    return tensors


def _write(path, tensors: dict, zipped: bool = True):
    state = OrderedDict((name, Saved.of(tensor)) for name, tensor in tensors.items())
    state._metadata = OrderedDict([("", {"version": 1}), ("features.0", {"version": 1})])
    writer = Writer(state)
    writer.write_zip(path) if zipped else writer.write(path)
    return path


def _convolve(x: np.ndarray, tensors: dict, name: str, stride: int, pad: int) -> np.ndarray:
    """Cross-correlation in PyTorch's layout: x is [n, c, h, w]; then ReLU."""
    kernel = tensors[f"{name}.weight"]
    x = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)])
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.maximum(np.einsum("nchwij,ocij->nohw", windows, kernel) + tensors[f"{name}.bias"][:, None, None], 0)


def _pool(x: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[:, :, ::2, ::2].max(axis=(4, 5))


def _grid(x: np.ndarray) -> np.ndarray:
    """Adaptive average pooling to 6 x 6: cell i is the mean of rows floor(i h / 6) to ceil((i + 1) h / 6)."""
    cells = [slice(i * x.shape[2] // 6, -(-(i + 1) * x.shape[2] // 6)) for i in range(6)]
    return np.stack([np.stack([x[:, :, a, b].mean((2, 3)) for b in cells], -1) for a in cells], -2)


def _reference(images: np.ndarray, tensors: dict) -> dict[str, np.ndarray]:
    """Output of every stage in float64, [n, c, h, w]."""
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    x = (images / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    out = {"pool1": _pool(_convolve(x.transpose(0, 3, 1, 2), tensors, "features.0", 4, 2))}
    out["pool2"] = _pool(_convolve(out["pool1"], tensors, "features.3", 1, 2))
    out["conv3_relu"] = _convolve(out["pool2"], tensors, "features.6", 1, 1)
    out["conv4_relu"] = _convolve(out["conv3_relu"], tensors, "features.8", 1, 1)
    out["pool5"] = _pool(_convolve(out["conv4_relu"], tensors, "features.10", 1, 1))
    out["grid"] = _grid(out["pool5"])
    x = out["grid"].reshape(len(images), -1)
    for name, place in (("fc6_relu", "classifier.1"), ("features", "classifier.4")):
        x = out[name] = np.maximum(x @ tensors[f"{place}.weight"].T + tensors[f"{place}.bias"], 0)
    return out


# The last pooling leaves 2, 5, 6 and 8 cells per side, of which adaptive pooling makes 6. `predict` runs in a graph.
@pytest.mark.parametrize(("image_size", "zipped"), [(LEAST, False), (191, True), (224, False), (300, True)])
def test_every_stage_equals_its_definition_in_numpy(tmp_path, image_size, zipped):
    tensors = _tensors()
    network = build_alexnet(image_size, CHANNELS, UNITS)
    load_alexnet(network, _write(tmp_path / "small.pth", tensors, zipped))
    images = np.random.default_rng(1).uniform(0, 255, [2, image_size, image_size, 3]).astype(np.float32)
    stages = keras.Model(network.input, [network.get_layer(name).output for name in OUTPUTS])
    reference = _reference(images, tensors)
    for name, got in zip(OUTPUTS, stages.predict(images, verbose=0), strict=True):
        expected = reference[name]
        got = got.transpose(0, 3, 1, 2) if got.ndim == 4 else got
        assert got.std() > 0.01, name
        np.testing.assert_allclose(got, expected, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("image_size", [LEAST, 191])
def test_every_layer_learns_in_a_graph(image_size):
    keras.utils.set_random_seed(0)
    network = build_alexnet(image_size, CHANNELS, UNITS)
    model = keras.Model(network.input, keras.layers.Dense(2, "softmax")(network.output))
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = {variable.path: variable.numpy() for variable in model.trainable_variables}
    images = np.random.default_rng(1).uniform(0, 255, [8, image_size, image_size, 3]).astype(np.float32)
    history = model.fit(images, np.arange(8) % 2, batch_size=8, epochs=1, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    assert all(np.abs(v.numpy() - before[v.path]).max() > 0 for v in model.trainable_variables)


def test_the_numbers_of_parameters_are_the_published_ones():
    network = build_backbone("alexnet", LEAST, "none")
    classifier = 4096 * 1000 + 1000
    assert network.count_params() + classifier == 61_100_840  # torchvision's documentation
    assert network.output_shape == (None, 4096) and pooled_layers(network).output_shape == (None, 1152 + 4096)
    shapes = {layer.name: tuple(layer.kernel.shape) for layer in network.layers if layer.weights}
    assert shapes == {
        "conv1": (11, 11, 3, 64),
        "conv2": (5, 5, 64, 192),
        "conv3": (3, 3, 192, 384),
        "conv4": (3, 3, 384, 256),
        "conv5": (3, 3, 256, 256),
        "fc6": (9216, 4096),
        "fc7": (4096, 4096),
    }


def test_dropout_works_in_training_only():
    network = build_alexnet(LEAST, CHANNELS, UNITS)
    images = np.full([4, LEAST, LEAST, 3], 200, np.float32)
    calm = [network(images, training=False).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*calm)
    assert np.abs(network(images, training=True).numpy() - calm[0]).max() > 1e-3


def test_it_is_exported_as_it_is(tmp_path):
    network = build_alexnet(131, CHANNELS, UNITS)
    images = np.random.default_rng(1).uniform(0, 255, [2, 131, 131, 3]).astype(np.float32)
    network.export(tmp_path / "saved", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved")
    np.testing.assert_allclose(loaded.serve(images), network(images, training=False).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("features.10.bias", None, "has no tensor 'features.10.bias'; it does not hold AlexNet"),
        ("classifier.1.weight", (10, 179), r"'classifier.1.weight' has shape \(10, 179\)"),
        ("classifier.1.weight", (10, 144), r"becomes \(144, 10\) where \(180, 10\) is needed"),
        ("features.0.weight", (4, 3, 11, 5), r"'features.0.weight' has shape \(4, 3, 11, 5\)"),
        ("features.3.bias", (7,), r"'features.3.bias' has shape \(7,\)"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, name, replacement, message):
    tensors = _tensors()
    del tensors[name]
    if replacement:
        tensors[name] = np.zeros(replacement, np.float32)
    path = _write(tmp_path / "other.pth", tensors)
    with pytest.raises(ValueError, match=message) as caught:
        load_alexnet(build_alexnet(LEAST, CHANNELS, UNITS), path)
    assert str(path) in str(caught.value)
