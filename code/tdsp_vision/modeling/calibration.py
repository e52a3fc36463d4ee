"""Scores that mean what they say: of images scored 0.8, eight in ten should be of that class.

Arrays: targets int [n], 0 to K - 1 in the order of the classes; logits [n, K], what a classifier says before softmax
(the margins of an SVM, the last dense layer of a network); scores [n, K], probabilities that sum to 1.
"""

import warnings

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from tdsp_vision.modeling.splits import group_folds

RIDGE = 0.3  # prior weight of slope and offsets, in images: little against a few hundred, enough for a few dozen
LEAST_SLOPE = 1e-3  # of logits with deviation 1; at this bound they say nothing about the classes


def calibrate(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Slope and offsets such that softmax(slope * logits + offsets) are probabilities.

    One slope, as in temperature scaling (Guo et al. 2017, arXiv:1706.04599), and one offset for each class ("bias
    corrected": Alexandari et al. 2020, arXiv:1901.06852), which also undoes equal class weights. A small ridge keeps
    the slope finite where the logits part the classes without a mistake, and the offset of a rare class moderate.

    Args:
        logits: float [n, K], of images that the classifier was not fitted on.
        targets: int [n].

    Returns:
        slope (positive), offsets float64 [K].

    Warns:
        UserWarning: if no slope helps; whatever the logits are, the scores are then the shares of the classes.
    """
    logits = np.asarray(logits, np.float64)
    deviation = logits.std() or 1.0
    scaled, count = logits / deviation, len(logits)
    truth = np.eye(logits.shape[1])[targets]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        log_scores = log_softmax(parameters[0] * scaled + parameters[1:], axis=1)
        excess = np.exp(log_scores) - truth
        gradient = np.concatenate([[(excess * scaled).sum()], excess.sum(axis=0)])
        value = -log_scores[truth == 1].sum() + RIDGE / 2 * (parameters**2).sum()
        return value / count, (gradient + RIDGE * parameters) / count

    start = np.concatenate([[1.0], np.zeros(logits.shape[1])])
    bounds = [(LEAST_SLOPE, None)] + [(None, None)] * logits.shape[1]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"gtol": 1e-8, "ftol": 1e-12}).x
    if found[0] <= 1.01 * LEAST_SLOPE:
        warnings.warn("Scores say nothing about the classes: calibrated, they are the classes' shares.", stacklevel=2)
    return float(found[0] / deviation), found[1:]


def calibrated(logits: np.ndarray, slope: float, offsets: np.ndarray) -> np.ndarray:
    """Scores float64 [n, K]."""
    return softmax(slope * np.asarray(logits, np.float64) + offsets, axis=1)


def cross_calibrated(logits: np.ndarray, targets: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Calibrated logits float64 [n, K] of each image, by a calibration fitted without its group: what to judge it by.

    With a class that is a single group, which cannot be parted, by the calibration of all images.
    """
    slope, offsets = calibrate(logits, targets)
    found = slope * logits + offsets
    for rest, rows in group_folds(targets, groups, seed):
        slope, offsets = calibrate(logits[rest], targets[rest])
        found[rows] = slope * logits[rows] + offsets
    return found
