"""ResultsUI: one image at a time with all its scores, what spoke for a class, and the training images it resembles.

Reads the image files below `root`, of the image in view only, and never writes. `results_state` says what is shown.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd

from tdsp_vision.widgets.controls import dropdown, narrow
from tdsp_vision.widgets.gallery import gallery
from tdsp_vision.widgets.pages import Pages, pager
from tdsp_vision.widgets.results_state import ORDERS, SHOWN, heat_picture, judged, select
from tdsp_vision.widgets.score_chart import ScoreChart
from tdsp_vision.widgets.thumbnails import as_html, thumbnail

SIDE = 360  # pixels; of the picture that is looked at
NEIGHBOUR = 110  # pixels; of one that resembles it


class ResultsUI(widgets.VBox):
    """Step through predictions; `pages.rows` are those that the filters leave, in order.

    Args:
        root: folder of the dataset, below which `path` lies.
        predictions: path, label, predicted, score_<class>, by row number; see `results_state`.
        classes: names, in the order of the bars.
        explain: (row number, class number) -> float [S, S], positive where a place speaks for the class. Called only
            for the image in view, while a heat map is asked for; the last hundred are kept.
        neighbours: row number -> columns path, label, distance; see `results_state.nearest_training_images`. Called
            only for the image in view.

    Raises:
        ValueError: if the predictions do not fit (`results_state.judged`).
    """

    def __init__(
        self,
        root: Path,
        predictions: pd.DataFrame,
        classes: Sequence[str],
        explain: Callable[[int, int], np.ndarray] | None = None,
        neighbours: Callable[[int], pd.DataFrame] | None = None,
    ):
        self.table, self.pages = judged(predictions, classes), Pages(size=1)
        self.one = OneResult(Path(root), self.table, classes, explain, neighbours)
        self.shown, self.order = dropdown("Show", SHOWN), dropdown("Order", list(ORDERS.items()))
        self.label = dropdown("True class", [("all", ""), *((name, name) for name in classes)])
        self.confidence = _range("Confidence", "Score of the class that was called: lowest and highest")
        self.heat = dropdown("Heat map", [("off", -1), *((f"for {name}", k) for k, name in enumerate(classes))])
        filters = [self.shown, self.label, self.confidence, self.order]
        super().__init__(
            [_wrapping(filters), _wrapping([pager(self.pages), *([self.heat] if explain else [])]), self.one]
        )
        self._choose()
        self._draw()
        for control in filters:
            control.observe(self._choose, "value")
        self.pages.observe(self._draw, "visible")
        self.heat.observe(self._draw, "value")

    def _choose(self, _=None) -> None:
        """Follow the filters, and start at the first image that they leave."""
        values = (self.shown.value, self.label.value, self.confidence.value, self.order.value)
        self.pages.show(select(self.table, *values))

    def _draw(self, _=None) -> None:
        self.one.draw(*self.pages.visible, heat=self.heat.value)


class OneResult(widgets.VBox):
    """All that is known of one row: picture, heat map, scores, neighbours. Arguments as for `ResultsUI`."""

    def __init__(self, root: Path, table: pd.DataFrame, classes: Sequence[str], explain, neighbours):
        self.root, self.table, self.classes, self.neighbours = root, table, list(classes), neighbours
        self.explain = explain and lru_cache(maxsize=100)(explain)
        size = {"width": f"{SIDE}px", "max_width": "100%"}
        self.picture, self.map = widgets.HTML(layout=size), widgets.HTML(layout=size)
        self.about, self.alike, self.chart = widgets.HTML(), widgets.HTML(), ScoreChart(classes)
        self.beside = _wrapping([self.picture, self.map, self.chart.figure])
        super().__init__([self.about, self.beside, self.alike])

    def draw(self, number: int | None = None, heat: int = -1) -> None:
        """Show row `number` with the heat map of class number `heat` (-1: none); no row shows that none is left."""
        self.beside.layout.display = self.alike.layout.display = "none" if number is None else None
        if number is None:
            self.about.value = "No image fits these filters: show all, or widen the confidence."
            return
        row = self.table.loc[number]
        photo = thumbnail(self.root / row.path, SIDE)
        self.about.value, self.picture.value = _in_words(row), as_html(photo, f"{row.label}: {row.path}", SIDE)
        self.chart.draw([row[f"score_{name}"] for name in self.classes], row.label, row.predicted)
        self.map.layout.display = "none" if heat < 0 else None
        if heat >= 0:
            self.map.value = "computing the heat map …"
            self.map.value = _heat_map(photo, self.explain(number, heat), self.classes[heat])
        if self.neighbours:
            self.alike.value = _neighbours(self.root, self.neighbours(number), row.label)


def _heat_map(photo: bytes, evidence: np.ndarray, name: str) -> str:
    """The photo under its heat map, and what the colours mean, as HTML."""
    said = f"red speaks for {escape(name)}, blue against it; scaled to this picture"
    drawn = as_html(heat_picture(photo, evidence), f"heat map: what speaks for {name}", SIDE)
    return f'{drawn}<div style="line-height: 1.3">{said}</div>'


def _neighbours(root: Path, found: pd.DataFrame, label: str) -> str:
    """Training images with label and distance, as HTML."""
    same = (found.label == label).sum()
    captions = [f"{row.label}\ndistance {row.distance:.2f}" for row in found.itertuples()]
    said = f"<b>Nearest training images</b>: {same} of {len(found)} have the label {escape(label)}, too"
    return said + gallery([root / path for path in found.path], captions, NEIGHBOUR)


def _in_words(row: pd.Series) -> str:
    """What is known of one row, as HTML."""
    verdict = "right" if row.correct else "wrong"
    called = f"true class <b>{escape(row.label)}</b>, called <b>{escape(row.predicted)}</b>: {verdict}"
    numbers = f"confidence {row.confidence:.2f}, loss {row.loss:.2f}"
    return f'<div style="line-height: 1.4">{called}; {numbers}<br>{escape(row.path)}</div>'


def _range(description: str, tooltip: str) -> widgets.FloatRangeSlider:
    # Not `tabbable`: its handles and its numbers are reached by themselves, and the whole would be one more stop.
    values = {"min": 0, "max": 1, "step": 0.01, "value": (0, 1), "readout_format": ".2"}
    settings = {"description": description, "tooltip": tooltip, "continuous_update": False}
    return widgets.FloatRangeSlider(**values, **settings, **narrow("320px"))


def _wrapping(children: list[widgets.Widget]) -> widgets.HBox:
    """Side by side, and below each other where the page is narrow."""
    return widgets.HBox(
        children, layout=widgets.Layout(flex_flow="row wrap", align_items="flex-start", grid_gap="12px")
    )
