"""Divide a manifest into training, validation and test, by class and without tearing groups apart.

An image in the test set whose patient, lesion or near-duplicate was trained on measures memory, not skill. Splits
are therefore made of whole groups, and `leakage` counts, whatever was asked for, what lies on two sides.
"""

import warnings
from fractions import Fraction

import numpy as np
import pandas as pd

SPLITS = ("train", "validation", "test")
# What each value of GROUP_BY keeps together: columns of the manifest ("group" joins the three below it).
GROUP_BY = {"auto": "group", "patient": "patient_id", "lesion": "lesion_id", "cluster": "cluster", "none": None}
# What sides are called on disk and in tables.
ALIASES = {"training": "train", "val": "validation", "valid": "validation", "dev": "validation", "testing": "test"}
POSITIVE_WORDS = "malignant positive abnormal defect defective faulty disease diseased infected cancer tumor tumour"


def positive_class(wanted: str, classes: list[str], sensitivity: float = 0.0) -> str:
    """The class that must not be missed, "" for none.

    Args:
        wanted: `POSITIVE_CLASS`: a class, "" or "auto": the one class whose name says it (`POSITIVE_WORDS`), if any.
        sensitivity: `SENSITIVITY`, which means nothing without such a class.

    Raises:
        ValueError: for fewer than two classes, a name that is no class, or a sensitivity of no class.
    """
    if len(classes) < 2:
        raise ValueError(f"The manifest, corrections included, has the classes {classes}; a classifier needs two.")
    named = [name for name in classes if name.casefold() in POSITIVE_WORDS.split()]
    found = (named[0] if len(named) == 1 else "") if wanted == "auto" else wanted
    if found and found not in classes:
        raise ValueError(f"POSITIVE_CLASS is {wanted!r}; allowed are 'auto', '' and the classes {classes}.")
    if sensitivity and not found:
        raise ValueError(f"SENSITIVITY is {sensitivity}, and there is no positive class; name it in POSITIVE_CLASS.")
    return found


def fine_targets(manifest: pd.DataFrame, column: str) -> tuple[list[str], np.ndarray]:
    """Names of the finer labels in a column (sorted) and float [n, F], one-hot, all 0 where there is none.

    With no `column` F is 0. ValueError if it is no column, or holds fewer than two values.
    """
    if not column:
        return [], np.zeros((len(manifest), 0))
    if column not in manifest:
        raise ValueError(f"FINE_LABELS is {column!r}; allowed are '' and columns of the manifest: {list(manifest)}.")
    fine = pd.get_dummies(manifest[column].astype("string").replace("", pd.NA), dtype=float)
    if fine.shape[1] < 2:
        raise ValueError(f"FINE_LABELS is {column!r}, and that column holds {fine.shape[1]} value(s); two are needed.")
    return list(fine), fine.to_numpy()


def without_small_classes(manifest: pd.DataFrame, group_by: str, least: int) -> pd.DataFrame:
    """The manifest without the classes of fewer than `least` groups; prints what is left out. 0 keeps all."""
    groups = _group_ids(manifest, group_by).groupby(manifest.label).nunique()
    small = groups[groups < least]
    if len(small):
        names = ", ".join(f"{label} ({count})" for label, count in small.items())
        print(f"left out, having fewer than {least} groups (MIN_CLASS_SIZE): {names}")
    return manifest[~manifest.label.isin(small.index)].reset_index(drop=True)


def split_manifest(
    manifest: pd.DataFrame, group_by: str, test_fraction: float, validation_fraction: float, seed: int, division="drawn"
) -> pd.Series:
    """Assign each image to "train", "validation" or "test".

    Args:
        manifest: from `load_manifest`; its order does not matter.
        group_by: a key of `GROUP_BY`; "none" splits image by image and is there to show what leaks then.
        test_fraction: share of the images for the test, 0 to 1 (exclusive).
        validation_fraction: share of all images for validation; the two leave something for training.
        seed: same seed, same images, same splits.
        division: `SPLIT`: "drawn"; "given" keeps the column `split` of the manifest, and draws from its training side
            what it lacks; "auto" is "given" where there is such a column.

    Returns:
        the split of each image, aligned with the manifest's index. Shares are met as closely as whole groups allow.

    Raises:
        ValueError: if a column that is needed is missing or wrong, or a class has too few groups for three sides.
    """
    ordered = manifest.sort_values("path")
    groups = _group_ids(ordered, group_by)
    split = _given(ordered) if division == "given" or division == "auto" and "split" in manifest else None
    split = pd.Series("train", index=ordered.index) if split is None else split
    rest = split == "train"
    if rest.any() and not (split == "test").any():
        split[_take(ordered.label[rest], groups[rest], test_fraction, seed, groups_left=2)] = "test"
        validation_fraction /= 1 - test_fraction
    rest = split == "train"
    if rest.any() and not (split == "validation").any():
        split[_take(ordered.label[rest], groups[rest], validation_fraction, seed, groups_left=1)] = "validation"
    counts = pd.crosstab(ordered.label, split).reindex(columns=SPLITS, fill_value=0).stack()
    for label, side in counts.index[counts == 0]:
        few = f"No image of class {label!r} is left for {side}: they came divided so, or are in too few groups"
        advice = "take SPLIT 'drawn', add some, leave small classes out by MIN_CLASS_SIZE, or change the fractions"
        raise ValueError(f"{few}; {advice}.")
    return split.reindex(manifest.index).rename("split")


