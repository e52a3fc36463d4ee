"""How good the scores are and how far to trust that: everything that `metrics.json` holds.

Arrays: labels are class names [n]; scores are float [n, K] probabilities, columns in the order of `classes`.
With a positive class, precision, recall, F1, AUC and average precision are about that class; without one
(`positive_class` "") they are means over the classes.
"""

import numpy as np
from scipy.stats import rankdata
from sklearn import metrics as sk

BOOTSTRAP_SAMPLES = 1000


def decide(scores: np.ndarray, classes: list[str], positive_class: str, threshold: float | None) -> np.ndarray:
    """Class names [n] for scores [n, K].

    With a positive class: that class where its score reaches `threshold`, else the best of the others. Without:
    the class with the highest score.
    """
    names = np.array(classes, dtype=object)
    if not positive_class:
        return names[scores.argmax(axis=1)]
    scores = np.asarray(scores, np.float64)  # in float32 a threshold between two neighbours could round onto one
    positive = classes.index(positive_class)
    others = np.where(np.arange(len(classes)) == positive, -np.inf, scores)
    return np.where(scores[:, positive] >= threshold, positive_class, names[others.argmax(axis=1)])


def choose_threshold(labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str) -> float | None:
    """The threshold with the highest balanced accuracy (Youden 1950, doi 10.1002/1097-0142(1950)3:1<32); None
    without a positive class. Pass the validation side, never the test side.

    It lies midway between two neighbouring scores, so rounding does not decide a case.
    """
    if not positive_class:
        return None
    score = np.asarray(scores[:, classes.index(positive_class)], np.float64)
    false_rate, true_rate, points = sk.roc_curve(labels == positive_class, score, drop_intermediate=False)
    # The first point, above every score, is left out: calling nothing positive is no better than calling everything.
    best = points[1:][np.argmax((true_rate - false_rate)[1:])]
    below = score[score < best]
    lower = below.max() if len(below) else 0.0
    middle = (best + lower) / 2
    return float(middle if middle > lower else best)  # between neighbouring floats there is no middle


def evaluate(
    labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str, threshold: float | None, seed: int
) -> dict:
    """One block of `metrics.json`, `validation` or `test`; plain floats, None where a number has no meaning.

    Args:
        labels: class names [n], each class at least once.
        scores: float [n, K].
        threshold: from `choose_threshold`; None without a positive class.
        seed: of the bootstrap.
    """
    labels = np.asarray(labels, dtype=object)
    predicted = decide(scores, classes, positive_class, threshold)
    confusion = sk.confusion_matrix(labels, predicted, labels=classes)
    per_class = _per_class(labels, predicted, scores, classes)
    block = {
        "accuracy": float(sk.accuracy_score(labels, predicted)),
        "balanced_accuracy": float(np.mean([row["recall"] for row in per_class.values()])),
    }
    about = [per_class[positive_class]] if positive_class else list(per_class.values())
    for name in ("precision", "recall", "f1", "auc", "average_precision"):
        block[name] = float(np.mean([row[name] for row in about]))
    block["auc_ci"] = auc_interval(labels, scores, classes, positive_class, seed)
    block["ece"] = expected_calibration_error(labels, scores, classes)
    block["threshold"] = threshold
    block["sensitivity"] = block["recall"] if positive_class else None
    block["specificity"] = _specificity(labels, predicted, positive_class) if positive_class else None
    return block | {"per_class": per_class, "confusion_matrix": confusion.tolist(), "n": len(labels)}


def auc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of [n, K] scores or margins: of class 1 with two classes, else one against rest, macro.

    NaN where a class is missing from `targets`, since no curve exists then.
    """
    present = np.unique(targets)
    if len(present) < scores.shape[1]:
        return float("nan")
    return float(np.mean([sk.roc_auc_score(targets == k, scores[:, k]) for k in present]))


def auc_interval(
    labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str, seed: int
) -> list[float]:
    """95 % percentile interval [low, high] of the AUC: images drawn again with replacement, within each class.

    Stratified bootstrap (Efron and Tibshirani 1993, chapter 13); it covers the luck of the test set's draw, not
    that of training.
    """
    rng = np.random.default_rng(seed)
    members = [np.flatnonzero(labels == name) for name in classes]
    about = [positive_class] if positive_class else classes
    columns = [classes.index(name) for name in about]
    draws = []
    for _ in range(BOOTSTRAP_SAMPLES):
        rows = np.concatenate([rng.choice(group, len(group)) for group in members])
        aucs = [_auc_by_ranks(labels[rows] == classes[k], scores[rows, k]) for k in columns]
        draws.append(np.mean(aucs))
    low, high = np.percentile(draws, [2.5, 97.5])
    return [float(low), float(high)]


def expected_calibration_error(labels: np.ndarray, scores: np.ndarray, classes: list[str], bins: int = 10) -> float:
    """Mean gap between how sure the most likely class is and how often it is right, over equal-width bins of
    confidence, weighted by their images (Guo et al. 2017, arXiv:1706.04599); 0 is perfect, 1 the worst.
    """
    confidence = scores.max(axis=1)
    correct = np.array(classes, dtype=object)[scores.argmax(axis=1)] == labels
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        abs(confidence[place == b].mean() - correct[place == b].mean()) * (place == b).mean() for b in np.unique(place)
    ]
    return float(np.sum(gaps))


def _auc_by_ranks(positive: np.ndarray, score: np.ndarray) -> float:
    """The same area by the sum of ranks (Mann and Whitney 1947), 20 times faster: the bootstrap takes thousands."""
    n = positive.sum()
    wins = rankdata(score)[positive].sum() - n * (n + 1) / 2
    return wins / (n * (len(positive) - n))


def _per_class(labels: np.ndarray, predicted: np.ndarray, scores: np.ndarray, classes: list[str]) -> dict[str, dict]:
    table = sk.precision_recall_fscore_support(labels, predicted, labels=classes, zero_division=0.0)
    rows = {}
    for k, name in enumerate(classes):
        precision, recall, f1, n = (column[k] for column in table)
        of_class = labels == name
        rows[name] = {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "auc": float(sk.roc_auc_score(of_class, scores[:, k])),
            "average_precision": float(sk.average_precision_score(of_class, scores[:, k])),
            "n": int(n),
        }
    return rows


def _specificity(labels: np.ndarray, predicted: np.ndarray, positive_class: str) -> float:
    negative = labels != positive_class
    return float(np.mean(predicted[negative] != positive_class))
