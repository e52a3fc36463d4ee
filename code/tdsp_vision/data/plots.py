"""Pictures of a data set: a grid of image files, and how measures and metadata are spread over the classes.

Colors are those of Okabe and Ito (2008), which color-blind people can tell apart, and four of Tol (2021). Of many
classes a dozen is drawn, the others as one. Labels are literal text: no formula, and in every script that a font of the
machine has.
"""

from functools import cache
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from tdsp_vision.data.images import as_rgb, shown_upright
from tdsp_vision.data.quality import shown_classes

BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#777777"
COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
COLORS += ("#882255", "#44AA99", "#999933", "#BBBBBB")
USUAL, _unknown = "DejaVu Sans", set()  # font; letters that no font has, named once
THUMBNAIL = 160  # pixels; the grid is read by people, so full resolution would only make the notebook heavy


def image_grid(files: list[Path], captions: list[str], columns: int = 6, title: str = "") -> Figure:
    """Draw image files in rows of `columns`, each with its caption; the whole picture is shown, in its own shape."""
    figure, axes = _panels(max(1, len(files)), columns, 1.75, 2.15, [*captions, title])
    for axis, file, caption in zip(axes, files, captions, strict=False):
        axis.imshow(thumbnail(file))
        axis.set_title(caption, fontsize=8, parse_math=False)  # a file name may hold $
    for axis in axes:
        axis.axis("off")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    return figure


def measure_histograms(measures: pd.DataFrame, labels: pd.Series) -> Figure:
    """How each measure [n rows] is spread within each class; classes of different size are drawn equally large.

    The middle 95 % of the values are shown.
    """
    labels = shown_classes(labels).to_numpy()
    classes = sorted(set(labels))
    figure, axes = _panels(measures.shape[1], 3, 3.6, 2.3, classes)
    for axis, name in zip(axes, measures, strict=False):
        values = [measures[name].to_numpy()[labels == label] for label in classes]
        weights = [np.full(len(some), 1 / len(some)) for some in values]
        middle = measures[name].quantile([0.025, 0.975])
        axis.hist(values, 30, tuple(middle), weights=weights, histtype="step", color=COLORS[: len(classes)], lw=1.5)
        axis.set(title=name, yticks=[])
    _class_legend(figure, classes)
    return figure


def auc_intervals(found: pd.DataFrame) -> Figure:
    """Table of `quality.predict_label_alone` as points with intervals, best on top, and the line of guessing."""
    names = [f"{row.measure} ({row.direction})" if row.direction else row.measure for row in found.itertuples()]
    figure, axis, places = _rows(names)
    axis.hlines(places, found.low, found.high, color=BLUE, lw=2)
    axis.scatter(found.auc, places, color=BLUE, zorder=3)
    axis.axvline(0.5, color=GRAY, ls="--", lw=1)
    axis.set(xlabel="AUC alone, 95 % interval (dashed: guessing)")
    return figure


def class_shares(table: pd.DataFrame, title: str) -> Figure:
    """Table of `quality.class_by` as bars: share of each class among the images with each value, and their number."""
    figure, axis, places = _rows([f"{value} (n = {count})" for value, count in table.sum(axis=1).items()])
    shares = table.div(table.sum(axis=1), axis=0).to_numpy().T
    for color, left, width in zip(COLORS, shares.cumsum(axis=0) - shares, shares, strict=False):
        axis.barh(places, width, left=left, color=color)
    axis.set(xlim=(0, 1), xlabel="share of the images")
    use_fonts_for([title])
    axis.set_title(title, loc="left", fontsize=10, parse_math=False)
    _class_legend(figure, list(table))
    return figure


def _panels(count: int, columns: int, width: float, height: float, texts: list[str]) -> tuple[Figure, np.ndarray]:
    """A closed figure, which a notebook shows once, with axes for so many panels; with fonts for its texts."""
    use_fonts_for(texts)
    rows = -(-count // columns)
    size = (width * columns, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    plt.close(figure)
    return figure, axes.ravel()


def _rows(names: list[str]) -> tuple[Figure, Axes, np.ndarray]:
    """A figure with a line for each name, first on top: the axes and where the lines are."""
    figure, (axis,) = _panels(1, 1, 7, 1 + 0.33 * len(names), names)
    places = np.arange(len(names))[::-1]
    axis.set_yticks(places, names, parse_math=False)
    return figure, axis, places


def _class_legend(figure: Figure, classes: list[str]) -> None:
    """Names as they are: `_a` is no hidden entry, `$` no formula."""
    use_fonts_for(classes)
    handles = [Line2D([], [], color=color) for color in COLORS[: len(classes)]]
    legend = figure.legend(handles, ["-"] * len(classes), loc="outside upper left", ncols=6, fontsize=9)
    for text, label in zip(legend.get_texts(), classes, strict=True):
        text.set_parse_math(False)
        text.set_text(label if len(label) <= 24 else f"{label[:22]}…")


def use_fonts_for(texts: list[str]) -> None:
    """Let figures take letters that the usual font lacks from other fonts of the machine, or say that none has them."""
    families, missing = [], {ord(letter) for letter in "".join(texts) if letter.isprintable()} - _unknown
    fonts = font_manager.fontManager.ttflist
    for font in sorted(fonts, key=lambda font: font.name != USUAL):
        if missing and missing & _letters(font.fname):
            families.append(font.name)
            missing -= _letters(font.fname)
    if missing:
        _unknown.update(missing)
        print(f"No font of this machine has {''.join(map(chr, sorted(missing)[:8]))}; install one, such as Noto Sans.")
    plt.rcParams["font.family"] = list(dict.fromkeys([USUAL, *families, *plt.rcParams["font.family"]]))


@cache
def _letters(file: str) -> set[int]:
    return set(font_manager.get_font(file).get_charmap())


def thumbnail(file: Path, side: int = THUMBNAIL) -> Image.Image:
    """The whole picture, upright, RGB, shrunk to at most `side` pixels wide and high; a smaller one is not enlarged."""
    with Image.open(file) as image:
        image.draft("RGB", (side, side))  # a JPEG is decoded at a fraction of its size, which is fast
        image = shown_upright(as_rgb(image))  # people look at sources, too, which no one has turned yet
    image.thumbnail((side, side))
    return image
