"""The bootstrap: as wide as theory says, whole groups, no class empty, reproducible, and blind to how it is chunked."""

import numpy as np
import pytest

from tdsp_vision.modeling import intervals
from tdsp_vision.modeling.intervals import bootstrap, mean_auc, paired_auc_difference
from tdsp_vision.modeling.metrics import auc_of_class


def _ranked(n: int, seed: int = 0, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3 == 0
    return truth, rng.normal(size=n) + skill * truth


def _drawn(targets, groups=None, seed=0) -> np.ndarray:
    """All the weights that a bootstrap draws, [1000, n]."""
    seen = []

    def statistic(weights):
        seen.append(weights)
        return {"none": np.zeros(len(weights))}

    bootstrap(statistic, targets, groups, seed)
    return np.concatenate(seen)


def test_the_interval_is_as_wide_as_theory_says():
    truth, score = _ranked(400)
    (low, high) = mean_auc(truth[:, None], score[:, None], None, 0)[1]
    wins = (score[truth][:, None] > score[~truth]).astype(float)  # DeLong et al. 1988
    error = np.sqrt(wins.mean(1).var(ddof=1) / truth.sum() + wins.mean(0).var(ddof=1) / (~truth).sum())
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)


def test_the_interval_holds_the_truth_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 300)
    covered = 0
    for seed in range(100):
        truth, score = _ranked(120, seed)
        (low, high) = mean_auc(truth[:, None], score[:, None], None, seed)[1]
        covered += low <= 0.7602 <= high  # Phi(1 / sqrt(2)), two normals one standard deviation apart
    assert 88 <= covered <= 99


def test_images_are_drawn_within_their_class():
    targets = np.array([0] * 7 + [1] * 3 + [2] * 2)
    weights = _drawn(targets)
    assert weights.shape == (1000, 12) and (weights == weights.round()).all()
    for k, count in enumerate([7, 3, 2]):
        assert (weights[:, targets == k].sum(axis=1) == count).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(12), abs=0.12)


def test_groups_are_drawn_whole_and_no_class_runs_empty():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 12, 40)
    targets = (groups < 3).astype(int)
    targets[np.flatnonzero(groups == 0)[0]] = 0  # a patient with one image of either class
    weights = _drawn(targets, np.array([f"patient {g}" for g in groups], dtype=object))
    for group in range(12):
        assert (np.ptp(weights[:, groups == group], axis=1) == 0).all()
    assert (weights[:, targets == 1].sum(axis=1) > 0).all() and (weights[:, targets == 0].sum(axis=1) > 0).all()
    assert weights[:, groups == 5].std() > 0.5


def test_draws_follow_the_seed_and_not_the_chunks(monkeypatch):
    targets = np.arange(30) % 2
    whole = _drawn(targets, seed=1)
    assert (whole != _drawn(targets, seed=2)).any()
    np.testing.assert_array_equal(whole, _drawn(targets, seed=1))
    monkeypatch.setattr(intervals, "WEIGHTS_AT_ONCE", 30 * 7)
    chunked = _drawn(targets, seed=1)
    assert chunked.shape == whole.shape and chunked.mean(axis=0) == pytest.approx(whole.mean(axis=0), abs=0.15)


def test_an_image_without_a_group_is_refused():
    with pytest.raises(ValueError, match="1 of 3 images have no group"):
        mean_auc(np.array([[True], [False], [True]]), np.zeros((3, 1)), np.array(["a", None, "b"], dtype=object), 0)


def test_a_perfect_ranking_has_a_perfect_interval():
    truth = np.arange(10) < 5
    assert mean_auc(truth[:, None], truth[:, None] * 1.0, None, 0) == (1.0, [1.0, 1.0])


def test_a_paired_difference_is_sharper_than_two_intervals():
    truth, score = _ranked(300)
    better = score + 0.3 * truth + np.random.default_rng(1).normal(size=300) * 0.1
    difference, low, high = paired_auc_difference(truth, score, better, None, 0)
    areas = [mean_auc(truth[:, None], one[:, None], None, 0) for one in (score, better)]
    assert difference == pytest.approx(areas[1][0] - areas[0][0])
    assert 0 < low < difference < high
    assert areas[0][1][1] > areas[1][1][0]  # the two intervals overlap
    reverse = paired_auc_difference(truth, better, score, None, 0)
    assert reverse == pytest.approx((-difference, -high, -low))


def test_a_model_against_itself_differs_by_nothing():
    truth, score = _ranked(60)
    assert paired_auc_difference(truth, score, score * 2, np.arange(60) // 2, 0) == (0, 0, 0)


def test_drawing_an_image_twice_is_having_it_twice():
    truth, score = _ranked(50)
    score, times = score.round(1), np.random.default_rng(0).integers(0, 4, 50)
    weighted = auc_of_class(truth, score, times[None].astype(float))
    copied = auc_of_class(truth.repeat(times), score.repeat(times), np.ones((1, times.sum())))
    assert weighted == pytest.approx(copied)
