"""Heat maps: they add up to what decides, they stand where the evidence is, and they depend on what was learned."""

import random

import keras
import numpy as np
import pytest

from tdsp_vision.modeling.backbones import classifier, flip_average, pooled_layers
from tdsp_vision.modeling.explain import BATCH, evidence_maps, randomisation_check
from tdsp_vision.modeling.svm import build_svm, svm_as_dense

SIZE = 32


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Twelve pictures of coarse noise, float32 [12, 32, 32, 3]."""
    coarse = np.random.default_rng(3).uniform(0, 255, [12, 8, 8, 3])
    return coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.float32)


def _with_head(backbone: keras.Model, n_classes: int) -> keras.Model:
    """The classifier that refinement trains: dropout and one dense layer on the last features."""
    head = keras.Sequential([keras.Input((backbone.output_shape[1],)), keras.layers.Dropout(0.5)], name="head")
    head.add(keras.layers.Dense(n_classes, "softmax", bias_initializer="random_normal", name="scores"))
    return keras.Model(backbone.input, head(backbone.output), name="classifier")


def _network(*layers, size: int = SIZE) -> keras.Model:
    keras.utils.set_random_seed(2)
    pictures = keras.Input((size, size, 3))
    x = pictures
    for layer in layers:
        x = layer(x)
    return keras.Model(pictures, x)


def _svm_model(backbone: keras.Model, images: np.ndarray, n_classes: int) -> keras.Model:
    featurizer = pooled_layers(backbone)
    features = np.asarray(featurizer(images, training=False))
    svm = build_svm(0.001, 0).fit(features, np.arange(len(images)) % n_classes)
    kernel, bias = svm_as_dense(svm)
    return classifier([featurizer], [(1.7 * kernel, 1.7 * bias + np.linspace(-2, 2, n_classes))], "none")


def _contrasts(logits: np.ndarray) -> np.ndarray:
    """Each logit minus the mean of the others, the slow way."""
    return np.stack([logits[:, k] - np.delete(logits, k, axis=1).mean(axis=1) for k in range(logits.shape[1])], axis=1)


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("classifier", ["svm", "dnn"])
def test_a_map_adds_up_to_the_contrast_of_the_logits_minus_bias(small_backbone, images, classifier, n_classes):
    if classifier == "svm":
        model = _svm_model(small_backbone, images, n_classes)
        features = pooled_layers(small_backbone)(images, training=False)
    else:
        model = _with_head(small_backbone, n_classes)
        features = small_backbone(images, training=False)
    dense = model.layers[-1] if classifier == "svm" else model.layers[-1].layers[-1]
    wanted = _contrasts(np.asarray(features, np.float64) @ dense.kernel.numpy())
    scores = np.asarray(model(images, training=False), np.float64)
    np.testing.assert_allclose(
        _contrasts(np.log(scores)), wanted + _contrasts(dense.bias.numpy()[None]), atol=1e-3 * np.ptp(wanted)
    )
    for k in range(n_classes):
        maps = evidence_maps(model, images, k)
        assert maps.shape == (len(images), SIZE, SIZE) and maps.dtype == np.float32
        np.testing.assert_allclose(maps.sum(axis=(1, 2)), wanted[:, k], atol=1e-4 * np.ptp(wanted))


@pytest.mark.parametrize("size", [32, 30])
def test_evidence_stands_where_it_is(size):
    """A network that counts red: one red square speaks for red exactly where it is, a blue one against."""
    layers = [keras.layers.Conv2D(3, 2, 2, use_bias=False), keras.layers.GlobalAveragePooling2D()]
    model = _network(*layers, keras.layers.Dense(2), keras.layers.Softmax(), size=size)
    model.layers[1].set_weights([np.eye(3)[None, None].repeat(2, 0).repeat(2, 1) / 4])
    model.layers[-2].set_weights([np.array([[1, 0], [0, 0], [0, 1.0]]), np.zeros(2)])
    image = np.zeros([1, size, size, 3], np.float32)
    image[0, 4:8, 6:10, 0] = image[0, 20:24, 20:24, 2] = 255
    found = evidence_maps(model, image, 0)[0]
    assert found.sum() == pytest.approx(0, abs=1e-4)
    assert np.unravel_index(found.argmax(), found.shape)[0] in range(4, 8)
    assert np.unravel_index(found.argmin(), found.shape)[1] in range(20, 24)
    assert found[3:9, 5:11].sum() == pytest.approx(255 * 16 / size**2, rel=1e-5)
    assert np.count_nonzero(found) == 2 * 36
    np.testing.assert_allclose(evidence_maps(model, image, 1)[0], -found, atol=1e-6)


def test_each_image_may_have_its_own_class_and_batches_do_not_show(small_backbone, images):
    model = _with_head(small_backbone, 3)
    many = np.concatenate([images, images[::-1]])
    asked = np.arange(len(many)) % 3
    assert len(many) > BATCH
    found = evidence_maps(model, many, asked)
    for row in (0, 1, 2, BATCH - 1, BATCH, len(many) - 1):  # of each class, and on both sides of the border
        alone = evidence_maps(model, many[row : row + 1], int(asked[row]))[0]
        np.testing.assert_allclose(found[row], alone, atol=1e-4 * np.abs(found).max())


def test_a_saved_model_and_a_mixed_precision_one_are_explained_alike(tmp_path, images):
    layers = [keras.layers.Conv2D(6, 3, 2, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    model = _with_head(_network(*layers), 2)
    found = evidence_maps(model, images, 1)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(evidence_maps(keras.models.load_model(tmp_path / "model.keras"), images, 1), found)
    policy = {"dtype": keras.DTypePolicy("mixed_bfloat16")}
    layers = [keras.layers.Conv2D(6, 3, 2, activation="relu", **policy), keras.layers.GlobalAveragePooling2D(**policy)]
    mixed = _with_head(_network(*layers), 2)
    mixed.set_weights(model.get_weights())
    np.testing.assert_allclose(evidence_maps(mixed, images, 1), found, atol=0.02 * np.abs(found).max())


def test_randomising_changes_the_map_and_nothing_else(small_backbone, images):
    model = _svm_model(small_backbone, images, 2)
    before, state = model.get_weights(), random.getstate()
    correlation, said = randomisation_check(model, images, 1, seed=4)
    assert random.getstate() == state
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert abs(correlation) < 0.5 and f"rank correlation {correlation:.2f}): they show what was learned" in said


def test_the_check_follows_its_seed_and_tells_a_map_that_learned_nothing(images):
    layers = [keras.layers.Conv2D(6, 3, 2, activation="relu"), keras.layers.GlobalAveragePooling2D()]
    model = _with_head(_network(*layers), 2)
    one, same, other = (randomisation_check(model, images[:2], 1, seed) for seed in (4, 4, 5))
    assert one == same != other
    # Brightness alone: whatever the weights, such a map follows the picture or its negative.
    model = _with_head(_network(keras.layers.Rescaling(1 / 255), keras.layers.GlobalAveragePooling2D()), 2)
    correlation, said = randomisation_check(model, images[..., :1].repeat(3, axis=-1), 1, seed=0)
    assert abs(correlation) == pytest.approx(1) and "Do not rely on them" in said


def test_what_cannot_be_explained_is_refused(tiny_network, small_backbone, images):
    with pytest.raises(ValueError, match="ends in 'global_average.*must end in a dense layer"):
        evidence_maps(tiny_network, images, 0)
    pictures = keras.Input((SIZE, SIZE, 3))
    nested = keras.Model(pictures, keras.layers.Dense(2)(small_backbone(pictures)), name="nested")
    with pytest.raises(ValueError, match="'nested' cannot be explained.*backbone.input"):
        evidence_maps(nested, images, 0)
    featurizer = flip_average(small_backbone, "flips")
    with pytest.raises(ValueError, match="without averaged views"):
        evidence_maps(_with_head(featurizer, 2), images, 0)
