"""AnnotationUI: look at images, correct labels, drop images. It decides nothing by itself and writes nothing.

    annotation = AnnotationUI(dataset.root, manifest, read_corrections(dataset))
    write_corrections(dataset, annotation.corrections)      # in the next cell

Rows are numbers, 0 to n - 1, of the manifest (path, label, …) as it was given. `Annotation` holds the labels and needs
no front end; the rest draws it.
"""

from html import escape
from itertools import zip_longest
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd

from tdsp_vision.data.manifest import EXCLUDE, corrected_labels
from tdsp_vision.widgets import pictures

CHANGED = "only changed"
SMALL, LARGE = 160, 480  # pixels; of a picture among others, and of the one that is zoomed


class Annotation:
    """Labels of n images while a person corrects them: object arrays `given` and `now`, [n]."""

    def __init__(self, manifest: pd.DataFrame, corrections: dict[str, str]):
        """Start from corrections that exist; see `AnnotationUI` for the arguments."""
        self.manifest = manifest.reset_index(drop=True)
        self.given = self.manifest.label.to_numpy(dtype=object)
        self.now = corrected_labels(self.manifest, corrections).to_numpy(dtype=object)
        self.read = self.now.copy()  # the labels as the notebook has them
        self._steps: list[tuple[list[int], np.ndarray]] = []  # rows, and their labels before

    @property
    def choices(self) -> tuple[str, ...]:
        """Labels that an image may get, in order; EXCLUDE is the last."""
        return (*sorted({*self.given, *self.now} - {EXCLUDE}), EXCLUDE)

    @property
    def corrections(self) -> dict[str, str]:
        """Path to label of each image whose label is not the given one; EXCLUDE drops the image."""
        changed = self.now != self.given
        return dict(zip(self.manifest.path[changed], self.now[changed], strict=True))

    @property
    def summary(self) -> str:
        """How many labels are not the given ones, and how many decisions the notebook does not have yet, in words."""
        changed, excluded = (self.now != self.given).sum(), (self.now == EXCLUDE).sum()
        words, new = f"{changed - excluded} relabelled, {excluded} excluded", (self.now != self.read).sum()
        told = f"; {new} decision{'s' * int(new > 1)} not written yet: run the next cell" if new else ""
        return f"{len(self.now)} images: {words}{told}"

    def find(self, words: str = "") -> tuple[int, ...]:
        """Rows, as listed, that `words` describe: CHANGED, or a part of the label as it is now; "" finds all."""
        labels = np.array([words.lower() in label.lower() for label in self.now], bool)
        return tuple(np.flatnonzero(self.now != self.given if words == CHANGED else labels).tolist())

    def relabel(self, rows: list[int], label: str) -> None:
        """Give `rows` one label: one step, which `undo` takes back as a whole.

        The label may be new; one that differs from a known one in capitals or spaces around it is the known one.
        """
        label = next((known for known in self.choices if known.lower() == label.strip().lower()), label.strip())
        rows = [row for row in rows if self.now[row] != label]
        if rows:
            self._steps.append((rows, self.now[rows]))
            self.now[rows] = label

    def undo(self) -> list[int]:
        """Take the last step back; its rows, none if there is no step."""
        rows, labels = self._steps.pop() if self._steps else ([], [])
        self.now[rows] = labels
        return rows

    def note(self, row: int, everything: bool = False) -> str:
        """The given label where it was changed and, on request, all of the manifest, as HTML."""
        facts = self.manifest.loc[row].dropna().astype(str).to_dict() if everything else {}
        facts |= {"was": self.given[row]} if self.now[row] != self.given[row] else {}
        return "<br>".join(f"{escape(name)} <b>{escape(fact)}</b>" for name, fact in facts.items() if fact) or "&nbsp;"


class Tile(widgets.VBox):
    """One image: picture, name with a check mark, label, zoom; made once, then filled with row after row."""

    def __init__(self, ui: "AnnotationUI"):
        self.ui, self.row = ui, None  # row None: nothing to decide, the tile is empty or just being filled
        self.picture, self.chosen = widgets.HTML(), pictures.control(widgets.Checkbox, "", indent=False)
        # A description that is read to the blind and not shown: the name stands above already.
        self.label = widgets.Dropdown(layout={"flex": "1 1 9em", "min_width": "0"}, style={"description_width": "0px"})
        self.label.observe(self._decide, "value")
        self.zoom = pictures.button("Zoom", lambda: ui.zoom(self.row))
        parts = [self.picture, self.chosen, pictures.wrapping([self.label, self.zoom])]
        super().__init__(parts, layout={"padding": "4px", "min_width": "0"})
        widgets.dlink((ui.all, "value"), (self.chosen, "value"))

    def show(self, row: int | None) -> None:
        """Show row `row` as its label is now, or nothing."""
        self.row, self.layout.display = None, "none" if row is None else None
        if row is not None:
            state, path, zoomed = self.ui.state, self.ui.state.manifest.path[row], self.ui.pages.size == 1
            now, name = state.now[row], Path(path).name
            shown = pictures.picture(self.ui.root / path, path, LARGE if zoomed else SMALL)
            self.picture.value = shown + state.note(row, zoomed)
            self.layout.grid_column = "1 / -1" if zoomed else "auto"
            self.chosen.description, self.label.description = name, f"Label of {name}"
            self.zoom.description, self.zoom.tooltip = "Back to the page" if zoomed else "Zoom", f"Zoom {name}"
            self.label.options, self.label.value = state.choices, now
            self.layout.border = f"2px solid {f'{pictures.GRAY}33' if now == state.given[row] else pictures.ORANGE}"
            self.row = row

    def _decide(self, change) -> None:
        if self.row is not None:
            self.ui.state.relabel([self.row], change["new"])
            self.ui.refresh()


