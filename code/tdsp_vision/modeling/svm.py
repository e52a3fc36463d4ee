"""A linear support vector machine on frozen features.

Arrays: features float32 [n, d]; targets int [n], 0 to K - 1 in the order of the classes; margins [n, K], the signed
distances that the machine gives each class. Keras is not imported here: the processes that try values of C need none.
"""

import os
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from sklearn.metrics import log_loss, roc_auc_score
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
    features: np.ndarray,
    targets: np.ndarray,
    groups: np.ndarray,
    c_values: list[float],
    seed: int,
    positive: int | None = None,
    originals: int | None = None,
) -> Sweep:
    """Choose C by cross-validation in whole groups; pass the training side only.

    By AUC where one class is the positive one, else by the log loss of the calibrated margins. The values are tried
    from the smallest on, and no larger ones once one is worse: these take longest.

    Args:
        features, targets, groups: [n, …], of the images to learn from.
        c_values: penalties to try; small ones regularize more.
        seed: of the folds and the solver.
        positive: number of the positive class.
        originals: how many of the n, at the start, are pictures themselves; the others are copies (of their groups),
            which are learned from and not judged by. None: all.

    Raises:
        ValueError: if a class is one group only, which leaves nothing to learn it from or to judge it by.
    """
    judged = slice(originals)
    folds = [(rest, rows[rows < len(targets[judged])]) for rest, rows in group_folds(targets, groups, seed)]
    if not folds:
        raise ValueError(
            "C cannot be chosen by cross-validation in whole groups: a class is a single group on the training side; "
            "add images of other cases, or leave small classes out by MIN_CLASS_SIZE."
        )
    n_classes, rows, best = targets.max() + 1, [], None
    jobs = (os.cpu_count() or 1) if features.size * n_classes > WORTH_A_PROCESS else 1
    with Parallel(n_jobs=min(jobs, len(folds))) as parallel:
        for c in sorted(c_values):
            margins = np.empty((len(targets[judged]), n_classes))
            fits = (delayed(_fold_margins)(features, targets, rest, held, c, seed) for rest, held in folds)
            for (_, held), found in zip(folds, parallel(fits), strict=True):
                margins[held] = found
            rows.append({"c": c} | _judged(margins, targets[judged], folds, positive))
            worth = rows[-1]["auc_mean"] if positive is not None else -rows[-1]["log_loss"]
            if best is not None and worth <= best[0]:
                break
            best = (worth, c, margins)
    return Sweep(pd.DataFrame(rows), best[1], best[2], _remark(best[1], sorted(c_values)))


def _fold_margins(features, targets, rest, held, c: float, seed: int) -> np.ndarray:
    return svm_margins(build_svm(c, seed).fit(features[rest], targets[rest]), features[held])


def _judged(margins: np.ndarray, targets: np.ndarray, folds: list, positive: int | None) -> dict[str, float]:
    scores = calibrated(margins, *calibrate(margins, targets))
    kinds = range(margins.shape[1]) if positive is None else [positive]

    def auc(rows: np.ndarray) -> float:
        truth = [(targets[rows] == kind, scores[rows, kind]) for kind in kinds]
        return np.mean([roc_auc_score(*pair) if 0 < pair[0].sum() < len(rows) else np.nan for pair in truth])

    aucs = [value for _, rows in folds if not np.isnan(value := auc(rows))] or [auc(np.arange(len(targets)))]
    loss = log_loss(targets, scores, labels=range(margins.shape[1]))
    return {"auc_mean": np.mean(aucs), "auc_deviation": np.std(aucs), "log_loss": loss}


def _remark(c: float, c_values: list[float]) -> str:
    if len(c_values) > 1 and c in (c_values[0], c_values[-1]):
        end, beyond = ("smallest", "smaller") if c == c_values[0] else ("largest", "larger")
        return f"C = {c:g} is the {end} of SVM_C; a {beyond} one may be better: add it and look again."
    return ""


def svm_margins(svm: Pipeline, features: np.ndarray) -> np.ndarray:
    """Margins float64 [n, K]; with two classes the one margin m becomes the columns -m / 2 and m / 2."""
    margins = svm.decision_function(features)
    return margins if margins.ndim == 2 else np.column_stack([-margins / 2, margins / 2])


def svm_as_dense(svm: Pipeline) -> tuple[np.ndarray, np.ndarray]:
    """Standardizing and SVM multiplied out: kernel [d, K] and bias [K] such that features @ kernel + bias = margins."""
    scaler, machine = svm[0], svm[-1]
    kernel = machine.coef_ / scaler.scale_
    bias = machine.intercept_ - kernel @ scaler.mean_
    if len(kernel) == 1:
        kernel, bias = np.concatenate([-kernel / 2, kernel / 2]), np.concatenate([-bias / 2, bias / 2])
    return kernel.T, bias
