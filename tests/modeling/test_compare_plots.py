"""Figures of a comparison: the numbers of the table, a legend beside the curves, names of any length."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from sklearn.metrics import auc

from tdsp_vision.modeling.compare import LETTERS, Comparison
from tdsp_vision.modeling.compare_plots import auc_differences, roc_of_runs

pytestmark = pytest.mark.usefixtures("strict_figures")
TWO, THREE = ["benign", "malignant"], ["a", "b", "c $x$"]
LONG = "20260131-142501-" + "a-name-without-end_" * 4


def _comparison(count: int, classes: list[str], about: list[str]) -> Comparison:
    """`count` runs of 60 images, with scores drawn and names as long as they can be."""
    predictions = {}
    labels = np.array(classes, object)[np.arange(60) % len(classes)]
    for k, run in enumerate(LETTERS[:count]):
        scores = np.random.default_rng(k).dirichlet(np.ones(len(classes)), 60)
        table = pd.DataFrame(scores, columns=[f"score_{name}" for name in classes])
        predictions[run] = table.assign(label=labels, predicted=np.array(classes, object)[scores.argmax(axis=1)])
    runs = {run: f"{LONG}{run}" for run in predictions}
    others = list(runs)[1:]
    differences = pd.DataFrame(
        {"run": others, "difference": 0.01, "low": -0.02, "high": [0.1 + k for k in range(count - 1)]}
    )
    empty = pd.DataFrame()
    return Comparison(runs, about, empty, empty, differences, empty, predictions)


@pytest.mark.parametrize("count", [2, len(LETTERS)])
@pytest.mark.parametrize(("classes", "about"), [(TWO, ["malignant"]), (TWO, TWO), (THREE, ["c $x$"]), (THREE, THREE)])
def test_all_roc_curves_in_one_picture(classes, about, count):
    comparison = _comparison(count, classes, about)
    figure = roc_of_runs(comparison)
    figure.savefig(io.BytesIO(), format="png")
    [axis] = figure.axes
    curves = axis.lines[:-1]  # the last is guessing
    assert len({(to_hex(line.get_color()), str(line.get_linestyle())) for line in curves}) == count
    assert len({to_hex(line.get_color()) for line in curves}) == count
    assert len({line._dash_pattern and str(line._dash_pattern) for line in curves}) == count
    for run, line in zip(comparison.runs, curves, strict=True):
        said = line.get_label().replace("\n", "")
        assert said.startswith(f"{run}: {LONG}".split("-a-name")[0]) and "AUC" in said
        assert auc(*line.get_data()) == pytest.approx(float(said.split()[-1]), abs=0.003)
    assert len(axis.collections) == (count + 1 if len(about) == 1 else 0)


def test_the_points_are_the_decisions():
    comparison = _comparison(2, TWO, ["malignant"])
    axis = roc_of_runs(comparison).axes[0]
    for table, points in zip(comparison.predictions.values(), axis.collections, strict=False):
        called, truth = table.predicted == "malignant", table.label == "malignant"
        [[x, y]] = points.get_offsets()
        assert (x, y) == ((called & ~truth).sum() / (~truth).sum(), (called & truth).sum() / truth.sum())


@pytest.mark.parametrize("count", [2, len(LETTERS)])
def test_the_legend_covers_no_curve_and_fits(count):
    figure = roc_of_runs(_comparison(count, TWO, ["malignant"]))
    figure.savefig(io.BytesIO(), format="png")
    legend = figure.legends[0].get_window_extent()
    assert legend.y1 <= figure.axes[0].get_tightbbox().y0 + 1
    assert legend.x0 >= 0 and legend.x1 <= figure.bbox.x1 and legend.y0 >= -1
    assert figure.axes[0].get_window_extent().height > 250


@pytest.mark.parametrize("count", [2, len(LETTERS)])
def test_differences_as_points_with_intervals(count):
    comparison = _comparison(count, TWO, ["malignant"])
    figure = auc_differences(comparison)
    figure.savefig(io.BytesIO(), format="png")
    [axis] = figure.axes
    lines, points = axis.collections
    assert [segment[:, 0].tolist() for segment in lines.get_segments()] == comparison.differences[
        ["low", "high"]
    ].to_numpy().tolist()
    assert points.get_offsets()[:, 0].tolist() == comparison.differences.difference.tolist()
    names = [label.get_text()[0] for label in axis.get_yticklabels()]
    assert names == list(LETTERS[1:count]) and (np.diff(points.get_offsets()[:, 1]) < 0).all()
    boxes = [label.get_window_extent() for label in axis.get_yticklabels()]
    assert not any(above.overlaps(below) for above, below in zip(boxes, boxes[1:], strict=False))
    assert axis.xaxis.label.get_window_extent().x1 <= figure.bbox.x1
    assert axis.get_xlabel() == "AUC minus that of A, 95 % interval (dashed: no difference)"


def test_differences_of_means_say_so():
    figure = auc_differences(_comparison(2, THREE, THREE))
    assert figure.axes[0].get_xlabel().startswith("mean AUC minus that of A")
