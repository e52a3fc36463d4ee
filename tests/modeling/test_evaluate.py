"""Every number of metrics.json against scikit-learn, a hand calculation or brute force, and the test kept apart."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tdsp_vision.modeling import evaluate as module
from tdsp_vision.modeling.evaluate import (
    auc,
    auc_interval,
    choose_threshold,
    decide,
    evaluate,
    expected_calibration_error,
)
from tdsp_vision.modeling.splits import SPLITS, split_manifest
from tdsp_vision.modeling.svm import best_c, build_svm, calibrate, svm_head, svm_margins, sweep_c

TWO, THREE = ["benign", "malignant"], ["a", "b", "c"]
KEYS = {
    *("accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", "auc_ci", "average_precision", "ece"),
    *("threshold", "sensitivity", "specificity", "per_class", "confusion_matrix", "n"),
}


def _pairs(score) -> np.ndarray:
    score = np.asarray(score)
    return np.column_stack([1 - score, score])


def _case(classes: list[str], n: int = 90, seed: int = 0, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal frequency and float32 scores that know something about them."""
    rng = np.random.default_rng(seed)
    targets = np.minimum(rng.integers(0, len(classes) + 1, n), len(classes) - 1)
    targets[: len(classes)] = np.arange(len(classes))
    logits = rng.normal(size=[n, len(classes)]) + skill * np.eye(len(classes))[targets]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.array(classes, dtype=object)[targets], scores.astype(np.float32)


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (TWO, "benign"), (THREE, "b")])
def test_with_a_positive_class_the_numbers_are_scikit_learns(classes, positive):
    labels, scores = _case(classes)
    threshold = choose_threshold(labels, scores, classes, positive)
    block = evaluate(labels, scores, classes, positive, threshold, 0)
    truth, score = labels == positive, scores[:, classes.index(positive)]
    predicted = decide(scores, classes, positive, threshold)
    called = predicted == positive
    np.testing.assert_array_equal(called, score >= threshold)
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "precision": sk.precision_score(truth, called),
        "recall": sk.recall_score(truth, called),
        "f1": sk.f1_score(truth, called),
        "auc": sk.roc_auc_score(truth, score),
        "average_precision": sk.average_precision_score(truth, score),
        "sensitivity": (called & truth).sum() / truth.sum(),
        "specificity": (~called & ~truth).sum() / (~truth).sum(),
        "threshold": threshold,
    }
    assert {name: block[name] for name in expected} == pytest.approx(expected)
    assert block["confusion_matrix"] == sk.confusion_matrix(labels, predicted, labels=classes).tolist()
    assert block["n"] == len(labels)


@pytest.mark.parametrize("classes", [TWO, THREE])
def test_without_a_positive_class_they_are_means_over_classes(classes):
    labels, scores = _case(classes)
    block = evaluate(labels, scores, classes, "", None, 0)
    predicted = np.array(classes, dtype=object)[scores.argmax(axis=1)]
    each = [(labels == name, scores[:, k]) for k, name in enumerate(classes)]
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, average="macro"),
        "recall": sk.recall_score(labels, predicted, average="macro"),
        "f1": sk.f1_score(labels, predicted, average="macro"),
        "auc": np.mean([sk.roc_auc_score(*pair) for pair in each]),
        "average_precision": np.mean([sk.average_precision_score(*pair) for pair in each]),
    }
    assert {name: block[name] for name in expected} == pytest.approx(expected)
    assert block["threshold"] is block["sensitivity"] is block["specificity"] is None


def test_per_class_rows_are_scikit_learns():
    labels, scores = _case(THREE)
    block = evaluate(labels, scores, THREE, "", None, 0)
    report = sk.classification_report(labels, decide(scores, THREE, "", None), output_dict=True)
    for k, name in enumerate(THREE):
        row = block["per_class"][name]
        assert set(row) == {"precision", "recall", "f1", "auc", "average_precision", "n"}
        wanted = (report[name]["precision"], report[name]["recall"], report[name]["f1-score"], report[name]["support"])
        assert (row["precision"], row["recall"], row["f1"], row["n"]) == pytest.approx(wanted)
        assert row["auc"] == pytest.approx(sk.roc_auc_score(labels == name, scores[:, k]))


