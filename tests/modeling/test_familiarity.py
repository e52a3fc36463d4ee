"""Familiarity: a share that keeps its promise on unseen images, in layers that survive saving and a Session."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tdsp_vision.modeling.familiarity import build_familiarity, in_one_output

RNG = np.random.default_rng(0)


def _source(count: int, seed: int, width: int = 60) -> np.ndarray:
    """Features as a network has them: a few common directions, noise, one feature that is nearly always 0."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(count, 5)) @ np.random.default_rng(9).normal(size=(5, width))
    features = np.maximum(common + rng.normal(size=(count, width)), 0).astype(np.float32)
    features[:, -1] = 0
    return features


def _folds(count: int, number: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    fold = np.arange(count) % number
    return [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(number)]


def _familiar(model: keras.Model, features: np.ndarray) -> np.ndarray:
    return model.predict(features, verbose=0)[:, 0]


@pytest.mark.parametrize("folds", [_folds(600), [(np.arange(400), np.arange(400, 600))]], ids=["folds", "validation"])
def test_the_share_is_that_of_unseen_images_and_others_fall_below_it(folds):
    model = build_familiarity(_source(600, 1), folds)
    unseen = _familiar(model, _source(4000, 2))
    for share in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(unseen < share) == pytest.approx(share, abs=0.05)
    others = _familiar(model, RNG.uniform(0, 8, (50, 60)).astype(np.float32))
    assert others.max() < 0.01 and unseen.min() >= 0 and unseen.max() <= 1 and unseen.dtype == np.float32


def test_what_lies_far_out_keeps_its_order_and_ends_at_nothing():
    features = _source(300, 1)
    model = build_familiarity(features, _folds(300))
    away = features.mean(axis=0) + np.linspace(1, 60, 200)[:, None].astype(np.float32) * features.std(axis=0)
    shares = _familiar(model, away * (RNG.random(60) < 0.5))
    assert np.all(np.diff(shares) <= 1e-5) and shares[-1] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("count", [4, 7])
def test_few_images_and_images_that_are_all_alike(count):
    for features in (_source(count, 1), np.ones((count, 6), np.float32)):
        shares = _familiar(build_familiarity(features, _folds(count, 2)), features)
        assert np.isfinite(shares).all() and shares.min() >= -1e-6 and shares.max() <= 1 + 1e-6


@pytest.mark.parametrize("folds", [[], [(np.arange(1), np.arange(1, 4))]])
def test_folds_with_nothing_to_learn_from_are_refused(folds):
    with pytest.raises(ValueError, match="two or more images to learn from"):
        build_familiarity(_source(10, 1), folds)


def test_saved_beside_a_head_it_loads_without_custom_objects_and_runs_in_a_session(tmp_path):
    inputs = keras.Input((60,), name="images")
    familiar = build_familiarity(_source(200, 1), _folds(200))
    outputs = {
        "scores": keras.layers.Dense(2, activation="softmax", name="scores")(inputs),
        "familiar": familiar(inputs),
    }
    model, features = keras.Model(inputs, outputs), np.concatenate([_source(20, 3), 9 * _source(20, 3)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    expected = in_one_output(model).predict(features, verbose=0)
    np.testing.assert_array_equal(in_one_output(loaded).predict(features, verbose=0), expected)
    np.testing.assert_allclose(expected[:, 2], _familiar(familiar, features), atol=1e-6)
    archive = keras.export.ExportArchive()
    archive.track(loaded)
    archive.add_endpoint("serve", lambda x: loaded(x, training=False), [tf.TensorSpec([None, 60], tf.float32)])
    archive.write_out(tmp_path / "served", verbose=False)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(tmp_path / "served"))
        signature = graph.signature_def["serve"]
        (name,) = (tensor.name for tensor in signature.inputs.values())
        served = session.run(signature.outputs["familiar"].name, {name: features})
    np.testing.assert_allclose(served[:, 0], expected[:, 2], atol=1e-5)


def test_a_model_with_scores_only_stays_as_it_is():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    assert in_one_output(model) is model
