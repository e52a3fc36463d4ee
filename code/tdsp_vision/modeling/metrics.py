"""How good scores are, how sure that is, and how a score becomes a decision: a block of `metrics.json`.

Arrays: labels are class names [n]; scores float [n, K], probabilities that sum to 1, columns in the order of `classes`;
targets int [n], 0 to K - 1; groups [n] name what belongs together (a patient, a lesion, copies of a picture).

With a positive class, precision, recall, F1, AUC and average precision are about that class; without one
(`positive_class` "") they are means over the classes, each against the rest. `ece`, the calibration error, is about the
most likely class; `top5_accuracy` exists for more than five classes.

Intervals are of 95 % and count groups, not images, since ten photos of one lesion are no ten independent cases. They
come from formulas that keep their promise for few images and cannot be zero wide where nothing was wrong: Wilson's for
shares, Newcombe's for the AUC, and for means over the classes the combination by Zou and Donner.
"""

import numpy as np
import pandas as pd
from scipy.stats import t
from sklearn import metrics as sk

from tdsp_vision.data.quality import auc_and_influence

FEWEST_GROUPS = 5  # of each class, for an interval: with fewer it is right and so wide that it says nothing
OF_ALL_IMAGES = ("accuracy", "top5_accuracy")  # their intervals need no class to be large enough
RATES = ("precision", "recall", "f1", "n")  # as scikit-learn gives them
BINS = 10  # of the calibration error
Z = 1.959964  # 95 % of a normal distribution lie within so many deviations
SHOWN = ["accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", "average_precision"]  # in tables
SHOWN += ["ece", "top5_accuracy"]
SLACK = 1e-12  # shares such as 9 / 10 and 1 - 0.1 differ in their last bit


def decide(scores: np.ndarray, classes: list[str], positive_class: str, threshold: float | list[float]) -> np.ndarray:
    """Class names [n] for scores [n, K]; `threshold` comes from `choose_threshold`.

    With a positive class: that class where its score reaches `threshold`, else the best of the others. Without:
    the class whose score is highest relative to its share [K]. By the scores alone a class that holds two thirds of
    the images would nearly always be named, and the rare ones hardly ever be found.
    """
    names = np.array(classes, dtype=object)
    scores = np.asarray(scores, np.float64)  # in float32 a threshold between two neighbours could round onto one
    if not positive_class:
        return names[(scores / threshold).argmax(axis=1)]
    positive = classes.index(positive_class)
    others = np.where(np.arange(len(classes)) == positive, -np.inf, scores)
    return np.where(scores[:, positive] >= threshold, positive_class, names[others.argmax(axis=1)])


def choose_threshold(
    labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str, wanted_sensitivity=None
) -> float | list[float]:
    """The threshold for `decide`. Pass the validation side, never the test side.

    With a positive class it lies midway between two neighbouring scores, so rounding does not decide a case. Without
    one it is the share of each class [K], above 0: calibrated scores divided by it favour no class, which is the
    counterpart of the highest balanced accuracy.

    Args:
        wanted_sensitivity: above 0, at most 1: the highest threshold that finds this share of the positive images.
            The promise holds on validation only: with 20 positive images there, a sensitivity of 0.95 is one miss,
            and the test may well show less. None: the highest balanced accuracy (Youden 1950,
            doi 10.1002/1097-0142(1950)3:1<32).
    """
    if not positive_class:
        counts = [max(int((labels == name).sum()), 1) for name in classes]  # a class that is absent may be called
        return [count / len(labels) for count in counts]
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


def evaluate(
    labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str, threshold, groups=None
) -> dict:
    """One block of `metrics.json`, `validation` or `test`; plain floats, None where a number has no meaning.

    Time and memory grow with n and K, not with K²: 20,000 images of 200 classes take seconds.

    Args:
        labels: class names [n], each class at least once.
        scores: float [n, K].
        threshold: from `choose_threshold`.
        groups: [n], the column `group` of the manifest; None: each image stands for itself.

    Returns:
        each metric by name; `intervals`, name to [low, high] or None; `no_interval`, the sentence why, or None;
        `auc_ci`, the interval of the AUC once more; `per_class`, `confusion_matrix`, `n`, `threshold`.
    """
    scores, index = np.asarray(scores, np.float64), pd.Index(classes)
    calls = index.get_indexer(decide(scores, classes, positive_class, threshold))
    targets = index.get_indexer(np.asarray(labels, object))
    truths, groups = targets[:, None] == np.arange(len(classes)), _numbered(groups, len(targets))
    each = _of_each_class(truths, targets, calls, scores).set_axis(index)
    averaged = each[["precision", "recall", "f1", "auc", "average_precision"]]
    block = averaged.loc[[positive_class] if positive_class else classes].mean().to_dict()
    block |= {"accuracy": float((calls == targets).mean()), "balanced_accuracy": float(each.recall.mean())}
    block["ece"] = calibration_error(scores.max(axis=1), scores.argmax(axis=1) == targets)
    if len(classes) > 5:
        above_own = (scores > scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)
        block["top5_accuracy"] = float((above_own < 5).mean())
    positive = classes.index(positive_class) if positive_class else None
    block |= {"sensitivity": block["recall"] if positive_class else None}
    block |= {"specificity": float(each.specificity[positive_class]) if positive_class else None}
    reason = _too_few(classes, targets, groups, positive)
    found = _intervals(block, each.recall.to_numpy(), truths, calls, scores, groups, positive)
    intervals = {name: None if reason and name not in OF_ALL_IMAGES else pair for name, pair in found.items()}
    block |= {"intervals": intervals, "auc_ci": intervals["auc"], "no_interval": reason or None}
    matrix = sk.confusion_matrix(targets, calls, labels=range(len(classes)))
    block |= {"per_class": each.to_dict("index"), "confusion_matrix": matrix.tolist()}
    return block | {"n": len(labels), "threshold": threshold}


