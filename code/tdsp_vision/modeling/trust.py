"""How far can a good number be trusted? What else could explain it, whom it leaves out, which labels it doubts.

In: a block of `metrics.evaluate`, the measures of each image (which know nothing of shapes), the manifest. Out: tables
and whole sentences for whoever reads the result. Arrays as in `metrics`.
"""

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from threadpoolctl import threadpool_limits

from tdsp_vision.data.quality import TOGETHER, columns_to_compare, predict_label_alone
from tdsp_vision.modeling.calibration import calibrate, calibrated
from tdsp_vision.modeling.metrics import FEWEST_GROUPS, auc_with_interval, decide, paired_auc_difference, share_interval
from tdsp_vision.modeling.splits import SPLITS, group_folds
from tdsp_vision.modeling.svm import sweep_c

FEWEST = 100  # images of each class in a test; fewer validate poorly (Collins et al. 2016, doi 10.1002/sim.6787)
WIDEST = 0.1  # of an interval of the AUC
FEWEST_OF_SUBGROUP = 10  # images of a class
MOST_NAMED = 5  # classes in a sentence
MOST_VALUES = 3  # a number with more different values is divided into thirds
LARGER_SIDE = "larger side (px)"
OF_SUBJECT = ("age", "sex", "gender", "anatom", "site", "locali")  # how columns of age, sex and site begin
UNKNOWN = "(missing)"
TOO_FEW = "too few"


def best_confounder(
    measures: pd.DataFrame,
    labels: np.ndarray,
    scores: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    classes: list[str],
    positive_class: str,
    seed: int,
) -> dict:
    """The measure that predicts the label best on the training side, and how far the model gets beyond it on the test.

    Measure and direction are chosen on the training side; "all together" is gradient boosting, judged there by
    cross-validation over groups. So the number on the test has no more luck than the model's own.

    Args:
        measures: [n] rows, a number in each column.
        scores: float [n, K], of the model.
        train, test: bool [n].
        positive_class: one class against the rest; "" for the mean over the classes.
        seed: of the boosting.

    Returns:
        measure; auc and auc_ci [low, high] of it on the test; difference and difference_ci, [low, high] or None: the
        model's AUC minus the measure's, on the same images. Plain values.
    """
    known, about = np.asarray(labels, dtype=object), [positive_class] if positive_class else classes
    if positive_class:
        known = np.where(known == positive_class, positive_class, f"not {positive_class}")
    best = predict_label_alone(measures[train], pd.Series(known[train]), pd.Series(groups[train]), seed, 1).measure[0]
    own = _measure_scores(best, measures, known, train, about, seed)[test]
    truths = known[test][:, None] == np.array(about, dtype=object)
    model = scores[test][:, [classes.index(name) for name in about]]
    area, interval = auc_with_interval(truths, own, groups[test])
    difference, low, high = paired_auc_difference(truths, own, model, groups[test])
    found = {"measure": best, "auc": area, "auc_ci": interval, "difference": difference}
    return found | {"difference_ci": None if low is None else [low, high]}


def _measure_scores(name: str, measures: pd.DataFrame, labels, train, about: list[str], seed: int) -> np.ndarray:
    """Float [n, k] for k classes, learned on the training side: the measure with its sign, or a boosted forest."""
    if name == TOGETHER:
        return _boosted(measures, labels, train, about, seed)
    values = measures[name].to_numpy(float)
    larger = [roc_auc_score(labels[train] == one, values[train]) >= 0.5 for one in about]
    return values[:, None] * np.where(larger, 1, -1)


def _boosted(table: pd.DataFrame, labels: np.ndarray, train: np.ndarray, about: list[str], seed: int) -> np.ndarray:
    """Float [n, k] of k classes for all rows of a table of numbers and categories, learned on the training side."""
    model = HistGradientBoostingClassifier(max_iter=60, max_depth=3, random_state=seed)
    with threadpool_limits(1, "openmp"):  # threads that wait for each other cost more than these few rows
        scores = model.fit(table[train], labels[train]).predict_proba(table)
    return scores[:, [list(model.classes_).index(one) for one in about]]


