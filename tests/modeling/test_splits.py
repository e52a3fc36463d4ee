"""Splits: whatever the manifest looks like, groups stay whole, shares are met, and what leaks is counted."""

import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tdsp_vision.modeling.splits import (
    GROUP_BY,
    SPLITS,
    group_folds,
    leakage,
    positive_class,
    split_manifest,
    without_small_classes,
)


def _manifest(seed: int, counts: list[int], mean_size: float, mixed: bool) -> pd.DataFrame:
    """Images of patients with a random number of pictures, some of whom are in two classes; not all lesions known."""
    rng = np.random.default_rng(seed)
    tables = []
    for k, count in enumerate(counts):
        patient = np.repeat(np.arange(count), rng.geometric(1 / mean_size, count))[:count]
        table = pd.DataFrame({"path": [f"images/c{k}/{i:04}.jpg" for i in rng.permutation(count)], "label": f"c{k}"})
        table["patient_id"] = [f"p{0 if mixed and n % 7 == 0 else k}-{n}" for n in patient]
        table["lesion_id"] = [f"l{k}-{n}-{i // 2}" if rng.random() < 0.7 else None for i, n in enumerate(patient)]
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    table["group"] = table["cluster"] = pd.factorize(table.patient_id)[0]
    return table.sample(frac=1, random_state=seed).reset_index(drop=True)


COUNTS, SIZES = st.lists(st.sampled_from([6, 12, 40, 120]), min_size=2, max_size=4), st.sampled_from([1.0, 1.5, 4.0])
MANIFESTS = st.builds(_manifest, st.integers(0, 10_000), COUNTS, SIZES, st.booleans())
FRACTIONS = st.sampled_from([(0.25, 0.15), (0.2, 0.2), (0.3, 0.1), (0.05, 0.05), (0.4, 0.3)])


@settings(max_examples=40, deadline=None)
@given(MANIFESTS, FRACTIONS, st.integers(0, 3), st.sampled_from(sorted(GROUP_BY)))
def test_every_split_keeps_its_promises(manifest, fractions, seed, group_by):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            split = split_manifest(manifest, group_by, *fractions, seed)
    except ValueError as error:
        assert "too few groups" in str(error)
        assume(False)
    assert split.index.equals(manifest.index)
    assert (pd.crosstab(manifest.label, split)[list(SPLITS)] > 0).all(axis=None)
    kept = GROUP_BY[group_by]
    groups = manifest[kept].fillna(manifest.path) if kept else manifest.path
    assert split.groupby(groups).nunique().max() == 1
    for side, share in zip(("test", "validation"), fractions, strict=True):
        # A class is divided to within its fold: its share, one image more or less, and a group that may not be cut.
        tolerance = groups.value_counts().iloc[0] + manifest.label.nunique() + 0.03 * len(manifest)
        assert abs((split == side).sum() - share * len(manifest)) <= tolerance
    shuffled = split_manifest(manifest.sample(frac=1, random_state=seed + 1), group_by, *fractions, seed)
    pd.testing.assert_series_equal(shuffled.reindex(manifest.index), split)


@settings(max_examples=25, deadline=None)
@given(MANIFESTS, st.integers(0, 5))
def test_leakage_counts_what_a_loop_counts(manifest, seed):
    split = pd.Series(np.random.default_rng(seed).choice(SPLITS, len(manifest)), manifest.index)
    for row in leakage(manifest, split).itertuples():
        seen = manifest.assign(split=split).dropna(subset=row.kept_together).groupby(row.kept_together)
        torn = [len(images) for _, images in seen if len(set(images.split)) > 1]
        assert (row.groups, row.torn_groups, row.torn_images) == (len(seen), len(torn), sum(torn))


def _equal_groups(per_class: int, size: int) -> pd.DataFrame:
    """Two classes; each patient has `size` images, and so has each group."""
    names = [(label, i) for label in ("a", "b") for i in range(per_class)]
    table = pd.DataFrame({"path": [f"images/{label}/{i:03}.jpg" for label, i in names]})
    table["label"], table["patient_id"] = zip(*[(label, f"{label}{i // size}") for label, i in names], strict=True)
    return table.assign(group=pd.factorize(table.patient_id)[0])


