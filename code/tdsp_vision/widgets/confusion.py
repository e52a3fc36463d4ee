"""ConfusionMatrixUI: the confusion matrix as buttons; a cell shows the images that were counted in it.

predictions as in `results_state`. Reads image files below `root`, those of the visible page only, and never writes.
"""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib import colormaps

from tdsp_vision.data.plots import ORANGE
from tdsp_vision.widgets.gallery import gallery
from tdsp_vision.widgets.pages import Pages, pager
from tdsp_vision.widgets.results_state import confusion_counts, judged

FEW = 6  # classes up to which a cell has room for its share as well
MOST = 25  # classes that are shown; hundreds of buttons open fast, thousands do not


class ConfusionMatrixUI(widgets.VBox):
    """Press a cell and see its images, most confidently wrong first; `cell` holds (true, predicted), `pages.rows` them.

    It opens with the most frequent mistake; where there is none, with the largest cell. Rows are true classes, columns
    predicted ones; the shade is the share of the row, as in the figure `modeling.plots.confusion_matrix`.

    Args:
        root: folder of the dataset, below which `path` lies.
        predictions: path, label, predicted, score_<class>, by row number; see `results_state`.
        classes: names, in the order of rows and columns.
        page_size: images on a page.

    Raises:
        ValueError: if the predictions do not fit (`results_state.judged`).
    """

    def __init__(self, root: Path, predictions: pd.DataFrame, classes: Sequence[str], page_size: int = 12):
        self.root, self.classes = Path(root), list(classes)
        self.table = judged(predictions, classes).sort_values("loss", ascending=False, kind="stable")
        self.matrix = Matrix(confusion_counts(self.table, classes), self.classes, self.choose)
        self.pages, self.about, self.gallery = Pages(size=page_size), widgets.HTML(), widgets.HTML()
        super().__init__([self.matrix, self.about, pager(self.pages), self.gallery])
        self.pages.observe(self._draw, "visible")
        self.choose(*self.matrix.largest())

    def choose(self, true: int, predicted: int) -> None:
        """Show the images of class number `true` that were called class number `predicted`."""
        self.cell = self.classes[true], self.classes[predicted]
        self.matrix.mark(true, predicted)
        self.about.value = f"<b>{escape(self.matrix.in_words(true, predicted))}</b>; most confidently wrong first"
        found = (self.table.label == self.cell[0]) & (self.table.predicted == self.cell[1])
        self.pages.show(tuple(self.table.index[found].tolist()))

    def _draw(self, _=None) -> None:
        rows = self.table.loc[list(self.pages.visible)]
        captions = [f"{Path(row.path).name}\nconfidence {row.confidence:.2f}" for row in rows.itertuples()]
        self.gallery.value = gallery([self.root / path for path in rows.path], captions)