def side_by_side(blocks: dict[str, dict]) -> pd.DataFrame:
    """Blocks by their names as a table of text: a row for each metric, with its 95 % interval in brackets."""

    def said(block: dict, name: str) -> str:
        value, pair = block.get(name), block["intervals"].get(name)
        interval = " ({:.3f} to {:.3f})".format(*pair) if pair else ""
        return "" if value is None else f"{value:.3f}{interval}"

    table = pd.DataFrame({side: [said(block, name) for name in SHOWN] for side, block in blocks.items()}, SHOWN)
    return table[(table != "").any(axis=1)]


def _of_each_class(truths: np.ndarray, targets: np.ndarray, calls: np.ndarray, scores: np.ndarray) -> pd.DataFrame:
    """A row for each class against the rest: truths bool [n, K], targets and calls int [n], scores [n, K]."""
    kinds = range(scores.shape[1])
    given = {"labels": kinds, "zero_division": 0}
    found = dict(zip(RATES, sk.precision_recall_fscore_support(targets, calls, **given), strict=True))
    alarms = np.bincount(calls[calls != targets], minlength=len(kinds))
    found |= {"specificity": 1 - alarms / (len(targets) - found["n"]), "auc": auc_and_influence(truths, scores)[0]}
    found["average_precision"] = [sk.average_precision_score(truths[:, k], scores[:, k]) for k in kinds]
    return pd.DataFrame(found)


def calibration_error(probability: np.ndarray, happened: np.ndarray) -> float:
    """Mean gap between promised and observed share over 10 equal bins, weighted by their images (Guo et al. 2017).

    Args:
        probability: float [n], 0 to 1: of the most likely class, or of one class.
        happened: bool [n]: that class was right.
    """
    bins = np.minimum((np.asarray(probability) * BINS).astype(int), BINS - 1)
    return float(np.abs(np.bincount(bins, np.asarray(probability, float) - happened)).sum() / len(bins))


def _numbered(groups: np.ndarray | None, n: int) -> np.ndarray:
    """Group of each image as int [n], from 0 on."""
    return pd.factorize(np.arange(n) if groups is None else np.asarray(groups))[0]


def _count(groups: np.ndarray, chosen: np.ndarray) -> int:
    return len(np.unique(groups[chosen]))


def _too_few(classes: list[str], targets: np.ndarray, groups: np.ndarray, positive: int | None) -> str:
    """Why there are no intervals by class, a sentence; "" where there are."""
    sides = {name: targets == k for k, name in enumerate(classes)}
    if positive is not None:
        sides = {classes[positive]: targets == positive, "all other classes": targets != positive}
    count, name = min((_count(groups, chosen), name) for name, chosen in sides.items())
    if count >= FEWEST_GROUPS:
        return ""
    return (
        f"No 95 % interval but that of the accuracy: the images of {name} ({sides[name].sum()}) count as {count} "
        f"independent case{'s' * (count > 1)}; below {FEWEST_GROUPS} cases of a class an interval says nothing."
    )


def _intervals(block: dict, recall: np.ndarray, truths, calls, scores, groups, positive: int | None) -> dict:
    """[low, high] by name, as if there were groups enough."""
    found = {name: share_interval(block[name], _count(groups, ...)) for name in OF_ALL_IMAGES if name in block}
    sizes = [_count(groups, truth) for truth in truths.T]
    limits = np.array([share_interval(share, n) for share, n in zip(recall, sizes, strict=True)])
    right = truths[np.arange(len(calls)), calls]
    influence = truths * (right[:, None] - recall) / truths.sum(axis=0)
    found["balanced_accuracy"] = _mean_interval(recall, limits, influence, groups)
    if positive is None:
        about = slice(1, None) if len(sizes) == 2 else slice(None)  # of two classes, both have the same curve
        found["recall"] = found["balanced_accuracy"]
    else:
        about, truth = slice(positive, positive + 1), truths[:, positive]
        found["recall"] = found["sensitivity"] = limits[positive].tolist()
        found["specificity"] = share_interval(block["specificity"], _count(groups, ~truth))
        found["precision"] = share_interval(block["precision"], _count(groups, calls == positive))
    return found | {"auc": auc_with_interval(truths[:, about], scores[:, about], groups)[1]}