class AnnotationUI(pictures.Panel):
    """Images with a label to choose for each. Filters apply when they are chosen, not while labels change.

    Args:
        root: folder that `manifest.path` is relative to.
        manifest: path, label as given (`load_manifest(dataset, corrected=False)`), and what the zoom shows, in the
            order in which the images are to be seen: sorted by `suspicious_labels`, the worst come first.
        corrections: path to label, to start from; EXCLUDE drops an image.
        page_size: images on a page.
    """

    def __init__(self, root: Path, manifest: pd.DataFrame, corrections: dict | None = None, page_size: int = 12):
        self.root, self.state = Path(root), Annotation(manifest, corrections or {})
        self.page_size, self.pages, self.summary = page_size, pictures.Pages(page_size, self._fill), widgets.HTML()
        how = {"placeholder": "all, or type", "continuous_update": False}
        self.find = pictures.control(widgets.Combobox, "Show", lambda new: self.pages.show(self.state.find(new)), **how)
        self.all = pictures.control(widgets.Checkbox, "Check all", indent=False)
        self.new = pictures.control(widgets.Combobox, "New label", placeholder="known, or a new one")
        self.give = pictures.button("Relabel checked images", self._give, icon="tags")
        self.undo = pictures.button("Undo", self._undo, icon="undo")
        self.tiles = [Tile(self) for _ in range(page_size)]
        columns = {"grid_template_columns": "repeat(auto-fill, minmax(150px, 1fr))", "align_items": "flex-end"}
        decisions = pictures.wrapping([self.all, self.new, self.give, self.undo])
        filters, grid = pictures.wrapping([self.find, self.pages]), widgets.GridBox(self.tiles, layout=columns)
        super().__init__([filters, decisions, self.summary, grid])
        self.refresh()
        self.pages.show(self.state.find())

    @property
    def corrections(self) -> dict[str, str]:
        """Path to label of each image whose label is not the given one; EXCLUDE drops the image.

        Whoever asks for them is taken to write them: `summary` counts the decisions since then as not written yet.
        """
        self.state.read = self.state.now.copy()
        self.refresh()
        return self.state.corrections

    def static_html(self) -> str:
        """The first page, with labels and file names."""
        rows = list(self.pages.rows[: self.page_size])
        return pictures.gallery(self.root, self.state.manifest.path[rows], self.state.now[rows])

    def refresh(self) -> None:
        """Show the labels as they are now, and offer new ones as well; which images are shown stays."""
        for tile in self.tiles:
            tile.show(tile.row)
        self.new.options, self.summary.value = self.state.choices, escape(self.state.summary)
        self.find.options = (CHANGED, *self.state.choices)

    def zoom(self, row: int) -> None:
        """One image large, with its details, or the whole page again; the button that leads back has the keyboard."""
        self.pages.turn_to(row, self.page_size if self.pages.size == 1 else 1)
        self._fill(self.pages.visible)  # a page of one image has the same rows then
        self.tiles[self.pages.visible.index(row)].zoom.focus()

    def _fill(self, rows: tuple[int, ...]) -> None:
        """Show a page, with no marks, and read its images, no others."""
        self.all.value = False
        for tile, row in zip_longest(self.tiles, rows):
            tile.chosen.value = False
            tile.show(row)

    def _give(self) -> None:
        """Relabel the checked images, in one step, and take off the marks."""
        rows = [tile.row for tile in self.tiles if tile.chosen.value and tile.row is not None]
        if rows and self.new.value.strip():
            self.state.relabel(rows, self.new.value)
            self.new.value = ""
            self.refresh()
            self._fill(self.pages.visible)
        else:
            self.summary.value = pictures.alert("Check one image or more, and name the label that they get.")

    def _undo(self) -> None:
        """Take the last step back and show an image that it was about."""
        for row in self.state.undo()[:1]:
            self.pages.turn_to(row, self.pages.size)
        self.refresh()