def test_a_rare_class_does_not_spoil_the_shares_of_the_others():
    table = _equal_groups(400, 1)
    table.loc[404:, "label"] = "a"
    split = split_manifest(table, "auto", 0.25, 0.15, 0)
    assert abs((split == "test").mean() - 0.25) < 0.01 and abs((split == "validation").mean() - 0.15) < 0.01
    assert set(split[table.label == "b"]) == set(SPLITS)


def test_without_groups_patients_leak_and_the_table_says_so():
    table = _equal_groups(40, 4)
    split = split_manifest(table, "none", 0.25, 0.15, 0)
    row = leakage(table, split).iloc[0]
    assert row.kept_together == "patient_id" and row.groups == 20 and row.torn_groups > 10
    with pytest.raises(ValueError, match=f"{row.torn_groups} of 20 groups by patient_id lie on two sides.*'auto'"):
        leakage(table, split, forbidden=True)
    leakage(table, split_manifest(table, "patient", 0.25, 0.15, 0), forbidden=True)


@pytest.mark.parametrize(("per_class", "size"), [(1, 1), (2, 1), (20, 10), (20, 20)])
def test_too_few_groups_are_named(per_class, size):
    with pytest.raises(ValueError, match="'[ab]'.*too few groups"):
        split_manifest(_equal_groups(per_class, size), "auto", 0.25, 0.15, 0)


def test_a_division_that_came_with_the_images_is_kept():
    table = _equal_groups(40, 2)
    table["split"] = ["train", " Training", "val", "TEST"] * 20
    split = split_manifest(table, "none", 0.25, 0.15, 0, "auto")
    assert split.tolist() == ["train", "train", "validation", "test"] * 20
    assert split_manifest(table, "auto", 0.25, 0.15, 0, "drawn").tolist() != split.tolist()


@pytest.mark.parametrize("given_sides", [["train", "test"], ["train", "val"]])
def test_sides_that_are_not_given_are_drawn_from_training_in_whole_groups(given_sides):
    table = _equal_groups(80, 2)
    table["split"] = np.where(np.arange(160) % 80 < 60, *given_sides)
    split = split_manifest(table, "auto", 0.25, 0.15, 0, "given")
    kept = {"val": "validation"}.get(given_sides[1], given_sides[1])
    assert set(split) == set(SPLITS) and (split[table.split == given_sides[1]] == kept).all()
    assert split.groupby(table.group).nunique().max() == 1
    with pytest.raises(ValueError, match="No image of class 'a' is left for train: they came divided so"):
        split_manifest(table.assign(split=given_sides[1]), "auto", 0.25, 0.15, 0, "auto")


def test_small_classes_can_be_left_out_and_are_named(capsys):
    table = pd.concat([_equal_groups(40, 2), _equal_groups(4, 2)[:4].assign(label="rare")], ignore_index=True)
    table.loc[table.label == "rare", "group"] = [900, 900, 901, 901]
    with pytest.raises(ValueError, match="'rare'.*MIN_CLASS_SIZE"):
        split_manifest(table, "auto", 0.25, 0.15, 0)
    left = without_small_classes(table, "auto", 3)
    assert sorted(left.label.unique()) == ["a", "b"] and "rare (2)" in capsys.readouterr().out
    assert len(without_small_classes(table, "auto", 0)) == len(table)


def test_the_positive_class_is_found_by_its_name():
    assert positive_class("auto", ["benign", "malignant"]) == "malignant"
    assert positive_class("auto", ["Defect", "good"]) == "Defect"
    assert positive_class("auto", ["abnormal", "positive"]) == positive_class("auto", ["ants", "bees"]) == ""
    assert positive_class("", ["benign", "malignant"]) == ""
    assert positive_class("benign", ["benign", "malignant"]) == "benign"


@pytest.mark.parametrize("fewest", [1, 2, 3, 9])
def test_folds_hold_each_row_once_in_whole_groups_and_leave_every_class(fewest):
    targets = np.repeat([0, 1, 2], [30, 30, 3 * fewest])
    groups = np.concatenate([np.arange(60) // 2, 100 + np.arange(3 * fewest) // 3])
    folds = group_folds(targets, groups, 0)
    assert len(folds) == (0 if fewest == 1 else min(5, fewest))
    for rest, rows in folds:
        assert set(targets[rest]) == {0, 1, 2} and not set(groups[rest]) & set(groups[rows])
    assert not folds or sorted(np.concatenate([rows for _, rows in folds])) == list(range(len(targets)))
