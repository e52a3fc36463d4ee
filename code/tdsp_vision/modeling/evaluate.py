"""How good the scores are and how far to trust that: everything that `metrics.json` holds.

Arrays: labels are class names [n]; scores are float [n, K] probabilities, columns in the order of `classes`.
With a positive class, precision, recall, F1, AUC and average precision are about that class; without one
(`positive_class` "") they are means over the classes. `ece` is about the most likely class, `ece_positive` about the
score of the positive one; `brier` ends at 1 for two classes, else at 2; `log_loss` is in nats; `auc_sens_80` and
`partial_auc_80` are the two areas of `areas_above`. `intervals` holds [low, high], 95 %, of each metric that has one;
those of the calibration errors lie high, since drawing again adds noise, and noise is error.
"""

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from tdsp_vision.modeling.intervals import bootstrap
from tdsp_vision.modeling.metrics import Case, auc_of_class, by_class, overall
from tdsp_vision.modeling.thresholds import areas_above, decide, sensitivity_at

SPECIFICITIES = (0.80, 0.90, 0.95)


def evaluate(
    labels: np.ndarray,
    scores: np.ndarray,
    classes: list[str],
    positive_class: str,
    threshold: float | None,
    seed: int,
    groups: np.ndarray | None = None,
) -> dict:
    """One block of `metrics.json`, `validation` or `test`; plain floats, None where a number has no meaning.

    Args:
        labels: class names [n], each class at least once.
        scores: float [n, K].
        threshold: from `choose_threshold`; None without a positive class.
        seed: of the bootstrap.
        groups: [n], what belongs together (the column `group` of the manifest); None: each image stands for itself.

    Raises:
        ValueError: if a class has no image, or a label is no class.
    """
    case = _case(labels, scores, classes, positive_class, threshold)
    once = np.ones((1, len(case.targets)))
    block = {name: value.item() for name, value in overall(case, once).items()}
    intervals = bootstrap(lambda weights: overall(case, weights), case.targets, groups, seed)
    about = range(len(classes)) if case.positive is None else [case.positive]
    areas = np.mean([areas_above(case.targets == k, case.scores[:, k]) for k in about], axis=0).tolist()
    block |= {"auc_sens_80": areas[0], "partial_auc_80": areas[1]}
    block |= _at_specificities(case) | {"auc_ci": intervals["auc"], "intervals": intervals, "threshold": threshold}
    each, counts = by_class(case, once), np.bincount(case.targets)
    block["per_class"] = {
        name: {metric: float(values[0, k]) for metric, values in each.items()} | {"n": int(counts[k])}
        for k, name in enumerate(classes)
    }
    matrix = sk.confusion_matrix(case.targets, case.calls, labels=range(len(classes)))
    return block | {"confusion_matrix": matrix.tolist(), "n": len(labels)}


def auc(targets: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve of [n, K] scores or margins: of class 1 with two classes, else one against rest, macro.

    NaN where a class is missing from `targets`, since no curve exists then.
    """
    present = np.unique(targets)
    if len(present) < scores.shape[1]:
        return float("nan")
    once = np.ones((1, len(targets)))
    return float(np.mean([auc_of_class(targets == k, scores[:, k], once) for k in present]))


def _case(labels, scores, classes: list[str], positive_class: str, threshold: float | None) -> Case:
    calls = decide(scores, classes, positive_class, threshold)
    targets, calls = (pd.Index(classes).get_indexer(np.asarray(names, object)) for names in (labels, calls))
    missing = [name for k, name in enumerate(classes) if not (targets == k).any()]
    if missing or (targets < 0).any():
        raise ValueError(
            f"The labels to evaluate are {sorted(set(labels))} and the classes {classes}; each class needs an image, "
            "and each image a class."
        )
    positive = classes.index(positive_class) if positive_class else None
    return Case(targets, calls, np.asarray(scores, np.float64), positive)


def _at_specificities(case: Case) -> dict:
    if case.positive is None:
        return dict.fromkeys(("sensitivity_at_specificity", "sensitivity", "specificity", "ece_positive"))
    truth, score = case.targets == case.positive, case.scores[:, case.positive]
    return {"sensitivity_at_specificity": {f"{s:.2f}": sensitivity_at(truth, score, s) for s in SPECIFICITIES}}
