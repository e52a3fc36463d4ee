"""The threshold is the best there is, or finds what was wanted; the areas and points of the ROC curve."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tdsp_vision.modeling.thresholds import areas_above, choose_threshold, decide, sensitivity_at

TWO, THREE = ["benign", "malignant"], ["a", "b", "c"]


def _pairs(score) -> np.ndarray:
    score = np.asarray(score)
    return np.column_stack([1 - score, score])


SCORES = st.sampled_from([0.0, 1e-30, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1)


def _youden(truth: np.ndarray, score: np.ndarray, threshold: float) -> float:
    called = score >= threshold
    return called[truth].mean() - called[~truth].mean()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.booleans(), SCORES), min_size=2))
@example([(True, np.nextafter(0.75, 1)), (False, 0.75), (True, 5e-324), (False, 0.0)])
def test_the_threshold_is_the_best_there_is(rows):
    truth = np.array([True, False] + [t for t, _ in rows])
    for dtype in (np.float32, np.float64):
        score = np.array([0.6, 0.4] + [s for _, s in rows], dtype)
        labels = np.array(TWO, dtype=object)[truth.astype(int)]
        threshold = choose_threshold(labels, np.column_stack([1 - score, score]), TWO, "malignant")
        points = np.unique(score.astype(np.float64))
        candidates = [*points, *((points[1:] + points[:-1]) / 2), 2.0]
        best = max(_youden(truth, score.astype(np.float64), c) for c in candidates)
        called = decide(np.column_stack([1 - score, score]), TWO, "malignant", threshold) == "malignant"
        assert called[truth].mean() - called[~truth].mean() == pytest.approx(best)
        assert 0 <= threshold <= 1 and isinstance(threshold, float)


def test_the_threshold_lies_midway():
    labels = np.array(["benign", "benign", "malignant"], dtype=object)
    assert choose_threshold(labels, _pairs([0.1, 0.2, 0.8]), TWO, "malignant") == pytest.approx(0.5)


def test_neighbouring_float32_scores_are_told_apart():
    low = np.float32(0.7)
    score = np.array([low, np.nextafter(low, np.float32(1))])
    scores = np.column_stack([1 - score, score])
    labels = np.array(TWO, dtype=object)
    threshold = choose_threshold(labels, scores, TWO, "malignant")
    assert decide(scores, TWO, "malignant", threshold).tolist() == TWO


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_equal_scores_miss_nothing(value):
    labels = np.array(["benign"] * 3 + ["malignant"], dtype=object)
    scores = _pairs([value] * 4)
    threshold = choose_threshold(labels, scores, TWO, "malignant")
    assert (decide(scores, TWO, "malignant", threshold) == "malignant").all()


def test_no_positive_class_no_threshold():
    scores = np.eye(3)
    assert choose_threshold(np.array(THREE, dtype=object), scores, THREE, "") is None
    assert choose_threshold(np.array(THREE, dtype=object), scores, THREE, "", 0.9) is None


def test_decisions():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.4, 0.4], [0.4, 0.4, 0.2]])
    assert decide(scores, THREE, "", None).tolist() == ["a", "b", "b", "a"]
    assert decide(scores, THREE, "c", 0.3).tolist() == ["a", "c", "c", "a"]
    assert decide(scores, THREE, "b", 0.9).tolist() == ["a", "c", "c", "a"]
    assert decide(scores, THREE, "b", 0.0).tolist() == ["b"] * 4
    two = _pairs([0.5, 0.2, 0.19])
    assert decide(two, TWO, "malignant", 0.2).tolist() == ["malignant", "malignant", "benign"]
    assert decide(two, TWO, "benign", 0.9).tolist() == ["malignant"] * 3
    assert decide(two, TWO, "", None).tolist() == ["benign"] * 3


def test_a_positive_class_needs_a_threshold():
    with pytest.raises(ValueError, match="positive class is 'malignant', and the threshold is None"):
        decide(_pairs([0.5, 0.2]), TWO, "malignant", None)


@settings(max_examples=150)
@given(st.lists(st.tuples(st.booleans(), SCORES), min_size=2), st.sampled_from([0.05, 0.5, 0.8, 0.9, 0.95, 1.0]))
def test_the_threshold_for_a_sensitivity_is_the_highest_that_reaches_it(rows, wanted):
    truth = np.array([True, False] + [t for t, _ in rows])
    score = np.array([0.6, 0.4] + [s for _, s in rows])
    threshold = choose_threshold(
        np.array(TWO, dtype=object)[truth.astype(int)], _pairs(score), TWO, "malignant", wanted
    )
    called = decide(_pairs(score), TWO, "malignant", threshold) == "malignant"
    assert called[truth].mean() >= wanted - 1e-9
    higher = score > score[called].min()  # the next stricter decision
    assert higher[truth].mean() < wanted - 1e-9


@pytest.mark.parametrize("wanted", [0, -0.1, 1.01, 95, float("nan")])
def test_a_sensitivity_that_is_none_is_refused(wanted):
    with pytest.raises(ValueError, match="wanted sensitivity is .*above 0, at most 1, or None"):
        choose_threshold(np.array(TWO, dtype=object), _pairs([0.1, 0.9]), TWO, "malignant", wanted)


def _ranked(n: int = 200, seed: int = 0, digits: int = 9) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3 == 0
    return truth, (1 / (1 + np.exp(-rng.normal(size=n) - truth))).round(digits)


@pytest.mark.parametrize("specificity", [0.0, 0.5, 0.8, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("digits", [1, 9])
def test_sensitivity_at_a_specificity_is_the_best_of_all_thresholds(specificity, digits):
    for seed in range(3):
        truth, score = _ranked(200, seed, digits)
        calls = [score >= t for t in [*np.unique(score), 2.0]]
        best = max(call[truth].mean() for call in calls if (~call[~truth]).mean() >= specificity - 1e-9)
        assert sensitivity_at(truth, score, specificity) == best


def test_sensitivity_at_a_specificity_by_hand():
    truth, score = np.array([True] * 4 + [False] * 10), np.array([0.95, 0.85, 0.45, 0.05, *np.arange(10) / 10])
    assert sensitivity_at(truth, score, 0.9) == 0.5  # above 0.8 lies 0.9 alone: 9 of 10 benign are called benign
    assert sensitivity_at(truth, score, 0.91) == 0.25
    assert sensitivity_at(truth, score, 0.5) == 0.75


@pytest.mark.parametrize("digits", [1, 9])
@pytest.mark.parametrize("seed", range(3))
def test_the_partial_area_is_scikit_learns_without_its_rescaling(seed, digits):
    """ISIC 2024: both classes change places, so that high sensitivity becomes a low false positive rate."""
    truth, score = _ranked(200, seed, digits)
    scaled = sk.roc_auc_score(~truth, -score, max_fpr=0.2)  # McClish 1989: 0.5 for guessing, 1 for perfect
    guessing = 0.2**2 / 2
    assert areas_above(truth, score)[1] == pytest.approx(guessing + (0.2 - guessing) * (scaled - 0.5) / 0.5)


def test_the_areas_of_perfect_useless_and_inverted_scores():
    truth = np.arange(10) < 5
    assert areas_above(truth, truth * 1.0) == pytest.approx((1.0, 0.2))
    assert areas_above(truth, np.zeros(10)) == pytest.approx((0.18, 0.02))
    assert areas_above(truth, ~truth * 1.0) == pytest.approx((0.0, 0.0))
    assert areas_above(truth, truth * 1.0, 0.5) == pytest.approx((1.0, 0.5))
