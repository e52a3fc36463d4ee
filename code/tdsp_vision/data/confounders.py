"""What would let a model cheat: how well does each measure alone, without a look at the subject, predict the label?

In: the measures of `quality.measure_images`, one row per image, and the labels. Out: an AUC for each. 0.5 is
guessing; above it, a model can gain by learning the camera, the archive or the clinic instead of the subject.
A measure that predicts is a question, not yet a proof: brightness, contrast and lines can be part of the subject.
"""

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
from threadpoolctl import threadpool_limits

from tdsp_vision.data.quality import shown_classes

RESAMPLES = 1000
CLEAR = 0.55  # lower end of an interval from which on a measure is worth a sentence
FEWEST = 20  # images of a class, for a sentence
TOGETHER = "all together"
FOLDS = 5
MOST_CLASSES = 12


def predict_label_alone(
    measures: pd.DataFrame, labels: pd.Series, groups: pd.Series, seed: int = 0, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """AUC of each measure, and of all together, with a bootstrap 95 % interval.

    AUC of one class against the rest, max(a, 1 - a), averaged over the classes. The interval keeps the direction
    that was found: where a measure tells nothing, its interval has 0.5 inside. Averaged over many classes, chance
    alone can lie a little above 0.5. Whole groups are resampled, because images of one patient are no independent
    evidence (percentile bootstrap; Efron and Tibshirani 1993, chapter 13).
    "all together" is gradient boosting on all measures, cross-validated over groups; it is left out where a class
    has fewer than 5 groups. Of more than a dozen classes the dozen with most images is compared, so that time grows
    with the images and not with images times classes.

    Args:
        measures: [n] rows, a number in each column.
        labels: [n], at least two different.
        groups: [n], what belongs together.

    Returns:
        measure, auc, low, high, direction ("larger in malignant"; of more than two classes the one that stands out
        most), best first.
    """
    largest = labels.isin(labels.value_counts().index[:MOST_CLASSES]).to_numpy()
    measures, labels, groups = (table[largest].reset_index(drop=True) for table in (measures, labels, groups))
    classes = sorted(labels.unique())
    label_codes, group_codes = pd.Categorical(labels, classes).codes, pd.factorize(groups)[0]
    ranks = {name: [_ranks(measures[name])] * len(classes) for name in measures}
    if pd.Series(group_codes).groupby(label_codes).nunique().min() >= FOLDS:
        ranks[TOGETHER] = [_ranks(one) for one in _cross_validated(measures, label_codes, group_codes, seed).T]
    found = {name: _class_aucs(one, label_codes, np.ones(len(labels))) for name, one in ranks.items()}
    drawn = _resampled(ranks, found, label_codes, group_codes, np.random.default_rng(seed), resamples)
    rows = []
    for name, aucs in found.items():
        low, high = np.nanpercentile(drawn[name], [2.5, 97.5])  # not a number: a resample without one of the classes
        said = "" if name == TOGETHER else _said(aucs, classes)
        rows.append((name, _directed(name, aucs, aucs), low, high, said))
    table = pd.DataFrame(rows, columns=["measure", "auc", "low", "high", "direction"])
    return table.sort_values("auc", ascending=False, ignore_index=True, kind="stable")


def warnings_in_words(found: pd.DataFrame, measures: pd.DataFrame, labels: pd.Series) -> list[str]:
    """One sentence for each measure whose interval lies clearly above guessing.

    None where a class has fewer than 20 images: there, something always seems to predict.
    """
    sentences = []
    if labels.value_counts().min() < FEWEST:
        return sentences
    medians = measures.reset_index(drop=True).groupby(shown_classes(labels).to_numpy()).median()
    for row in found[found.low > CLEAR].itertuples():
        numbers = f"AUC {row.auc:.2f} (95 % interval {row.low:.2f} to {row.high:.2f})"
        if row.measure == TOGETHER:
            sentences.append(f"All measures together, which know nothing of shapes, predict the label: {numbers}.")
            continue
        by_class = ", ".join(f"{label} {value:.3g}" for label, value in medians[row.measure].items())
        sentences.append(
            f"`{row.measure}` is {row.direction} and alone predicts the label: {numbers}; medians: {by_class}."
        )
    return sentences


def _ranks(values) -> np.ndarray:
    return np.unique(np.asarray(values, float), return_inverse=True)[1].reshape(-1)


def _class_aucs(ranks: list[np.ndarray], labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC [K] of each class against the rest, by its ranks [n]; `weights` [n] say how often each image counts."""
    aucs = []
    for number, rank in enumerate(ranks):
        inside = np.bincount(rank, weights * (labels == number))
        outside = np.bincount(rank, weights * (labels != number))
        pairs = inside.sum() * outside.sum()
        aucs.append((inside * (outside.cumsum() - outside / 2)).sum() / pairs if pairs else np.nan)
    return np.array(aucs)


def _resampled(ranks, found, labels, groups, rng, resamples) -> dict[str, list[float]]:
    """For each measure the AUC in each resample, in the direction that was found."""
    drawn, size = {name: [] for name in ranks}, groups.max() + 1
    for _ in range(resamples):
        weights = rng.multinomial(size, np.full(size, 1 / size))[groups]
        for name, one in ranks.items():
            drawn[name].append(_directed(name, _class_aucs(one, labels, weights), found[name]))
    return drawn


def _directed(name: str, aucs: np.ndarray, found: np.ndarray) -> float:
    """Mean over the classes, each turned so that `found` lies above 0.5; predictions have their direction already."""
    signs = 1 if name == TOGETHER else np.sign(found - 0.5)
    return 0.5 + (signs * (aucs - 0.5)).mean()


def _said(aucs: np.ndarray, classes: list[str]) -> str:
    if np.all(aucs == 0.5):
        return "no difference"
    which = np.abs(aucs - 0.5).argmax() if len(classes) > 2 else aucs.argmax()
    return f"{'larger' if aucs[which] >= 0.5 else 'smaller'} in {classes[which]}"


def _cross_validated(measures: pd.DataFrame, labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Probability of each class [n, K], each image scored by a model that has not seen its group."""
    model = HistGradientBoostingClassifier(max_iter=60, max_depth=3, random_state=seed)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    with threadpool_limits(1, "openmp"):  # threads that wait for each other cost more than these few rows
        return cross_val_predict(model, measures.to_numpy(), labels, groups=groups, cv=folds, method="predict_proba")
