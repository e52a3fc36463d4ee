"""How far a number would move with another draw of test images: the bootstrap, by whole groups.

Images of one patient are no independent evidence, so groups are drawn, with all of their images. A draw is a row of
weights: how often each image counts in it. A statistic takes float [b, n] weights and gives [b] values for each name.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from tdsp_vision.modeling.metrics import auc_of_class

RESAMPLES = 1000
WEIGHTS_AT_ONCE = 2**21  # resamples x images in memory: 16 MB


def bootstrap(
    statistic: Callable[[np.ndarray], dict[str, np.ndarray]], targets: np.ndarray, groups: np.ndarray | None, seed: int
) -> dict[str, list[float]]:
    """95 % percentile interval [low, high] of each number of `statistic`, from 1000 resamples.

    Groups are drawn with replacement (Efron and Tibshirani 1993, chapter 13), within the strata of their rarest class,
    so that no class runs empty. It covers the luck of the test's draw, not that of training.

    Args:
        statistic: float [b, n] to name: [b]; not a number where a draw has no value, which is left out.
        targets: int [n], 0 to K - 1.
        groups: [n], what belongs together, without gaps; None: each image stands for itself.
        seed: of the draws.

    Raises:
        ValueError: if an image has no group.
    """
    n = len(targets)
    groups, sizes = pd.factorize(np.arange(n) if groups is None else np.asarray(groups))
    if groups.min() < 0:
        raise ValueError(
            f"{(groups < 0).sum()} of {n} images have no group; give each an id, its own path for instance."
        )
    rarity = np.argsort(np.argsort(np.bincount(targets), kind="stable"))[targets]
    stratum = pd.Series(rarity).groupby(groups).min().to_numpy()
    rng, drawn = np.random.default_rng(seed), []
    chunk = max(1, WEIGHTS_AT_ONCE // n)
    for start in range(0, RESAMPLES, chunk):
        times = np.zeros((min(chunk, RESAMPLES - start), len(sizes)))
        for rows in (np.flatnonzero(stratum == one) for one in np.unique(stratum)):
            times[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), len(times))
        drawn.append(statistic(times[:, groups]))
    return {name: _percentiles(np.concatenate([part[name] for part in drawn])) for name in drawn[0]}


def mean_auc(truths: np.ndarray, scores: np.ndarray, groups: np.ndarray | None, seed: int) -> tuple[float, list[float]]:
    """AUC and its interval [low, high]: truths bool [n, k], of k classes against the rest; scores float [n, k]."""
    classes = range(truths.shape[1])

    def mean(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"auc": np.mean([auc_of_class(truths[:, k], scores[:, k], weights) for k in classes], axis=0)}

    interval = bootstrap(mean, truths @ np.arange(1, len(classes) + 1), groups, seed)["auc"]
    return mean(np.ones((1, len(truths))))["auc"].item(), interval


def paired_auc_difference(
    truth: np.ndarray, first: np.ndarray, second: np.ndarray, groups: np.ndarray | None, seed: int
) -> tuple[float, float, float]:
    """AUC of `second` minus AUC of `first`, and its 95 % interval low, high: two models on the same images.

    Both are measured in each draw, so what is hard for both cancels; two separate intervals that overlap say less.

    Args:
        truth: bool, of one class [n], or of k classes against the rest [n, k]: then of the mean of their AUCs.
        first, second: float, its scores; as `truth`.
        groups: as in `bootstrap`.
        seed: as in `bootstrap`.
    """
    truth = np.reshape(truth, (len(truth), -1)).T
    first, second = (np.reshape(scores, (truth.shape[1], -1)).T for scores in (first, second))
    curves = list(zip(truth, first, second, strict=True))

    def difference(weights: np.ndarray) -> dict[str, np.ndarray]:
        each = [auc_of_class(t, b, weights) - auc_of_class(t, a, weights) for t, a, b in curves]
        return {"auc": np.mean(each, axis=0)}

    low, high = bootstrap(difference, np.arange(1, len(truth) + 1) @ truth, groups, seed)["auc"]
    return difference(np.ones((1, truth.shape[1])))["auc"].item(), low, high


def _percentiles(values: np.ndarray) -> list[float]:
    return np.nanpercentile(values, [2.5, 97.5]).tolist()
