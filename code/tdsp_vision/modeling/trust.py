"""How far can a good number be trusted? What else could explain it, whom it leaves out, which labels it doubts.

In: a block of `metrics.evaluate`, the measures of each image (which know nothing of shapes), the manifest. Out: tables
and whole sentences for whoever reads the result. Arrays as in `metrics`.
"""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from tdsp_vision.data.quality import TOGETHER, boosting, columns_to_compare, in_ranges, predict_label_alone
from tdsp_vision.modeling.calibration import calibrate, calibrated
from tdsp_vision.modeling.metrics import FEWEST_GROUPS, auc_with_interval, decide, paired_auc_difference, share_interval
from tdsp_vision.modeling.splits import group_folds
from tdsp_vision.modeling.svm import sweep_c

FEWEST = 100  # images of each class in a test; fewer validate poorly (Collins et al. 2016, doi 10.1002/sim.6787)
WIDEST = 0.1  # of an interval of the AUC
FEWEST_OF_SUBGROUP = 10  # images of a class
OF_SUBJECT = ("age", "sex", "gender", "anatom", "site", "locali")  # how columns of age, sex and site begin


def best_confounder(
    measures: pd.DataFrame, manifest: pd.DataFrame, scores: np.ndarray, split: pd.Series, positive_class: str, seed: int
) -> dict:
    """The measure that predicts the label best on the training side, and how far the model gets beyond it on the test.

    Measure and direction are chosen on the training side; "all together" is gradient boosting, judged there by
    cross-validation over groups. So the number on the test has no more luck than the model's own.

    Args:
        measures: [n] rows, a number in each column.
        manifest: [n] rows with label and group.
        scores: float [n, K], of the model, columns in the order of the sorted labels.
        split: [n], from `split_manifest`.
        positive_class: one class against the rest; "" for the mean over the classes.
        seed: of the boosting.

    Returns:
        measure; auc and auc_ci [low, high] of it on the test; difference and difference_ci, [low, high] or None: the
        model's AUC minus the measure's, on the same images. Plain values.
    """
    train, labels = split == "train", manifest.label
    labels = labels.where(labels == positive_class, f"not {positive_class}") if positive_class else labels
    best = predict_label_alone(measures[train], labels[train], manifest.group[train], seed).measure[0]
    model = boosting(train.sum(), seed) if best == TOGETHER else make_pipeline(StandardScaler(), LogisticRegression())
    alone = _learned(model, measures if best == TOGETHER else measures[[best]], manifest.label, train)
    return {"measure": best} | _beside(manifest, split, positive_class, alone, alone, scores)


def _learned(model, table: pd.DataFrame, labels: pd.Series, train: pd.Series) -> np.ndarray:
    """Scores float [n, K] of all rows of a table by a classifier that learns from those of the training side."""
    with threadpool_limits(1, "openmp"):  # threads that wait for each other cost more than these few rows
        return model.fit(table[train], labels[train]).predict_proba(table)


def _beside(manifest: pd.DataFrame, split: pd.Series, positive_class: str, alone, first, second) -> dict:
    """On the test: auc and auc_ci of the scores `alone`, difference and difference_ci of `second` minus `first`."""
    test, classes = (split == "test").to_numpy(), sorted(manifest.label.unique())
    columns = [k for k, name in enumerate(classes) if name == (positive_class or name)]
    truths = manifest.label.to_numpy(object)[test, None] == np.array(classes, object)[columns]
    alone, first, second = (scores[test][:, columns] for scores in (alone, first, second))
    groups = manifest.group.to_numpy()[test]
    area, interval = auc_with_interval(truths, alone, groups)
    difference, limits = paired_auc_difference(truths, first, second, groups)
    return {"auc": area, "auc_ci": interval, "difference": difference, "difference_ci": limits}


def metadata_alone(
    manifest: pd.DataFrame, scores: np.ndarray, split: pd.Series, positive_class: str, seed: int
) -> dict:
    """What age, sex and site predict without the picture, and what they would add to it: asked, never used as input.

    A model that sees pictures only may owe its score to what they say as well: an old patient's back looks old.
    Gradient boosting learns the label from them on training; a logistic regression on validation weighs its answer
    against the model's scores. Both are then judged on the test.

    Args:
        manifest: [n] rows with label, group and metadata (numbers, text; values may be missing).
        scores: float [n, K], of the model; on validation by a calibration that did not see the image.
        split, positive_class, seed: as for `best_confounder`.

    Returns:
        said, a sentence; columns, the names that were found; where there are any auc and auc_ci of these alone,
        difference (AUC of both together minus the model's) and difference_ci, [low, high] or None. Plain values.
    """
    columns = [name for name in columns_to_compare(manifest) if name.lower().startswith(OF_SUBJECT)]
    if not columns:
        return {"columns": columns, "said": "nothing is known of age, sex or site"}
    known = manifest[columns].replace("", None)
    known = known.astype(dict.fromkeys(known.select_dtypes(exclude="number"), "category"))
    alone = _learned(boosting((split == "train").sum(), seed), known, manifest.label, split == "train")
    evidence = pd.DataFrame(np.log(np.concatenate([scores, alone], axis=1).clip(1e-7, 1)), manifest.index)
    both = _learned(LogisticRegression(max_iter=1000), evidence, manifest.label, split == "validation")
    found = _beside(manifest, split, positive_class, alone, scores, both)
    said = f"{', '.join(columns)} alone: AUC {found['auc']:.3f}"
    if limits := found["difference_ci"]:
        said += f"; beside the picture they add {found['difference']:.3f} ({limits[0]:.3f} to {limits[1]:.3f})"
    return {"columns": columns, "said": said} | found


