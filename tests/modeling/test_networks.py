"""Networks: folding changes no number, weights land where they belong, several networks become one model."""

import hashlib
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import SIZE
from sklearn.datasets import load_sample_image

from tdsp_vision.modeling import backbones, networks
from tdsp_vision.modeling.backbones import build_backbone, classifier, pooled_layers
from tdsp_vision.modeling.weights import fill

LITES = ["efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"]


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (3, SIZE, SIZE, 3)).astype(np.float32)


def with_statistics(network: keras.Model, seed: int = 0) -> keras.Model:
    """Gives every batch normalization means, variances, scales and offsets that make a difference."""
    rng = np.random.default_rng(seed)
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, weight.shape) for weight in layer.weights])
    return network


@pytest.mark.parametrize("name", LITES[::2])
def test_the_packaged_weights_folded_give_the_features_of_the_unfolded_network(name, noise):
    plain = networks.build_lite(name, SIZE)
    fill(plain, backbones.weights_file(name, "imagenet"), networks.tensor_names, networks.as_keras)
    folded = build_backbone(name, SIZE)
    expected = plain.predict(noise, verbose=0)
    np.testing.assert_allclose(folded.predict(noise, verbose=0), expected, atol=1e-4 * np.abs(expected).max())
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in folded.layers)
    assert [weight.trainable for weight in folded.weights] == [True] * len(folded.weights)


def test_a_photo_of_a_chinese_temple_is_recognized(checkpoint):
    picture = tf.image.resize(load_sample_image("china.jpg"), [224, 224], antialias=True)[None]
    features = build_backbone("efficientnet_lite0", 224).predict(picture, verbose=0)
    ranked = np.argsort(-(features @ checkpoint["_fc.weight"].T + checkpoint["_fc.bias"]), axis=1)
    assert ranked[0, :3].tolist() == [442, 538, 698]  # bell cote, dome, palace


PUBLISHED = [("alexnet", 57_003_840, 4096), ("resnet18", 11_176_512, 512), ("resnet50", 23_508_032, 2048)]


@pytest.mark.parametrize(("name", "parameters", "features"), PUBLISHED)
def test_the_numbers_of_parameters_are_the_published_ones(name, parameters, features):
    network = build_backbone(name, 95 if name == "alexnet" else SIZE, "none")
    statistics = [weight for weight in network.weights if "moving" in weight.path]
    assert network.count_params() - sum(int(np.prod(weight.shape)) for weight in statistics) == parameters
    assert network.output_shape == (None, features)
    assert 4 <= len(backbones.stages(network)) <= 5
    assert sum(backbones.stages(network), []) == [layer for layer in network.layers if layer.weights]


def test_alexnets_flattening_is_pytorchs():
    """Channels, rows, columns, as a state dict has fc6, against numpy's own arithmetic."""
    network = networks.build_alexnet(95, (4, 4, 4, 4, 3), 5)
    rng, layer = np.random.default_rng(1), network.get_layer("fc6")
    published = rng.normal(size=(5, 3 * 36)).astype(np.float32)
    layer.set_weights([networks.as_keras(layer, published), np.zeros(5)])
    maps = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    expected = maps.transpose(0, 3, 1, 2).reshape(2, -1) @ published.T
    np.testing.assert_allclose(layer(maps.reshape(2, -1)), expected, atol=1e-4)


def preset(folder, kind: str):
    """A small KerasHub image backbone with random weights and telling statistics, saved as a preset."""
    hub = networks.keras_hub()
    keras.utils.set_random_seed(3)
    if kind == "resnet":
        network = hub.models.ResNetBackbone(
            [64], [3], [64, 16], [1, 1], [1, 2], "basic_block", image_shape=(None, None, 3), use_pre_activation=False
        )
    elif kind == "efficientnet_v2":
        stages = {"kernel_sizes": [3, 3], "num_repeats": [1, 1], "input_filters": [8, 8], "output_filters": [8, 16]}
        stages |= {"expansion_ratios": [1, 4], "strides": [1, 2], "squeeze_and_excite_ratios": [0, 0.25]}
        stages |= {"block_types": ["fused", "unfused"], "force_input_filters": [0, 0], "nores_option": [False, False]}
        network = hub.models.EfficientNetBackbone(
            **{f"stackwise_{name}": values for name, values in stages.items()},
            **{"width_coefficient": 1.0, "depth_coefficient": 1.0, "stem_conv_padding": "same"},
            image_shape=(None, None, 3),
        )
    else:
        network = hub.models.ViTBackbone((SIZE, SIZE, 3), 8, 2, 2, 12, 24, use_class_token=True)
    with_statistics(network).save_to_preset(str(folder))
    return network


