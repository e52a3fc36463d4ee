"""The controls around the grid of `AnnotationUI`: which images, many at once, undo and redo."""

from collections.abc import Callable

import ipywidgets as widgets
import numpy as np

from tdsp_vision.widgets.annotation_state import ALL, CHANGED, SUSPICIOUS, Annotation, summary
from tdsp_vision.widgets.annotation_tiles import Tile
from tdsp_vision.widgets.controls import dropdown
from tdsp_vision.widgets.pages import Pages

ANY = "any"


class Filters(widgets.HBox):
    """Label, changed or suspicious ones, and order: what decides which rows `pages` has."""

    def __init__(self, state: Annotation, pages: Pages):
        self.state, self.pages = state, pages
        scored = not np.isnan(state.suspicion).all()
        self.label = dropdown("Label", [ANY, *state.choices])
        self.only = dropdown("Show", [ALL, CHANGED, SUSPICIOUS] if scored else [ALL, CHANGED])
        self.order = dropdown("Order", [("as listed", False)] + [("most suspicious first", True)] * scored)
        super().__init__(
            [self.label, self.only, self.order], layout=widgets.Layout(flex_flow="row wrap", grid_gap="0 10px")
        )
        for control in self.children:
            control.observe(self.apply, "value")
        state.observe(self.offer, "choices")

    def apply(self, _=None) -> None:
        """Show the rows that the controls let through, from the first page on."""
        label = None if self.label.index == 0 else self.label.value
        self.pages.show(self.state.find(label, self.only.value, self.order.value))

    def offer(self, _=None) -> None:
        """Offer a new label as well; what is chosen, and shown, stays."""
        before = self.label.value
        self.label.unobserve(self.apply, "value")
        self.label.options = [ANY, *self.state.choices]
        self.label.value = before
        self.label.observe(self.apply, "value")


class Many(widgets.HBox):
    """One label for all images of the page that have a check mark, and new labels."""

    def __init__(self, state: Annotation, tiles: list[Tile]):
        self.state, self.tiles = state, tiles
        self.all = widgets.Checkbox(description="All on this page", indent=False, tabbable=True)
        self.label = dropdown("Label", state.choices)
        self.relabel = _button("Relabel checked", "tags", "Give all checked images of this page that label")
        self.new = widgets.Text(description="New label", tabbable=True, layout=widgets.Layout(width="220px"))
        self.new.style.description_width = "initial"
        self.add = _button("Add", "plus", "Offer the new label for each image")
        self.add.disabled = True
        self.all.layout.width = "auto"
        controls = [self.all, self.label, self.relabel, self.new, self.add]
        super().__init__(controls, layout=widgets.Layout(flex_flow="row wrap", grid_gap="0 10px"))
        self.all.observe(lambda change: self.choose(change["new"]), "value")
        self.relabel.on_click(self.apply)
        self.new.observe(lambda change: setattr(self.add, "disabled", not change["new"].strip()), "value")
        self.add.on_click(self.add_label)

    def choose(self, chosen: bool) -> None:
        """Set or take off the check mark of each image of the page."""
        self.all.value = chosen
        for tile in self.tiles:
            tile.chosen.value = chosen

    def apply(self, _=None) -> None:
        """Relabel, in one step, and take off the marks."""
        rows = [tile.row for tile in self.tiles if tile.row is not None and tile.chosen.value]
        self.state.relabel(rows, self.label.value)
        self.choose(False)

    def add_label(self, _=None) -> None:
        """Offer the label that was typed."""
        label = self.state.add_choice(self.new.value)
        self.label.options = self.state.choices
        self.label.value, self.new.value = label, ""
        self.relabel.focus()  # the button is off now, and would lose the keyboard


class History(widgets.HBox):
    """Undo, redo, and how much has changed; turns to the page of the image that a step was about."""

    def __init__(self, state: Annotation, pages: Pages):
        self.state, self.pages = state, pages
        self.undo = _button("Undo", "undo", "Take the last change back")
        self.redo = _button("Redo", "repeat", "Change again what was taken back")
        self.summary = widgets.Label()
        super().__init__(
            [self.undo, self.redo, self.summary], layout=widgets.Layout(flex_flow="row wrap", grid_gap="0 10px")
        )
        self.undo.on_click(lambda _: self.turn(state.undo))
        self.redo.on_click(lambda _: self.turn(state.redo))
        state.observe(self.refresh, "steps")
        self.refresh()

    def turn(self, back_or_on: Callable[[], list[int]]) -> None:
        """Undo or redo."""
        rows = back_or_on()
        if rows:
            self.pages.turn_to(rows[0])

    def refresh(self, _=None) -> None:
        """Say what has changed."""
        self.undo.disabled, self.redo.disabled = (not possible for possible in self.state.can)
        self.summary.value = summary(self.state)


def _button(description: str, icon: str, tooltip: str) -> widgets.Button:
    layout = widgets.Layout(width="auto")
    return widgets.Button(description=description, icon=icon, tooltip=tooltip, tabbable=True, layout=layout)
