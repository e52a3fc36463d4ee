"""Every number of metrics.json against scikit-learn, a hand calculation or brute force, and the test kept apart."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

from tdsp_vision.modeling.calibration import calibrate
from tdsp_vision.modeling.evaluate import auc, evaluate
from tdsp_vision.modeling.splits import SPLITS, split_manifest
from tdsp_vision.modeling.svm import best_c, build_svm, svm_head, svm_margins, sweep_c
from tdsp_vision.modeling.thresholds import areas_above, choose_threshold, decide, sensitivity_at

TWO, THREE = ["benign", "malignant"], ["a", "b", "c"]
KEYS = {
    *("accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", "auc_ci", "average_precision", "ece"),
    *("threshold", "sensitivity", "specificity", "per_class", "confusion_matrix", "n"),
    *("intervals", "macro_auc", "ece_positive", "brier", "log_loss"),
    *("sensitivity_at_specificity", "auc_sens_80", "partial_auc_80"),
}
HEADLINES = ["accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", "average_precision", "ece"]


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
        "macro_auc": np.mean([sk.roc_auc_score(labels == name, scores[:, k]) for k, name in enumerate(classes)]),
        "brier": sk.brier_score_loss(labels, scores, labels=classes),
        "log_loss": sk.log_loss(labels, scores, labels=classes),
        "auc_sens_80": areas_above(truth, score)[0],
        "partial_auc_80": areas_above(truth, score)[1],
    }
    assert {name: block[name] for name in expected} == pytest.approx(expected)
    assert block["confusion_matrix"] == sk.confusion_matrix(labels, predicted, labels=classes).tolist()
    assert block["n"] == len(labels)
    at = {f"{s:.2f}": sensitivity_at(truth, score, s) for s in (0.8, 0.9, 0.95)}
    assert block["sensitivity_at_specificity"] == at


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
        "macro_auc": block["auc"],
        "auc_sens_80": np.mean([areas_above(*pair)[0] for pair in each]),
        "brier": sk.brier_score_loss(labels, scores, labels=classes),
        "log_loss": sk.log_loss(labels, scores, labels=classes),
    }
    assert {name: block[name] for name in expected} == pytest.approx(expected)
    for name in ("threshold", "sensitivity", "specificity", "ece_positive", "sensitivity_at_specificity"):
        assert block[name] is None


def test_per_class_rows_are_scikit_learns():
    labels, scores = _case(THREE)
    block = evaluate(labels, scores, THREE, "", None, 0)
    report = sk.classification_report(labels, decide(scores, THREE, "", None), output_dict=True)
    for k, name in enumerate(THREE):
        row = block["per_class"][name]
        assert set(row) == {"precision", "recall", "f1", "auc", "average_precision", "specificity", "n"}
        wanted = (report[name]["precision"], report[name]["recall"], report[name]["f1-score"], report[name]["support"])
        assert (row["precision"], row["recall"], row["f1"], row["n"]) == pytest.approx(wanted)
        predicted = decide(scores, THREE, "", None)
        assert row["specificity"] == pytest.approx((predicted[labels != name] != name).mean())
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


def test_the_error_of_calibration_is_about_the_surest_class_and_about_the_positive_one():
    labels = np.array(["malignant", "malignant", "benign", "benign", "malignant"], dtype=object)
    block = evaluate(labels, _pairs([0.95, 0.91, 0.95, 0.35, 0.65]), TWO, "malignant", 0.5, 0)
    high = 3 / 5 * abs((0.95 + 0.91 + 0.95) / 3 - 2 / 3)
    assert block["ece"] == pytest.approx(high + 2 / 5 * abs(0.65 - 1))
    assert block["ece_positive"] == pytest.approx(high + 1 / 5 * 0.35 + 1 / 5 * 0.35)


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (THREE, ""), (THREE, "b")])
def test_each_headline_has_an_interval_around_it_that_is_reproducible(classes, positive):
    labels, scores = _case(classes, 60)
    threshold = 0.5 if positive else None
    block, again, other = (evaluate(labels, scores, classes, positive, threshold, seed) for seed in (3, 3, 4))
    assert set(block["intervals"]) >= {*HEADLINES, *(("sensitivity", "specificity") if positive else ())}
    for name in {*block["intervals"]} - {"ece", "ece_positive"}:  # noise makes calibration errors larger
        low, high = block["intervals"][name]
        assert low < block[name] < high, name
    assert block["auc_ci"] == block["intervals"]["auc"] == again["auc_ci"] != other["auc_ci"]


def test_groups_make_intervals_wider():
    labels, scores = _case(TWO, 40)
    labels, scores, groups = labels.repeat(5), scores.repeat(5, axis=0), np.arange(40).repeat(5)  # five copies each
    alone, whole = (evaluate(labels, scores, TWO, "malignant", 0.5, 0, groups=g) for g in (None, groups))
    few = evaluate(labels[::5], scores[::5], TWO, "malignant", 0.5, 0)
    for name in HEADLINES:
        assert alone[name] == pytest.approx(whole[name])
    assert np.ptp(whole["auc_ci"]) > 1.7 * np.ptp(alone["auc_ci"])
    assert np.ptp(whole["auc_ci"]) == pytest.approx(np.ptp(few["auc_ci"]), rel=0.1)


@pytest.mark.parametrize("labels", [["benign"] * 4, ["benign", "malignant", "nevus", "benign"]])
def test_each_class_needs_images_and_each_image_a_class(labels):
    with pytest.raises(ValueError, match="each class needs an image"):
        evaluate(np.array(labels, dtype=object), _pairs([0.1, 0.9, 0.5, 0.4]), TWO, "malignant", 0.5, 0)


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