@pytest.mark.parametrize(("kind", "last"), [("resnet", 16), ("efficientnet_v2", 1280), ("vit", 12)])
def test_an_image_backbone_of_kerashub_is_a_backbone_here(tmp_path, noise, kind, last):
    source = preset(tmp_path / "preset", kind)
    network = build_backbone(f"keras_hub:{tmp_path / 'preset'}", SIZE)
    normalized = noise * networks.SCALE + networks.OFFSET
    output = source.predict(normalized.astype(np.float32), verbose=0)
    expected = output[:, 0] if kind == "vit" else output.mean(axis=(1, 2))
    found = network.predict(noise, verbose=0)
    assert found.shape == (3, expected.shape[1])
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    pooled = pooled_layers(network).predict(noise, verbose=0)
    np.testing.assert_allclose(pooled[:, -found.shape[1] :], found, atol=1e-5)
    model = classifier([network], [(np.ones((found.shape[1], 2), np.float32), np.zeros(2))], "none")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(noise, verbose=0), model.predict(noise, verbose=0))


def test_a_preset_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="KerasHub cannot load as an image backbone"):
        build_backbone(f"keras_hub:{tmp_path}", SIZE)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_another_input_size_is_resized_inside_and_random_networks_stay_unfolded(name, noise):
    keras.utils.set_random_seed(0)
    network = build_backbone(name, SIZE, "none", 48)
    assert network.input_shape == (None, 48, 48, 3)
    assert any(isinstance(layer, keras.layers.BatchNormalization) for layer in network.layers)
    flat = np.full((1, 48, 48, 3), 77, np.float32)
    np.testing.assert_array_equal(network(flat), network(flat))  # the first call learned no statistics
    smaller = tf.image.resize(flat, (SIZE, SIZE))
    keras.utils.set_random_seed(0)
    np.testing.assert_allclose(network(flat), build_backbone(name, SIZE, "none")(smaller), atol=1e-4)


def test_each_member_sees_the_size_asked_for_or_its_own():
    assert backbones.member_sizes(LITES, 0) == (260, [224, 240, 260])
    assert backbones.member_sizes(LITES, 130) == (130, [130, 130, 130])
    assert backbones.member_sizes(["alexnet"], 0) == (224, [224])
    with pytest.raises(ValueError, match="IMAGE_SIZE is 94.*take 95 to 2048"):
        backbones.member_sizes(["alexnet"], 94)


@pytest.mark.parametrize(
    ("views", "count", "joined"), [("none", 1, 2), ("mirror", 2, 1), ("flips_and_rotations", 8, 1)]
)
def test_one_model_averages_views_and_members(noise, views, count, joined):
    bases = [build_backbone(name, SIZE) for name in LITES[:joined]]
    rng = np.random.default_rng(2)
    heads = [(rng.normal(size=(1280, 3)).astype(np.float32) / 9, rng.normal(size=3)) for _ in bases]
    model = classifier(bases, heads, views)
    turned = [noise, noise[:, :, ::-1], noise[:, ::-1], noise[:, ::-1, ::-1]]
    turned += [picture.transpose(0, 2, 1, 3) for picture in turned]
    logits = []
    for base, (kernel, bias) in zip(bases, heads, strict=True):
        logits += [base.predict(picture, verbose=0) @ kernel + bias for picture in turned[:count]]
    expected = tf.nn.softmax(np.mean(logits, axis=0))
    np.testing.assert_allclose(model.predict(noise, verbose=0), expected, atol=1e-5)
    if views == "none":  # flat, so that heat maps reach the layers of every member
        assert not any(isinstance(layer, keras.Model) for layer in model.layers)


def test_an_ensemble_is_saved_with_its_sizes_and_shares_nothing(tmp_path, noise):
    base = build_backbone("efficientnet_lite0", SIZE, "imagenet", 48)
    heads = [(np.random.default_rng(i).normal(size=(1280, 2)) / 9, np.zeros(2)) for i in range(2)]
    model = classifier([base, base], heads, "mirror")
    picture = np.random.default_rng(0).uniform(0, 255, (2, 48, 48, 3)).astype(np.float32)
    before = model.predict(picture, verbose=0)
    model.save(tmp_path / "model.keras")
    base.set_weights([weight * 0 for weight in base.get_weights()])
    for same in (model, keras.saving.load_model(tmp_path / "model.keras")):
        np.testing.assert_allclose(same.predict(picture, verbose=0), before, atol=1e-6)


def test_weights_are_fetched_once_verified_and_kept(tmp_path, monkeypatch):
    content = b"weights"
    digits = hashlib.sha256(content).hexdigest()[:8]
    asked = []
    monkeypatch.setattr(backbones, "KEPT_IN", tmp_path)
    monkeypatch.setitem(backbones.FILES, "resnet18", f"resnet18-{digits}.pth")
    answer = SimpleNamespace(content=content, raise_for_status=lambda: None)
    monkeypatch.setattr(backbones.requests, "get", lambda url, **_: asked.append(url) or answer)
    assert [backbones.weights_file("resnet18", "imagenet").read_bytes() for _ in range(2)] == [content] * 2
    assert asked == [f"https://download.pytorch.org/models/resnet18-{digits}.pth"]
    with pytest.raises(ConnectionError, match="resnet34 .*b627a593.*another sha256.*bring that file.*WEIGHTS"):
        backbones.weights_file("resnet34", "imagenet")
    assert [file.name for file in tmp_path.iterdir()] == [f"resnet18-{digits}.pth"]