def test_a_case_counted_by_hand():
    labels = np.array(["malignant"] * 4 + ["benign"] * 6, dtype=object)
    scores = _pairs([0.9, 0.8, 0.6, 0.2, 0.7, 0.5, 0.4, 0.3, 0.1, 0.05])
    block = evaluate(labels, scores, TWO, "malignant", 0.55, 0)
    assert block["confusion_matrix"] == [[5, 1], [1, 3]]
    assert block["accuracy"] == 0.8 and block["sensitivity"] == block["recall"] == block["precision"] == 0.75
    assert block["specificity"] == pytest.approx(5 / 6)
    assert block["balanced_accuracy"] == pytest.approx((3 / 4 + 5 / 6) / 2)
    assert block["auc"] == pytest.approx((6 + 6 + 5 + 2) / 24)  # benign scores below each malignant one


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (TWO, ""), (THREE, "c"), (THREE, "")])
@pytest.mark.parametrize("skill", [-3.0, 0.0, 30.0])
def test_the_block_has_the_agreed_keys_and_is_plain_json(classes, positive, skill):
    labels, scores = _case(classes, 20, skill=skill)
    block = evaluate(labels, scores, classes, positive, choose_threshold(labels, scores, classes, positive), 0)
    assert set(block) == KEYS and list(block["per_class"]) == classes
    assert json.loads(json.dumps(block, allow_nan=False)) == block
    assert len(block["auc_ci"]) == 2 and np.sum(block["confusion_matrix"]) == block["n"] == 20


def test_nothing_called_positive_is_a_number_too():
    labels, scores = _case(TWO, 20)
    block = evaluate(labels, scores * [[1, 0]], TWO, "malignant", 0.5, 0)
    assert block["precision"] == block["recall"] == block["f1"] == 0.0 and block["specificity"] == 1.0
    json.dumps(block, allow_nan=False)


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
    labels, scores = _case(THREE)
    assert choose_threshold(labels, scores, THREE, "") is None


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


def test_calibration_error_by_hand():
    labels = np.array(["malignant", "malignant", "benign", "benign", "malignant"], dtype=object)
    scores = _pairs([0.95, 0.91, 0.95, 0.35, 0.65])  # confidence 0.95, 0.91, 0.95 | 0.65, 0.65
    gap_high, gap_low = abs((0.95 + 0.91 + 0.95) / 3 - 2 / 3), abs(0.65 - 1)
    expected = 3 / 5 * gap_high + 2 / 5 * gap_low
    assert expected_calibration_error(labels, scores, TWO) == pytest.approx(expected)
    sure = _pairs([1.0, 1.0, 0.0, 0.0, 1.0])
    assert expected_calibration_error(labels, sure, TWO) == 0
    assert expected_calibration_error(labels, 1 - sure, TWO) == 1


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (THREE, ""), (THREE, "b")])
def test_the_interval_contains_the_auc_and_is_reproducible(classes, positive):
    for seed in range(2):
        labels, scores = _case(classes, 40, seed)
        block = evaluate(labels, scores, classes, positive, 0.5 if positive else None, 3)
        low, high = block["auc_ci"]
        assert 0 <= low < block["auc"] < high <= 1
        assert auc_interval(labels, scores, classes, positive, 3) == [low, high]
        assert auc_interval(labels, scores, classes, positive, 4) != [low, high]


def test_the_interval_shrinks_with_more_images():
    widths = [np.ptp(auc_interval(*_case(TWO, n), TWO, "malignant", 0)) for n in (30, 120, 1000)]
    assert widths[0] > 1.4 * widths[1] > 2 * widths[2]


def test_the_interval_is_as_wide_as_theory_says():
    labels, scores = _case(TWO, 400)
    truth, score = labels == "malignant", scores[:, 1]
    low, high = auc_interval(labels, scores, TWO, "malignant", 0)
    wins = (score[truth][:, None] > score[~truth]).astype(float)  # DeLong et al. 1988
    error = np.sqrt(wins.mean(1).var(ddof=1) / truth.sum() + wins.mean(0).var(ddof=1) / (~truth).sum())
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)


