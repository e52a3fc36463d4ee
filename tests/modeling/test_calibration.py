"""Calibration: finds what was hidden, keeps rankings, survives perfect and useless logits, and moves into the model."""

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss, roc_auc_score

from tdsp_vision.modeling.calibration import (
    as_logits,
    calibrate,
    calibrated,
    expected_calibration_error,
    reliability,
    scaled_head,
)
from tdsp_vision.modeling.metrics import auc


def _two_columns(margins) -> np.ndarray:
    margins = np.asarray(margins, float)
    return np.column_stack([-margins / 2, margins / 2])


@pytest.mark.parametrize("seed", range(5))
def test_two_class_rankings_survive_calibration(seed):
    rng = np.random.default_rng(seed)
    targets = rng.permutation(np.arange(40) % 2)
    margins = _two_columns(rng.normal(size=40) + targets)
    slope, offsets = calibrate(margins, targets)
    assert slope > 0
    scores = softmax(slope * margins + offsets, axis=1)[:, 1].astype(np.float32)
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(margins[:, 1]))
    assert auc(targets, margins) == pytest.approx(roc_auc_score(targets, scores))


def test_calibration_finds_a_known_slope_and_helps():
    rng = np.random.default_rng(0)
    margins = _two_columns(rng.normal(size=4000))
    targets = (rng.random(4000) < softmax(3 * margins, axis=1)[:, 1]).astype(int)
    slope, offsets = calibrate(margins, targets)
    assert 2.7 < slope < 3.3
    after = log_loss(targets, softmax(slope * margins + offsets, axis=1))
    assert after < log_loss(targets, softmax(margins, axis=1)) - 0.01


def test_offsets_are_the_shares_of_the_classes():
    _, offsets = calibrate(np.random.default_rng(0).normal(size=[10, 3]), np.array([0] * 5 + [1] * 3 + [2] * 2))
    np.testing.assert_allclose(np.exp(offsets), [0.5, 0.3, 0.2])


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("n", [5, 20, 200])
def test_separable_margins_give_scores_that_still_rank(scale, n):
    targets = np.arange(n) % 2
    margins = _two_columns(np.linspace(0.5, 1.5, n) * np.where(targets, 1, -1) * scale)
    slope, offsets = calibrate(margins, targets)
    scores = softmax(slope * margins + offsets, axis=1)[:, 1].astype(np.float32)
    assert len(np.unique(scores)) == n
    assert 0 < scores[targets == 0].max() < 0.5 < scores[targets == 1].min() and scores.max() < 1


@pytest.mark.parametrize("margins", [np.zeros(6), np.full(6, 2.0), -np.array([1, -1, 2, -2, 1, -1.0])])
def test_useless_margins_give_finite_scores(margins):
    targets = np.array([1, 0, 1, 0, 1, 0])
    slope, offsets = calibrate(_two_columns(margins), targets)
    scores = softmax(slope * _two_columns(margins) + offsets, axis=1)
    assert 0 < slope < np.inf and np.isfinite(scores).all()
    assert np.abs(scores - 0.5).max() < 0.01  # as good as the shares of the classes, and no better


def test_without_equal_class_weights_there_is_nothing_to_undo():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=[4000, 3])
    targets = np.array([rng.choice(3, p=row) for row in softmax(0.4 * logits + [1, 0, 0], axis=1)])
    slope, offsets = calibrate(logits + np.array([1, 0, 0]) / 0.4, targets, balanced=False)
    assert slope == pytest.approx(0.4, abs=0.03) and (offsets == 0).all()


def test_a_class_without_images_cannot_be_calibrated():
    with pytest.raises(ValueError, match=r"Images per class for the calibration are \[2, 1, 0\]"):
        calibrate(np.zeros([3, 3]), np.array([0, 0, 1]))


def test_scores_tell_their_logits():
    logits = np.random.default_rng(0).normal(size=[50, 4]) * 8
    scores = softmax(logits, axis=1).astype(np.float32)
    found = as_logits(scores)
    np.testing.assert_allclose(found - found[:, :1], logits - logits[:, :1], atol=1e-4)
    np.testing.assert_allclose(calibrated(found, 0.5, np.zeros(4)), softmax(logits / 2, axis=1), atol=1e-5)
    assert np.isfinite(as_logits(np.array([[0.0, 1.0]]))).all()


def test_the_calibration_moves_into_a_saved_network(tmp_path):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(3, activation="softmax", name="scores")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, "relu"), dense])
    x, targets = np.random.default_rng(0).normal(size=[60, 6]).astype(np.float32), np.arange(60) % 3
    logits = as_logits(model.predict(x, verbose=0))
    slope, offsets = calibrate(logits, targets)
    offsets = offsets + [0, 1, 2]
    dense.set_weights(scaled_head(*dense.get_weights(), slope, offsets))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded.predict(x, verbose=0), calibrated(logits, slope, offsets), atol=1e-6)


def test_calibration_error_by_hand():
    confidence, right = np.array([0.95, 0.91, 0.95, 0.65, 0.65]), np.array([True, True, False, True, True])
    gap_high, gap_low = abs((0.95 + 0.91 + 0.95) / 3 - 2 / 3), abs(0.65 - 1)
    assert expected_calibration_error(confidence, right) == pytest.approx([3 / 5 * gap_high + 2 / 5 * gap_low])
    assert expected_calibration_error(np.ones(5), np.ones(5, bool)) == [0]
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([False, True])) == [1]


def test_weights_count_images():
    rng = np.random.default_rng(0)
    probability, happened, times = rng.random(30), rng.random(30) < 0.4, rng.integers(0, 4, 30)
    found = expected_calibration_error(probability, happened, np.vstack([np.ones(30), times]))
    expected = expected_calibration_error(probability.repeat(times), happened.repeat(times)).item()
    assert found[1] == pytest.approx(expected) and found[0] != pytest.approx(expected)


def test_reliability_is_the_error_in_a_table():
    rng = np.random.default_rng(1)
    probability = rng.random(200)
    happened = rng.random(200) < probability**2
    table = reliability(probability, happened)
    assert table.n.sum() == 200 and table.index.tolist() == list(range(10))
    assert (table.promised * 10 // 1 == table.index).all()
    error = (table.n * (table.promised - table.observed).abs()).sum() / 200
    assert expected_calibration_error(probability, happened).item() == pytest.approx(error)
    assert reliability(np.array([0.0, 1.0, 0.99]), np.array([False, True, False])).n.to_dict() == {0: 1, 9: 2}
