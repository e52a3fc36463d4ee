"""Figures of the evaluation: complete, labelled, without warnings, and they show the table's numbers."""

import io

import numpy as np
import pandas as pd
import pytest

from tdsp_vision.modeling.calibration import reliability
from tdsp_vision.modeling.plots_evaluation import calibration_curves, subgroup_forest

TWO, THREE = ["benign", "malignant"], ["a", "b", "c $x$"]


pytestmark = pytest.mark.usefixtures("strict_figures")


def _case(classes: list[str], n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return np.array(classes, dtype=object)[np.arange(n) % len(classes)], rng.dirichlet(np.ones(len(classes)), n)


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (TWO, ""), (THREE, "b"), (THREE, "")])
def test_calibration_before_and_after(classes, positive):
    labels, scores = _case(classes)
    figure = calibration_curves({"before": scores, "after": scores**2}, labels, classes, positive)
    figure.savefig(io.BytesIO(), format="png")
    before, after, bars, _ = figure.axes
    assert before.get_title().startswith("before: calibration error 0.") and after.get_title().startswith("after")
    assert positive in bars.get_xlabel() and bars.get_ylabel() == "images" and before.get_ylabel()
    if positive:
        table = reliability(scores[:, classes.index(positive)], labels == positive)
    else:
        table = reliability(scores.max(axis=1), np.array(classes, dtype=object)[scores.argmax(axis=1)] == labels)
    np.testing.assert_array_equal(before.lines[1].get_xydata(), table[["promised", "observed"]])
    assert [bar.get_height() for bar in bars.patches] == table.n.tolist()
    assert [text.get_text() for text in bars.texts] == [str(n) for n in table.n]


def test_scores_of_zero_and_one_and_a_single_panel():
    scores = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    figure = calibration_curves({"now": scores}, np.array(["malignant", "benign", "benign"], object), TWO, "malignant")
    figure.savefig(io.BytesIO(), format="png")
    assert figure.axes[0].get_title() == "now: calibration error 0.333"


def _table(**columns) -> pd.DataFrame:
    table = pd.DataFrame({"column": ["sex", "sex", "site"], "value": ["female", "male", "$head"], "n": [90, 80, 12]})
    return table.assign(**columns, low=[0.7, 0.6, np.nan], high=[0.9, 0.8, np.nan], note=["", "", "too few"])


def test_forest_of_subgroups():
    table = _table(n_positive=[30, 20, 2], auc=[0.8, 0.7, np.nan])
    figure = subgroup_forest(table, 0.75)
    figure.savefig(io.BytesIO(), format="png")
    [axis] = figure.axes
    assert axis.get_xlabel() == "AUC, 95 % interval (dashed: all images, 0.75)"
    place = {label.get_text(): label.get_position()[1] for label in axis.get_yticklabels()}
    rows = ["sex", "female (n = 90, 30 positive)", "male (n = 80, 20 positive)", "site", "$head (n = 12, 2 positive)"]
    assert sorted(place, key=lambda name: -place[name]) == rows
    points = axis.collections[1].get_offsets().tolist()
    assert points[:2] == [[0.8, place[rows[1]]], [0.7, place[rows[2]]]]
    assert [(text.get_text(), text.get_position()[1]) for text in axis.texts] == [("too few", place[rows[4]])]


def test_forest_of_accuracies_and_of_too_few_alone():
    subgroup_forest(_table(accuracy=[0.8, 0.7, np.nan]), 0.8).savefig(io.BytesIO(), format="png")
    figure = subgroup_forest(_table(auc=[0.8, 0.7, np.nan])[2:], 0.8)
    figure.savefig(io.BytesIO(), format="png")
    assert figure.axes[0].texts[0].get_text() == "too few"


def test_no_subgroups_cannot_be_drawn():
    with pytest.raises(ValueError, match="no subgroups to draw"):
        subgroup_forest(_table(auc=[0.8, 0.7, np.nan])[:0], 0.8)
