"""ConfusionMatrixUI: the confusion matrix as buttons; a cell shows the images that were counted in it.

predictions as in `results`. Reads image files below `root`, those of the visible page only, and never writes.
"""

from functools import partial
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from tdsp_vision.widgets import pictures
from tdsp_vision.widgets.results import judged

MOST = 15  # classes up to which there is a button for each cell; of more, a field in which a cell is searched


class ConfusionMatrixUI(pictures.Panel):
    """Press a cell and see its images; `cell` holds (true, predicted), `pages.rows` the rows.

    It opens with the most frequent mistake; where there is none, with the largest cell. Rows are true classes, columns
    predicted ones; the shade is the share of the row. More than `MOST` classes have a field to search in instead.

    Args:
        root: folder of the dataset, below which `path` lies.
        predictions: path, label, predicted, score_<class>, by row number.
        classes: names, in the order of rows and columns.
        page_size: images on a page.
    """

    def __init__(self, root: Path, predictions: pd.DataFrame, classes: list[str], page_size: int = 12):
        self.root, self.classes, self.table = Path(root), classes, judged(predictions, classes)
        self.counts = confusion_matrix(self.table.label, self.table.predicted, labels=classes)
        self.pages = pictures.Pages(page_size, self._draw)
        self.about, self.gallery, self.buttons = widgets.HTML(), widgets.HTML(), {}
        cells = np.argwhere(self.counts).tolist()
        cells.sort(key=lambda cell: (cell[0] != cell[1], self.counts[*cell]), reverse=True)
        matrix = self._matrix() if len(classes) <= MOST else self._search(cells)
        super().__init__([matrix, self.about, self.pages, self.gallery])
        self.choose(*cells[0])

    def choose(self, true: int, predicted: int) -> None:
        """Show the images of class number `true` that were called class number `predicted`."""
        self.cell = self.classes[true], self.classes[predicted]
        for cell, button in self.buttons.items():
            button.layout.border = f"3px solid {pictures.ORANGE if cell == (true, predicted) else 'transparent'}"
        order = "least sure first" if true == predicted else "most confidently wrong first"
        self.about.value = f"<b>{escape(self.in_words(true, predicted))}</b>; {order}"
        found = (self.table.label == self.cell[0]) & (self.table.predicted == self.cell[1])
        self.pages.show(tuple(self.table.index[found].tolist()))

    def in_words(self, true: int, predicted: int) -> str:
        """What a cell says, for those who do not see its place and shade."""
        count, total = self.counts[true, predicted], self.counts[true].sum()
        share = f"{count} of {total} images, {count / max(total, 1):.0%}"
        return f"True {self.classes[true]}, called {self.classes[predicted]}: {share}"

    def static_html(self) -> str:
        """The matrix as a table, and the images of the open cell."""
        table = pd.DataFrame(self.counts, self.classes, self.classes).rename_axis("true ↓ called →")
        return f"{table.to_html(max_rows=MOST, max_cols=MOST)}{self.about.value}{self.gallery.value}"

    def _draw(self, visible: tuple[int, ...]) -> None:
        rows = self.table.loc[list(visible)]
        self.gallery.value = pictures.gallery(self.root, rows.path, rows.confidence.map("confidence {:.3f}".format))

    def _search(self, cells: list[list[int]]) -> widgets.Combobox:
        """A field that offers `cells`, in their order."""
        offered = {self.in_words(*cell): cell for cell in cells}

        def take(words: str) -> None:
            if words in offered:
                self.choose(*offered[words])
                search.value = ""  # a full field would offer nothing but itself

        look = {"placeholder": "type a class", "options": tuple(offered), "width": "520px"}
        search = pictures.control(widgets.Combobox, "Cell", take, **look)
        return search

    def _matrix(self) -> widgets.GridBox:
        """A button for each count, with names around them."""
        cells = [widgets.HTML(escape(words)) for words in ("true ↓ called →", *self.classes)]
        for true, name in enumerate(self.classes):
            cells.append(widgets.HTML(escape(name)))
            for predicted, count in enumerate(self.counts[true]):
                shade = f"rgba(0,114,178,{0.6 * count / max(self.counts[true].sum(), 1):.2f})"
                look = {"button_color": shade, "text_color": "var(--jp-ui-font-color0)"}
                traits = {"tooltip": self.in_words(true, predicted), "disabled": not count, "style": look}
                cells.append(pictures.button(str(count), partial(self.choose, true, predicted), **traits))
                self.buttons[true, predicted] = cells[-1]
        columns = f"minmax(4em, max-content) repeat({len(self.classes)}, minmax(3em, 8em))"
        return widgets.GridBox(cells, layout={"grid_template_columns": columns, "grid_gap": "2px", "overflow": "auto"})
