"""What a number is worth: the best confounder, objections where they are due, subgroups, labels to doubt."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tdsp_vision.data.quality import TOGETHER
from tdsp_vision.modeling.metrics import auc_with_interval, evaluate, paired_auc_difference
from tdsp_vision.modeling.trust import best_confounder, claim_warnings, subgroup_table, suspicious_labels

TWO, THREE = ["benign", "malignant"], ["a", "b", "c"]
NO_LEAKS = pd.DataFrame({"kept_together": ["patient_id"], "groups": 9, "torn_groups": 0, "torn_images": 0})


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (THREE, ""), (THREE, "c")])
def test_measure_and_direction_come_from_training_and_the_model_is_paired_with_it(classes, positive):
    rng = np.random.default_rng(0)
    targets, train = np.arange(240) % len(classes), np.arange(240) < 120
    measures = pd.DataFrame({"file_kb": rng.normal(size=240), "brightness": rng.normal(size=240) - 1.5 * targets})
    scores = rng.dirichlet(np.ones(len(classes)), 240) + np.eye(len(classes))[targets]
    groups = np.where(train, targets, np.arange(240) + 9)  # on training too few groups for anything but single measures
    manifest = pd.DataFrame({"label": np.array(classes, dtype=object)[targets], "group": groups})
    asked = manifest, scores, pd.Series(np.where(train, "train", "test")), positive, 0
    found, last = best_confounder(measures, *asked), classes[-1]
    assert found["measure"] == "brightness" and found["auc_ci"][0] < found["auc"] < found["auc_ci"][1]
    if positive:  # the highest class is the darkest
        truth, dark = (manifest.label == last)[~train].to_numpy(), -measures.brightness[~train].to_numpy()
        assert found["auc"] == pytest.approx(roc_auc_score(truth, dark))
        difference, interval = paired_auc_difference(truth, dark, scores[~train, -1], groups[~train])
        assert (found["difference"], *found["difference_ci"]) == pytest.approx((difference, *interval))
    measures.loc[~train, "brightness"] *= -1  # a direction that turns on the test counts against the measure
    assert best_confounder(measures, *asked)["auc"] < 0.5


def test_measures_together_are_found_where_none_is_alone():
    rng = np.random.default_rng(0)
    measures = pd.DataFrame(rng.normal(size=[400, 2]), columns=["file_kb", "brightness"])
    targets = (measures.file_kb * measures.brightness > 0).to_numpy().astype(int)
    manifest = pd.DataFrame({"label": np.array(TWO, dtype=object)[targets], "group": np.arange(400)})
    split = pd.Series(["train"] * 250 + ["test"] * 150)
    found = best_confounder(measures, manifest, np.eye(2)[targets], split, "malignant", 0)
    assert found["measure"] == TOGETHER and found["auc"] > 0.85


def _block(n: int, skill: float, positive: str = "malignant", share: int = 2, groups=None) -> dict:
    rng = np.random.default_rng(0)
    targets = (np.arange(n) % share == 0).astype(int)
    score = 1 / (1 + np.exp(-rng.normal(size=n) - skill * (targets - 0.5)))
    labels = np.array(TWO, dtype=object)[targets]
    return evaluate(labels, np.column_stack([1 - score, score]), TWO, positive, 0.5 if positive else [0.5, 0.5], groups)


def _confounder(low: float | None, difference: float = 0.1) -> dict:
    interval = None if low is None else [low, 0.3]
    return {"measure": "dark_corners", "auc": 0.6, "difference": difference, "difference_ci": interval}


GOOD, TORN = _block(1000, 4), NO_LEAKS.assign(torn_groups=3, torn_images=11)
OBJECTIONS = {
    "large and clear": ({"wanted_sensitivity": 0.9}, []),
    "large and clear, no class counts most": ({"block": _block(1000, 4, "")}, []),
    "few images, wide": ({"block": _block(60, 2, share=3)}, ["only 20 images of malignant", "wide"]),
    "guessing": ({"block": _block(1000, 0)}, ["reaches down to 0.5, which is guessing"]),
    "no better than the most frequent": ({"block": _block(1000, 0, "", 3)}, ["0.5", "right in 67%, the model in 48%"]),
    "one patient": ({"block": _block(900, 4, groups=np.arange(900) % 2)}, ["count as 1 independent case;"]),
    "a measure as good": ({"confounder": _confounder(-0.01)}, ["0.60 on the test, and the model 1.00"]),
    "too few to tell": ({"confounder": _confounder(None, 0.1)}, ["is 0.10, without an interval: it has not"]),
    "a broken promise": ({"wanted_sensitivity": 0.99}, ["0.99 on validation and of 0.97 on the test"]),
    "torn patients": ({"leaks": TORN}, ["3 of 9 groups by `patient_id` (11 images) lie on two sides"]),
}


@pytest.mark.parametrize("case", OBJECTIONS)
def test_objections_are_made_where_they_are_due_and_nowhere_else(case):
    given, parts = OBJECTIONS[case]
    said = claim_warnings(**{"block": GOOD, "leaks": NO_LEAKS, "confounder": _confounder(0.01)} | given)
    assert len(said) == len(parts), said
    for sentence, part in zip(said, parts, strict=True):
        assert part in sentence


def _case(n: int = 200, **columns) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = np.arange(n) % 2
    manifest = pd.DataFrame({"label": np.array(TWO, dtype=object)[targets], "width": 256, "height": 200})
    manifest = manifest.assign(license="CC-0", attribution="someone", group=np.arange(n) // 2, **columns)
    score = 1 / (1 + np.exp(-rng.normal(size=n) - 2 * targets + 1))
    return manifest, np.column_stack([1 - score, score])


def _table(manifest, scores, positive="malignant", groups=None) -> pd.DataFrame:
    return subgroup_table(manifest, scores, TWO, positive, 0.5 if positive else [0.5, 0.5], groups)


def test_each_subgroup_has_the_numbers_of_its_own_images():
    sex = np.array(["female", "male", None, "male"], dtype=object).repeat(50)
    manifest, scores = _case(sex=sex)
    table = _table(manifest, scores, groups=np.arange(200) // 2).set_index("value")
    assert table.index.tolist() == ["female", "male", "(missing)"] and (table.column == "sex").all()
    for value, chosen in (("female", sex == "female"), ("male", sex == "male"), ("(missing)", pd.isna(sex))):
        row, truth, score = table.loc[value], (manifest.label == "malignant").to_numpy()[chosen], scores[chosen, 1]
        assert (row.n, row.n_positive, row.note) == (chosen.sum(), truth.sum(), "")
        area, interval = auc_with_interval(truth, score, np.arange(200)[chosen] // 2)
        expected = [area, *interval, (score >= 0.5)[truth].mean(), (score < 0.5)[~truth].mean()]
        assert row[["auc", "low", "high", "sensitivity", "specificity"]].tolist() == pytest.approx(expected)


def test_too_few_images_or_groups_of_a_class_get_no_number():
    manifest, scores = _case()
    site, groups = np.full(200, "torso", dtype=object), np.arange(200)
    site[:20], site[20:39], site[40:80] = "head", "foot", "hand"  # foot: 9 malignant; hand: one patient
    groups[40:80] = 999
    table = _table(manifest.assign(site=site), scores, groups=groups).set_index("value")
    assert table.note.to_dict() == {"foot": "too few", "hand": "too few", "head": "", "torso": ""}
    assert (table.auc.isna() == (table.note != "")).all()


def test_numbers_come_in_fifths_and_few_values_stay_as_they_are():
    manifest, scores = _case(age=np.tile(np.arange(20, 60), 5), melanocytic=[True, False, False, True] * 50)
    manifest.loc[:79, "width"] = 1024
    table = _table(manifest, scores)
    counts = {name: dict(zip(rows.value, rows.n, strict=True)) for name, rows in table.groupby("column")}
    assert counts["age"] == {f"{low} to {low + 7}": 40 for low in range(20, 60, 8)}
    assert counts["melanocytic"] == {"False": 100, "True": 100}
    assert counts["larger side (px)"] == {"256": 120, "1024": 80}


def test_without_a_positive_class_there_is_accuracy():
    manifest, scores = _case(site=["head"] * 9 + ["foot"] * 191)
    foot, head = _table(manifest, scores, "").to_dict("records")
    assert head["note"] == "too few" and np.isnan(head["accuracy"])
    right = (scores[9:].argmax(axis=1) == manifest.label[9:].map(TWO.index)).mean()
    assert foot["accuracy"] == pytest.approx(right) and foot["low"] < right < foot["high"]


def _blobs(n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of well-parted classes, float32 [n, 10], and targets."""
    targets = np.arange(n) % n_classes
    noise = np.random.default_rng(0).normal(size=[n, 10])
    return (noise + 3 * np.eye(10)[targets]).astype(np.float32), targets


