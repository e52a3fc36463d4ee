"""EfficientNet-Lite0: the published structure, computed as published; and what all the networks have in common."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from legacy_checkpoint import Saved, Writer
from sklearn.datasets import load_sample_image

from tdsp_vision.modeling.alexnet import build_alexnet
from tdsp_vision.modeling.backbones import build_backbone, pooled_layers, stage_ends
from tdsp_vision.modeling.batches import preprocess
from tdsp_vision.modeling.pretrained import weights_file

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def for_224():
    return build_backbone(NAME, 224)


@pytest.fixture(scope="module")
def for_32():
    return build_backbone(NAME, 32)


def test_a_photo_of_a_chinese_temple_is_recognized(for_224, checkpoint):
    photo = load_sample_image("china.jpg")
    resized = tf.image.resize(photo, [224, 224], antialias=True), preprocess(tf.io.encode_png(photo), 224)
    features = for_224(tf.stack(resized), training=False).numpy()
    ranked = np.argsort(-(features @ checkpoint["_fc.weight"].T + checkpoint["_fc.bias"]), axis=1)
    bell_cote, dome, palace, church = 442, 538, 698, 497
    assert ranked[0, :3].tolist() == [bell_cote, dome, palace]
    assert set(ranked[1, :4]) == {bell_cote, dome, palace, church}


def test_the_number_of_parameters_is_the_published_one(for_224):
    learned = sum(int(np.prod(weight.shape)) for weight in for_224.trainable_weights)
    classifier = 1280 * 1000 + 1000
    assert learned + classifier == 4_652_008  # published: 4.7 million
    statistics = sum(2 * w.shape[0] for w in for_224.weights if w.name == "moving_mean")
    assert for_224.count_params() == learned + statistics


def _filter(images: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """Depthwise cross-correlation [n, h, w, c] by [c, 1, k, k], zeros around as TensorFlow's "same" puts them."""
    size, side = kernel.shape[-1], images.shape[1]
    out = -(-side // stride)
    total = max((out - 1) * stride + size - side, 0)
    before, after = total // 2, total - total // 2
    padded = np.pad(images, [(0, 0), (before, after), (before, after), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), axis=(1, 2))
    return np.einsum("nhwcij,cij->nhwc", windows[:, ::stride, ::stride], kernel[:, 0])


def _normalize(x: np.ndarray, tensors: dict, name: str) -> np.ndarray:
    mean, variance = tensors[f"{name}.running_mean"], tensors[f"{name}.running_var"]
    return (x - mean) / np.sqrt(variance + 1e-3) * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def _block(x: np.ndarray, tensors: dict, number: int, stride: int) -> np.ndarray:
    """Inverted residual block in NumPy, float64, from the tensors as they are stored (out, in, height, width)."""
    place = f"_blocks.{number}"
    wide = x @ tensors[f"{place}._expand_conv.weight"][:, :, 0, 0].T
    wide = np.clip(_normalize(wide, tensors, f"{place}._bn0"), 0, 6)
    wide = _filter(wide, tensors[f"{place}._depthwise_conv.weight"], stride)
    wide = np.clip(_normalize(wide, tensors, f"{place}._bn1"), 0, 6)
    narrow = wide @ tensors[f"{place}._project_conv.weight"][:, :, 0, 0].T
    narrow = _normalize(narrow, tensors, f"{place}._bn2")
    return narrow + x if stride == 1 and narrow.shape == x.shape else narrow


@pytest.mark.parametrize("image_size", [64, 65])
def test_blocks_equal_their_definition_in_numpy(checkpoint, image_size):
    backbone = build_backbone(NAME, image_size)
    tensors = {name: tensor.astype(np.float64) for name, tensor in checkpoint.items()}
    images = np.random.default_rng(0).uniform(0, 255, [2, image_size, image_size, 3]).astype(np.float32)
    for number, stride, last in ((1, 2, "project_bn"), (2, 1, "add"), (3, 2, "project_bn")):  # 3 x 3, 3 x 3, 5 x 5
        entry = backbone.get_layer(f"block{number}_expand").input
        part = keras.Model(backbone.input, [entry, backbone.get_layer(f"block{number}_{last}").output])
        before, after = (np.asarray(x, np.float64) for x in part(images, training=False))
        np.testing.assert_allclose(_block(before, tensors, number, stride), after, atol=2e-4)


@pytest.mark.parametrize("image_size", [64, 225])
def test_other_sizes_work_and_pooled_layers_end_with_the_features(image_size):
    backbone = build_backbone(NAME, image_size)
    pooled = pooled_layers(backbone)
    assert backbone.output_shape == (None, 1280) and pooled.output_shape == (None, 2304)
    images = np.random.default_rng(0).uniform(0, 255, [2, image_size, image_size, 3]).astype(np.float32)
    both, features = pooled(images, training=False).numpy(), backbone(images, training=False).numpy()
    assert both.dtype == np.float32 and np.isfinite(both).all() and features.std() > 0.1
    np.testing.assert_allclose(both[:, -1280:], features, rtol=1e-5, atol=1e-7)


def test_random_weights_follow_the_seed():
    networks = []
    for seed in (0, 0, 1):
        keras.utils.set_random_seed(seed)
        networks.append(build_backbone(NAME, 32, "none").trainable_weights)
    kernels = [values for values in zip(*networks, strict=True) if len(values[0].shape) == 4]
    assert len(kernels) == 49
    for one, same, other in kernels:
        np.testing.assert_array_equal(one.numpy(), same.numpy())
        assert np.abs(one.numpy() - other.numpy()).max() > 1e-3


def test_a_path_to_a_copy_of_the_weights_gives_the_same_network(tmp_path, for_32):
    copy = shutil.copyfile(weights_file(NAME, "imagenet"), tmp_path / "copy.pth")
    for a, b in zip(for_32.weights, build_backbone(NAME, 32, str(copy)).weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_wrong_values_are_named():
    with pytest.raises(ValueError, match="BACKBONE is 'vgg'; allowed are 'alexnet', .*'efficientnet_lite0'"):
        build_backbone("vgg", 224, "none")
    for name, size, least in ((NAME, 31, 32), ("resnet18", 31, 32), ("alexnet", 94, 95), (NAME, 2049, 32)):
        with pytest.raises(ValueError, match=f"IMAGE_SIZE is {size}; {name} .*: take {least} or more, at most 2048"):
            build_backbone(name, size, "none")
    for wrong in ("imagenet21k", "", "/nowhere/w.pth", "/"):
        with pytest.raises(ValueError, match=f"WEIGHTS is '{wrong}'; allowed are 'imagenet', 'none' or the path"):
            build_backbone(NAME, 32, wrong)


def _without_head(checkpoint: dict) -> dict:
    return {name: tensor for name, tensor in checkpoint.items() if not name.startswith("_fc")}


@pytest.mark.parametrize(
    ("name", "replacement", "message"),
    [
        ("_bn1.running_var", None, "has no tensor '_bn1.running_var'; it does not hold EfficientNet-Lite0"),
        ("_conv_head.weight", (1280, 321, 1, 1), r"'_conv_head.weight' has shape \(1280, 321, 1, 1\)"),
        ("_blocks.15._bn2.bias", (319,), r"'_blocks.15._bn2.bias' has shape \(319,\).*\(320,\) is needed"),
        ("_blocks.1._depthwise_conv.weight", (96, 1, 5, 5), r"_depthwise_conv.weight' has shape \(96, 1, 5, 5\)"),
        ("_conv_stem.weight", (32, 27), r"'_conv_stem.weight' has shape \(32, 27\)"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused(tmp_path, checkpoint, name, replacement, message):
    tensors = _without_head(checkpoint)
    del tensors[name]
    if replacement:
        tensors[name] = np.zeros(replacement, np.float32)
    path = tmp_path / "other.pth"
    Writer({key: Saved.of(tensor) for key, tensor in tensors.items()}).write(path)
    with pytest.raises(ValueError, match=message) as caught:
        build_backbone(NAME, 32, str(path))
    assert str(path) in str(caught.value)


def test_a_checkpoint_written_here_loads(tmp_path, checkpoint, for_32):
    path = tmp_path / "same.pth"
    Writer({key: Saved.of(tensor) for key, tensor in _without_head(checkpoint).items()}).write(path)
    for a, b in zip(build_backbone(NAME, 32, str(path)).weights, for_32.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"PK\x03\x04 a zip file")
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        build_backbone(NAME, 32, str(path))


def _families() -> list[keras.Model]:
    return [build_alexnet(95, (4, 6, 8, 6, 5), 10), build_backbone("resnet18", 32, "none"), build_backbone(NAME, 32)]


@pytest.fixture(scope="module")
def families():
    return _families()


def _pictures(network: keras.Model) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, [2, *network.input_shape[1:]]).astype(np.float32)


def test_the_network_can_be_cut_at_the_end_of_each_stage(families):
    for network, count in zip(families, (7, 5, 8), strict=True):
        ends = stage_ends(network)
        assert len(ends) == len(set(ends)) == count
        places = [[layer.name for layer in network.layers].index(name) for name in ends]
        assert places == sorted(places)
        for name in ends[:-1]:
            end = network.get_layer(name).output
            before, after = keras.Model(network.input, end), keras.Model(end, network.output)  # fails if not all
            if name == ends[2]:
                whole = network(_pictures(network), training=False)
                np.testing.assert_allclose(after(before(_pictures(network), training=False), training=False), whole)


def test_stages_are_found_in_a_loaded_model_with_a_head(families, tmp_path):
    for network in families:
        head = keras.layers.Dense(2, name="head")(network.output)
        keras.Model(network.input, head, name="refined").save(tmp_path / "model.keras")
        assert stage_ends(keras.models.load_model(tmp_path / "model.keras")) == stage_ends(network)
    with pytest.raises(ValueError, match="'other' has none of the layers of alexnet, .*its stages are not known"):
        stage_ends(keras.Sequential([keras.Input([3]), keras.layers.Dense(2)], name="other"))


def test_alexnet_pools_its_convolutions_and_ends_with_the_features(families):
    network, images = families[0], _pictures(families[0])
    both, first = pooled_layers(network)(images, training=False).numpy(), network.get_layer("conv1_relu").output
    assert both.shape == (2, 4 + 6 + 8 + 6 + 5 + 10)
    np.testing.assert_allclose(both[:, -10:], network(images, training=False), rtol=1e-5, atol=1e-6)
    maps = keras.Model(network.input, first)(images, training=False).numpy()
    np.testing.assert_allclose(both[:, :4], maps.mean(axis=(1, 2)), rtol=1e-5, atol=1e-5)


def test_lower_precision_keeps_variables_and_features_in_float32(families):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        networks = _families()
    finally:
        keras.config.set_dtype_policy("float32")
    for low, full in zip(networks, families, strict=True):
        kinds = {layer.compute_dtype for layer in low.layers if layer.weights}
        assert kinds == {"bfloat16"} and {weight.dtype for weight in low.weights} == {"float32"}
        low.set_weights(full.get_weights())
        got, expected = (pooled_layers(x)(_pictures(x), training=False).numpy() for x in (low, full))
        assert got.dtype == np.float32 and low.output.dtype == "float32"
        np.testing.assert_allclose(got, expected, atol=0.1 * np.abs(expected).max())


@pytest.mark.parametrize(("name", "features"), [("alexnet", 4096), ("resnet18", 512), (NAME, 1280)])
def test_the_largest_size_can_be_built(name, features):
    backbone = build_backbone(name, 2048, "none")
    assert backbone.input_shape == (None, 2048, 2048, 3) and backbone.output_shape == (None, features)
