"""From scores to decisions: the threshold, chosen on validation, and what the ROC curve offers at other ones.

Arrays: labels are class names [n]; scores are float [n, K] probabilities, columns in the order of `classes`; truth is
bool [n] and score float [n], both of the positive class.
"""

import numpy as np
from sklearn import metrics as sk

SLACK = 1e-12  # shares such as 9 / 10 and 1 - 0.1 differ in their last bit


def decide(scores: np.ndarray, classes: list[str], positive_class: str, threshold: float | None) -> np.ndarray:
    """Class names [n] for scores [n, K].

    With a positive class: that class where its score reaches `threshold`, else the best of the others. Without:
    the class with the highest score.

    Raises:
        ValueError: if there is a positive class and no threshold.
    """
    names = np.array(classes, dtype=object)
    if not positive_class:
        return names[scores.argmax(axis=1)]
    if threshold is None:
        raise ValueError(
            f"The positive class is {positive_class!r}, and the threshold is None; take the number that "
            "`choose_threshold` finds on validation, or '' as positive class."
        )
    scores = np.asarray(scores, np.float64)  # in float32 a threshold between two neighbours could round onto one
    positive = classes.index(positive_class)
    others = np.where(np.arange(len(classes)) == positive, -np.inf, scores)
    return np.where(scores[:, positive] >= threshold, positive_class, names[others.argmax(axis=1)])


def choose_threshold(
    labels: np.ndarray,
    scores: np.ndarray,
    classes: list[str],
    positive_class: str,
    wanted_sensitivity: float | None = None,
) -> float | None:
    """The threshold for `decide`; None without a positive class. Pass the validation side, never the test side.

    It lies midway between two neighbouring scores, so rounding does not decide a case.

    Args:
        wanted_sensitivity: above 0, at most 1: the highest threshold that finds this share of the positive images.
            The promise holds on validation only: with 20 positive images there, a sensitivity of 0.95 is one miss,
            and the test may well show less. None: the highest balanced accuracy (Youden 1950,
            doi 10.1002/1097-0142(1950)3:1<32).

    Raises:
        ValueError: if the wanted sensitivity is none.
    """
    if wanted_sensitivity is not None and not 0 < wanted_sensitivity <= 1:
        raise ValueError(f"The wanted sensitivity is {wanted_sensitivity}; allowed is above 0, at most 1, or None.")
    if not positive_class:
        return None
    score = np.asarray(scores[:, classes.index(positive_class)], np.float64)
    false_rate, true_rate, points = sk.roc_curve(labels == positive_class, score, drop_intermediate=False)
    # The first point, above every score, is left out: calling nothing positive is no better than calling everything.
    if wanted_sensitivity is None:
        best = points[1:][np.argmax((true_rate - false_rate)[1:])]
    else:
        best = points[1:][np.argmax(true_rate[1:] >= wanted_sensitivity - SLACK)]
    below = score[score < best]
    lower = below.max() if len(below) else 0.0
    middle = (best + lower) / 2
    return float(middle if middle > lower else best)  # between neighbouring floats there is no middle


def sensitivity_at(truth: np.ndarray, score: np.ndarray, specificity: float) -> float:
    """The highest sensitivity on the ROC curve whose specificity is at least the given one; nothing is interpolated."""
    false_rate, true_rate, _ = sk.roc_curve(truth, score, drop_intermediate=False)
    return float(true_rate[1 - false_rate >= specificity - SLACK].max())


def areas_above(truth: np.ndarray, score: np.ndarray, sensitivity: float = 0.8) -> tuple[float, float]:
    """Two areas of the ROC curve where the sensitivity is at least the given one: how good a *usable* test is.

    Returns:
        the area from there down to the axis, 0 to 1 (`auc_sens_80` of the ISIC challenges 2018 and 2019, package
        isic-challenge-scoring); and its part above the line of that sensitivity, 0 to 1 - sensitivity (`pAUC` of the
        ISIC challenge 2024; guessing gives (1 - sensitivity)² / 2, at 0.8 that is 0.02 of 0.2).
    """
    false_rate, true_rate, _ = sk.roc_curve(truth, score, drop_intermediate=False)
    first = true_rate.searchsorted(sensitivity)
    start = np.interp(sensitivity, true_rate[first - 1 : first + 1], false_rate[first - 1 : first + 1])
    down_to_axis = sk.auc([start, *false_rate[first:]], [sensitivity, *true_rate[first:]])
    return float(down_to_axis), float(down_to_axis - sensitivity * (1 - start))
