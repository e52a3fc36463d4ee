"""The same predictions scored by the package that scores the ISIC challenges give the same numbers."""

import numpy as np
import pandas as pd
import pytest
from isic_challenge_scoring.classification import ClassificationMetric, ClassificationScore

from tdsp_vision.modeling.evaluate import evaluate

TWO, LESIONS = ["benign", "malignant"], ["AK", "BCC", "MEL", "NV"]
NAMES = {"auc": "auc", "average_precision": "ap", "auc_sens_80": "auc_sens_80"}


def _case(classes: list[str], n: int, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal frequency, and scores that know something about them, some of them equal."""
    rng = np.random.default_rng(len(classes))
    targets = np.minimum(rng.integers(0, len(classes) + 2, n), len(classes) - 1)
    logits = rng.normal(size=[n, len(classes)]) + 1.5 * np.eye(len(classes))[targets]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # The challenge counts two equally likely classes as no answer, so of those there are none here.
    return np.array(classes, dtype=object)[targets], scores.round(digits) + np.arange(len(classes)) * 1e-7


def _challenge(labels: np.ndarray, scores: np.ndarray, classes: list[str]) -> ClassificationScore:
    images = [f"ISIC_{i:07d}" for i in range(len(labels))]
    truth = pd.DataFrame({name: (labels == name).astype(float) for name in classes}, images)
    weights = pd.DataFrame(1.0, images, ["score_weight", "validation_weight"])
    predictions = pd.DataFrame(scores, images, classes)
    return ClassificationScore(truth, predictions, weights, ClassificationMetric.BALANCED_ACCURACY)


@pytest.mark.parametrize("digits", [2, 6])
@pytest.mark.parametrize("positive", TWO)
def test_two_classes(positive, digits):
    labels, scores = _case(TWO, 300, digits)
    block = evaluate(labels, scores, TWO, positive, 0.5 + 1e-9, 0)  # the challenge calls what lies above 0.5
    row = _challenge(labels, scores, TWO).per_category.loc[positive]
    names = NAMES | {"accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity"}
    names |= {"precision": "ppv", "f1": "dice"}
    assert {ours: block[ours] for ours in names} == pytest.approx({ours: row[name] for ours, name in names.items()})


@pytest.mark.parametrize("digits", [2, 6])
@pytest.mark.parametrize("classes", [TWO, LESIONS])
def test_many_classes(classes, digits):
    labels, scores = _case(classes, 400, digits)
    block = evaluate(labels, scores, classes, "", None, 0)
    score = _challenge(labels, scores, classes)
    assert block["balanced_accuracy"] == pytest.approx(score.overall)
    assert {ours: block[ours] for ours in NAMES} == pytest.approx(
        {ours: score.macro_average[name] for ours, name in NAMES.items()}
    )
    for name, row in block["per_class"].items():
        theirs = score.per_category.loc[name]
        assert (row["auc"], row["average_precision"]) == pytest.approx((theirs.auc, theirs.ap))
    assert block["balanced_accuracy"] < 0.9 and block["auc"] > 0.7
