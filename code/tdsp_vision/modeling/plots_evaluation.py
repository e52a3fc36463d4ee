"""Figures of how far scores can be trusted: are they probabilities, and does the model serve everyone alike?"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from tdsp_vision.data.plots import BLUE, GRAY
from tdsp_vision.modeling.calibration import expected_calibration_error, reliability


def calibration_curves(
    scores: dict[str, np.ndarray], labels: np.ndarray, classes: list[str], positive_class: str
) -> Figure:
    """Reliability diagrams side by side: what the scores promise, and what came true, in ten bins.

    On the diagonal, scores are probabilities; below it they promise too much. The bars count the images.

    Args:
        scores: title to float [n, K], such as {"before": …, "after": …}.
        labels: class names [n].
        positive_class: the diagram is about its score; "" for the score of the most likely class.
    """
    shape = {"squeeze": False, "sharex": True, "sharey": "row", "height_ratios": [3, 1], "layout": "constrained"}
    figure, axes = plt.subplots(2, len(scores), figsize=(4.2 * len(scores), 5), **shape)
    what = f"score of {positive_class}" if positive_class else "score of the most likely class"
    for (curve, bars), (title, rows) in zip(axes.T, scores.items(), strict=True):
        if positive_class:
            probability, happened = rows[:, classes.index(positive_class)], labels == positive_class
        else:
            probability, happened = rows.max(axis=1), np.array(classes, dtype=object)[rows.argmax(axis=1)] == labels
        table = reliability(probability, happened)
        curve.plot([0, 1], [0, 1], color=GRAY, lw=0.8, ls=":")
        curve.plot(table.promised, table.observed, color=BLUE, marker="o")
        error = expected_calibration_error(probability, happened).item()
        curve.set_title(f"{title}: calibration error {error:.3f}", fontsize=10)
        curve.set(xlim=(0, 1), ylim=(-0.03, 1.03), ylabel=f"share {positive_class or 'right'}")
        places = bars.bar((table.index + 0.5) / 10, table.n, 0.09, color=BLUE, alpha=0.4)
        bars.bar_label(places, fontsize=7)
        bars.set(xlabel=what, ylabel="images", ylim=(0, max(1.3 * table.n.max(), bars.get_ylim()[1])))
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    plt.close(figure)
    return figure


def subgroup_forest(table: pd.DataFrame, overall: float) -> Figure:
    """`subgroup_table` as points with 95 % intervals, by column; the dashed line is the number for all images.

    Raises:
        ValueError: if the table is empty.
    """
    if table.empty:
        raise ValueError("There are no subgroups to draw; the manifest's metadata columns make them.")
    measure = "auc" if "auc" in table else "accuracy"
    starts = (table.column != table.column.shift()).cumsum()  # a line of its own names each column
    places = -(np.arange(len(table)) + starts.to_numpy())
    figure, axis = plt.subplots(figsize=(8, 0.9 + 0.25 * -places.min()), layout="constrained")
    axis.hlines(places, table.low, table.high, color=BLUE, lw=2)
    axis.scatter(table[measure], places, color=BLUE, zorder=3)
    axis.axvline(overall, color=GRAY, ls="--", lw=1)
    low = float(np.nanmin([*table.low, overall, 0.5])) - 0.02
    for place, row in zip(places, table.itertuples(), strict=True):
        if row.note:
            axis.text(low + 0.01, place, row.note, color=GRAY, fontsize=8, va="center")
    counts = [f"n = {n}" for n in table.n]
    if "n_positive" in table:
        counts = [f"{text}, {positive} positive" for text, positive in zip(counts, table.n_positive, strict=True)]
    names = [f"{value} ({text})" for value, text in zip(table.value, counts, strict=True)]
    heads = places[starts.diff().fillna(1).to_numpy() == 1] + 1
    axis.set_yticks([*places, *heads], [*names, *table.column.unique()], parse_math=False, fontsize=8)
    for label in axis.get_yticklabels()[len(places) :]:
        label.set_fontweight("bold")
    said = "AUC" if measure == "auc" else "accuracy"
    axis.set(
        xlabel=f"{said}, 95 % interval (dashed: all images, {overall:.2f})",
        xlim=(low, 1.02),
        ylim=(places.min() - 0.7, None),
    )
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    plt.close(figure)
    return figure
