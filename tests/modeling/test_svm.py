"""The linear SVM: chosen on training rows only, folded into Keras exactly."""

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from tdsp_vision.modeling.calibration import calibrate
from tdsp_vision.modeling.svm import best_c, build_svm, svm_head, svm_margins, sweep_c


def _blobs(n: int, n_classes: int, distance: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of very different scales, float32 [n, 20], and targets."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % n_classes
    centres = rng.normal(size=[n_classes, 20]) * distance
    features = rng.normal(size=[n, 20]) + centres[targets]
    return ((features + 5) * np.logspace(-3, 2, 20)).astype(np.float32), targets


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_the_head_is_scikit_learns_decision_calibrated(n_classes):
    x, y = _blobs(150, n_classes)
    svm = build_svm(0.01, 0).fit(x, y)
    margins = svm_margins(svm, x)
    decision = svm.decision_function(x)
    if n_classes == 2:
        np.testing.assert_allclose(margins[:, 1] - margins[:, 0], decision)
    else:
        np.testing.assert_array_equal(margins, decision)
    slope, offsets = calibrate(margins, y)
    offsets = offsets + np.arange(n_classes)  # equal ones would cancel
    scores = svm_head(svm, slope, offsets).predict(x, verbose=0)
    np.testing.assert_allclose(scores, softmax(slope * margins + offsets, axis=1), atol=1e-5)
    assert scores.dtype == np.float32 and np.ptp(scores, axis=0).min() > 0.2
    np.testing.assert_array_equal(margins.argmax(axis=1), svm.predict(x))


def test_a_feature_that_hardly_varied_in_training_does_not_drown_the_others():
    x, y = _blobs(120, 2)
    quiet = np.zeros((120, 1), np.float32)
    quiet[3] = 1e-6  # one image of the training side
    svm = build_svm(0.01, 0).fit(np.concatenate([x, quiet], axis=1), y)
    new = x[:20]
    still, loud = (svm_margins(svm, np.concatenate([new, np.full((20, 1), v, np.float32)], axis=1)) for v in (0, 0.05))
    assert np.abs(loud - still).max() < 0.1 * np.ptp(still)


def test_constant_features_change_nothing():
    x, y = _blobs(80, 2)
    padded = np.concatenate([x, np.zeros_like(x[:, :2]), np.full_like(x[:, :2], 6.1)], axis=1)
    plain, with_constants = (build_svm(0.01, 0).fit(data, y) for data in (x, padded))
    np.testing.assert_allclose(svm_margins(plain, x), svm_margins(with_constants, padded), atol=1e-3)
    head = svm_head(with_constants, 1.0, np.zeros(2))
    expected = softmax(svm_margins(with_constants, padded), axis=1)
    np.testing.assert_allclose(head.predict(padded, verbose=0), expected, atol=1e-5)


def test_sweep_uses_the_rows_it_is_given_and_nothing_else():
    x, y = _blobs(120, 2, 0.3)
    groups = np.arange(120) // 2
    values = [1e-4, 1e-2]
    before = sweep_c(x[:80], y[:80], groups[:80], values, 0)
    x[80:], y[80:] = 1e9, 1 - y[80:]
    pd.testing.assert_frame_equal(before, sweep_c(x[:80], y[:80], groups[:80], values, 0))
    assert before.columns.tolist() == ["c", "auc_mean", "auc_deviation"] and before.c.tolist() == values
    assert before.auc_mean.between(0.5, 1).all() and (before.auc_deviation > 0).all()


def test_sweep_keeps_groups_together():
    rng = np.random.default_rng(0)
    person = np.arange(60) // 3
    x = rng.normal(size=[20, 30])[person] + rng.normal(size=[60, 30]) * 0.01  # pictures of one person are alike
    y = rng.permutation(np.arange(20) % 2)[person]  # and the label is luck
    torn = sweep_c(x, y, np.arange(60), [1e-2], 0).auc_mean[0]
    whole = sweep_c(x, y, person, [1e-2], 0).auc_mean[0]
    assert torn > 0.95 and whole < 0.85


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sweep_says_when_a_class_has_one_group(n_classes):
    x, y = _blobs(30, n_classes)
    groups = np.where(y == n_classes - 1, 100, np.arange(30))
    with pytest.raises(ValueError, match=r"a class has 1 group\(s\) on the training side"):
        sweep_c(x, y, groups, [1e-2], 0)


def test_sweep_with_two_groups_of_a_class_has_no_gaps():
    x, y = _blobs(30, 3)
    groups = np.where(y == 2, 100 + np.arange(30) % 2, np.arange(30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sweep_c(x, y, groups, [1e-2], 0).notna().all(axis=None)


def test_the_same_seed_gives_the_same_scores():
    x, y = _blobs(100, 3)
    margins = [svm_margins(build_svm(0.01, 5).fit(x, y), x) for _ in range(2)]
    np.testing.assert_array_equal(*margins)
    sweeps = [sweep_c(x, y, np.arange(100) // 2, [1e-3, 1e-1], 5) for _ in range(2)]
    pd.testing.assert_frame_equal(*sweeps)


def test_the_smallest_c_wins_a_tie():
    sweep = pd.DataFrame({"c": [1.0, 0.01, 0.1, 10.0], "auc_mean": [0.9, 0.9, 0.9, 0.8], "auc_deviation": 0.0})
    assert best_c(sweep) == 0.01 and isinstance(best_c(sweep), float)
    assert best_c(sweep.assign(auc_mean=[0.9, 0.9, 0.9, 0.95])) == 10.0


def test_rare_classes_weigh_as_much():
    x, _ = _blobs(100, 2, 0.0)
    y = (np.arange(100) >= 90).astype(int)
    calls = build_svm(1e-3, 0).fit(x, y).predict(x)
    assert 0.2 < calls.mean() < 0.8  # without class weights, nothing would be called 1
