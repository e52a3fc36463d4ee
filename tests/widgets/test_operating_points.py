"""Every threshold's counts and shares: scikit-learn's curves, `evaluate`'s numbers, `choose_threshold`'s rules."""

import numpy as np
import pytest
from sklearn import metrics as sk

from tdsp_vision.modeling.metrics import evaluate
from tdsp_vision.modeling.metrics import choose_threshold, decide, sensitivity_at
from tdsp_vision.widgets.operating_points import (
    BEST,
    FINE,
    Look,
    operating_points,
    places_to_click,
    precision_recall_path,
    preset_thresholds,
    roc_path,
    row_at,
    thinned,
)

TWO = ["benign", "malignant"]
COUNTS = ["found", "missed", "false_alarms", "spared"]


def drawn(n: int = 60, digits: int = 9, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth bool [n] and score float32 [n]; with one digit there are many ties."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3 == 0
    return truth, (1 / (1 + np.exp(-rng.normal(size=n) - truth))).round(digits).astype(np.float32)


def known(truth: np.ndarray, score: np.ndarray) -> tuple:
    """Arguments as the notebook has them."""
    return np.array(TWO, object)[truth.astype(int)], np.column_stack([1 - score, score]), TWO, "malignant"


@pytest.mark.parametrize("digits", [1, 9])
def test_each_row_is_what_its_threshold_decides_and_what_evaluate_says(digits):
    truth, score = drawn(60, digits)
    labels, scores, *_ = known(truth, score)
    points = operating_points(truth, score)
    assert len(points) == len(np.unique(score)) + 1
    for row, threshold in enumerate(points.threshold):
        assert row_at(points, threshold) == row
        called = decide(scores, TWO, "malignant", threshold) == "malignant"
        (spared, alarms), (missed, found) = sk.confusion_matrix(truth, called, labels=[False, True])
        assert points.loc[row, COUNTS].tolist() == [found, missed, alarms, spared]
    for row in (0, 1, len(points) // 2, len(points) - 1):
        block = evaluate(labels, scores, TWO, "malignant", float(points.threshold[row]))
        for name in ("sensitivity", "specificity", "precision", "balanced_accuracy"):
            assert points[name][row] == pytest.approx(block[name]), (row, name)
        (spared, alarms), (missed, found) = block["confusion_matrix"]
        assert points.loc[row, COUNTS].tolist() == [found, missed, alarms, spared]


@pytest.mark.parametrize("digits", [1, 9])
def test_the_curves_are_scikit_learns_at_every_threshold(digits):
    truth, score = drawn(200, digits, 3)
    points = operating_points(truth, score)
    false_rate, true_rate, thresholds = sk.roc_curve(truth, score, drop_intermediate=False)
    np.testing.assert_allclose(roc_path(points)[:, :2], np.column_stack([false_rate, true_rate]), atol=1e-12)
    np.testing.assert_array_equal(points.score, thresholds.astype(np.float64))
    precision, recall, thresholds = sk.precision_recall_curve(truth, score)
    np.testing.assert_array_equal(points.score[:0:-1], thresholds)
    np.testing.assert_array_equal(points.precision[:0:-1], precision[:-1])
    np.testing.assert_array_equal(points.sensitivity[:0:-1], recall[:-1])
    x, y, _ = precision_recall_path(points).T
    steps = np.diff(x) * y[1:]  # flat pieces; the upright ones have no width
    assert steps.sum() == pytest.approx(sk.average_precision_score(truth, score))


@pytest.mark.parametrize("digits", [1, 2, 9])
def test_every_threshold_leads_to_the_row_that_decides_alike(digits):
    truth, score = drawn(60, digits, 1)
    points = operating_points(truth, score)
    for threshold in (0.0, 1.0, *score.astype(float), *np.random.default_rng(0).random(50)):
        point = points.iloc[row_at(points, threshold)]
        called = score.astype(np.float64) >= threshold
        assert (point.found, point.false_alarms) == ((called & truth).sum(), (called & ~truth).sum())


def test_scores_of_0_and_1_and_neighbouring_floats():
    low = np.float32(0.7)
    score = np.array([1.0, 1.0, np.nextafter(low, np.float32(1)), low, 0.0], np.float32)
    points = operating_points(np.array([True, False, True, False, False]), score)
    assert points.threshold.between(0, 1).all()
    assert [row_at(points, t) for t in points.threshold] == [1, 1, 2, 3, 4]  # no threshold up to 1 calls nothing here
    assert row_at(points, 0.0) == 4 and points.found.tolist() == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("truth", [np.ones(4, bool), np.zeros(4, bool), np.zeros(0, bool)])
def test_one_class_alone_has_no_curve(truth):
    with pytest.raises(ValueError, match=r"There are \d images of the class and \d of others; .* at least one of each"):
        operating_points(truth, np.linspace(0, 1, len(truth)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("digits", [1, 9])
def test_presets_keep_their_promise(seed, digits):
    truth, score = drawn(90, digits, seed)
    points, presets = operating_points(truth, score), preset_thresholds(*known(truth, score))
    assert presets[BEST] == choose_threshold(*known(truth, score))
    at = {words: points.iloc[row_at(points, value)] for words, value in presets.items() if value is not None}
    assert at[BEST].balanced_accuracy == points.balanced_accuracy[1:].max()
    for share in (0.9, 0.95):
        words = f"sensitivity ≥ {share:.2f}"
        assert presets[words] == choose_threshold(*known(truth, score), share)
        assert at[words].specificity == points.specificity[points.sensitivity >= share - 1e-9].max()
        words, reached = f"specificity ≥ {share:.2f}", sensitivity_at(truth, score, share)
        assert (words in at) == (reached > 0)
        if words in at:
            assert at[words].sensitivity == reached and at[words].specificity >= share - 1e-9


def test_a_rule_that_only_finding_nothing_obeys_has_no_threshold():
    truth = np.array([True, False])
    presets = preset_thresholds(*known(truth, np.array([0.2, 0.8])))
    assert presets["specificity ≥ 0.95"] is None and presets["sensitivity ≥ 0.95"] == pytest.approx(0.1)


def test_ten_thousand_scores_are_thinned_on_the_screen_only():
    truth, score = drawn(10_000)
    points = operating_points(truth, score)
    assert len(points) > 9_900  # nearly all scores differ
    for path in (roc_path(points), precision_recall_path(points)):
        few = thinned(path)
        assert len(few) < len(path) / 2
        np.testing.assert_array_equal(few[[0, -1]], path[[0, -1]])
        kept = np.interp(path[:, 2], few[:, 2], few[:, 0])
        assert np.abs(kept - path[:, 0]).max() <= 2 / FINE


def test_a_small_path_stays_as_it_is():
    path = roc_path(operating_points(*drawn(30)))
    np.testing.assert_array_equal(thinned(path), path)


def test_places_to_click_lie_on_the_path_and_reach_every_row():
    points = operating_points(*drawn(30))
    for path, first in ((roc_path(points), 0), (precision_recall_path(points), 1)):
        places = places_to_click(path)
        assert set(places[:, 2]) == set(range(first, len(points)))
        near = np.hypot(*(places[:, None, :2] - path[None, :, :2]).transpose(2, 0, 1)).min(axis=1)
        longest = np.hypot(*np.diff(path[:, :2], axis=0).T).max()
        assert near.max() <= longest / 2 + 1e-9


def test_the_state_takes_another_class_with_its_best_threshold():
    rng = np.random.default_rng(0)
    scores, names = rng.dirichlet(np.ones(3), 40), ["a", "b", "c"]
    labels = np.array(names, object)[rng.integers(0, 3, 40)]
    look = Look(labels, scores, names, "a")
    look.of_class = "c"
    assert look.at == choose_threshold(labels, scores, names, "c")
    assert look.point.found + look.point.missed == (labels == "c").sum()
    look.at = 0.0
    assert (look.point.missed, look.point.spared) == (0, 0)
