"""Images with a label to choose: small in a grid, and one of them large with all that is known of it."""

from html import escape
from pathlib import Path

import ipywidgets as widgets
import pandas as pd

from tdsp_vision.data.corrections import EXCLUDE
from tdsp_vision.data.plots import GRAY, ORANGE
from tdsp_vision.widgets.annotation_state import Annotation
from tdsp_vision.widgets.pages import Pages
from tdsp_vision.widgets.thumbnails import as_html, thumbnail

LARGE = 640  # pixels of the zoomed picture; its page of the cache takes more memory than those of the grid


class Tile(widgets.VBox):
    """One image: picture, name with a check mark, label, zoom; made once, then filled with row after row."""

    def __init__(self, annotation: Annotation, root: Path, side: int = 160):
        self.annotation, self.root, self.side = annotation, root, side
        self.row: int | None = None  # None: nothing to decide, either empty or just being filled
        self.content, self.picture = b"", widgets.HTML()
        self.chosen = widgets.Checkbox(indent=False, tabbable=True, layout=widgets.Layout(width="auto"))
        self.label = widgets.Dropdown(tabbable=True, layout=widgets.Layout(flex="1 1 80px", width="auto"))
        self.label.style.description_width = "0px"  # read to the blind, not shown: the name stands above already
        self.label.layout.margin = "2px 2px 2px -6px"  # what is left of it
        self.zoom = widgets.Button(
            description="Zoom", tabbable=True, layout=widgets.Layout(flex="0 0 auto", width="auto")
        )
        self.label.observe(self._decide, "value")
        decision = widgets.HBox([self.label, self.zoom], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([self.picture, self.chosen, decision])
        self.layout = widgets.Layout(padding="4px", border=f"2px solid {GRAY}33", min_width="0")

    def show(self, row: int | None, content: bytes = b"") -> None:
        """Show row `row` with its picture, or nothing."""
        self.row, self.content = row, content
        self.layout.display = "none" if row is None else None
        if row is not None:
            name = self.annotation.manifest.path[row].split("/")[-1]
            self.chosen.description = name
            self.label.description, self.zoom.tooltip = f"Label of {name}", f"Zoom {name}"
            self.refresh()

    def refresh(self) -> None:
        """Show the label as it is now."""
        row, self.row = self.row, None
        if row is not None:
            now, given = self.annotation.now[row], self.annotation.given[row]
            image = as_html(self.content, self.annotation.manifest.path[row], self.side, faint=now == EXCLUDE)
            self.picture.value = image + note(self.annotation, row)
            if self.label.options != self.annotation.choices:
                self.label.options = self.annotation.choices
            self.label.value = now
            line = "dashed" if now == EXCLUDE else "solid"
            self.layout.border = f"2px {line} {GRAY + '33' if now == given else ORANGE}"
        self.row = row

    def _decide(self, change) -> None:
        if self.row is not None:
            self.annotation.relabel([self.row], change["new"])


class Zoom(widgets.VBox):
    """One image large, with its details; steps through the rows of `pages`, and turns the page where one ends."""

    def __init__(self, annotation: Annotation, root: Path, pages: Pages):
        self.annotation, self.root, self.pages = annotation, root, pages
        narrow = widgets.Layout(width="auto")
        self.back = widgets.Button(description="Back to the page", icon="th", tabbable=True, layout=narrow)
        self.steps = [
            widgets.Button(description=f"{word} image", icon=f"arrow-{side}", tabbable=True, layout=narrow)
            for word, side in (("Previous", "left"), ("Next", "right"))
        ]
        self.where = widgets.Label()
        self.tile = Tile(annotation, root, side=360)
        self.tile.layout.flex = "1 1 300px"
        for part in (self.tile.chosen, self.tile.zoom):
            part.layout.display = "none"
        self.details = widgets.HTML(layout=widgets.Layout(flex="1 1 260px", min_width="0"))
        for button, by in zip(self.steps, (-1, 1), strict=True):
            button.on_click(lambda _, by=by: self.step(by))
        self.at: int | None = None  # place in the rows of `pages`; None: closed
        bar = widgets.HBox([self.back, *self.steps, self.where])
        body = widgets.HBox([self.tile, self.details])
        bar.layout.flex_flow = body.layout.flex_flow = "row wrap"
        super().__init__([bar, body])
        self.close_image()

    def open_image(self, row: int) -> None:
        """Show one of the rows of `pages`."""
        self.at = self.pages.rows.index(row)
        path = self.annotation.manifest.path[row]
        self.tile.show(row, thumbnail(self.root / path, LARGE))
        self.details.value = details(self.annotation, row)
        self.where.value = f"image {self.at + 1} of {len(self.pages.rows)}"
        self.steps[0].disabled, self.steps[1].disabled = self.at == 0, self.at == len(self.pages.rows) - 1
        self.layout.display = None

    def step(self, by: int) -> None:
        """Show the image `by` places further on."""
        at = min(max(self.at + by, 0), len(self.pages.rows) - 1)
        self.pages.page = at // self.pages.size
        self.open_image(self.pages.rows[at])

    def close_image(self) -> None:
        """Show nothing."""
        self.at = None
        self.tile.show(None)
        self.layout.display = "none"


def note(annotation: Annotation, row: int) -> str:
    """One line of HTML: what the label was, and how far it was believed, where that is known."""
    given, score = annotation.given[row], 1 - annotation.suspicion[row]
    words = [] if annotation.now[row] == given else [f'<span style="color:{ORANGE}">was {escape(given)}</span>']
    words += [] if pd.isna(score) else [f"score {score:.2f}"]
    return f'<div style="line-height:1.3">{" · ".join(words) or "&nbsp;"}</div>'


def details(annotation: Annotation, row: int) -> str:
    """A table of HTML with everything that the manifest says of one image."""
    known = annotation.manifest.loc[row]
    facts = {"path": known.path, "given label": known.label}
    if {"width", "height"} <= set(known.index):
        facts["size"] = f"{known.width} × {known.height} pixels"
    if not pd.isna(annotation.suspicion[row]):
        facts["score of the label"] = f"{1 - annotation.suspicion[row]:.3f} (out of fold)"
    first = [name for name in ("license", "group") if name in known.index]
    rest = [name for name in known.index if name not in {"path", "label", "width", "height", *first}]
    facts |= {name: known[name] for name in (*first, *rest) if not pd.isna(known[name]) and str(known[name])}
    rows = "".join(
        f'<tr><th style="text-align:left;vertical-align:top;padding-right:12px">{escape(name)}</th>'
        f'<td style="overflow-wrap:anywhere">{escape(str(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f'<table style="line-height:1.4">{rows}</table>'
