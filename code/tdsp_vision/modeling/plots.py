"""Figures of one run, in the colours of Okabe and Ito (2008), which colour-blind people can tell apart."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn import metrics as sk

from tdsp_vision.data.plots import BLUE, COLORS, GRAY, ORANGE


def roc_and_precision_recall(
    labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str, threshold: float | None
) -> Figure:
    """ROC and precision-recall curves of labels [n] and scores [n, K], with the chosen threshold as a point.

    Of two classes with a positive one there is its curve alone, else one for each class against the rest: the positive
    class first, without one the mean of the ROC curves (macro) in black. Dotted in the right half: guessing.
    """
    figure, (roc, recall) = plt.subplots(1, 2, figsize=(10, 4.4))
    only = positive_class and len(classes) == 2
    names = [positive_class] if only else sorted(classes, key=lambda name: name != positive_class)
    grid, mean = np.linspace(0, 1, 501), []
    colors = [color for color in COLORS if color not in (ORANGE, "#000000")]  # those of the threshold and the mean
    for color, name in zip(_cycle(colors), names, strict=False):
        truth, score = labels == name, scores[:, classes.index(name)]
        style = {"color": color, "lw": 2 if name == positive_class else 1.3}
        false_rate, true_rate, _ = sk.roc_curve(truth, score)
        mean.append(np.interp(grid, false_rate, true_rate))
        roc.plot(false_rate, true_rate, **style, label=f"{name}: AUC {sk.roc_auc_score(truth, score):.3f}")
        precision, found, _ = sk.precision_recall_curve(truth, score)
        average = sk.average_precision_score(truth, score)
        recall.step(found, precision, where="post", **style, label=f"{name}: average precision {average:.3f}")
        recall.axhline(truth.mean(), color=color, lw=0.8, ls=":")
        if threshold is not None and name == positive_class:
            _mark_threshold(roc, recall, truth, score >= threshold, threshold)
    if not positive_class:
        areas = [sk.roc_auc_score(labels == name, scores[:, k]) for k, name in enumerate(classes)]
        roc.plot([0, *grid], [0, *np.mean(mean, axis=0)], color="black", lw=2, label=f"macro: AUC {np.mean(areas):.3f}")
    roc.plot([0, 1], [0, 1], color=GRAY, lw=0.8, ls=":", label="guessing")
    roc.set(title="ROC", xlabel="1 - specificity", ylabel="sensitivity (recall)", aspect="equal")
    recall.set(title="Precision and recall", xlabel="recall (sensitivity)", ylabel="precision", ylim=(0, 1.03))
    for axis, place in ((roc, "lower right"), (recall, "lower left")):
        axis.legend(loc=place, fontsize=8 if len(names) < 6 else 6)
    return _finish(figure)


def _mark_threshold(roc, recall, truth: np.ndarray, called: np.ndarray, threshold: float) -> None:
    right = (called & truth).sum() / truth.sum()
    point = {"color": ORANGE, "zorder": 3, "label": f"threshold {threshold:.3f} (from validation)"}
    roc.scatter((called & ~truth).sum() / (~truth).sum(), right, **point)
    recall.scatter(right, sk.precision_score(truth, called, zero_division=0), **point)


def confusion_matrix(matrix: list[list[int]], classes: list[str]) -> Figure:
    """Counts [K, K], rows true and columns predicted; the shade is the share of the row."""
    counts = np.asarray(matrix)
    shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
    side = 2.2 + 0.75 * len(classes)
    figure, axis = plt.subplots(figsize=(side + 0.6, side))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        shade = "white" if shares[row, column] > 0.6 else "black"
        text = f"{count}\n{shares[row, column]:.0%}"
        axis.text(column, row, text, ha="center", va="center", color=shade)
    axis.set_xticks(range(len(classes)), classes, rotation=0 if len(classes) < 4 else 45)
    axis.set_yticks(range(len(classes)), classes)
    axis.set(xlabel="predicted", ylabel="true", title="Test images")
    return _finish(figure)


def score_histogram(labels: np.ndarray, score: np.ndarray, positive_class: str, threshold: float) -> Figure:
    """How the score [n] of the positive class is spread in either group, with the threshold that divides them."""
    figure, axis = plt.subplots(figsize=(6.5, 3.2))
    bins = np.linspace(0, 1, 26)
    for color, name, chosen in (
        (BLUE, f"not {positive_class}", labels != positive_class),
        (ORANGE, positive_class, labels == positive_class),
    ):
        axis.hist(score[chosen], bins, color=color, alpha=0.6, label=f"{name} (n = {chosen.sum()})")
    axis.axvline(threshold, color="black", ls="--", lw=1, label=f"threshold {threshold:.3f}")
    axis.set(xlabel=f"score of {positive_class}", ylabel="images")
    axis.legend(fontsize=8)
    return _finish(figure)


def c_sweep(sweep: pd.DataFrame, chosen: float) -> Figure:
    """Cross-validated AUC against C (columns c, auc_mean, auc_deviation), with the chosen C."""
    figure, axis = plt.subplots(figsize=(5.5, 3.2))
    axis.errorbar(sweep.c, sweep.auc_mean, sweep.auc_deviation, color=BLUE, marker="o", capsize=3)
    axis.axvline(chosen, color=ORANGE, ls="--", lw=1, label=f"chosen: C = {chosen:g}")
    axis.set(xscale="log", xlabel="C (small regularizes more)", ylabel="AUC, cross-validated on training")
    axis.legend(fontsize=8)
    return _finish(figure)


def learning_curves(history: pd.DataFrame, best_epoch: int | None = None) -> Figure:
    """Loss, accuracy and AUC by epoch, as far as `history` has them, with the epoch kept; call it after each epoch.

    Args:
        history: columns epoch, and any of loss, accuracy and auc, with val_ before it for validation.
        best_epoch: the epoch whose weights were kept; None while training.

    Raises:
        ValueError: if none of these columns is there.
    """
    names = [name for name in ("loss", "accuracy", "auc") if {name, f"val_{name}"} & set(history)]
    if not names:
        raise ValueError(
            f"The history has the columns {list(history)}; it needs loss, accuracy or auc (or val_loss, …)."
        )
    figure, axes = plt.subplots(1, len(names), figsize=(5 * len(names), 3.4), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=True):
        for column, color, label in ((name, BLUE, "training"), (f"val_{name}", ORANGE, "validation")):
            if column in history:
                axis.plot(history.epoch, history[column], color=color, marker=".", label=label)
        if best_epoch is not None:
            axis.axvline(best_epoch, color=GRAY, ls="--", lw=1, label=f"kept: epoch {best_epoch}")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ends = (history.epoch.min() - 0.5, history.epoch.max() + 0.5)
        axis.set(xlabel="epoch", ylabel=name.replace("auc", "AUC"), xlim=ends)
        axis.legend(fontsize=8)
    return _finish(figure)


def losses_side_by_side(curves: dict[str, pd.DataFrame]) -> Figure:
    """Loss of several trainings by epoch, each with columns `loss` and `val_loss`: left training, right validation."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True)
    styles = ("-", "--", "-.", ":")
    for axis, column, title in zip(axes, ("loss", "val_loss"), ("training", "validation"), strict=True):
        for number, (name, table) in enumerate(curves.items()):
            style, color = styles[number % len(styles)], COLORS[number % len(COLORS)]
            axis.plot(range(1, len(table) + 1), table[column], style, color=color, label=name)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("loss")
    axes[0].legend(frameon=False, loc="upper right")
    return _finish(figure)


def _cycle(colors):
    while True:
        yield from colors


def _finish(figure: Figure) -> Figure:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    plt.close(figure)
    return figure