def test_the_bootstrap_draws_areas_that_are_scikit_learns(monkeypatch):
    labels, scores = _case(TWO, 60)
    scores = scores.round(1)  # with ties
    fast = auc_interval(labels, scores, TWO, "malignant", 0)
    monkeypatch.setattr(module, "_auc_by_ranks", sk.roc_auc_score)
    assert auc_interval(labels, scores, TWO, "malignant", 0) == pytest.approx(fast)


def test_a_perfect_ranking_has_a_perfect_interval():
    labels = np.array(["benign"] * 5 + ["malignant"] * 5, dtype=object)
    assert auc_interval(labels, _pairs(np.arange(10) / 10), TWO, "malignant", 0) == [1.0, 1.0]


def test_auc_of_margins():
    targets = np.array([0, 1, 2, 0, 1, 2])
    margins = np.random.default_rng(0).normal(size=[6, 3])
    expected = np.mean([sk.roc_auc_score(targets == k, margins[:, k]) for k in range(3)])
    assert auc(targets, margins) == pytest.approx(expected)
    assert auc(targets[targets < 2], margins[targets < 2, :2] * [[0, 1]]) == pytest.approx(
        sk.roc_auc_score(targets[targets < 2], margins[targets < 2, 1]) / 2 + 0.25
    )
    assert np.isnan(auc(np.zeros(4, int), margins[:4]))


def _walk(features: np.ndarray, manifest: pd.DataFrame, split: pd.Series) -> dict:
    """The steps of the modeling notebook, `CLASSIFIER` svm, in their order."""
    classes = sorted(manifest.label.unique())
    targets = manifest.label.map(classes.index).to_numpy()
    train, validation, test = ((split == side).to_numpy() for side in SPLITS)
    history = sweep_c(features[train], targets[train], manifest.group.to_numpy()[train], [1e-4, 1e-2], 0)
    svm = build_svm(best_c(history), 0).fit(features[train], targets[train])
    slope, offsets = calibrate(svm_margins(svm, features[validation]), targets[validation])
    scores = svm_head(svm, slope, offsets).predict(features, verbose=0)
    labels = manifest.label.to_numpy(dtype=object)
    threshold = choose_threshold(labels[validation], scores[validation], classes, "malignant")
    blocks = {
        side: evaluate(labels[mask], scores[mask], classes, "malignant", threshold, 0)
        for side, mask in (("validation", validation), ("test", test))
    }
    predicted = decide(scores, classes, "malignant", threshold)
    return {"history": history, "scores": scores, "threshold": threshold, "predicted": predicted, **blocks}


def test_labels_of_the_test_side_change_nothing_but_its_metrics():
    rng = np.random.default_rng(0)
    manifest = pd.DataFrame({"label": np.array(TWO, dtype=object)[np.arange(160) % 2], "group": np.arange(160) // 4})
    manifest["path"] = [f"images/{i:03}.jpg" for i in range(160)]
    features = rng.normal(size=[160, 30]).astype(np.float32) + (manifest.label == "malignant").to_numpy()[:, None] * 0.5
    split = split_manifest(manifest, "auto", 0.25, 0.15, 0)
    honest = _walk(features, manifest, split)
    test = split == "test"
    shuffled = manifest.copy()
    shuffled.loc[test, "label"] = rng.permutation(manifest.label[test].to_numpy())
    assert (shuffled.label != manifest.label).sum() > 10
    other = _walk(features, shuffled, split)
    pd.testing.assert_frame_equal(honest["history"], other["history"])
    np.testing.assert_array_equal(honest["scores"], other["scores"])
    np.testing.assert_array_equal(honest["predicted"], other["predicted"])
    assert honest["threshold"] == other["threshold"] and honest["validation"] == other["validation"]
    assert honest["test"]["auc"] > other["test"]["auc"] + 0.1
