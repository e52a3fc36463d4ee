"""Controls that several widgets have, as wide as what they hold and with their description in full."""

from collections.abc import Sequence

import ipywidgets as widgets


def dropdown(description: str, options: Sequence) -> widgets.Dropdown:
    """A list to choose one of `options` from, values or (name, value); its description is read to the blind, too."""
    return widgets.Dropdown(description=description, options=options, tabbable=True, **narrow())


def narrow(width: str = "auto") -> dict:
    """Arguments of a control: no wider than the page, and no room kept for a longer description."""
    return {"layout": widgets.Layout(width=width, max_width="98%"), "style": {"description_width": "initial"}}
