"""Figures of one run, in the colours of Okabe and Ito (2008), which colour-blind people can tell apart.

Arrays: labels are class names [n]; scores float [n, K], columns in the order of `classes`; images float32
[n, S, S, 3], RGB, 0 to 255; maps float32 [n, S, S], positive where a place speaks for the class. Of many classes a
figure shows the dozen that matter most and says so. Each function returns a closed figure: a cell shows it once.
"""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.core.pylabtools import print_figure
from IPython.display import Image as Picture
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn import metrics as sk
from sklearn.calibration import CalibrationDisplay

from tdsp_vision.data.plots import BLUE, COLORS, GRAY, ORANGE, literal
from tdsp_vision.modeling.metrics import BINS, calibration_error

MOST = 12  # classes in a figure
FEWEST = 100  # images in a reliability diagram, for it to show anything
FOR_AND_AGAINST = "RdBu_r"  # red for, blue against: told apart by colour-blind people (ColorBrewer 2.0)


def roc_and_precision_recall(
    labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str, threshold
) -> Figure:
    """ROC and precision-recall curves, with the threshold for a positive class as a point.

    Of two classes with a positive one there is its curve alone, else one for each class against the rest, the positive
    class first. Of many classes: the dozen with the lowest AUC. Dotted: guessing.
    """
    areas = {name: sk.roc_auc_score(labels == name, scores[:, k]) for k, name in enumerate(classes)}
    names = sorted(classes, key=lambda name: (name != positive_class, areas[name]))
    names = names[:1] if positive_class and len(classes) == 2 else names[:MOST]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.1), layout="compressed")
    roc, recall = axes
    for color, name in zip(itertools.cycle([one for one in COLORS if one != ORANGE]), names, strict=False):
        truth, score = labels == name, scores[:, classes.index(name)]
        look = {"color": color, "lw": 2 if name == positive_class else 1.3}
        sk.RocCurveDisplay.from_predictions(truth, score, name=f" {name}", ax=roc, curve_kwargs=look)
        look["drawstyle"] = "steps-post"
        sk.PrecisionRecallDisplay.from_predictions(truth, score, name=f" {name}", ax=recall, curve_kwargs=look)
        recall.axhline(truth.mean(), color=color, lw=0.8, ls=":")
    if positive_class:
        truth, called = labels == positive_class, scores[:, classes.index(positive_class)] >= threshold
        point = {"color": ORANGE, "zorder": 3, "label": f"threshold {threshold:.3f}"}
        roc.scatter(called[~truth].mean(), called[truth].mean(), **point)
        recall.scatter(called[truth].mean(), sk.precision_score(truth, called, zero_division=0), **point)
    roc.plot([0, 1], [0, 1], color=GRAY, lw=0.8, ls=":", label="guessing")
    few = f" of the {MOST} classes with the lowest AUC" if len(names) < len(classes) > 2 else ""
    roc.set(title=f"ROC{few}", xlabel="1 - specificity", ylabel="sensitivity (recall)")
    recall.set(title="Precision and recall", xlabel="recall (sensitivity)", ylabel="precision", ylim=(0, 1.03))
    return _finish(figure)


def confusion_matrix(matrix: list[list[int]], classes: list[str]) -> Figure:
    """Counts [K, K], rows true and columns predicted; the shade is the share of the row.

    Of many classes: the dozen with the most mistakes, in their order.
    """
    counts = np.asarray(matrix)
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    shown = np.sort(np.argsort(-mistakes, kind="stable")[:MOST])
    names = [classes[k] for k in shown]
    shares = (counts / counts.sum(axis=1, keepdims=True).clip(min=1))[np.ix_(shown, shown)]
    side = 1.7 + 0.7 * len(names)
    figure, axis = plt.subplots(figsize=(side + 0.6, side), layout="constrained")
    display = sk.ConfusionMatrixDisplay(shares, display_labels=names)
    drawn = display.plot(ax=axis, cmap="Blues", im_kw={"vmin": 0, "vmax": 1}, colorbar=False)
    for text, count, share in zip(drawn.text_.flat, counts[np.ix_(shown, shown)].flat, shares.flat, strict=True):
        text.set_text(f"{count}\n{share:.0%}")
    axis.tick_params("x", rotation=0 if len(names) < 4 else 45)
    few = f": the {len(names)} of {len(classes)} classes with the most mistakes" if len(names) < len(classes) else ""
    axis.set(xlabel="predicted", ylabel="true", title=f"Test images{few}")
    return _finish(figure)


AXES = {"c": "C (small regularizes more)", "auc_mean": "AUC, cross-validated on training", "rate": "learning rate"}


def choice(tried: pd.Series, results: pd.Series, chosen: float, deviations: pd.Series | None = None) -> Figure:
    """Results against the values that were tried, both named after their columns, with the chosen value."""
    figure, axis = plt.subplots(figsize=(5.5, 2.1), layout="constrained")
    axis.errorbar(tried, results, deviations, color=BLUE, marker=".", capsize=3)
    axis.axvline(chosen, color=ORANGE, ls="--", lw=1, label=f"chosen: {chosen:.3g}")
    axis.set(xscale="log", xlabel=AXES[tried.name], ylabel=AXES.get(results.name, results.name))
    axis.xaxis.set_major_formatter("{x:g}")
    return _finish(figure)


