"""The metrics themselves, for many weightings of the same images at once: the bootstrap takes a thousand.

Arrays: weights float [b, n] say how often each image counts in each of b draws (`np.ones((1, n))`: once); truth bool
[n] and score float [n] are of one class. Where a class has no image in a draw, its numbers are NaN.
"""

from typing import NamedTuple

import numpy as np

from tdsp_vision.modeling.calibration import expected_calibration_error

SMALLEST = float(np.finfo(np.float32).eps)  # scores are float32; a logarithm of 0 would end every mean


class Case(NamedTuple):
    """What is measured: targets and calls int [n], 0 to K - 1; scores float64 [n, K]; the positive class's number."""

    targets: np.ndarray
    calls: np.ndarray
    scores: np.ndarray
    positive: int | None


def overall(case: Case, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each headline metric as float [b]; about the positive class, without one means over the classes."""
    each, total = by_class(case, weights), weights.sum(axis=1)
    right, surest = case.targets == case.calls, case.scores.max(axis=1)
    about = slice(None) if case.positive is None else [case.positive]
    found = {"accuracy": weights @ right / total, "balanced_accuracy": each["recall"].mean(axis=1)}
    found |= {name: each[name][:, about].mean(axis=1) for name in ("precision", "recall", "f1", "auc")}
    found |= {"average_precision": each["average_precision"][:, about].mean(axis=1)}
    found |= {"macro_auc": each["auc"].mean(axis=1)}
    found |= {"ece": expected_calibration_error(surest, case.scores.argmax(axis=1) == case.targets, weights)}
    if case.positive is not None:
        found |= {"sensitivity": found["recall"], "specificity": each["specificity"][:, case.positive]}
        of_class = case.scores[:, case.positive], case.targets == case.positive
        found |= {"ece_positive": expected_calibration_error(*of_class, weights)}
    return found | {name: weights @ losses / total for name, losses in _losses(case).items()}


def by_class(case: Case, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Precision, recall, F1, specificity, AUC and average precision of each class against the rest, float [b, K]."""
    n_classes = case.scores.shape[1]
    cells = np.eye(n_classes**2)[case.targets * n_classes + case.calls]
    confusion = (weights @ cells).reshape(-1, n_classes, n_classes)  # rows true, columns called
    hits, true, called = np.einsum("bkk->bk", confusion), confusion.sum(axis=2), confusion.sum(axis=1)
    others = weights.sum(axis=1, keepdims=True) - true
    curves = [(case.targets == k, case.scores[:, k], weights) for k in range(n_classes)]
    return {
        "precision": _share(hits, called, 0.0),
        "recall": _share(hits, true, np.nan),
        "f1": _share(2 * hits, true + called, 0.0),
        "specificity": _share(others - called + hits, others, np.nan),
        "auc": np.column_stack([auc_of_class(*curve) for curve in curves]),
        "average_precision": np.column_stack([average_precision(*curve) for curve in curves]),
    }


def auc_of_class(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Area under the ROC curve, float [b], as the share of pairs in the right order (Mann and Whitney 1947)."""
    inside, outside = _by_score(truth, score, weights)
    wins = (inside * (outside.cumsum(axis=1) - outside / 2)).sum(axis=1)
    return _share(wins, inside.sum(axis=1) * outside.sum(axis=1), np.nan)


def average_precision(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean precision over the found images of the class, float [b]; scikit-learn's definition, no interpolation."""
    inside, outside = (part[:, ::-1] for part in _by_score(truth, score, weights))
    found = inside.cumsum(axis=1)
    precision = _share(found, found + outside.cumsum(axis=1), 0.0)
    return _share((inside * precision).sum(axis=1), found[:, -1], np.nan)


def _losses(case: Case) -> dict[str, np.ndarray]:
    """Per image: the Brier score (Brier 1950; of two classes one is counted, so it ends at 1) and minus log score."""
    rows = np.arange(len(case.targets))
    squares = (case.scores - np.eye(case.scores.shape[1])[case.targets]) ** 2
    brier = squares.sum(axis=1) / (2 if case.scores.shape[1] == 2 else 1)
    return {"brier": brier, "log_loss": -np.log(case.scores[rows, case.targets].clip(SMALLEST, 1 - SMALLEST))}


def _by_score(truth: np.ndarray, score: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weight inside and outside the class for each different score, lowest first, [b, scores]."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    weights, truth = weights[:, order], truth[order]
    return tuple(np.add.reduceat(weights * chosen, starts, axis=1) for chosen in (truth, ~truth))


def _share(part: np.ndarray, whole: np.ndarray, empty: float) -> np.ndarray:
    return np.divide(part, whole, out=np.full(np.shape(part), empty), where=whole > 0)