def _given(manifest: pd.DataFrame) -> pd.Series:
    if "split" not in manifest:
        raise ValueError("SPLIT is 'given', and the manifest has no column 'split'; take 'drawn' or 'auto'.")
    split = manifest.split.astype("string").str.strip().str.casefold().replace(ALIASES)
    wrong = manifest.split[~split.isin(SPLITS)]
    if len(wrong):
        names = ", ".join([*SPLITS, *ALIASES])
        raise ValueError(f"The column 'split' holds {wrong.iloc[0]!r}; allowed are {names}, or take SPLIT 'drawn'.")
    return split.astype(object)


def leakage(manifest: pd.DataFrame, split: pd.Series, forbidden: bool = False) -> pd.DataFrame:
    """What lies on two sides: one row per key that the manifest knows, with groups and images that are torn.

    Args:
        forbidden: stop where anything is torn.

    Returns:
        columns kept_together (patient_id, lesion_id, cluster), groups (how many there are), torn_groups, torn_images.

    Raises:
        ValueError: if it is forbidden, naming the first key and how many groups are torn.
    """
    rows = []
    for key in ("patient_id", "lesion_id", "cluster"):
        if key in manifest and manifest[key].notna().any():
            sides = split.groupby(manifest[key]).nunique()
            torn = sides.index[sides > 1]
            rows.append((key, len(sides), len(torn), int(manifest[key].isin(torn).sum())))
            if forbidden and len(torn):
                torn = f"{len(torn)} of {len(sides)} groups by {key} lie on two sides of the split"
                raise ValueError(f"{torn}; take SPLIT 'drawn' and GROUP_BY 'auto', or another GROUP_BY to go on.")
    return pd.DataFrame(rows, columns=["kept_together", "groups", "torn_groups", "torn_images"])


def group_folds(targets: np.ndarray, groups: np.ndarray, seed: int, folds: int = 5) -> list[tuple]:
    """Folds of whole groups for cross-validation: pairs of row numbers, of the rest, with every class, and of the fold.

    Args:
        targets, groups: [n].
        folds: at most this many; fewer where the smallest class has fewer groups.

    Returns:
        each row is in one fold; [] where a class is a single group.
    """
    labels, names = pd.Series(targets), pd.Series(groups).astype(str)
    fewest = names.groupby(labels).nunique().min()
    if fewest < 2:
        return []
    fold = _fold_numbers(labels, names, min(folds, fewest), seed)
    pairs = [(np.flatnonzero(fold != number), np.flatnonzero(fold == number)) for number in np.unique(fold)]
    whole = all(len(np.unique(targets[rest])) == labels.nunique() for rest, _ in pairs)
    return pairs if whole else []


def _group_ids(manifest: pd.DataFrame, group_by: str) -> pd.Series:
    column = GROUP_BY[group_by]
    if column is None:
        return pd.Series(range(len(manifest)), index=manifest.index)
    if column not in manifest:
        raise ValueError(f"GROUP_BY is {group_by!r}, and the manifest has no column {column!r}; use 'auto'.")
    alone = "alone-" + manifest.path  # an image without an id is a group of its own
    return manifest[column].astype("string").fillna(alone)


def _take(labels: pd.Series, groups: pd.Series, share: float, seed: int, groups_left: int) -> pd.Index:
    """Index of about `share` of the images, in whole groups: p of q folds, for share = p / q.

    Folds differ where groups do. Of the q runs of p neighbouring folds, the one is taken that comes closest to the
    share in each class; before that counts that each class is in it and has `groups_left` groups outside it.
    """
    kinds = groups.groupby(labels).nunique()
    if kinds.min() < 2:
        few = f"The class {kinds.idxmin()!r} has too few groups of images to be split, one for each side"
        raise ValueError(f"{few}: add images of other cases, or leave such classes out by MIN_CLASS_SIZE 3.")
    n_folds = min(Fraction(share).limit_denominator(20).denominator, kinds.max())
    count = max(1, round(share * n_folds))
    fold = _fold_numbers(labels, groups, n_folds, seed)

    def shortcomings(first: int) -> tuple[int, float]:
        taken = (fold - first) % n_folds < count
        inside, outside = (groups[side].groupby(labels[side]).nunique() for side in (taken, ~taken))
        lacking = (inside.reindex(kinds.index, fill_value=0) < 1) | ~(outside.reindex(kinds.index) >= groups_left)
        shares = pd.Series(taken, labels.index).groupby(labels).mean()
        return int(lacking.sum()), round(float((shares - share).abs().max()), 9)

    best = min(range(n_folds), key=shortcomings)
    return labels.index[(fold - best) % n_folds < count]


def _fold_numbers(labels: pd.Series, groups: pd.Series, n_folds: int, seed: int) -> np.ndarray:
    """Fold of each image, 0 to n_folds - 1; a class with few groups is missing from some."""
    from sklearn.model_selection import StratifiedGroupKFold  # here: it takes as long as all that refuses before

    fold = np.empty(len(labels), int)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        for number, (_, rows) in enumerate(splitter.split(labels, labels, groups)):
            fold[rows] = number
    return fold