class Matrix(widgets.VBox):
    """A button for each count that calls `choose(true, predicted)`, class numbers; with names and totals around them.

    counts: int [K, K], rows true, columns predicted. Of more than `MOST` classes, those with most mistakes are shown.
    """

    def __init__(self, counts: np.ndarray, classes: list[str], choose: Callable[[int, int], None]):
        self.counts, self.classes, self.choose = counts, classes, choose
        self.mistakes = counts * ~np.eye(len(classes), dtype=bool)
        self.shares = counts / counts.sum(axis=1, keepdims=True).clip(min=1)
        # Styles and layout are shared by all cells, so that hundreds of them open fast.
        colors = [*map(shade, np.arange(11) / 10), (ORANGE, "#000000")]
        self.styles = [widgets.ButtonStyle(button_color=back, text_color=text) for back, text in colors]
        self.small = widgets.Layout(width="auto", height="26px", margin="0", padding="0")
        hardest = np.argsort(-self.mistakes.sum(axis=0) - self.mistakes.sum(axis=1), kind="stable")
        self.shown, self.marked = sorted(hardest[:MOST].tolist()), None
        self.buttons = {(i, k): self._button(i, k) for i in self.shown for k in self.shown}
        few = f"shown: the {len(self.shown)} of {len(classes)} classes with the most mistakes"
        rest = [_text(few, wide=True)] if len(self.shown) < len(classes) else []
        super().__init__([self._grid(), *rest], layout=widgets.Layout(overflow="auto"))

    def largest(self) -> tuple[int, int]:
        """The most frequent mistake among all classes; where there is none, the largest cell."""
        counts = self.mistakes if self.mistakes.any() else self.counts
        return np.unravel_index(counts.argmax(), counts.shape)

    def mark(self, true: int, predicted: int) -> None:
        """Show that this cell, and no other, is open."""
        for cell in {self.marked, (true, predicted)} & self.buttons.keys():
            self.buttons[cell].style = self.styles[-1 if cell == (true, predicted) else round(10 * self.shares[cell])]
        self.marked = (true, predicted)

    def in_words(self, true: int, predicted: int) -> str:
        """What the cell says, for those who do not see its place and shade."""
        share = (
            f"{self.counts[true, predicted]} of {self.counts[true].sum()} images, {self.shares[true, predicted]:.0%}"
        )
        return f"True {self.classes[true]}, called {self.classes[predicted]}: {share}"

    def _button(self, true: int, predicted: int) -> widgets.Button:
        count, share = self.counts[true, predicted], self.shares[true, predicted]
        words = f"{count} ({share:.0%})" if len(self.shown) <= FEW else str(count)
        looks = {
            "style": self.styles[round(10 * share)],
            "layout": self.small,
            "tooltip": self.in_words(true, predicted),
        }
        button = widgets.Button(description=words, disabled=not count, tabbable=True, **looks)
        button.on_click(lambda _: self.choose(true, predicted))
        return button

    def _grid(self) -> widgets.GridBox:
        names, upright = [self.classes[k] for k in self.shown], len(self.shown) > FEW
        cells = [_text("true ↓ called →"), *(_text(name, True, upright) for name in [*names, "all"])]
        for true, name in zip(self.shown, names, strict=True):
            cells += [_text(name), *(self.buttons[true, k] for k in self.shown), _text(self.counts[true].sum(), True)]
        totals = [*self.counts.sum(axis=0)[self.shown], self.counts.sum()]
        cells += [_text("all"), *(_text(total, True) for total in totals)]
        width = "minmax(2.4em, 4em)" if upright else "minmax(5.5em, 8em)"
        columns = f"max-content repeat({len(names)}, {width}) 4em"
        layout = widgets.Layout(grid_template_columns=columns, grid_gap="2px", align_items="flex-end")
        return widgets.GridBox(cells, layout=layout)


def shade(share: float) -> tuple[str, str]:
    """Colours "#rrggbb" of a cell and of its text, for a share of 0 to 1: one hue, pale to dark, and the text that has
    the higher contrast on it (relative luminance, WCAG 2.2)."""
    red, green, blue, _ = colormaps["Blues"](share)
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (red, green, blue)]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    text = "#000000" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "#ffffff"
    return "#" + "".join(f"{round(255 * value):02x}" for value in (red, green, blue)), text


def _text(words: object, centred: bool = False, upright: bool = False, wide: bool = False) -> widgets.HTML:
    turned = "writing-mode: vertical-rl; transform: rotate(180deg); max-height: 9em; margin: 4px auto"
    turned = turned if upright else "line-height: 26px; " + ("" if wide else "max-width: 9em")
    style = f"overflow: hidden; text-overflow: ellipsis; white-space: nowrap; {turned}"
    style += "; text-align: center" if centred and not upright else ""
    text = f'<div style="{style}" title="{escape(str(words))}">{escape(str(words))}</div>'
    return widgets.HTML(text, layout={"margin": "0 4px", "height": "auto"})