def metadata_alone(
    manifest: pd.DataFrame, scores: np.ndarray, split: pd.Series, classes: list[str], positive_class: str, seed: int
) -> dict:
    """What age, sex and site predict without the picture, and what they would add to it: asked, never used as input.

    A model that sees pictures only may owe its score to what they say as well: an old patient's back looks old.
    Gradient boosting learns the label from them on training; a logistic regression on validation weighs its answer
    against the model's scores. Both are then judged on the test.

    Args:
        manifest: [n] rows with label, group and metadata (numbers, text; values may be missing).
        scores: float [n, K], of the model; on validation by a calibration that did not see the image.
        split: [n], from `split_manifest`.
        positive_class: one class against the rest; "" for the mean over the classes.
        seed: of the boosting.

    Returns:
        said, a sentence; columns, the names that were found; where there are any auc and auc_ci of these alone,
        difference (AUC of both together minus the model's) and difference_ci, [low, high] or None. Plain values.
    """
    columns = [name for name in columns_to_compare(manifest) if name.lower().startswith(OF_SUBJECT)]
    if not columns:
        return {"columns": columns, "said": "nothing is known of age, sex or site"}
    train, validation, test = ((split == side).to_numpy() for side in SPLITS)
    known, labels = manifest[columns].replace("", None), manifest.label.to_numpy(dtype=object)
    known = known.astype(dict.fromkeys(known.select_dtypes(exclude="number"), "category"))
    alone = _boosted(known, labels, train, classes, seed)
    evidence = np.log(np.concatenate([scores, alone], axis=1).clip(1e-7, 1))
    weighed = LogisticRegression(max_iter=1000).fit(evidence[validation], labels[validation])
    both = weighed.predict_proba(evidence[test])
    about = [classes.index(name) for name in ([positive_class] if positive_class else classes)]
    truths, groups = labels[test, None] == np.array(classes, dtype=object)[about], manifest.group.to_numpy()[test]
    area, interval = auc_with_interval(truths, alone[test][:, about], groups)
    difference, *limits = paired_auc_difference(truths, scores[test][:, about], both[:, about], groups)
    limits = None if None in limits else limits
    said = f"{', '.join(columns)} alone: AUC {area:.3f}; beside the picture they add {difference:.3f}"
    said += f" (95 % interval {limits[0]:.3f} to {limits[1]:.3f})" if limits else ""
    found = {"columns": columns, "said": said, "auc": area, "auc_ci": interval}
    return found | {"difference": difference, "difference_ci": limits}


def leak_objections(leaks: pd.DataFrame) -> list[str]:
    """A sentence for each kind of group that lies on two sides of the split (`splits.leakage`): it flatters the score.

    Args:
        leaks: columns kept_together, groups, torn_groups, torn_images.
    """
    return [
        f"{row.torn_groups} of {row.groups} groups by `{row.kept_together}` ({row.torn_images} images) lie on two "
        "sides of the split: the test also measures memory and flatters. GROUP_BY 'auto' keeps them together."
        for row in leaks.itertuples()
        if row.torn_groups
    ]


