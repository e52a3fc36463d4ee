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

KEYS = ["patient_id", "lesion_id", "cluster"]


def _joined(table: pd.DataFrame) -> list[int]:
    """Group of each image: what shares a patient, lesion or cluster, directly or through others."""
    parent = list(range(len(table)))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for key in KEYS:
        first = {}
        for i, value in enumerate(table[key]):
            if pd.notna(value):
                parent[root(i)] = root(first.setdefault(value, i))
    return [root(i) for i in range(len(table))]


def _manifest(seed: int, counts: list[int], mean_size: float, missing: float, mixed: bool) -> pd.DataFrame:
    """Images with patients, lesions and clusters of random sizes; some ids are missing, some groups mix classes."""
    rng = np.random.default_rng(seed)
    tables = []
    for k, count in enumerate(counts):
        sizes = rng.geometric(1 / mean_size, count)
        patient = np.repeat(np.arange(count), sizes)[:count]
        table = pd.DataFrame({"path": [f"images/c{k}/{i:04}.jpg" for i in rng.permutation(count)], "label": f"c{k}"})
        table["patient_id"] = [f"p{0 if mixed and n % 7 == 0 else k}-{n}" for n in patient]
        table["lesion_id"] = [f"l{k}-{n}-{i // 2}" for i, n in enumerate(patient)]
        table["cluster"] = rng.integers(0, 10 * count, count) + 1000 * k * len(counts)
        tables.append(table)
    table = pd.concat(tables, ignore_index=True)
    for key in ("patient_id", "lesion_id"):
        table.loc[rng.random(len(table)) < missing, key] = None
    table["group"] = _joined(table)
    return table.sample(frac=1, random_state=seed).reset_index(drop=True)


manifests = st.builds(
    _manifest,
    seed=st.integers(0, 10_000),
    counts=st.lists(st.sampled_from([6, 12, 40, 120]), min_size=2, max_size=4),
    mean_size=st.sampled_from([1.0, 1.5, 4.0]),
    missing=st.sampled_from([0.0, 0.3, 1.0]),
    mixed=st.booleans(),
)
fractions = st.sampled_from([(0.25, 0.15), (0.2, 0.2), (0.3, 0.1), (0.05, 0.05), (0.4, 0.3)])


