"""A linear support vector machine on frozen features.

Arrays: features float32 [n, d]; targets int [n], 0 to K - 1 in the order of the classes; margins [n, K], the signed
distances that the machine gives each class. Keras is not imported here: the processes that try values of C need none.
"""

import os
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tdsp_vision.modeling.calibration import calibrate, calibrated
from tdsp_vision.modeling.splits import group_folds

MAX_ITERATIONS = 20_000
LEAST_DEVIATION = 0.01  # of the median feature's
WORTH_A_PROCESS = 10_000_000  # numbers: a fit of fewer is done before another process has started


class Standardizer(StandardScaler):
    """Mean 0 and deviation 1 for each feature, but for those that hardly vary in training: these stay small.

    A feature that is 0 in all training images but one would otherwise be blown up until, in a new image, it outweighs
    all others together. No deviation counts as less than `LEAST_DEVIATION` of the median one.
    """

    def fit(self, X, y=None, sample_weight=None):
        super().fit(X, y, sample_weight)
        varying = self.scale_[self.scale_ != 1]  # scikit-learn gives a constant feature the scale 1
        self.scale_ = np.maximum(self.scale_, LEAST_DEVIATION * np.median(varying) if len(varying) else 0)
        return self


def build_svm(c: float, seed: int) -> Pipeline:
    """Standardize each feature, then a linear SVM in which each class weighs the same however rare it is."""
    svm = LinearSVC(C=c, class_weight="balanced", dual=True, random_state=seed, max_iter=MAX_ITERATIONS)
    return make_pipeline(Standardizer(), svm)


class Sweep(NamedTuple):
    """What `sweep_c` found."""

    table: pd.DataFrame  # c, auc_mean, auc_deviation, log_loss: one row for each C that was tried, smallest first
    c: float  # the best
    margins: np.ndarray  # [originals, K] of that C, each image's by a machine that did not see its group
    remark: str  # what should be known about the choice; "" for nothing


def sweep_c(
    features, targets, groups, c_values: list, seed: int, positive: int | None = None, originals: int | None = None
) -> Sweep:
    """Choose C by cross-validation in whole groups; pass the training side only.

    By AUC where one class is the positive one, else by the log loss of the calibrated margins. The values are tried
    from the smallest on, and no larger ones once one is worse: these take longest.

    Args:
        features, targets, groups: arrays [n, …], of the images to learn from.
        c_values: penalties to try; small ones regularize more.
        seed: of the folds and the solver.
        positive: number of the positive class.
        originals: how many of the n, at the start, are pictures themselves; the others are copies (of their groups),
            which are learned from and not judged by. None: all.

    Raises:
        ValueError: if a class is one group only, which leaves nothing to learn it from or to judge it by.
    """
    folds, truth, values = group_folds(targets, groups, seed), targets[:originals], sorted(c_values)
    if not folds:
        single = "C cannot be chosen: a class is a single group on the training side"
        raise ValueError(f"{single}; add images of other cases, or leave small classes out by MIN_CLASS_SIZE.")
    judged = [rows[rows < len(truth)] for _, rows in folds]
    jobs = os.cpu_count() if features.size * (targets.max() + 1) > WORTH_A_PROCESS else 1
    crossed = partial(cross_val_predict, cv=folds, n_jobs=jobs, method="decision_function")
    rows, best = [], None
    for c in values:
        margins = _by_class(crossed(build_svm(c, seed), features, targets)[: len(truth)])
        rows.append({"c": c} | _judged(margins, truth, judged, positive))
        worth = rows[-1]["auc_mean"] if positive is not None else -rows[-1]["log_loss"]
        if best is not None and worth <= best[0]:
            break
        best = (worth, c, margins)
    beyond = {values[0]: "smaller", values[-1]: "larger"}.get(best[1]) if len(values) > 1 else None
    remark = f"C = {best[1]:g} is at the end of SVM_C; a {beyond} one may be better: add it and look again."
    return Sweep(pd.DataFrame(rows), best[1], best[2], remark if beyond else "")


def _judged(margins: np.ndarray, targets: np.ndarray, folds: list, positive: int | None) -> dict[str, float]:
    scores = calibrated(margins, *calibrate(margins, targets))
    kinds = range(margins.shape[1]) if positive is None else [positive]

    def auc(rows: np.ndarray) -> float:
        truth = [(targets[rows] == kind, scores[rows, kind]) for kind in kinds]
        return np.mean([roc_auc_score(*pair) if 0 < pair[0].sum() < len(rows) else np.nan for pair in truth])

    aucs = [value for rows in folds if not np.isnan(value := auc(rows))] or [auc(np.arange(len(targets)))]
    loss = log_loss(targets, scores, labels=range(margins.shape[1]))
    return {"auc_mean": np.mean(aucs), "auc_deviation": np.std(aucs), "log_loss": loss}


def _by_class(margins: np.ndarray) -> np.ndarray:
    """Margins [n, K]; with two classes the one margin m becomes the columns -m / 2 and m / 2."""
    return margins if margins.ndim == 2 else np.column_stack([-margins / 2, margins / 2])


def svm_as_dense(svm: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """Standardizing and SVM multiplied out: kernel [d, K] and bias [K] such that features @ kernel + bias = margins."""
    scaler, machine = svm[0], svm[-1]
    kernel = machine.coef_ / scaler.scale_
    bias = machine.intercept_ - kernel @ scaler.mean_
    return (kernel.T, bias) if len(kernel) > 1 else (_by_class(kernel[0]), _by_class(bias)[0])
