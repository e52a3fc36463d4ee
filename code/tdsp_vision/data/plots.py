"""Pictures of a data set: a grid of image files, and how measures are spread over the classes.

Colors are those of Okabe and Ito (2008), which color-blind people can tell apart, and four of Tol (2021). Of many
classes a dozen is drawn, the others as one. Labels are literal text: no formula, and in every script that a font of the
machine has.
"""

import textwrap
from contextlib import suppress
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text
from PIL import Image, ImageOps

from tdsp_vision.data.images import as_rgb
from tdsp_vision.data.quality import shown_classes

BLUE, ORANGE, GRAY = "#0072B2", "#D55E00", "#777777"
COLORS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000")
COLORS += ("#882255", "#44AA99", "#999933", "#BBBBBB")
BOXES = "Last Resort High-Efficiency"  # comes with matplotlib and draws a box for any letter
_families, _seen = ["DejaVu Sans"], set()  # fonts and letters that figures have had


def image_grid(files: list[Path], captions: list[str], columns: int = 6, title: str = "") -> Figure:
    """Draw image files in rows of `columns`, each with its caption; the whole picture is shown, in its own shape."""
    rows = max(1, -(-len(files) // columns))
    figure = plt.figure(figsize=(1.75 * columns, 2.15 * rows), layout="constrained")
    for place, (file, caption) in enumerate(zip(files, captions, strict=True), 1):
        axis = figure.add_subplot(rows, columns, place, xticks=[], yticks=[], frame_on=False)
        axis.imshow(thumbnail(file))
        axis.set_title("\n".join(textwrap.fill(line, 26) for line in caption.split("\n")), fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return literal(figure)


def measures_by_class(measures: pd.DataFrame, labels: pd.Series) -> Figure:
    """How each measure [n rows] is spread within each class: median, middle half, and what lies near it."""
    labels = shown_classes(labels).to_numpy()
    classes = sorted(set(labels), reverse=True)
    figure = plt.figure(figsize=(10.8, 2.7 + 0.75 * len(classes)), layout="constrained")
    for place, name in enumerate(measures, 1):
        axis = figure.add_subplot(3, 3, place, title=name)
        values = [measures[name].to_numpy()[labels == label] for label in classes]
        axis.boxplot(values, orientation="horizontal", tick_labels=[label[:24] for label in classes], showfliers=False)
    return literal(figure)


def auc_intervals(found: pd.DataFrame) -> Figure:
    """Table of `quality.predict_label_alone` as points with intervals, best on top, and the line of guessing."""
    names = found.measure + " (" + found.direction + ")"
    figure, axis = plt.subplots(figsize=(7, 1 + 0.33 * len(names)), layout="constrained")
    axis.errorbar(found.auc, names, xerr=[found.auc - found.low, found.high - found.auc], fmt="o", color=BLUE, lw=2)
    axis.axvline(0.5, color=GRAY, ls="--", lw=1)
    axis.set_xlabel("AUC alone, 95 % interval (dashed: guessing)")
    axis.invert_yaxis()
    return literal(figure)


def literal(figure: Figure) -> Figure:
    """The figure, closed, so that a notebook shows it once, with texts that are no formulas.

    Letters that the usual font lacks are taken from other fonts of the machine; that none has one is printed.
    """
    texts = figure.findobj(Text)
    missing = {ord(letter) for text in texts for letter in text.get_text() if letter.isprintable()} - _seen
    _seen.update(missing)
    for font in sorted(fontManager.ttflist, key=lambda font: font.name not in _families):
        if missing and font.name != BOXES and missing & (letters := set(get_font(font.fname).get_charmap())):
            missing -= letters
            _families.append(font.name)
    if missing:
        print(f"No font of this machine has {''.join(map(chr, sorted(missing)[:8]))}; install one, such as Noto Sans.")
    for text in texts:
        text.set(parse_math=False, fontfamily=[*_families, BOXES])
    plt.close(figure)
    return figure


def thumbnail(file: Path, side: int = 160) -> Image.Image:
    """The whole picture, upright, RGB, shrunk to at most `side` pixels wide and high; a smaller one is not enlarged.

    People look at it, for whom full resolution would only make the notebook heavy.
    """
    with Image.open(file) as image:
        image.draft("RGB", (side, side))  # a JPEG is decoded at a fraction of its size, which is fast
        with suppress(Exception):  # a block of EXIF that cannot be read is no damage
            image = ImageOps.exif_transpose(image)  # people look at sources, too, which no one has turned yet
        image = as_rgb(image)
    image.thumbnail((side, side))
    return image