def claim_warnings(block: dict, leaks: pd.DataFrame, confounder: dict, wanted_sensitivity=None) -> list[str]:
    """Sentences on what the test is too small or too weak to show; none where there is nothing to say.

    Args:
        block: `test` of `metrics.json`, from `evaluate`.
        leaks: from `splits.leakage`.
        confounder: from `best_confounder`.
        wanted_sensitivity: that the threshold was chosen for, 0 to 1; None: for none.
    """
    counts = {name: row["n"] for name, row in block["per_class"].items()}
    few = sorted((count, name) for name, count in counts.items() if count < FEWEST)
    said = leak_objections(leaks)
    if few:
        named = ", ".join(f"{count} of {name}" for count, name in few[:MOST_NAMED])
        more = f" and {len(few) - MOST_NAMED} more classes" if len(few) > MOST_NAMED else ""
        said.append(f"The test has few images ({named}{more}); below {FEWEST} of a class, numbers move a lot.")
    said += [block["no_interval"]] if block["no_interval"] else _about_interval(*block["auc_ci"])
    most, accuracy = max(counts.values()) / block["n"], block["intervals"]["accuracy"]
    # With a positive class the threshold gives accuracy away for sensitivity, and rightly so; without one the rule
    # gives it away for the rare classes, and whoever reads the accuracy should know.
    if block["sensitivity"] is None and accuracy[0] <= most:
        balanced = f"balanced accuracy {1 / len(counts):.2f} and {block['balanced_accuracy']:.2f}"
        said.append(
            f"Always naming the most frequent class is right in {most:.0%}, the model in {block['accuracy']:.0%} "
            f"({balanced}): by accuracy it has not been shown to do better."
        )
    interval = confounder["difference_ci"] or [confounder["difference"]]
    if interval[0] <= 0:
        low_high = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval[1:] else ""
        said.append(
            f"The best confounder, `{confounder['measure']}`, reaches an AUC of {confounder['auc']:.2f} on the test, "
            f"and the model {block['auc']:.2f}; the difference is {confounder['difference']:.2f}{low_high}: it has not "
            "been shown to see more than that."
        )
    if wanted_sensitivity and block["sensitivity"] < wanted_sensitivity:
        reached = f"{wanted_sensitivity:.2f} on validation and of {block['sensitivity']:.2f} on the test"
        said.append(f"The threshold reaches a sensitivity of {reached}.")
    return said


def _about_interval(low: float, high: float) -> list[str]:
    said = f"The 95 % interval of the AUC, {low:.2f} to {high:.2f},"
    guessing = [f"{said} reaches down to 0.5, which is guessing: nothing has been shown yet."] if low <= 0.5 else []
    wide = [f"{said} is {high - low:.2f} wide: another test could say otherwise."] if high - low > WIDEST else []
    return guessing + wide


