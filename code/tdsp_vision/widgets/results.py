"""ResultsUI: one image at a time with all its scores, what spoke for a class, and the training images it resembles.

predictions: path, label, predicted, score_<class> for each class, familiar; its index, whole numbers, each once, are
the rows by which images are named: in the modeling notebook those of the manifest. Image files are read below
`root`, of the image in view only, and nothing is written.
"""

from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image

from tdsp_vision.widgets import pictures

SIDE, NEIGHBOUR = 300, 110  # pixels; of the picture that is looked at, and of one that resembles it
BARS = 10  # scores that are shown; of more classes the highest, and what is named


def judged(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """`predictions`, the most confidently wrong first, with three more columns.

    Returns:
        a sorted copy with correct (bool); confidence (0 to 1), the score of the class that was called, which need not
        be the highest one; loss (0 to 36, no unit), -log of the true class's score: cross-entropy.
    """
    scores, rows = predictions[[f"score_{name}" for name in classes]].to_numpy(float), np.arange(len(predictions))
    own, called = (pd.Index(classes).get_indexer(predictions[column]) for column in ("label", "predicted"))
    loss = -np.log(scores[rows, own].clip(np.finfo(float).eps, 1))  # a score of 0 has no logarithm
    table = predictions.assign(correct=own == called, confidence=scores[rows, called], loss=loss)
    return table.sort_values("loss", ascending=False, kind="stable")


def heat_picture(photo: Image.Image, evidence: np.ndarray) -> Image.Image:
    """A photo in gray with the evidence on it, red for and blue against (ColorBrewer 2.0).

    Args:
        evidence: float [S, S], positive where a place speaks for the class. It is stretched to the photo's shape, as
            the network squeezed the photo; colors end at the 99.5th percentile of this map.
    """
    limit = float(np.percentile(np.abs(evidence), 99.5)) or 1.0
    colored = Image.fromarray(colormaps["RdBu_r"](evidence / (2 * limit) + 0.5, bytes=True)[..., :3])
    return Image.blend(photo.convert("L").convert("RGB"), colored.resize(photo.size), 0.6)


def score_chart(scores: pd.Series, label: str, predicted: str, threshold: dict[str, float]) -> str:
    """Scores by class, 0 to 1, as horizontal bars in HTML; true and called class say so in words and color.

    Args:
        threshold: class to the score from which on it is called; a line across its bar.
    """
    words = {label: " true", predicted: " called"} if label != predicted else {label: " true, called"}
    words |= {name: f"{words.get(name, '')} from {at:.3f}" for name, at in threshold.items() if name}
    shown = [name for name in scores.index if name in words or name in scores.nlargest(BARS).index]
    lines = []
    for name, score in scores[shown].items():
        color = pictures.BLUE if name == label else pictures.ORANGE if name == predicted else pictures.GRAY
        at, line = 100 * threshold.get(name, 2), "var(--jp-ui-font-color0, black)"
        mark = f"linear-gradient(to right, transparent {at}%, {line} {at}% {at + 0.7}%, transparent {at + 0.7}%)"
        bar = f"linear-gradient(to right, {color} {score:.2%}, var(--jp-layout-color2, #ddd) {score:.2%})"
        text = f"<span>{escape(name)}</span>", f"<span>{score:.3f}{words.get(name, '')}</span>"
        lines.append(f'{text[0]}<div style="height:16px;background:{mark}, {bar}"></div>{text[1]}')
    rest = f"{len(scores) - len(shown)} classes with lower scores are left out" * (len(shown) < len(scores))
    grid = "max-width:480px;gap:6px 8px;display:grid;grid-template-columns:minmax(3em,auto) minmax(110px,1fr) auto"
    return f'<div style="{grid}">{"".join(lines)}<span style="grid-column:1/4">{rest}</span></div>'


def in_words(row: pd.Series) -> str:
    """What is known of one row of `judged`, as HTML."""
    called = f"true class <b>{escape(row.label)}</b>, called <b>{escape(row.predicted)}</b>"
    numbers = f"confidence {row.confidence:.3f}, loss {row.loss:.2f}, familiar {row.familiar:.3f}"
    return f"{called}: {'right' if row.correct else 'wrong'}; {numbers}"


class ResultsUI(pictures.Panel):
    """Step through predictions, the most confidently wrong or the least familiar first; `pages.rows` are those that the
    filters leave.

    Args:
        root: folder of the dataset, below which `path` lies.
        predictions: path, label, predicted, score_<class>, familiar, by row number.
        classes: names, in the order of the bars.
        explain: (row number, class number) -> float [S, S], positive where a place speaks for the class. Called only
            for the image in view, while a heat map is asked for.
        neighbours: row number -> columns path, label, distance; see `explain.nearest_training_images`. Called only for
            the image in view.
        threshold: class to the score from which on it is called, drawn on its bar; the class "" counts for nothing.
    """

    def __init__(self, root: Path, predictions: pd.DataFrame, classes: list[str], explain, neighbours, threshold: dict):
        self.root, self.table, self.classes = Path(root), judged(predictions, classes), classes
        self.explain, self.neighbours, self.threshold = explain, neighbours, threshold
        labels = [("all", ""), *((name, name) for name in classes)]
        heats = [("off", -1), *((f"for {name}", number) for number, name in enumerate(classes))]
        self.shown = pictures.control(widgets.Dropdown, "Show", self._choose, options=("all", "correct", "wrong"))
        self.label = pictures.control(widgets.Dropdown, "True class", self._choose, options=labels)
        self.order = pictures.control(widgets.Dropdown, "First", self._choose, options=("most wrong", "least familiar"))
        self.heat = pictures.control(widgets.Dropdown, "Heat map", self._draw, options=heats)
        self.pages = pictures.Pages(1, self._draw)
        self.about, self.view = widgets.HTML(), widgets.HTML()
        chosen = pictures.wrapping([self.shown, self.label, self.order, self.heat, self.pages])
        super().__init__([chosen, self.about, self.view])
        self._choose()

    def static_html(self) -> str:
        """The image in view; beside it, where there is room, its scores and its neighbours."""
        return self.about.value + self.view.value

    def _choose(self, _=None) -> None:
        """Follow the filters, and start at the first image that they leave."""
        shown, label = self.shown.value, self.label.value
        keep = (shown == "all") | (self.table.correct == (shown == "correct"))
        keep &= (label == "") | (self.table.label == label)
        left = self.table[keep] if self.order.value == "most wrong" else self.table[keep].sort_values("familiar")
        self.pages.show(tuple(left.index.tolist()))

    def _draw(self, _=None) -> None:
        """Show the image in view; where there is none, say so."""
        self.about.value, self.view.value = "No image fits these filters.", ""
        for row in map(self.table.loc.__getitem__, self.pages.visible):
            scores = row[[f"score_{name}" for name in self.classes]].set_axis(self.classes).astype(float)
            photo = pictures.figure(self.root / row.path, row.path, SIDE)
            chart = score_chart(scores, row.label, row.predicted, self.threshold)
            side = f'<div style="flex:1 280px;display:inline-table">{chart}{self._neighbours(row)}</div>'
            self.about.value, self.view.value = in_words(row), pictures.beside([photo, side])
            if self.heat.value >= 0:
                self.view.value = pictures.beside([photo, "computing the heat map …", side])
                self.view.value = pictures.beside([photo, self._heat_map(row), side])

    def _heat_map(self, row: pd.Series) -> str:
        """The photo under its heat map, and what the colors mean; of an image that cannot be read, the error."""
        words = f"red speaks for {self.classes[self.heat.value]}, blue against it; scaled to this picture"
        try:
            photo = pictures.thumbnail(self.root / row.path, SIDE)
            return pictures.figure(heat_picture(photo, self.explain(int(row.name), self.heat.value)), words, SIDE)
        except Exception as error:
            return pictures.alert(f"{type(error).__name__}: {error}")

    def _neighbours(self, row: pd.Series) -> str:
        """Training images with label and distance."""
        found = self.neighbours(int(row.name))
        captions = [f"{near.label}\ndistance {near.distance:.2f}" for near in found.itertuples()]
        same = f"{(found.label == row.label).sum()} of {len(found)} have the label {escape(row.label)}, too"
        return f"<b>Nearest training images</b>: {same}{pictures.gallery(self.root, found.path, captions, NEIGHBOUR)}"