def _split(manifest, group_by, test, validation, seed):
    """The split, or None where it is refused, in a sentence that says why."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return split_manifest(manifest, group_by, test, validation, seed)
    except ValueError as error:
        assert "too few groups" in str(error)
        return None


@settings(max_examples=25, deadline=None)
@given(manifests, fractions, st.integers(0, 3), st.sampled_from(sorted(GROUP_BY)))
def test_every_split_keeps_its_promises(manifest, shares, seed, group_by):
    test, validation = shares
    split = _split(manifest, group_by, test, validation, seed)
    assume(split is not None)
    assert split.index.equals(manifest.index) and set(split) == set(SPLITS)
    assert (pd.crosstab(manifest.label, split) > 0).all(axis=None)
    torn = leakage(manifest, split).set_index("kept_together").torn_groups
    if group_by == "auto":
        assert not torn.any()
        assert split.groupby(manifest.group).nunique().max() == 1
    elif GROUP_BY[group_by] in torn:
        assert torn[GROUP_BY[group_by]] == 0
    shuffled = manifest.sample(frac=1, random_state=seed + 1)
    pd.testing.assert_series_equal(split_manifest(shuffled, group_by, *shares, seed).reindex(manifest.index), split)


@settings(max_examples=25, deadline=None)
@given(manifests, fractions, st.integers(0, 3), st.sampled_from(["auto", "none"]))
def test_shares_are_met_as_closely_as_groups_allow(manifest, shares, seed, group_by):
    split = _split(manifest, group_by, *shares, seed)
    assume(split is not None)
    groups = manifest.group if group_by == "auto" else pd.Series(range(len(manifest)))
    largest = groups.value_counts().iloc[0]
    classes = manifest.label.nunique()
    for side, share in zip(("test", "validation"), shares, strict=True):
        # A class is divided to within its fold: its share, one image more or less, and a group that may not be cut.
        tolerance = largest + classes + 0.03 * len(manifest)
        assert abs((split == side).sum() - share * len(manifest)) <= tolerance


@settings(max_examples=25, deadline=None)
@given(manifests, st.integers(0, 5))
def test_leakage_counts_what_a_loop_counts(manifest, seed):
    split = pd.Series(np.random.default_rng(seed).choice(SPLITS, len(manifest)), manifest.index)
    rows = leakage(manifest, split).set_index("kept_together")
    for key in KEYS:
        sides, images = {}, {}
        for value, side in zip(manifest[key], split, strict=True):
            if pd.notna(value):
                sides.setdefault(value, set()).add(side)
                images[value] = images.get(value, 0) + 1
        if not sides:
            assert key not in rows.index
            continue
        torn = [value for value, seen in sides.items() if len(seen) > 1]
        expected = [len(sides), len(torn), sum(images[value] for value in torn)]
        assert rows.loc[key].tolist() == expected


def _equal_groups(per_class: int, size: int) -> pd.DataFrame:
    """Two classes; each patient has `size` images, and so has each group."""
    rows = [
        {"path": f"images/{label}/{i:03}.jpg", "label": label, "patient_id": f"{label}{i // size}"}
        for label in ("a", "b")
        for i in range(per_class)
    ]
    table = pd.DataFrame(rows)
    return table.assign(group=pd.factorize(table.patient_id)[0])


def test_a_rare_class_does_not_spoil_the_shares_of_the_others():
    table = pd.concat([_equal_groups(400, 1), _equal_groups(4, 1).replace({"a": "rare"}, regex=True)])
    table = table[table.label != "b"].reset_index(drop=True).assign(group=range(404))
    split = split_manifest(table, "auto", 0.25, 0.15, 0)
    assert abs((split == "test").mean() - 0.25) < 0.01 and abs((split == "validation").mean() - 0.15) < 0.01
    assert set(split[table.label == "rare"]) == set(SPLITS)


def test_one_huge_group_stays_on_the_training_side():
    table = _equal_groups(60, 1)
    table.loc[:29, "group"] = 1000
    split = split_manifest(table, "auto", 0.25, 0.15, 0)
    assert set(split[:30]) == {"train"}


def test_without_groups_patients_leak_and_the_table_says_so():
    table = _equal_groups(40, 4)
    split = split_manifest(table, "none", 0.25, 0.15, 0)
    row = leakage(table, split).iloc[0]
    assert row.kept_together == "patient_id" and row.groups == 20 and row.torn_groups > 10
    with pytest.raises(ValueError, match=f"{row.torn_groups} of 20 groups by patient_id lie on two sides.*'auto'"):
        leakage(table, split, forbidden=True)
    leakage(table, split_manifest(table, "patient", 0.25, 0.15, 0), forbidden=True)


def test_images_without_an_id_are_groups_of_their_own():
    table = _equal_groups(60, 1).assign(patient_id=None)
    assert set(split_manifest(table, "patient", 0.25, 0.15, 0)) == set(SPLITS)
    assert leakage(table, pd.Series("train", table.index)).empty


@pytest.mark.parametrize(("per_class", "size"), [(1, 1), (2, 1), (20, 10), (20, 20)])
def test_too_few_groups_are_named(per_class, size):
    with pytest.raises(ValueError, match="'[ab]'.*too few groups"):
        split_manifest(_equal_groups(per_class, size), "auto", 0.25, 0.15, 0)


@pytest.mark.parametrize("group_by", ["auto", "none"])
def test_three_images_per_class_are_enough(group_by):
    split = split_manifest(_equal_groups(3, 1), group_by, 0.25, 0.15, 0)
    assert split.value_counts().to_dict() == {"train": 2, "validation": 2, "test": 2}


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


@pytest.mark.parametrize(
    ("changes", "group_by", "division", "message"),
    [
        ({}, "lesion", "drawn", "GROUP_BY is 'lesion', and the manifest has no column 'lesion_id'"),
        ({}, "auto", "given", "SPLIT is 'given', and the manifest has no column 'split'"),
        ({"split": "fold3"}, "auto", "auto", "holds 'fold3'.*SPLIT 'drawn'"),
    ],
)
def test_divisions_that_cannot_be_made_are_named(changes, group_by, division, message):
    with pytest.raises(ValueError, match=message):
        split_manifest(_equal_groups(9, 1).assign(**changes), group_by, 0.25, 0.15, 0, division)


def test_small_classes_can_be_left_out_and_are_named(capsys):
    table = pd.concat([_equal_groups(40, 2), _equal_groups(4, 2)[:4].assign(label="rare")], ignore_index=True)
    table.loc[table.label == "rare", "group"] = [900, 900, 901, 901]
    with pytest.raises(ValueError, match="'rare'.*MIN_CLASS_SIZE"):
        split_manifest(table, "auto", 0.25, 0.15, 0)
    left = without_small_classes(table, "auto", 3)
    assert sorted(left.label.unique()) == ["a", "b"] and "rare (2)" in capsys.readouterr().out
    assert len(without_small_classes(table, "auto", 0)) == len(table)


@pytest.mark.parametrize(
    ("wanted", "classes", "found"),
    [
        ("auto", ["benign", "malignant"], "malignant"),
        ("auto", ["Defect", "good"], "Defect"),
        ("auto", ["ants", "bees"], ""),
        ("auto", ["abnormal", "positive"], ""),
        ("", ["benign", "malignant"], ""),
        ("benign", ["benign", "malignant"], "benign"),
    ],
)
def test_the_positive_class_is_found_by_its_name(wanted, classes, found):
    assert positive_class(wanted, classes) == found


@pytest.mark.parametrize(
    ("wanted", "classes", "sensitivity", "message"),
    [
        (
            "wolf",
            ["ants", "bees"],
            0,
            "POSITIVE_CLASS is 'wolf'; allowed are 'auto', '' and the classes.*'ants', 'bees'",
        ),
        ("auto", ["ants", "bees"], 0.9, "SENSITIVITY is 0.9, and there is no positive class"),
        ("auto", ["malignant"], 0, "the classes \\['malignant'\\]; a classifier needs two"),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_start(wanted, classes, sensitivity, message):
    with pytest.raises(ValueError, match=message):
        positive_class(wanted, classes, sensitivity)


@pytest.mark.parametrize("fewest", [1, 2, 3, 9])
def test_folds_hold_each_row_once_in_whole_groups_and_leave_every_class(fewest):
    targets = np.repeat([0, 1, 2], [30, 30, 3 * fewest])
    groups = np.concatenate([np.arange(60) // 2, 100 + np.arange(3 * fewest) // 3])
    folds = group_folds(targets, groups, 0)
    assert len(folds) == (0 if fewest == 1 else min(5, fewest))
    for rest, rows in folds:
        assert set(targets[rest]) == {0, 1, 2} and not set(groups[rest]) & set(groups[rows])
    assert not folds or sorted(np.concatenate([rows for _, rows in folds])) == list(range(len(targets)))
