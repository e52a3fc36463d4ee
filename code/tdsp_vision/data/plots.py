"""Pictures of a data set: a grid of image files, and how measures are spread over the classes.

Colors are those of Okabe and Ito (2008), which color-blind people can tell apart, and four of Tol (2021). Of many
classes a dozen is drawn, the others as one. Labels are literal text: no formula, and in every script that a font of the
machine has.
"""

import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from tdsp_vision.data.images import as_rgb, shown_upright
from tdsp_vision.data.quality import shown_classes

BLUE, ORANGE, GREEN, GRAY = "#0072B2", "#D55E00", "#009E73", "#777777"
COLORS = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
COLORS += ("#882255", "#44AA99", "#999933", "#BBBBBB")
USUAL, _seen = "DejaVu Sans", set()  # font; letters that figures have had
LINE = 26  # letters of a caption beside another one
THUMBNAIL = 160  # pixels; the grid is read by people, so full resolution would only make the notebook heavy


def image_grid(files: list[Path], captions: list[str], columns: int = 6, title: str = "") -> Figure:
    """Draw image files in rows of `columns`, each with its caption; the whole picture is shown, in its own shape."""
    figure, axes = _panels(max(1, len(files)), columns, 1.75, 2.15)
    for axis, file, caption in zip(axes, files, captions, strict=False):
        axis.imshow(thumbnail(file))
        lines = [textwrap.fill(line, LINE) for line in caption.split("\n")]
        axis.set_title("\n".join(lines), fontsize=8)
    for axis in axes:
        axis.axis("off")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return literal(figure)


def measures_by_class(measures: pd.DataFrame, labels: pd.Series) -> Figure:
    """How each measure [n rows] is spread within each class: median, middle half, and what lies near it."""
    labels = shown_classes(labels).to_numpy()
    classes = sorted(set(labels), reverse=True)
    figure, axes = _panels(measures.shape[1], 3, 3.6, 0.9 + 0.25 * len(classes))
    for axis, name in zip(axes, measures, strict=False):
        values = [measures[name].to_numpy()[labels == label] for label in classes]
        axis.boxplot(values, orientation="horizontal", tick_labels=[label[:24] for label in classes], showfliers=False)
        axis.set_title(name)
    return literal(figure)


def auc_intervals(found: pd.DataFrame) -> Figure:
    """Table of `quality.predict_label_alone` as points with intervals, best on top, and the line of guessing."""
    names = [f"{row.measure} ({row.direction})" if row.direction else row.measure for row in found.itertuples()]
    figure, (axis,) = _panels(1, 1, 7, 1 + 0.33 * len(names))
    widths = [found.auc - found.low, found.high - found.auc]
    axis.errorbar(found.auc, range(len(found)), xerr=widths, fmt="o", color=BLUE, lw=2)
    axis.axvline(0.5, color=GRAY, ls="--", lw=1)
    axis.set(yticks=range(len(names)), yticklabels=names, xlabel="AUC alone, 95 % interval (dashed: guessing)")
    axis.invert_yaxis()
    return literal(figure)


def _panels(count: int, columns: int, width: float, height: float) -> tuple[Figure, np.ndarray]:
    """A figure with axes for so many panels of so many inches."""
    rows = -(-count // columns)
    size = (width * columns, height * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    return figure, axes.ravel()


def literal(figure: Figure) -> Figure:
    """The figure, closed, so that a notebook shows it once, with texts that are no formulas.

    Letters that the usual font lacks are taken from other fonts of the machine; that none has one is printed.
    """
    texts, families = figure.findobj(Text), plt.rcParams["font.family"]
    missing = {ord(letter) for text in texts for letter in text.get_text() if letter.isprintable()} - _seen
    _seen.update(missing)
    for font in sorted(font_manager.fontManager.ttflist, key=lambda font: font.name != USUAL):
        if missing and missing & (letters := set(font_manager.get_font(font.fname).get_charmap())):
            missing -= letters
            families = [*families, font.name]
    if missing:
        print(f"No font of this machine has {''.join(map(chr, sorted(missing)[:8]))}; install one, such as Noto Sans.")
    plt.rcParams["font.family"] = list(dict.fromkeys(families))
    for text in texts:
        text.set(parse_math=False, fontfamily=plt.rcParams["font.family"])
    plt.close(figure)
    return figure


def thumbnail(file: Path, side: int = THUMBNAIL) -> Image.Image:
    """The whole picture, upright, RGB, shrunk to at most `side` pixels wide and high; a smaller one is not enlarged."""
    with Image.open(file) as image:
        image.draft("RGB", (side, side))  # a JPEG is decoded at a fraction of its size, which is fast
        image = shown_upright(as_rgb(image))  # people look at sources, too, which no one has turned yet
    image.thumbnail((side, side))
    return image
