"""Heat maps: they add up to what decides, and they stand where the evidence is."""

import re

import keras
import numpy as np
import pytest

from tdsp_vision.modeling.backbones import classifier, pooled_layers
from tdsp_vision.modeling.explain import evidence_maps, randomisation_check

SIZE = 32


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Nine pictures of coarse noise, float32 [9, 32, 32, 3]."""
    coarse = np.random.default_rng(3).uniform(0, 255, [9, 8, 8, 3])
    return coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)


def _model(features: keras.Model, n_classes: int, members: int = 1) -> keras.Model:
    rng, width = np.random.default_rng(0), features.output_shape[1]
    heads = [(rng.normal(size=[width, n_classes]), np.linspace(-2, 2, n_classes)) for _ in range(members)]
    return classifier([features] * members, heads, "none")


def _contrasts(logits: np.ndarray) -> np.ndarray:
    """Each logit minus the mean of the others, the slow way."""
    return np.stack([logits[:, k] - np.delete(logits, k, axis=1).mean(axis=1) for k in range(logits.shape[1])], axis=1)


@pytest.mark.parametrize(("pooled", "n_classes", "members"), [(True, 2, 1), (False, 3, 1), (False, 2, 2)])
def test_a_map_adds_up_to_the_contrast_of_the_logits_minus_bias(small_backbone, images, pooled, n_classes, members):
    model = _model(pooled_layers(small_backbone) if pooled else small_backbone, n_classes, members)
    dense = model.layers[-1]
    features = keras.Model(model.input, dense.input)(images, training=False)
    wanted = _contrasts(np.asarray(features, np.float64) @ dense.kernel.numpy())
    rows = np.arange(len(images))
    for asked in (n_classes - 1, rows % n_classes):  # one class, or one for each image
        maps = evidence_maps(model, images, asked)
        assert maps.shape == (len(images), SIZE, SIZE) and maps.dtype == np.float32
        np.testing.assert_allclose(maps.sum(axis=(1, 2)), wanted[rows, asked], atol=1e-4 * np.ptp(wanted))


@pytest.mark.parametrize("size", [32, 30])
def test_evidence_stands_where_it_is(size):
    """A network that counts red: one red square speaks for red exactly where it is, a blue one against."""
    layers = [keras.layers.Conv2D(3, 2, 2, use_bias=False), keras.layers.GlobalAveragePooling2D()]
    pictures = keras.Input((size, size, 3))
    network = keras.Model(pictures, layers[1](layers[0](pictures)))
    layers[0].set_weights([np.eye(3)[None, None].repeat(2, 0).repeat(2, 1) / 4])
    model = classifier([network], [(np.array([[1, 0], [0, 0], [0, 1.0]]), np.zeros(2))], "none")
    image = np.zeros([1, size, size, 3], np.float32)
    image[0, 4:8, 6:10, 0] = image[0, 20:24, 20:24, 2] = 255
    found = evidence_maps(model, image, 0)[0]
    assert found.sum() == pytest.approx(0, abs=1e-4)
    assert np.unravel_index(found.argmax(), found.shape)[0] in range(4, 8)
    assert np.unravel_index(found.argmin(), found.shape)[1] in range(20, 24)
    assert found[3:9, 5:11].sum() == pytest.approx(255 * 16 / size**2, rel=1e-5)
    np.testing.assert_allclose(evidence_maps(model, image, 1)[0], -found, atol=1e-6)


def test_the_check_tells_maps_that_learned_something_from_such_as_did_not_and_changes_no_model(small_backbone, images):
    model = _model(small_backbone, 2)
    before = model.get_weights()
    maps = evidence_maps(model, images, 1)
    assert "they show what was learned" in randomisation_check(model, images, 1, maps, seed=4)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    pictures = keras.Input((SIZE, SIZE, 3))  # brightness alone: such a map follows the picture or its negative
    brightness = keras.layers.GlobalAveragePooling2D()(keras.layers.Rescaling(1 / 255)(pictures))
    gray = images[..., :1].repeat(3, axis=-1)
    plain = _model(keras.Model(pictures, brightness), 2)
    sentence = randomisation_check(plain, gray, 1, evidence_maps(plain, gray, 1), seed=0)
    assert re.search(r"by -?1\.00 .*do not rely on them", sentence)


def test_a_network_without_maps_is_explained_by_nothing(small_backbone, images):
    pictures = keras.Input((SIZE, SIZE, 3))
    hidden = keras.Model(pictures, keras.layers.Dense(4)(small_backbone(pictures)))
    assert not evidence_maps(_model(hidden, 2), images, 0).any()
