"""A linear support vector machine on frozen features, and its way into a Keras model.

Arrays: features float32 [n, d]; targets int [n], 0 to K - 1 in the order of the classes; margins [n, K], the
signed distances that the machine gives each class; scores [n, K], probabilities that sum to 1.
"""

import keras
import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from tdsp_vision.modeling.calibration import scaled_head
from tdsp_vision.modeling.metrics import auc

MAX_ITERATIONS = 20_000
LEAST_DEVIATION = 0.01  # of the median feature's


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
    svm = LinearSVC(C=c, class_weight="balanced", random_state=seed, max_iter=MAX_ITERATIONS)
    return make_pipeline(Standardizer(), svm)


def sweep_c(
    features: np.ndarray, targets: np.ndarray, groups: np.ndarray, c_values: list[float], seed: int, folds: int = 5
) -> pd.DataFrame:
    """AUC of each C by cross-validation in whole groups; pass the training side only.

    Args:
        features: float32 [n, d].
        targets: int [n].
        groups: [n], what must stay together.
        c_values: penalties to try; small ones regularize more.
        seed: of the folds and the solver.
        folds: at most this many; fewer where a class has fewer groups.

    Returns:
        columns c, auc_mean, auc_deviation (over the folds), in the order of `c_values`.

    Raises:
        ValueError: if no division into whole groups leaves each class on both sides.
    """
    classes = np.unique(targets)
    smallest = min(len(np.unique(groups[targets == k])) for k in classes)
    splitter = StratifiedGroupKFold(max(2, min(folds, smallest)), shuffle=True, random_state=seed)
    sides = [
        side
        for side in splitter.split(features, targets, groups)
        if all(np.isin(classes, targets[rows]).all() for rows in side)
    ]
    if not sides:
        raise ValueError(
            f"C cannot be chosen by cross-validation in whole groups: a class has {smallest} group(s) on the training "
            "side, which leaves nothing to learn it from or to test it on; add images of other cases."
        )
    rows = []
    for c in c_values:
        aucs = []
        for train, held_out in sides:
            svm = build_svm(c, seed).fit(features[train], targets[train])
            aucs.append(auc(targets[held_out], svm_margins(svm, features[held_out])))
        rows.append({"c": c, "auc_mean": np.mean(aucs), "auc_deviation": np.std(aucs)})
    return pd.DataFrame(rows)


def best_c(sweep: pd.DataFrame) -> float:
    """The C with the highest mean AUC; the smallest of them in a tie, which regularizes most."""
    return float(sweep.sort_values(["auc_mean", "c"], ascending=[False, True]).c.iloc[0])


def svm_margins(svm: Pipeline, features: np.ndarray) -> np.ndarray:
    """Margins float64 [n, K]; with two classes the one margin m becomes the columns -m / 2 and m / 2."""
    margins = svm.decision_function(features)
    return margins if margins.ndim == 2 else np.column_stack([-margins / 2, margins / 2])


def svm_head(svm: Pipeline, slope: float, offsets: np.ndarray) -> keras.Model:
    """The whole chain, standardize, SVM, calibration and softmax, as one dense layer: [n, d] to scores [n, K]."""
    scaler, machine = svm[0], svm[-1]
    kernel = machine.coef_ / scaler.scale_
    bias = machine.intercept_ - kernel @ scaler.mean_
    if len(kernel) == 1:
        kernel, bias = np.concatenate([-kernel / 2, kernel / 2]), np.concatenate([-bias / 2, bias / 2])
    inputs = keras.Input((kernel.shape[1],), name="features")
    dense = keras.layers.Dense(len(kernel), activation="softmax", name="svm")
    head = keras.Model(inputs, dense(inputs), name="svm_head")
    dense.set_weights(scaled_head(kernel.T, bias, slope, offsets))
    return head
