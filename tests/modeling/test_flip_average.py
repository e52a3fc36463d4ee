"""Flip averaging is the mean over the views, blind to how a picture lies, and survives saving and serving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tdsp_vision.modeling.tta import VIEWS, flip_average

SIZE = 12


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A network that sees where things are: without averaging, each view gives other scores."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 3, padding="same"), keras.layers.Flatten()]
    layers.append(keras.layers.Dense(3, activation="softmax"))
    return keras.Sequential([keras.Input((SIZE, SIZE, 3)), *layers], name="classifier")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, [5, SIZE, SIZE, 3]).astype(np.float32)


def _views(x: np.ndarray, views: str) -> list[np.ndarray]:
    turns = {"mirror": [0], "flips": [0, 2], "flips_and_rotations": range(4)}[views]
    return [np.rot90(side, turn, (1, 2)) for turn in turns for side in (x, x[:, :, ::-1])]


@pytest.mark.parametrize("views", ["mirror", "flips", "flips_and_rotations"])
def test_it_is_the_mean_over_the_views(network, images, views):
    each = [network.predict(view, verbose=0) for view in _views(images, views)]
    assert np.std(each, axis=0).max() > 0.01
    assert len(each) == VIEWS[views] == {"mirror": 2, "flips": 4, "flips_and_rotations": 8}[views]
    averaged = flip_average(network, views)
    scores = averaged.predict(images, verbose=0)
    np.testing.assert_allclose(scores, np.mean(each, axis=0), atol=1e-6)
    assert averaged.input_shape == network.input_shape and averaged.output_shape == network.output_shape
    for view in _views(images, views):
        np.testing.assert_allclose(averaged.predict(view, verbose=0), scores, atol=1e-6)


@pytest.mark.parametrize("views", ["mirror", "flips", "flips_and_rotations"])
def test_it_is_saved_and_served(network, images, views, tmp_path):
    averaged = flip_average(network, views)
    scores = averaged.predict(images, verbose=0)
    averaged.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(images, verbose=0), scores, atol=1e-6)
    averaged.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.serve(images).numpy(), scores, atol=1e-6)
    np.testing.assert_allclose(served.serve(images[:1]).numpy(), scores[:1], atol=1e-6)


def test_features_are_averaged_too_and_a_flat_picture_needs_no_square(images):
    featurizer = keras.Sequential([keras.Input((SIZE, 8, 3)), keras.layers.Flatten()])
    features = flip_average(featurizer).predict(images[:, :, :8], verbose=0)
    expected = np.mean([view.reshape(5, -1) for view in _views(images[:, :, :8], "flips")], axis=0)
    np.testing.assert_allclose(features, expected, rtol=1e-6)
    with pytest.raises(ValueError, match="images are 12 x 8; rotations need a square"):
        flip_average(featurizer, "flips_and_rotations")


def test_bytes_and_half_precision_go_in_and_float32_comes_out(images):
    dense = keras.layers.Dense(2, dtype="bfloat16")
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3), dtype="uint8"), keras.layers.Flatten(), dense])
    averaged = flip_average(model)
    assert averaged.inputs[0].dtype == "uint8"
    assert averaged.predict(images.astype(np.uint8), verbose=0).dtype == np.float32


def test_it_shares_the_weights(network, images):
    averaged = flip_average(network)
    assert [id(w) for w in averaged.weights] == [id(w) for w in network.weights]


def test_none_is_the_model_itself_and_others_are_refused(network):
    assert flip_average(network, "none") is network
    allowed = "'none', 'mirror', 'flips', 'flips_and_rotations'"
    with pytest.raises(ValueError, match=f"views are 'rotations'; allowed are {allowed}"):
        flip_average(network, "rotations")
