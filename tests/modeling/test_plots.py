"""Figures: complete, labelled, without warnings, and none left open."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.metrics import roc_auc_score

from tdsp_vision.modeling import plots

TWO, FOUR = ["benign", "malignant"], ["ant", "bee", "_cat", "dog 狗 with a long name"]


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
    return [text.get_text().strip() for legend in legends if legend for text in legend.get_texts()]


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (TWO, ""), (FOUR, "bee"), (FOUR, "")])
def test_curves(classes, positive):
    labels, scores = _case(classes)
    threshold = 0.4 if positive else [1 / len(classes)] * len(classes)
    figure = plots.roc_and_precision_recall(labels, scores, classes, positive, threshold)
    texts = _check(figure, 2)
    for k, name in enumerate(classes):
        drawn = name == positive or positive != "malignant"
        assert (f"{name} (AUC = {roc_auc_score(labels == name, scores[:, k]):.2f})" in texts) == drawn
        assert any(text.startswith(f"{name} (AP = ") for text in texts) == drawn
    assert texts.count("threshold 0.400") == (2 if positive else 0)
    if positive:
        assert figure.axes[0].lines[0].get_label().startswith(f" {positive}")
        called, truth = scores[:, classes.index(positive)] >= 0.4, labels == positive
        points = [axis.collections[0].get_offsets()[0].tolist() for axis in figure.axes]
        found = called[truth].mean()
        assert points == [pytest.approx([called[~truth].mean(), found]), pytest.approx([found, truth[called].mean()])]


def test_of_many_classes_the_dozen_that_matters_is_shown_and_said():
    many, targets = [f"class $x$ {number}" for number in range(40)], np.arange(200) % 40
    scores = np.random.default_rng(0).dirichlet(np.ones(40), 200) + np.eye(40)[targets] * (np.arange(40) > 5)
    curves = plots.roc_and_precision_recall(np.array(many, object)[targets], scores, many, "", [1 / 40] * 40)
    assert len(_check(curves, 2)) == 12 + 1 + 12 and "12 classes with the lowest AUC" in curves.axes[0].get_title()
    assert {line.get_label().split(" (AUC")[0].strip() for line in curves.axes[0].lines[:-1]} >= set(many[:6])
    matrix = np.eye(40, dtype=int) * 9
    matrix[7, 30] = matrix[31, 8] = 2
    figure = plots.confusion_matrix(matrix.tolist(), many)
    _check(figure, 1)
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(shown) == 12 and {many[k] for k in (7, 8, 30, 31)} <= set(shown)
    assert shown == sorted(shown, key=many.index)
    assert "the 12 of 40 classes with the most mistakes" in figure.axes[0].get_title()


@pytest.mark.parametrize("classes", [TWO, FOUR])
def test_confusion_matrix(classes):
    matrix = np.arange(len(classes) ** 2).reshape(len(classes), -1)
    matrix[-1] = 0
    figure = plots.confusion_matrix(matrix.tolist(), classes)
    _check(figure, 1)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == classes
    cells = {tuple(text.get_position()): text.get_text().split("\n") for text in axis.texts}
    assert all(cells[column, row][0] == str(count) for (row, column), count in np.ndenumerate(matrix))
    assert cells[1, 0][1] == f"{1 / matrix[0].sum():.0%}" and cells[0, len(classes) - 1][1] == "0%"


def test_the_chosen_value_and_the_kept_epoch_stand_in_the_figures():
    tried = pd.DataFrame({"c": [1e-5, 1e-3, 1e-1], "auc_mean": 0.8, "auc_deviation": 0.01})
    figure = plots.choice(tried.c, tried.auc_mean, 1e-3, tried.auc_deviation)
    assert _check(figure, 1) == ["chosen: 0.001"] and figure.axes[0].get_xscale() == "log"
    history = pd.DataFrame({"epoch": [1], "loss": 0.5, "val_loss": 0.6, "accuracy": 0.7, "val_accuracy": 0.8})
    figure = plots.learning_curves(history, 1)
    assert _check(figure, 2) == ["training", "validation", "kept: epoch 1"] * 2
    assert figure.axes[1].lines[1].get_ydata() == [0.8]


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (TWO, ""), (["a", "b", "$c$"], "$c$")])
def test_calibration_before_and_after(classes, positive):
    labels, scores = _case(classes)
    figure = plots.calibration_curves({"before": scores, "after": scores**2}, labels, classes, positive)
    figure.savefig(io.BytesIO(), format="png")
    before, after, bars, _ = figure.axes
    assert before.get_title().startswith("before: calibration error 0.") and after.get_title().startswith("after")
    assert positive in bars.get_xlabel() and bars.get_ylabel() == "images" and before.get_ylabel()
    score = scores[:, classes.index(positive)] if positive else scores.max(axis=1)
    happened = labels == positive if positive else np.array(classes, object)[scores.argmax(axis=1)] == labels
    counts, places = np.histogram(score, 10, (0, 1))[0], np.minimum((score * 10).astype(int), 9)
    assert [bar.get_height() for bar in bars.patches] == counts.tolist()
    shares = [happened[places == k].mean() for k in range(10) if counts[k]]
    np.testing.assert_allclose(before.lines[-1].get_ydata(), shares)
    assert "40 images are too few to show more than chance" in figure.get_suptitle()


@pytest.mark.parametrize("count", [1, 5])
def test_photo_and_map_side_by_side_on_one_scale(count):
    rng = np.random.default_rng(0)
    images, maps = rng.uniform(0, 255, [count, 8, 8, 3]), rng.normal(size=[count, 8, 8])
    captions = [f"no. {n}, $5" for n in range(count)]
    figure = plots.explanation_grid(images, maps, captions, "malignant")
    drawn = [axis for axis in figure.axes if axis.images]
    photos, overlays = drawn[::2], drawn[1::2]
    assert [axis.get_title(loc="left") for axis in photos] == captions
    for image, evidence, photo, overlay in zip(images, maps, photos, overlays, strict=True):
        np.testing.assert_allclose(photo.images[0].get_array(), image / 255)
        np.testing.assert_array_equal(overlay.images[1].get_array(), evidence)
    limits = {axis.images[1].get_clim() for axis in overlays}
    assert len(limits) == 1 and sum(*limits) == 0
    bar = next(axis for axis in figure.axes if axis.get_label() == "<colorbar>")
    texts = [tick.get_text() for tick in bar.get_xticklabels()]
    assert texts == ["speaks against malignant", "0", "speaks for malignant"]
    figure.savefig(io.BytesIO(), format="png")