def subgroup_table(
    manifest: pd.DataFrame, scores: np.ndarray, classes: list[str], positive_class: str, threshold, groups=None
) -> pd.DataFrame:
    """The same metric for each age, sex, site, skin type and image size by itself, as far as the manifest knows them.

    A subgroup with fewer than 10 images or 5 groups of a class gets no number: it would be read, and say nothing.

    Args:
        manifest: the rows of one side, the test; label, width, height and what metadata there are.
        scores: float [n, K], in its order.
        threshold: from `choose_threshold`.
        groups: [n], what belongs together; None: each image stands for itself.

    Returns:
        column, value, n; with a positive class n_positive, auc with its 95 % interval low, high, and sensitivity and
        specificity at the threshold; without one accuracy, low, high. Then note: "too few" where the numbers are NaN.
        No rows where all images are alike in all that is known of them.
    """
    labels = manifest.label.to_numpy(dtype=object)
    groups = np.arange(len(manifest)) if groups is None else np.asarray(groups)
    right, rows = decide(scores, classes, positive_class, threshold) == labels, []
    for column, values in _categories_by_column(manifest).items():
        for value in values.cat.categories:
            own = (values == value).to_numpy()
            row = {"column": column, "value": value, "n": int(own.sum()), "note": TOO_FEW}
            if positive_class:
                score, truth = scores[own, classes.index(positive_class)], labels[own] == positive_class
                row |= {"n_positive": int(truth.sum())} | _about_positive(truth, score, threshold, groups[own])
            elif row["n"] >= FEWEST_OF_SUBGROUP and (size := len(np.unique(groups[own]))) >= FEWEST_GROUPS:
                interval = share_interval(right[own].mean(), size)
                row |= {"accuracy": right[own].mean(), "low": interval[0], "high": interval[1], "note": ""}
            rows.append(row)
    numbers = ["n_positive", "auc", "low", "high", "sensitivity", "specificity"]
    numbers = numbers if positive_class else ["accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=["column", "value", "n", *numbers, "note"])


def _about_positive(truth: np.ndarray, score: np.ndarray, threshold: float, groups: np.ndarray) -> dict:
    sides = truth, ~truth
    if min(side.sum() for side in sides) < FEWEST_OF_SUBGROUP:
        return {}
    if min(len(np.unique(groups[side])) for side in sides) < FEWEST_GROUPS:
        return {}
    area, (low, high) = auc_with_interval(truth, score, groups)
    found = {"sensitivity": (score[truth] >= threshold).mean(), "specificity": (score[~truth] < threshold).mean()}
    return found | {"auc": area, "low": low, "high": high, "note": ""}


def _categories_by_column(manifest: pd.DataFrame) -> dict[str, pd.Series]:
    """Categories of each image by column, for each column that has at least two."""
    manifest = manifest.reset_index(drop=True)
    columns = manifest[columns_to_compare(manifest)].assign(**{LARGER_SIDE: manifest[["width", "height"]].max(axis=1)})
    found = {name: _categories(columns[name]) for name in columns}
    return {name: values for name, values in found.items() if values.nunique() > 1}


def _categories(values: pd.Series) -> pd.Series:
    """Text as it is; numbers with many values, such as ages, in thirds; missing ones last."""
    known = values.replace("", pd.NA).dropna()
    if pd.api.types.is_numeric_dtype(known) and known.nunique() > MOST_VALUES:
        known = pd.qcut(known, 3, duplicates="drop")
        known = known.cat.rename_categories(lambda third: f"{third.left:.4g} to {third.right:.4g}")
    known = known.astype("category").cat.rename_categories(str)
    known = known.cat.set_categories(dict.fromkeys([*known.cat.categories, UNKNOWN]))
    return known.reindex(values.index).fillna(UNKNOWN).cat.remove_unused_categories()


def suspicious_labels(
    features: np.ndarray, targets: np.ndarray, groups: np.ndarray, c: float, seed: int
) -> pd.DataFrame:
    """All images, most suspicious label first, by the probability that its own label gets (self-confidence).

    A linear SVM scores each fold after learning from the others, so a wrong label cannot vouch for itself; whole
    groups share a fold, so neither can a second view of the same lesion. Ranking by out-of-fold self-confidence:
    Northcutt et al. 2021, "Confident learning", arXiv:1911.00068.

    A rank is a reason to look, not to change: hard images with right labels stand at the top as well. That counts
    double for test images. Their labels corrected by the model's opinion flatter the model; so pass the whole dataset
    for cleaning it, look at each picture, and correct what a person sees is wrong, on all sides alike.

    Args:
        features: float32 [n, d], of a frozen network.
        c: penalty of the SVM; small ones (0.0001) bend less to wrong labels.
        seed: of the folds and the solver.

    Returns:
        image (row number in `features`), given (int, its label), self_confidence (0 to 1, calibrated probability
        of that label), suggested (int, the label with the highest probability), rank (1 is the most suspicious).
        Last, without a confidence (NaN), images of a class with a single group, which no other could judge.
    """
    names = pd.Series(groups).groupby(targets).nunique()
    learned = names.index[names > 1]
    judged = np.flatnonzero(np.isin(targets, learned))
    table = pd.DataFrame({"image": np.arange(len(targets)), "given": targets, "self_confidence": np.nan})
    table["suggested"] = targets
    own = learned.get_indexer(targets[judged])
    if len(learned) > 1 and group_folds(own, groups[judged], seed):
        margins = sweep_c(features[judged], own, groups[judged], [c], seed).margins
        scores = calibrated(margins, *calibrate(margins, own))  # a rare label needs more evidence
        table.loc[judged, "self_confidence"] = scores[np.arange(len(own)), own]
        table.loc[judged, "suggested"] = learned.to_numpy()[scores.argmax(axis=1)]
    table = table.sort_values("self_confidence", kind="stable", ignore_index=True)
    return table.assign(rank=table.index + 1)
