"""Runs side by side: right numbers, honest sentences, and no comparison of what cannot be compared."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tdsp_vision.data.tables import write_csv
from tdsp_vision.files import write_json
from tdsp_vision.modeling.compare import comparable_runs, compare_runs
from tdsp_vision.modeling.evaluate import evaluate
from tdsp_vision.modeling.intervals import paired_auc_difference
from tdsp_vision.paths import OutputPaths

TWO, THREE, NUMBERS = ["benign", "malignant"], ["a", "b", "c"], ["007", "7"]
PARAMETERS = {
    "DATASET_NAME": "tiny",
    "CLASSIFIER": "svm",
    "SVM_C": [0.1],
    "RUN_NAME": "",
    "SEED": 0,
    "GROUP_BY": "auto",
}


@pytest.fixture
def outputs(tmp_path) -> OutputPaths:
    return OutputPaths(str(tmp_path / "outputs"), "tiny")


def _scores(classes: list[str], skill: float, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels in turn, and scores [n, K] that know them as well as `skill` says; 0 is guessing."""
    targets = np.arange(n) % len(classes)
    logits = np.random.default_rng(seed).normal(size=(n, len(classes))) + skill * np.eye(len(classes))[targets]
    return np.array(classes, object)[targets], np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def write_run(outputs, run_id, scores, labels, classes=TWO, positive="malignant", parameters=PARAMETERS, **columns):
    """A run folder as the notebook leaves it, without model and figures; all images but one are test images."""
    threshold = 0.5 if positive else None
    predicted = np.array(classes, object)[scores.argmax(axis=1)]
    splits = pd.DataFrame({"path": [f"{k:03}.jpg" for k in range(len(labels))], "label": labels})
    splits = splits.assign(group=np.arange(len(labels)) // 2, split="test", **columns)
    rows = pd.concat([splits, splits[:1].assign(path="learned.jpg", split="train")])
    table = rows[["path", "split", "label"]].assign(predicted=[*predicted, predicted[0]])
    for k, name in enumerate(classes):
        table[f"score_{name}"] = [*scores[:, k], scores[0, k]]
    head = {"dataset": "tiny", "classifier": "svm", "backbone": "alexnet", "weights": "none", "image_size": 32}
    block = evaluate(labels, scores, classes, positive, threshold, 0)
    metrics = head | {"classes": classes, "positive_class": positive, "splits": {"train": 1, "test": len(labels)}}
    folder = outputs.runs / run_id
    write_csv(folder / "splits.csv", rows)
    write_csv(folder / "predictions.csv", table.sample(frac=1, random_state=len(run_id)))  # its order does not matter
    write_json(folder / "metrics.json", metrics | {"validation": block, "test": block, "seconds": {"train": 1.25}})
    if parameters:
        write_json(folder / "parameters.json", parameters)
    return block


def _pair(outputs, first: float, second: float, classes=TWO, positive="malignant"):
    """Runs r1 and r2 with these skills."""
    labels, one = _scores(classes, first)
    _, two = _scores(classes, second, seed=1)
    blocks = [write_run(outputs, run, scores, labels, classes, positive) for run, scores in (("r1", one), ("r2", two))]
    return labels, one, two, blocks


@pytest.mark.parametrize(
    ("first", "second", "word", "ends"), [(0, 4, "higher", ["low", "high"]), (4, 0, "lower", ["high", "low"])]
)
def test_a_difference_is_measured_and_said(outputs, first, second, word, ends):
    labels, one, two, _ = _pair(outputs, first, second)
    comparison = compare_runs(outputs, ["r1", "r2"], seed=7)
    [row] = comparison.differences.to_dict("records")
    truth = labels == "malignant"
    assert row["difference"] == pytest.approx(roc_auc_score(truth, two[:, 1]) - roc_auc_score(truth, one[:, 1]))
    by_group = paired_auc_difference(truth, one[:, 1], two[:, 1], np.arange(len(labels)) // 2, 7)
    assert (row["difference"], row["low"], row["high"]) == pytest.approx(by_group)
    assert row["low"] < row["difference"] < row["high"] and (row["run"], row["against"]) == ("B", "A")
    interval = " to ".join(f"{abs(row[end]):.3f}" for end in ends)
    said = f"B's AUC is {word} than A's by {abs(row['difference']):.3f} (95 % interval {interval})."
    assert row["sentence"] == said and comparison.runs == {"A": "r1", "B": "r2"} and comparison.about == ["malignant"]


def test_no_difference_is_said_too(outputs):
    _pair(outputs, 1.0, 1.1)
    [row] = compare_runs(outputs, ["r1", "r2"]).differences.to_dict("records")
    assert row["low"] < 0 < row["high"]
    numbers = [f"{row[name]:.3f}" for name in ("difference", "low", "high")]
    assert row["sentence"] == (
        "No difference shown: B's AUC minus A's is {}, and its 95 % interval, {} to {}, contains 0.".format(*numbers)
    )


def test_the_same_scores_show_no_difference_and_no_disagreement(outputs):
    labels, scores = _scores(TWO, 1.0)
    write_run(outputs, "r1", scores, labels)
    write_run(outputs, "r2", scores, labels)
    comparison = compare_runs(outputs, ["r1", "r2"])
    assert "is 0.000, and its 95 % interval, 0.000 to 0.000, contains 0" in comparison.differences.sentence[0]
    assert comparison.disagreements.empty and {"path", "label", "A", "B"} <= set(comparison.disagreements)


@pytest.mark.parametrize(("classes", "positive"), [(THREE, ""), (THREE, "b"), (TWO, "")])
def test_several_classes_and_none_that_counts_most(outputs, classes, positive):
    _, _, _, (one, two) = _pair(outputs, 0, 5, classes, positive)
    comparison = compare_runs(outputs, ["r1", "r2"])
    row = comparison.differences.iloc[0]
    assert row.difference == pytest.approx(two["auc"] - one["auc"])
    measure = "mean AUC" if classes == THREE and not positive else "AUC"
    assert row.sentence.startswith(f"B's {measure} is higher") and comparison.about == (
        [positive] if positive else classes
    )
    assert ("specificity" in comparison.metrics.index) == ("threshold" in comparison.metrics.index) == bool(positive)


def test_metrics_have_their_intervals(outputs):
    _, _, _, (one, two) = _pair(outputs, 1, 2)
    metrics = compare_runs(outputs, ["r1", "r2"]).metrics
    assert metrics.columns.tolist() == ["A: r1", "B: r2"]
    low, high = two["intervals"]["recall"]
    assert metrics.loc["recall", "B: r2"] == f"{two['recall']:.3f} ({low:.3f}-{high:.3f})"
    assert metrics.loc["auc of validation", "A: r1"].startswith(f"{one['auc']:.3f} (")
    assert metrics.loc["training (seconds)"].tolist() == ["1.2", "1.2"] and metrics.notna().all(axis=None)


def test_settings_that_differ_come_first(outputs):
    labels, scores = _scores(TWO, 1.0)
    write_run(outputs, "r1", scores, labels, parameters=PARAMETERS)
    write_run(
        outputs, "r2", scores, labels, parameters=PARAMETERS | {"SVM_C": [1.0], "RUN_NAME": "two", "GROUP_BY": ""}
    )
    older = {name: value for name, value in PARAMETERS.items() if name != "SVM_C"}
    write_run(outputs, "r3", scores, labels, parameters=older)
    settings = compare_runs(outputs, ["r1", "r2"]).settings
    kinds = [("differs", "SVM_C"), ("differs", "GROUP_BY"), ("equal", "DATASET_NAME"), ("equal", "CLASSIFIER")]
    assert settings.index.tolist() == [*kinds, ("equal", "SEED")]
    assert settings["A: r1"].tolist() == ["[0.1]", "auto", "tiny", "svm", "0"]
    assert settings["B: r2"].tolist()[:2] == ["[1.0]", "''"]
    settings = compare_runs(outputs, ["r3", "r1"]).settings
    assert settings.loc[("not known of all", "SVM_C")].tolist() == ["not known", "[0.1]"]


def test_a_run_of_an_earlier_version_is_not_compared(outputs):
    labels, scores = _scores(TWO, 1.0)
    for run, parameters in (("r1", None), ("r2", PARAMETERS), ("r3", PARAMETERS)):
        write_run(outputs, run, scores, labels, parameters=parameters)
    assert comparable_runs(outputs, "r3") == ["r2"]
    with pytest.raises(ValueError, match=r"Run r1 has no parameters\.json, so it cannot be compared; train it anew\."):
        compare_runs(outputs, ["r3", "r1"])


@pytest.mark.parametrize("positive", ["7", ""])
def test_images_on_which_runs_disagree_hardest_first(outputs, positive):
    labels = np.array(["7", "007", "7", "007", "007"], object)
    one, two = np.array([0.9, 0.2, 0.3, 0.6, 0.1]), np.array([0.4, 0.3, 0.9, 0.7, 0.8])  # of class 7
    for run, score in (("r1", one), ("r2", two)):
        write_run(outputs, run, np.column_stack([1 - score, score]), labels, NUMBERS, positive)
    table = compare_runs(outputs, ["r1", "r2"]).disagreements
    # Shares of the other class's images that look more like the label, by run: 0, 2/3; 0, 1/2; 1/3, 0.
    assert table.path.tolist() == ["000.jpg", "004.jpg", "002.jpg"] and table.label.tolist() == ["7", "007", "7"]
    assert table.A.tolist() == ["7", "007", "007"] and table.B.tolist() == ["007", "7", "7"]
    assert table["A score"].tolist() == pytest.approx([0.9, 0.1 if positive else 0.9, 0.3])
    assert table["B score"].tolist() == pytest.approx([0.4, 0.8 if positive else 0.2, 0.9])


def _spoil(case: str, labels, scores) -> tuple[tuple, dict]:
    """Arguments of `write_run` for a second run that has another test, or says so."""
    other = np.where(np.arange(len(labels)) == 4, labels[1], labels)
    names = {"benign": "a", "malignant": "b"}
    return {
        "images": ((scores[:50], labels[:50]), {"parameters": PARAMETERS | {"SEED": 1}}),
        "labels": ((scores, other), {}),
        "content": ((scores, labels), {"sha256": ["new", *["same"] * (len(labels) - 1)]}),
        "classes": ((scores, np.vectorize(names.get)(labels).astype(object), ["a", "b"], "b"), {}),
        "positive": ((scores, labels, TWO, ""), {}),
    }[case]


REFUSALS = {
    "images": "10 images are in the test of only one of them .60 and 50 test images; SEED is 0 and 1.; train both with "
    "the same SEED, GROUP_BY, TEST_FRACTION and manifest",
    "labels": "1 of 60 test images have another label in the second; train both on today's data",
    "content": "1 of 60 test images have another content",
    "classes": r"classes is \['benign', 'malignant'\] in the first and \['a', 'b'\] in the second",
    "positive": "positive_class is 'malignant' in the first and '' in the second",
}


@pytest.mark.parametrize("case", REFUSALS)
def test_runs_with_different_tests_are_refused_with_the_reason(outputs, case):
    labels, scores = _scores(TWO, 1.0)
    write_run(outputs, "r1", scores, labels, sha256="same")
    arguments, columns = _spoil(case, labels, scores)
    write_run(outputs, "r2", *arguments, **columns)
    with pytest.raises(ValueError, match=f"^r1 and r2 cannot be compared: {REFUSALS[case]}"):
        compare_runs(outputs, ["r1", "r2"])
    assert comparable_runs(outputs, "r2") == []


def test_another_dataset_is_refused(outputs):
    _pair(outputs, 1, 1)
    file = outputs.runs / "r2" / "metrics.json"
    file.write_text(file.read_text().replace('"dataset": "tiny"', '"dataset": "huge"'))
    with pytest.raises(ValueError, match="dataset is 'tiny' in the first and 'huge' in the second"):
        compare_runs(outputs, ["r1", "r2"])


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([], "There are 0 runs to compare"),
        (["r1"], r"There are 1 runs to compare, \['r1'\]; name 2 to 7 of them"),
        (["r1"] * 8, "There are 8 runs"),
        (["r1", "r2", "r1"], "The runs to compare are r1, r2, r1; name each of them once"),
        (["r1", "r9"], "RUN is 'r9'; allowed are 'latest', 'best' and 'r1', 'r2'"),
    ],
)
def test_what_cannot_be_a_comparison_is_explained(outputs, runs, message):
    _pair(outputs, 1, 1)
    with pytest.raises(ValueError, match=message):
        compare_runs(outputs, runs)


def test_earlier_runs_on_the_same_test_newest_first(outputs):
    labels, scores = _scores(TWO, 1.0)
    for run in ("20260101-a", "20260102-b", "20260104-d", "20260105-e"):
        write_run(outputs, run, scores, labels)
    write_run(outputs, "20260103-other-test", scores[:40], labels[:40])
    write_json(outputs.runs / "20260103-no-tables" / "metrics.json", {})
    assert comparable_runs(outputs, "20260104-d") == ["20260102-b", "20260101-a"]
    assert comparable_runs(outputs, "20260101-a") == comparable_runs(outputs, "20260103-other-test") == []
    with pytest.raises(ValueError, match="RUN is '20260109'"):
        comparable_runs(outputs, "20260109")
