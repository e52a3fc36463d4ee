"""Does the model serve everyone alike? The same metric for each age, sex, site, skin type and image size by itself.

Subgroups are the values of the manifest's metadata columns, as far as the source tells them. A subgroup with fewer than
10 images of a class gets no number: it would be read, and it would say nothing.
"""

import numpy as np
import pandas as pd

from tdsp_vision.data.quality import columns_to_compare
from tdsp_vision.modeling.intervals import bootstrap, mean_auc
from tdsp_vision.modeling.thresholds import decide

FEWEST = 10  # images of a class
AGES = {"under 30": 30, "30 to 49": 50, "50 to 69": 70, "70 and over": np.inf}  # years, upper end exclusive
MOST_VALUES = 6  # a number with more different values is divided into thirds
LARGER_SIDE = "larger side (px)"
UNKNOWN = "(missing)"
NUMBERS = ["auc", "low", "high", "sensitivity", "specificity"]


def subgroup_table(
    manifest: pd.DataFrame,
    scores: np.ndarray,
    classes: list[str],
    positive_class: str,
    threshold: float | None,
    seed: int,
    groups: np.ndarray | None = None,
) -> pd.DataFrame:
    """One row for each value of each metadata column, and of the size of the file's picture.

    Args:
        manifest: the rows of one side, the test; label, width, height and what metadata there are.
        scores: float [n, K], in its order.
        threshold: from `choose_threshold`.
        seed: of the bootstrap.
        groups: [n], what belongs together.

    Returns:
        column, value, n; with a positive class n_positive, auc with its 95 % interval low, high, and sensitivity and
        specificity at the threshold; without one accuracy, low, high. Then note: "too few" where the numbers are NaN.
        No rows where all images are alike in all that is known of them.
    """
    labels = manifest.label.to_numpy(dtype=object)
    right = decide(scores, classes, positive_class, threshold)
    right = right == positive_class if positive_class else right == labels
    score = np.asarray(scores[:, classes.index(positive_class)], np.float64) if positive_class else None
    rows = []
    for column, values in _columns(manifest).items():
        for value in values.cat.categories:
            chosen = (values == value).to_numpy()
            own = None if groups is None else np.asarray(groups)[chosen]
            if positive_class:
                truth = labels[chosen] == positive_class
                found = _about_positive(truth, score[chosen], right[chosen], own, seed)
            else:
                found = _accuracy(right[chosen], own, seed)
            rows.append({"column": column, "value": value, "n": int(chosen.sum())} | found)
    numbers = ["n_positive", *NUMBERS] if positive_class else ["accuracy", "low", "high"]
    return pd.DataFrame(rows, columns=["column", "value", "n", *numbers, "note"])


def subgroups_in_words(table: pd.DataFrame) -> str:
    """One sentence on what the table can and cannot say."""
    if table.empty:
        return "Nothing is known of the images by which subgroups could be made."
    few = int((table.note != "").sum())
    measure = "auc" if "auc" in table else "accuracy"
    said = f"{few} of {len(table)} subgroups have too few images (fewer than {FEWEST} of a class) for a number."
    if few == len(table):
        return said
    worst = table.loc[table[measure].idxmin()]
    name = "AUC" if measure == "auc" else "accuracy"
    return (
        f"{said} Lowest {name}: {worst['column']} {worst['value']}, {worst[measure]:.2f} (95 % interval "
        f"{worst['low']:.2f} to {worst['high']:.2f}); of many subgroups one is always the lowest."
    )


def _about_positive(truth: np.ndarray, score: np.ndarray, called: np.ndarray, groups, seed: int) -> dict:
    found = {"n_positive": int(truth.sum())}
    if min(truth.sum(), (~truth).sum()) < FEWEST:
        return found | dict.fromkeys(NUMBERS, np.nan) | {"note": "too few"}
    area, (low, high) = mean_auc(truth[:, None], score[:, None], groups, seed)
    found |= {"auc": area, "low": low, "high": high}
    return found | {"sensitivity": called[truth].mean(), "specificity": 1 - called[~truth].mean(), "note": ""}


def _accuracy(right: np.ndarray, groups, seed: int) -> dict:
    if len(right) < FEWEST:
        return dict.fromkeys(("accuracy", "low", "high"), np.nan) | {"note": "too few"}

    def accuracy(weights: np.ndarray) -> dict[str, np.ndarray]:
        return {"accuracy": weights @ right / weights.sum(axis=1)}

    low, high = bootstrap(accuracy, np.zeros(len(right), int), groups, seed)["accuracy"]
    return {"accuracy": right.mean(), "low": low, "high": high, "note": ""}


def _columns(manifest: pd.DataFrame) -> dict[str, pd.Series]:
    """Categories of each image by column, for each column that has at least two."""
    manifest = manifest.reset_index(drop=True)
    found = {name: _categories(manifest[name]) for name in columns_to_compare(manifest)}
    sides = manifest[["width", "height"]].max(axis=1).rename(LARGER_SIDE)
    return {
        name: values for name, values in (found | {LARGER_SIDE: _categories(sides)}).items() if values.nunique() > 1
    }


def _categories(values: pd.Series) -> pd.Series:
    """Text as it is; ages in four bands; other numbers with many values in thirds; missing ones last."""
    known = values.replace("", pd.NA).dropna()
    numeric = pd.api.types.is_numeric_dtype(known) and not pd.api.types.is_bool_dtype(known)
    if numeric and str(values.name).startswith("age"):
        known = pd.cut(known, [-np.inf, *AGES.values()], right=False, labels=list(AGES))
    elif numeric and known.nunique() > MOST_VALUES:
        known = pd.qcut(known, 3, duplicates="drop")
        known = known.cat.rename_categories([f"{one.left:g} to {one.right:g}" for one in known.cat.categories])
    else:
        known = known.astype("category")
        known = known.cat.rename_categories([str(one) for one in known.cat.categories])
    categories = [*(name for name in known.cat.categories if (known == name).any()), UNKNOWN]
    filled = known.astype(object).reindex(values.index, fill_value=UNKNOWN)
    return pd.Series(pd.Categorical(filled, categories, ordered=True)).cat.remove_unused_categories()