def learning_curves(history: pd.DataFrame, best_epoch: int) -> Figure:
    """Loss and accuracy by epoch, of training and (with val_ before it) validation, with the epoch that was kept."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for axis, name in zip(axes, ("loss", "accuracy"), strict=True):
        for column, color, label in ((name, BLUE, "training"), (f"val_{name}", ORANGE, "validation")):
            axis.plot(history.epoch, history[column], color=color, marker=".", label=label)
        axis.axvline(best_epoch, color=GRAY, ls="--", lw=1, label=f"kept: epoch {best_epoch}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.set(xlabel="epoch", ylabel=name)
    return _finish(figure)


def calibration_curves(scores: dict, labels: np.ndarray, classes: list[str], positive_class: str) -> Figure:
    """Reliability diagrams side by side: what the scores promise, and what came true, in ten bins.

    On the diagonal, scores are probabilities; below it they promise too much. The bars count the images.

    Args:
        scores: title to float [n, K], such as {"before": …, "after": …}.
        positive_class: the diagram is about its score; "" for the score of the most likely class.
    """
    shape = {"squeeze": False, "sharex": True, "sharey": "row", "height_ratios": [3, 1], "layout": "constrained"}
    figure, axes = plt.subplots(2, len(scores), figsize=(4 * len(scores), 3.1), **shape)
    what = f"score of {positive_class}" if positive_class else "score of the most likely class"
    for (curve, bars), (title, rows) in zip(axes.T, scores.items(), strict=True):
        if positive_class:
            probability, happened = rows[:, classes.index(positive_class)], labels == positive_class
        else:
            probability, happened = rows.max(axis=1), np.array(classes, dtype=object)[rows.argmax(axis=1)] == labels
        probability = np.clip(probability, 0, 1)  # a float32 score may lie a rounding above 1
        CalibrationDisplay.from_predictions(happened, probability, n_bins=BINS, ax=curve, color=BLUE, name="scores")
        curve.set_title(f"{title}: calibration error {calibration_error(probability, happened):.3f}", fontsize=10)
        curve.set(xlabel="", ylabel=f"share {positive_class or 'right'}", ylim=(-0.03, 1.03))
        counts, _, places = bars.hist(probability, np.linspace(0, 1, BINS + 1), color=BLUE, alpha=0.4, rwidth=0.9)
        bars.bar_label(places, [f"{count:.0f}" if count else "" for count in counts], fontsize=7)
        bars.margins(y=0.3)  # for the numbers, also those of the tallest bar of the other diagram
        bars.set(xlabel=what, ylabel="images")
    if len(labels) < FEWEST:
        figure.suptitle(f"{len(labels)} images are too few to show more than chance; {FEWEST} would be enough")
    return _finish(figure)


def explanation_grid(images: np.ndarray, maps: np.ndarray, captions: list[str], class_name: str) -> Figure:
    """Each photo and, to its right, its map on the photo in gray, four such pairs in a row.

    All maps share one scale, so a pale one means weak evidence; the strongest 0.5 % of all places are cut off.

    Args:
        captions: one per image, say true class, predicted class and score.
        class_name: what the maps speak for or against, for the colour bar.
    """
    columns = min(4, len(images))
    rows = -(-len(images) // columns)
    shape = {"figsize": (2.7 * columns, 1.55 * rows + 0.6), "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(rows, 2 * columns, **shape)
    limit = float(np.percentile(np.abs(maps), 99.5)) or 1.0
    pairs = axes.reshape(-1, 2)
    for (photo, overlay), image, evidence, caption in zip(pairs, images, maps, captions, strict=False):
        photo.imshow((image / 255).clip(0, 1))
        photo.set_title(caption, loc="left", fontsize=8)
        overlay.imshow(image.mean(axis=-1), cmap="gray", vmin=0, vmax=255)
        colored = overlay.imshow(evidence, cmap=FOR_AND_AGAINST, vmin=-limit, vmax=limit, alpha=0.6)
    for axis in axes.flat:
        axis.axis("off")
    bar = figure.colorbar(colored, ax=axes, orientation="horizontal", shrink=0.5, aspect=40)
    bar.set_ticks([-limit, 0, limit])
    bar.set_ticklabels([f"speaks against {class_name}", "0", f"speaks for {class_name}"])
    return _finish(figure)


def _finish(figure: Figure) -> Figure:
    """With small legends of what is labelled, and all texts as they are written."""
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        handles, names = axis.get_legend_handles_labels()
        if names:
            axis.legend(handles, names, fontsize=8 if len(names) < 7 else 6)
    return literal(figure)


def as_picture(figure: Figure) -> Picture:
    """A figure drawn once, as PNG: what a notebook shows is what a run keeps."""
    return Picture(print_figure(figure))
