"""Subgroups: the right images in each, the numbers of those images alone, and no number where there are too few."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tdsp_vision.modeling.intervals import mean_auc
from tdsp_vision.modeling.subgroups import subgroup_table, subgroups_in_words

TWO = ["benign", "malignant"]


def _case(n: int = 200, **columns) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = np.arange(n) % 2
    manifest = pd.DataFrame({"label": np.array(TWO, dtype=object)[targets], "width": 256, "height": 200})
    manifest = manifest.assign(license="CC-0", attribution="someone", group=np.arange(n) // 2, **columns)
    score = 1 / (1 + np.exp(-rng.normal(size=n) - 2 * targets + 1))
    return manifest, np.column_stack([1 - score, score])


def _table(manifest, scores, positive="malignant", **more) -> pd.DataFrame:
    return subgroup_table(manifest, scores, TWO, positive, 0.5 if positive else None, 0, **more)


def test_each_subgroup_has_the_numbers_of_its_own_images():
    sex = np.array(["female", "male", None, "male"], dtype=object).repeat(50)
    manifest, scores = _case(sex=sex)
    table = _table(manifest, scores).set_index("value")
    assert table.index.tolist() == ["female", "male", "(missing)"] and (table.column == "sex").all()
    for value, chosen in (("female", sex == "female"), ("male", sex == "male"), ("(missing)", pd.isna(sex))):
        row, truth, score = table.loc[value], (manifest.label == "malignant")[chosen], scores[chosen, 1]
        assert (row.n, row.n_positive, row.note) == (chosen.sum(), truth.sum(), "")
        assert row.auc == pytest.approx(roc_auc_score(truth, score))
        assert [row.low, row.high] == mean_auc(truth.to_numpy()[:, None], score[:, None], None, 0)[1]
        assert row.low < row.auc < row.high
        assert row.sensitivity == pytest.approx((score >= 0.5)[truth].mean())
        assert row.specificity == pytest.approx((score < 0.5)[~truth].mean())


def test_too_few_of_a_class_get_no_number():
    manifest, scores = _case()
    site = np.full(200, "torso", dtype=object)
    site[:20], site[20:39] = "head", "foot"  # 10 and 10; 10 benign and 9 malignant
    table = _table(manifest.assign(site=site), scores).set_index("value")
    assert table.note.to_dict() == {"foot": "too few", "head": "", "torso": ""}
    numbers = table[["auc", "low", "high", "sensitivity", "specificity"]]
    assert numbers.loc["foot"].isna().all() and numbers.drop("foot").notna().all(axis=None)
    assert table.loc["foot", ["n", "n_positive"]].tolist() == [19, 9]
    assert subgroups_in_words(table.reset_index()).startswith("1 of 3 subgroups have too few images")


def test_ages_and_sizes_come_in_ranges():
    ages = np.array([5, 29, 30, 49, 50, 69, 70, 85, np.nan, 50.0]).repeat(20)
    manifest, scores = _case(age_approx=ages)
    manifest["height"] = np.arange(200) + 300
    table = _table(manifest, scores)
    counts = table.groupby("column", sort=False).apply(lambda t: dict(zip(t.value, t.n, strict=True)))
    bands = {"under 30": 40, "30 to 49": 40, "50 to 69": 60, "70 and over": 40, "(missing)": 20}
    assert counts["age_approx"] == bands
    assert sum(counts["larger side (px)"].values()) == 200 and len(counts["larger side (px)"]) == 3
    assert list(table.column.unique()) == ["age_approx", "larger side (px)"]


def test_few_different_sizes_and_truth_values_stay_as_they_are():
    manifest, scores = _case(melanocytic=[True, False, False, True] * 50)
    manifest.loc[:79, "width"] = 1024
    counts = {(row.column, row.value): row.n for row in _table(manifest, scores).itertuples()}
    expected = {("melanocytic", "False"): 100, ("melanocytic", "True"): 100}
    assert counts == expected | {("larger side (px)", "256"): 120, ("larger side (px)", "1024"): 80}


def test_without_a_positive_class_there_is_accuracy():
    manifest, scores = _case(site=["head"] * 9 + ["foot"] * 191)
    table = _table(manifest, scores, "")
    assert table.columns.tolist() == ["column", "value", "n", "accuracy", "low", "high", "note"]
    foot, head = table.to_dict("records")
    assert head["note"] == "too few" and np.isnan(head["accuracy"])
    right = (scores[9:].argmax(axis=1) == manifest.label[9:].map(TWO.index)).mean()
    assert foot["accuracy"] == pytest.approx(right) and foot["low"] < right < foot["high"]
    assert f"Lowest accuracy: site foot, {right:.2f}" in subgroups_in_words(table)


def test_groups_are_passed_on():
    manifest, scores = _case(sex=["female"] * 100 + ["male"] * 100)
    order = np.argsort(scores[:, 1] * np.where(manifest.label == "malignant", 1, -1))
    alike = np.empty(200, int)
    alike[order] = np.arange(200) // 10  # ten images of a group are right or wrong together
    alone, whole = _table(manifest, scores), _table(manifest, scores, groups=alike)
    assert (whole.high - whole.low > 1.3 * (alone.high - alone.low)).all()
    assert whole.auc.tolist() == alone.auc.tolist()


@pytest.mark.parametrize("positive", ["malignant", ""])
def test_nothing_known_is_one_sentence(positive):
    table = _table(*_case(), positive)
    assert table.empty and "note" in table
    assert subgroups_in_words(table) == "Nothing is known of the images by which subgroups could be made."


def test_all_too_few_is_one_sentence():
    manifest, scores = _case(20, sex=["female", "female", "male", "male"] * 5)
    said = subgroups_in_words(_table(manifest, scores))
    assert said == "2 of 2 subgroups have too few images (fewer than 10 of a class) for a number."