@pytest.mark.parametrize("n_classes", [2, 4])
def test_flipped_labels_come_first_and_the_right_one_is_suggested(n_classes):
    features, truth = _blobs(200, n_classes)
    given, flipped = truth.copy(), np.arange(10) * 17
    given[flipped] = (given[flipped] + 1) % n_classes
    table = suspicious_labels(features, given, np.arange(200), 0.01, 0)
    assert sorted(table.image) == list(range(200)) and table["rank"].tolist() == list(range(1, 201))
    np.testing.assert_array_equal(table.given, given[table.image])
    assert table.self_confidence.between(0, 1).all() and table.self_confidence.is_monotonic_increasing
    assert np.isin(table.image[:10], flipped).mean() >= 0.8
    assert (table.suggested == truth[table.image]).mean() > 0.85


def test_a_second_view_cannot_vouch_for_a_wrong_label():
    """Random features of many dimensions are learned by heart: only whole groups keep the twin out."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=[60, 200]).astype(np.float32).repeat(2, axis=0)
    targets = rng.integers(0, 2, 60).repeat(2)
    together = suspicious_labels(features, targets, np.arange(60).repeat(2), 1.0, 0)
    torn = suspicious_labels(features, targets, np.arange(120), 1.0, 0)
    assert (torn.suggested == torn.given).mean() > 0.8
    assert (together.suggested == together.given).mean() < 0.65


@pytest.mark.parametrize(("n_classes", "left"), [(3, 40), (2, 0)])
def test_a_class_of_one_group_is_not_judged_and_stops_nothing(n_classes, left):
    features, targets = _blobs(60 if n_classes == 3 else 40, n_classes)
    table = suspicious_labels(features, targets, np.where(targets == 0, 999, np.arange(len(targets))), 0.01, 0)
    assert len(table) == left and (table.given != 0).all() and (table.suggested == table.given).sum() >= 0.9 * left
