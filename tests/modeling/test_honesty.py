"""The best confounder is chosen without the test; warnings come where they are due, with numbers, and nowhere else."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tdsp_vision.data.confounders import TOGETHER
from tdsp_vision.modeling.evaluate import evaluate
from tdsp_vision.modeling.honesty import best_confounder, claim_warnings

TWO, THREE = ["benign", "malignant"], ["a", "b", "c"]


def _photos(classes=TWO, n: int = 120, seed: int = 0):
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % len(classes)
    columns = {"file_kb": rng.normal(size=n), "brightness": rng.normal(size=n) - 1.5 * targets}
    train = np.arange(n) < n // 2
    return pd.DataFrame(columns), np.array(classes, dtype=object)[targets], np.arange(n) // 2, train, ~train


def test_a_measure_and_its_direction_come_from_training():
    measures, labels, groups, train, test = _photos(n=400)
    groups = np.where(labels == "malignant", 1, 0)  # too few groups for anything but single measures
    groups = np.where(train, groups, np.arange(400) + 2)
    found = best_confounder(measures, labels, groups, train, test, "malignant", 0)
    assert (found["measure"], found["direction"]) == ("brightness", "larger in benign")
    area = roc_auc_score(labels[test] == "malignant", -measures.brightness[test])
    assert found["auc"] == pytest.approx(area) and found["auc_ci"][0] < area < found["auc_ci"][1]


def test_a_direction_that_turns_on_the_test_counts_against_it():
    measures, labels, _, train, test = _photos(n=400)
    groups = np.where(train, np.where(labels == "malignant", 1, 0), np.arange(400) + 2)
    measures.loc[test, "brightness"] *= -1
    found = best_confounder(measures, labels, groups, train, test, "malignant", 0)
    assert found["measure"] == "brightness" and found["training_auc"] > 0.8 and found["auc"] < 0.2


def test_without_a_positive_class_it_is_a_mean_over_the_classes():
    measures, labels, _, train, test = _photos(THREE, 300)
    groups = np.where(train, pd.factorize(labels)[0], np.arange(300) + 3)
    found = best_confounder(measures, labels, groups, train, test, "", 0)
    assert (found["measure"], found["direction"]) == ("brightness", "smaller in c")
    areas = [roc_auc_score(labels[test] == name, measures.brightness[test]) for name in THREE]
    signs = [np.sign(roc_auc_score(labels[train] == name, measures.brightness[train]) - 0.5) for name in THREE]
    expected = np.mean([0.5 + sign * (area - 0.5) for sign, area in zip(signs, areas, strict=True)])
    assert found["auc"] == pytest.approx(expected)


def test_measures_together_are_found_where_none_is_alone():
    rng = np.random.default_rng(0)
    measures = pd.DataFrame(rng.normal(size=[400, 2]), columns=["file_kb", "brightness"])
    labels = np.array(TWO, dtype=object)[(measures.file_kb * measures.brightness > 0).to_numpy().astype(int)]
    train = np.arange(400) < 250
    found = best_confounder(measures, labels, np.arange(400), train, ~train, "malignant", 0)
    assert found["measure"] == TOGETHER and found["auc"] > 0.85 and found["training_auc"] > 0.85


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (THREE, "c")])
def test_labels_of_the_test_change_no_choice(classes, positive):
    measures, labels, groups, train, test = _photos(classes)
    honest = best_confounder(measures, labels, groups, train, test, positive, 0)
    shuffled = labels.copy()
    shuffled[test] = np.random.default_rng(1).permutation(labels[test])
    other = best_confounder(measures, shuffled, groups, train, test, positive, 0)
    assert honest["measure"] in ("brightness", TOGETHER)
    for name in ("measure", "direction", "training_auc"):
        assert honest[name] == other[name]
    assert honest["auc"] > other["auc"] + 0.1


def _block(n: int, skill: float, positive: str = "malignant", share: int = 2) -> dict:
    rng = np.random.default_rng(0)
    targets = (np.arange(n) % share == 0).astype(int)
    score = 1 / (1 + np.exp(-rng.normal(size=n) - skill * (targets - 0.5)))
    labels = np.array(TWO, dtype=object)[targets]
    return evaluate(labels, np.column_stack([1 - score, score]), TWO, positive, 0.5 if positive else None, 0)


def test_a_large_and_clear_test_needs_no_warning():
    confounder = {"measure": "file_kb", "auc": 0.6, "auc_ci": [0.5, 0.7]}
    for positive in ("malignant", ""):
        assert claim_warnings(_block(1000, 4, positive), confounder, 0.9 if positive else None) == []


def test_few_images_and_a_wide_interval_are_named_with_their_numbers():
    block = _block(60, 2, share=3)
    few, wide = claim_warnings(block)
    low, high = block["auc_ci"]
    assert "20 of malignant" in few and "40 of benign" in few and "below 100" in few
    assert f"{low:.2f} to {high:.2f}" in wide and f"{high - low:.2f} wide" in wide
    [only] = [line for line in claim_warnings(_block(360, 4, share=4)) if "below 100" in line]
    assert "90 of malignant" in only and "benign" not in only


def test_guessing_is_named():
    lines = claim_warnings(_block(1000, 0))
    assert any("reaches down to 0.5: nothing has been shown yet" in line for line in lines)
    plain = claim_warnings(_block(1000, 0, "", share=3))
    assert any("most frequent class is right in 67%" in line for line in plain)


def test_a_confounder_as_good_as_the_model_is_named():
    block = _block(1000, 1)
    low, _ = block["auc_ci"]
    said = claim_warnings(block, {"measure": "dark_corners", "auc": low})
    assert len(said) == 1 and "`dark_corners`" in said[0] and f"{block['auc']:.2f}" in said[0]
    assert claim_warnings(block, {"measure": "dark_corners", "auc": low - 0.01}) == []


def test_a_broken_promise_is_named():
    block = _block(1000, 1)
    [said] = claim_warnings(block, wanted_sensitivity=0.95)
    assert "0.95 on validation" in said and f"{block['sensitivity']:.2f} on the test" in said
    assert claim_warnings(block, wanted_sensitivity=block["sensitivity"]) == []
