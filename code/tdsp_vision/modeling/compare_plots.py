"""Figures of a comparison: all ROC curves in one picture, and how far each run lies from the first."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from sklearn import metrics as sk

from tdsp_vision.data.plots import BLUE, COLORS, GRAY
from tdsp_vision.modeling.compare import LETTERS, Comparison

READABLE = [color for color in COLORS if color != "#F0E442"]  # yellow is lost on paper
LINES = ["-", (0, (6, 2)), (0, (4, 1, 1, 1)), (0, (1, 1)), (0, (8, 2, 1, 2, 1, 2)), (0, (2, 2)), (0, (10, 3))]
STYLES = {run: {"color": READABLE[k], "ls": LINES[k]} for k, run in enumerate(LETTERS)}
GRID = np.linspace(0, 1, 501)
WIDTH = {"legend": 60, "axis": 34}  # letters in a line; ids of runs can be 100 long


def roc_of_runs(comparison: Comparison) -> Figure:
    """The ROC curve of each run on the shared test, with its AUC; a line style beside each color, for print.

    The point is where the threshold of that run, chosen on its validation, puts it. Without a positive class the curve
    is the mean over the classes, each against the rest, and there is no point.
    """
    figure, axis = plt.subplots(figsize=(5.6, 5.2 + 0.3 * len(comparison.runs)), layout="constrained")
    for run, table in comparison.predictions.items():
        truths = [(table.label == name).to_numpy() for name in comparison.about]
        scores = [table[f"score_{name}"].to_numpy() for name in comparison.about]
        curves = [sk.roc_curve(truth, score)[:2] for truth, score in zip(truths, scores, strict=True)]
        area = np.mean([sk.roc_auc_score(truth, score) for truth, score in zip(truths, scores, strict=True)])
        x, y = curves[0] if len(curves) == 1 else (GRID, np.mean([np.interp(GRID, *one) for one in curves], axis=0))
        axis.plot([0, *x], [0, *y], lw=1.6, **STYLES[run], label=_title(comparison, run, "legend", f", AUC {area:.3f}"))
        if len(truths) == 1:
            [truth], called = truths, (table.predicted == comparison.about[0]).to_numpy()
            axis.scatter(called[~truth].mean(), called[truth].mean(), color=STYLES[run]["color"], zorder=3)
    axis.plot([0, 1], [0, 1], color=GRAY, lw=0.8, ls=":", label="guessing")
    if len(comparison.about) == 1:
        axis.scatter([], [], color=GRAY, label="at the run's threshold (from validation)")
    kind = "ROC" if len(comparison.about) == 1 else "ROC, mean over the classes"
    axis.set(title=kind, xlabel="1 - specificity", ylabel="sensitivity (recall)", aspect="equal")
    legend = figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure


def auc_differences(comparison: Comparison) -> Figure:
    """What each run's AUC has more than A's, with its 95 % interval: one that crosses the dashed line shows nothing."""
    table = comparison.differences
    titles = [_title(comparison, run, "axis") for run in table.run]
    figure, axis = plt.subplots(figsize=(7.5, 0.9 + 0.45 * len(table)), layout="constrained")
    places = np.arange(len(table))[::-1]
    axis.hlines(places, table.low, table.high, color=BLUE, lw=2)
    axis.scatter(table.difference, places, color=BLUE, zorder=3)
    axis.axvline(0, color=GRAY, ls="--", lw=1)
    axis.set_yticks(places, titles, parse_math=False, fontsize=8)
    what = "AUC" if len(comparison.about) < 3 else "mean AUC"
    axis.set(xlabel=f"{what} minus that of A, 95 % interval (dashed: no difference)", ylim=(-0.6, len(table) - 0.4))
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    plt.close(figure)
    return figure


def _title(comparison: Comparison, run: str, place: str, end: str = "") -> str:
    return textwrap.fill(f"{run}: {comparison.runs[run]}{end}", WIDTH[place])
