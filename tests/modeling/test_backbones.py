"""EfficientNet-Lite0: the published structure, computed as published, with the packaged weights in the right places."""

import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from legacy_checkpoint import Saved, Writer
from sklearn.datasets import load_sample_image

from tdsp_vision.modeling.backbones import build_backbone, pooled_layers, weights_digest, weights_file
from tdsp_vision.modeling.batches import preprocess

NAME = "efficientnet_lite0"


@pytest.fixture(scope="module")
def for_224():
    return build_backbone(NAME, 224)


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


def test_a_path_to_a_copy_of_the_weights_gives_the_same_network(tmp_path):
    copy = shutil.copyfile(weights_file(NAME, "imagenet"), tmp_path / "copy.pth")
    one, other = build_backbone(NAME, 32), build_backbone(NAME, 32, str(copy))
    for a, b in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert weights_digest(NAME, str(copy)) == weights_digest(NAME, "imagenet") != weights_digest(NAME, "none")


def test_wrong_values_are_named():
    with pytest.raises(ValueError, match="BACKBONE is 'vgg'; allowed are 'efficientnet_lite0'"):
        build_backbone("vgg", 224, "none")
    with pytest.raises(ValueError, match="IMAGE_SIZE is 31.*32 or more"):
        build_backbone(NAME, 31, "none")
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


def test_a_checkpoint_written_here_loads(tmp_path, checkpoint):
    path = tmp_path / "same.pth"
    Writer({key: Saved.of(tensor) for key, tensor in _without_head(checkpoint).items()}).write(path)
    for a, b in zip(build_backbone(NAME, 32, str(path)).weights, build_backbone(NAME, 32).weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"PK\x03\x04 a zip file")
    with pytest.raises(ValueError, match="not a legacy PyTorch checkpoint"):
        build_backbone(NAME, 32, str(path))
