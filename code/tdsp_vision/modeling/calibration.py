"""Scores that mean what they say: of images scored 0.8, eight in ten should be of that class.

Arrays: targets int [n], 0 to K - 1 in the order of the classes; logits [n, K], what a classifier says before softmax
(the margins of an SVM, the last dense layer of a network); scores [n, K], probabilities that sum to 1.
"""

import numpy as np
import pandas as pd
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

BINS = 10


def calibrate(logits: np.ndarray, targets: np.ndarray, balanced: bool = True) -> tuple[float, np.ndarray]:
    """Slope and offsets such that softmax(slope * logits + offsets) are probabilities; pass the validation side.

    Temperature scaling (Guo et al. 2017, arXiv:1706.04599; the slope is 1 / temperature): one number is fitted, so a
    few dozen images suffice, and it is positive, so no ranking of two classes changes. The offsets are not fitted;
    they are the logarithm of each class's share, which undoes the equal class weights of training (Saerens et al.
    2002, doi 10.1162/089976602753284446).

    An image of a class with n images is wanted at (n + 1) / (n + K) for it and 1 / (n + K) for each other (Platt 1999,
    "Probabilistic outputs for support vector machines"). Wanted at 1 and 0, logits that part the classes without
    a mistake would call for an endless slope, and scores of exactly 0 and 1 rank nothing.

    Args:
        logits: float [n, K].
        targets: int [n], each class at least once.
        balanced: training gave each class the same weight; otherwise the offsets are 0.

    Returns:
        slope (positive), offsets float64 [K].

    Raises:
        ValueError: if a class has no image.
    """
    n_classes = logits.shape[1]
    counts = np.bincount(targets, minlength=n_classes)
    if not counts.all():
        raise ValueError(f"Images per class for the calibration are {counts.tolist()}; each class needs at least one.")
    offsets = np.log(counts / len(targets)) if balanced else np.zeros(n_classes)
    wanted = (np.eye(n_classes)[targets] * counts + 1) / (counts[targets] + n_classes)[:, None]

    def loss(log_slope: float) -> float:
        return -(wanted * log_softmax(np.exp(log_slope) * logits + offsets, axis=1)).sum(axis=1).mean()

    found = minimize_scalar(loss, bounds=(-7.0, 7.0), method="bounded")
    return float(np.exp(found.x)), offsets


def as_logits(scores: np.ndarray) -> np.ndarray:
    """Logits float64 [n, K] that softmax turns into these scores: what a saved classifier no longer tells."""
    return np.log(np.maximum(np.asarray(scores, np.float64), np.finfo(np.float32).tiny))


def calibrated(logits: np.ndarray, slope: float, offsets: np.ndarray) -> np.ndarray:
    """Scores float64 [n, K]."""
    return softmax(slope * np.asarray(logits, np.float64) + offsets, axis=1)


def scaled_head(kernel: np.ndarray, bias: np.ndarray, slope: float, offsets: np.ndarray) -> list[np.ndarray]:
    """Weights for `Dense.set_weights`, kernel [d, K] and bias [K], that bring the calibration into the model itself."""
    return [slope * kernel, slope * bias + offsets]


def expected_calibration_error(
    probability: np.ndarray, happened: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Mean gap between promised and observed share over 10 equal bins, weighted by their images (Guo et al. 2017).

    Args:
        probability: float [n], 0 to 1: of the most likely class, or of one class.
        happened: bool [n]: that class was right.
        weights: float [b, n], how often each image counts; None: once.

    Returns:
        float [b] (without weights [1]); 0 is perfect, 1 the worst.
    """
    weights = np.ones((1, len(probability))) if weights is None else weights
    in_bin = np.eye(BINS)[_bin(probability)]
    return np.abs(weights @ (in_bin * (probability - happened)[:, None])).sum(axis=1) / weights.sum(axis=1)


def reliability(probability: np.ndarray, happened: np.ndarray) -> pd.DataFrame:
    """The reliability diagram as a table: n, promised (mean probability) and observed (share) of each filled bin."""
    table = pd.DataFrame({"bin": _bin(probability), "promised": probability, "observed": happened})
    return table.groupby("bin").agg(
        n=("observed", "size"), promised=("promised", "mean"), observed=("observed", "mean")
    )


def _bin(probability: np.ndarray) -> np.ndarray:
    return np.minimum((np.asarray(probability) * BINS).astype(int), BINS - 1)