def claim_warnings(block: dict, leaks: pd.DataFrame, confounder: dict, wanted_sensitivity=None) -> list[str]:
    """Sentences on what the test is too small or too weak to show; none where there is nothing to say.

    Args:
        block: `test` of `metrics.json`, from `evaluate`.
        leaks: from `splits.leakage`.
        confounder: from `best_confounder`.
        wanted_sensitivity: that the threshold was chosen for, 0 to 1; None: for none.
    """
    said = [
        f"{row.torn_groups} of {row.groups} groups by `{row.kept_together}` ({row.torn_images} images) lie on two "
        "sides of the split: the test also measures memory and flatters. GROUP_BY 'auto' keeps them together."
        for row in leaks[leaks.torn_groups > 0].itertuples()
    ]
    counts = pd.Series({name: row["n"] for name, row in block["per_class"].items()})
    if counts.min() < FEWEST:
        fewest = f"only {counts.min()} images of {counts.idxmin()}"
        said.append(f"The test has {fewest}; below {FEWEST} of a class, numbers move a lot.")
    said += [block["no_interval"]] if block["no_interval"] else _about_interval(*block["auc_ci"])
    most, accuracy = counts.max() / block["n"], block["intervals"]["accuracy"]
    # With a positive class the threshold gives accuracy away for sensitivity, and rightly so; without one the rule
    # gives it away for the rare classes, and whoever reads the accuracy should know.
    if block["sensitivity"] is None and accuracy[0] <= most:
        balanced = f"balanced accuracy {1 / len(counts):.2f} and {block['balanced_accuracy']:.2f}"
        said.append(
            f"Always naming the most frequent class is right in {most:.0%}, the model in {block['accuracy']:.0%} "
            f"({balanced}): by accuracy it has not been shown to do better."
        )
    interval = confounder["difference_ci"]
    if not interval or interval[0] <= 0:
        low_high = f" (95 % interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ", without an interval"
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
    labels, rows = manifest.label.to_numpy(dtype=object), []
    called = decide(scores, classes, positive_class, threshold)
    larger_side = {"larger side (px)": manifest[["width", "height"]].max(axis=1)}
    columns = manifest[columns_to_compare(manifest)].assign(**larger_side)
    for column in columns:
        values = in_ranges(columns[column])
        for value in values.cat.categories if values.nunique() > 1 else ():
            own = np.flatnonzero(values == value)
            truth, group = labels[own] == positive_class, own if groups is None else np.asarray(groups)[own]
            sides = [truth, ~truth] if positive_class else [truth | True]
            cases = min(len(np.unique(group[side])) for side in sides)
            row = {"column": column, "value": value, "n": len(own), "n_positive": int(truth.sum()), "note": "too few"}
            if cases >= FEWEST_GROUPS and min(side.sum() for side in sides) >= FEWEST_OF_SUBGROUP:
                row |= {"accuracy": (called == labels)[own].mean(), "note": ""}
                row["low"], row["high"] = share_interval(row["accuracy"], cases)
            if positive_class and not row["note"]:
                score, found = scores[own, classes.index(positive_class)], called[own] == positive_class
                row |= {"sensitivity": found[truth].mean(), "specificity": 1 - found[~truth].mean()}
                row["auc"], (row["low"], row["high"]) = auc_with_interval(truth, score, group)
            rows.append(row)
    numbers = ["n_positive", "auc", "low", "high", "sensitivity", "specificity"]
    numbers = numbers if positive_class else ["accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=["column", "value", "n", *numbers, "note"])


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
        Images of a class with a single group, which no other could judge, are left out.
    """
    names = pd.Series(groups).groupby(targets).nunique()
    learned = names.index[names > 1]
    image = np.flatnonzero(np.isin(targets, learned))
    given = learned.get_indexer(targets[image])
    if len(learned) < 2 or not group_folds(given, groups[image], seed):
        return pd.DataFrame(columns=["image", "given", "self_confidence", "suggested", "rank"])
    margins = sweep_c(features[image], given, groups[image], [c], seed).margins
    scores = calibrated(margins, *calibrate(margins, given))  # a rare label needs more evidence
    table = pd.DataFrame({"image": image, "given": targets[image]})
    table["self_confidence"] = scores[np.arange(len(given)), given]
    table["suggested"] = learned.to_numpy()[scores.argmax(axis=1)]
    table = table.sort_values("self_confidence", kind="stable", ignore_index=True)
    return table.assign(rank=table.index + 1)
