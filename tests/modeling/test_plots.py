"""Figures: complete, labelled, without warnings, and none left open."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from tdsp_vision.modeling import plots

TWO, FOUR = ["benign", "malignant"], ["ant", "bee", "cat", "dog with a long name"]


pytestmark = pytest.mark.usefixtures("strict_figures")


def _case(classes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.array(classes, dtype=object)[np.arange(40) % len(classes)]
    return labels, rng.dirichlet(np.ones(len(classes)), 40)


def _check(figure: Figure, axes: int) -> list[str]:
    """Texts of the legends; every axis is labelled, and the figure can be drawn."""
    assert isinstance(figure, Figure) and len(figure.axes) == axes
    assert all(axis.get_xlabel() and axis.get_ylabel() for axis in figure.axes)
    figure.savefig(io.BytesIO(), format="png")
    legends = [axis.get_legend() for axis in figure.axes]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (TWO, ""), (FOUR, "bee"), (FOUR, "")])
def test_curves(classes, positive):
    labels, scores = _case(classes)
    threshold = 0.4 if positive else None
    texts = _check(plots.roc_and_precision_recall(labels, scores, classes, positive, threshold), 2)
    areas = {name: roc_auc_score(labels == name, scores[:, k]) for k, name in enumerate(classes)}
    for name in ["malignant"] if positive == "malignant" else classes:
        assert f"{name}: AUC {areas[name]:.3f}" in texts
        assert any(text.startswith(f"{name}: average precision") for text in texts)
    assert any("benign" in text for text in texts) == (classes is TWO and not positive)
    assert texts.count("threshold 0.400 (from validation)") == (2 if positive else 0)
    assert (f"macro: AUC {np.mean(list(areas.values())):.3f}" in texts) == (not positive)


def test_the_macro_curve_has_the_macro_area():
    labels, scores = _case(FOUR)
    roc = plots.roc_and_precision_recall(labels, scores, FOUR, "", None).axes[0]
    [macro] = [line for line in roc.lines if line.get_label().startswith("macro")]
    area = np.mean([roc_auc_score(labels == name, scores[:, k]) for k, name in enumerate(FOUR)])
    assert np.trapezoid(macro.get_ydata(), macro.get_xdata()) == pytest.approx(area, abs=0.002)


def test_the_positive_class_comes_first_and_alone_has_the_threshold():
    labels, scores = _case(FOUR)
    roc = plots.roc_and_precision_recall(labels, scores, FOUR, "cat", 0.4).axes[0]
    assert roc.lines[0].get_label().startswith("cat") and roc.lines[0].get_linewidth() > roc.lines[1].get_linewidth()
    called, truth = scores[:, 2] >= 0.4, labels == "cat"
    expected = [called[~truth].mean(), called[truth].mean()]
    assert [c.get_offsets()[0].tolist() for c in roc.collections] == [pytest.approx(expected)]


def test_many_classes_can_be_drawn():
    many = [f"class {number}" for number in range(10)]
    assert len(_check(plots.roc_and_precision_recall(*_case(many), many, "", None), 2)) == 10 + 2 + 10


def test_the_threshold_lies_on_both_curves():
    labels, scores = _case(TWO)
    figure = plots.roc_and_precision_recall(labels, scores, TWO, "malignant", 0.4)
    called, truth = scores[:, 1] >= 0.4, labels == "malignant"
    recall, false_rate = called[truth].mean(), called[~truth].mean()
    points = [axis.collections[0].get_offsets()[0].tolist() for axis in figure.axes]
    assert points == [pytest.approx([false_rate, recall]), pytest.approx([recall, truth[called].mean()])]


def test_a_threshold_that_calls_nothing_can_be_drawn():
    labels, scores = _case(TWO)
    _check(plots.roc_and_precision_recall(labels, scores, TWO, "malignant", 1.0), 2)


@pytest.mark.parametrize("classes", [TWO, FOUR])
def test_confusion_matrix(classes):
    matrix = np.arange(len(classes) ** 2).reshape(len(classes), -1)
    matrix[-1] = 0
    figure = plots.confusion_matrix(matrix.tolist(), classes)
    _check(figure, 1)
    axis = figure.axes[0]
    for labels in (axis.get_xticklabels(), axis.get_yticklabels()):
        assert [label.get_text() for label in labels] == classes
    cells = {tuple(text.get_position()): text.get_text().split("\n") for text in axis.texts}
    for (row, column), count in np.ndenumerate(matrix):
        assert cells[column, row][0] == str(count)
    assert cells[1, 0][1] == f"{1 / matrix[0].sum():.0%}" and cells[0, len(classes) - 1][1] == "0%"


def test_score_histogram():
    labels, scores = _case(TWO)
    texts = _check(plots.score_histogram(labels, scores[:, 1], "malignant", 0.4), 1)
    assert texts == ["not malignant (n = 20)", "malignant (n = 20)", "threshold 0.400"]


@pytest.mark.parametrize("values", [[1e-4], [1e-5, 1e-3, 1e-1]])
def test_c_sweep(values):
    sweep = pd.DataFrame({"c": values, "auc_mean": 0.8, "auc_deviation": 0.01})
    figure = plots.c_sweep(sweep, values[0])
    assert f"chosen: C = {values[0]:g}" in _check(figure, 1)
    assert figure.axes[0].get_xscale() == "log"


@pytest.mark.parametrize("epochs", [1, 5])
def test_learning_curves(epochs):
    columns = ["loss", "val_loss", "accuracy", "val_accuracy"]
    history = pd.DataFrame(np.random.default_rng(0).random([epochs, 4]), columns=columns).assign(
        epoch=range(1, epochs + 1)
    )
    figure = plots.learning_curves(history, epochs)
    assert _check(figure, 2) == ["training", "validation", f"kept: epoch {epochs}"] * 2
    np.testing.assert_array_equal(figure.axes[1].lines[1].get_ydata(), history.val_accuracy)


def test_learning_curves_while_training():
    history = pd.DataFrame({"epoch": [1, 2], "loss": [0.7, 0.6], "val_loss": [0.7, 0.65], "val_auc": [0.5, 0.6]})
    figure = plots.learning_curves(history)
    assert _check(figure, 2) == ["training", "validation", "validation"]
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss", "AUC"]
    first = plots.learning_curves(history[["epoch", "loss"]][:1])
    assert _check(first, 1) == ["training"] and first.axes[0].get_xlim() == (0.5, 1.5)


def test_a_history_without_anything_to_draw_is_refused():
    with pytest.raises(ValueError, match=r"columns \['epoch', 'learning_rate'\]; it needs loss, accuracy or auc"):
        plots.learning_curves(pd.DataFrame({"epoch": [1], "learning_rate": [0.1]}))