def share_interval(share: float, n: int) -> list[float] | None:
    """95 % interval [low, high] of a share of n cases (Wilson 1927, doi 10.2307/2276774); None for n = 0."""
    if n == 0:
        return None
    middle, half = share + Z**2 / (2 * n), Z * np.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    low, high = (middle - half) / (1 + Z**2 / n), (middle + half) / (1 + Z**2 / n)
    return [max(float(min(low, share)), 0.0), min(float(max(high, share)), 1.0)]


def auc_interval(area: float, inside: int, outside: int) -> list[float]:
    """95 % interval [low, high] of an AUC from so many cases inside and outside the class.

    Method 5 of Newcombe 2006 (doi 10.1002/sim.2324): all areas that the measured one does not contradict. With binormal
    scores it holds the true one in 93 to 98 of 100 tests from a single case of the class on; the percentile bootstrap
    in 28 with one case, 61 with two and 84 with five.
    """
    areas = np.append(np.linspace(0, 1, 2001), area)
    pairs = (inside + outside) / 2 - 1
    variance = areas * (1 - areas) * (1 + pairs * ((1 - areas) / (2 - areas) + areas / (1 + areas)))
    possible = areas[np.abs(areas - area) <= Z * np.sqrt(variance / (inside * outside))]
    return [float(possible.min()), float(possible.max())]


def auc_with_interval(truth: np.ndarray, score: np.ndarray, groups: np.ndarray) -> tuple[float, list[float]]:
    """AUC and its 95 % interval [low, high]: truth bool and score float [n], or both [n, k]: then of the mean of k."""
    truth, score = (np.reshape(array, (len(truth), -1)) for array in (truth, score))
    areas, influence = auc_and_influence(truth, score)
    sizes = [(_count(groups, side), _count(groups, ~side)) for side in truth.T]
    limits = np.array([auc_interval(area, *size) for area, size in zip(areas, sizes, strict=True)])
    return float(areas.mean()), _mean_interval(areas, limits, influence, groups)


def _mean_interval(values: np.ndarray, limits: np.ndarray, influence: np.ndarray, groups: np.ndarray) -> list[float]:
    """Interval of the mean of [K] values from the limits [K, 2] of each (Zou and Donner 2008, doi 10.1002/sim.3095).

    influence [n, K]: what each image contributes; its sums over the groups tell how the values go together.
    """
    sums = pd.DataFrame(influence).groupby(groups).sum().to_numpy()
    sums = sums / np.where(sums.any(axis=0), np.linalg.norm(sums, axis=0), 1)
    together = sums.T @ sums
    np.fill_diagonal(together, 1)
    below, above = (np.abs(limits[:, side] - values) for side in (0, 1))
    low, high = (np.sqrt(max(width @ together @ width, 0)) / len(values) for width in (below, above))
    return [float(max(values.mean() - low, 0)), float(min(values.mean() + high, 1))]


def paired_auc_difference(
    truth: np.ndarray, first: np.ndarray, second: np.ndarray, groups=None
) -> tuple[float, list[float] | None]:
    """AUC of `second` minus AUC of `first`, and its 95 % interval [low, high]: two models on the same images.

    What is hard for both cancels; two separate intervals that overlap say less. By the contributions of whole groups
    (DeLong et al. 1988; Obuchowski 1997, doi 10.2307/2533959) with Student's t for few groups.

    Args:
        truth: bool, of one class [n], or of k classes against the rest [n, k]: then of the mean of their AUCs.
        first, second: float, the scores of the two; as `truth`.
        groups: [n], what belongs together; None: each image stands for itself.

    Returns:
        difference; interval, None where a class has fewer than 5 groups, or where both order every pair of images
        alike, so that nothing is known about how a difference would vary.
    """
    truth, groups = np.reshape(truth, (len(truth), -1)), _numbered(groups, len(truth))
    pair = [auc_and_influence(truth, np.asarray(scores, float).reshape(truth.shape)) for scores in (first, second)]
    difference, influence = ((after - before).mean(axis=-1) for before, after in zip(*pair, strict=True))
    sums = np.bincount(groups, influence)
    fewest = min(_count(groups, side) for column in truth.T for side in (column, ~column))
    error = np.sqrt((sums**2).sum() * fewest / max(fewest - 1, 1))
    if fewest < FEWEST_GROUPS or error == 0:
        return float(difference), None
    half = t.ppf(0.975, fewest - 1) * error
    return float(difference), [float(difference - half), float(difference + half)]
