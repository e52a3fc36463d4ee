"""What the widgets share: pictures as HTML, pages of rows, controls, and the panel that each of them stands in.

Image files are read when they come into view and never written. A file that cannot be read is shown as a box with the
reason; no widget fails because of it. Colors are those of the figures for data, and JupyterLab's CSS variables for the
rest, so that a dark theme stays readable.
"""

import io
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

import ipywidgets as widgets
import traitlets
from PIL import Image

from tdsp_vision.data import plots
from tdsp_vision.data.plots import BLUE, GRAY, ORANGE  # noqa: F401  the colors of the figures

# JupyterLab runs its shortcuts, such as "x" or an arrow key, in the middle of a widget, too, unless the focused element
# has the attribute named below (Lumino's CommandRegistry). No trait of a widget sets it, so a handler of the page does,
# from the moment at which the panel is drawn and the animation of its first child starts.
PANEL = """<style>
@keyframes tdsp-attached { from { opacity: 0 } }
.tdsp-keys { animation: tdsp-attached 1ms }
.tdsp .widget-html, .tdsp .widget-html-content { height: auto; line-height: 1.4; overflow-wrap: anywhere;
  white-space: normal; color: var(--jp-ui-font-color1, inherit) }
.tdsp { --bq-content-font-color: var(--jp-ui-font-color1) } .tdsp .widget-gridbox { column-gap: 16px }
.tdsp-beside { display: flex; flex-wrap: wrap; align-items: flex-start; line-height: 1.3 }
.tdsp .widget-dropdown > select { appearance: auto; background-image: none }
.tdsp-missing { display: grid; place-items: center; text-align: center; border: 1px dashed }
</style><i class="tdsp-keys" onanimationstart="this.closest('.tdsp').addEventListener(
  'focusin', (event) => event.target.setAttribute('data-lm-suppress-shortcuts', ''))"></i>"""


ROW = {"flex_flow": "row wrap", "align_items": "center", "grid_gap": "4px 12px"}


class Panel(widgets.VBox):
    """A widget whose keys stay in it. A notebook that was exported, or is not trusted yet, shows `static_html()`."""

    def __init__(self, children: Sequence[widgets.Widget]):
        super().__init__([widgets.HTML(PANEL, layout={"height": "0", "margin": "0"}), *children])
        self.add_class("tdsp")

    def _repr_mimebundle_(self, **options) -> dict:
        twin = {"text/html": f'<div class="tdsp">{PANEL}{self.static_html()}</div>'}
        return super()._repr_mimebundle_(**options) | twin


thumbnail = lru_cache(maxsize=200)(plots.thumbnail)  # a picture of 160 pixels a side takes some 80 kB


def picture(source: Path | Image.Image, alt: str, side: int) -> str:
    """An image, or an image file, as HTML, its longer side `side` pixels long; `alt` is read to the blind.

    Styles are those that JupyterLab leaves in a notebook that is not trusted yet.
    """
    try:
        image = thumbnail(source, side) if isinstance(source, Path) else source
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        words = f"{source.name} cannot be shown: {getattr(error, 'strerror', None) or error}"
        return f'<div class="tdsp-missing" style="min-height:{side}px">{escape(words)}</div>'
    buffer, scale = io.BytesIO(), side / max(image.size)
    style = f"width:{image.width * scale:.0f}px;max-width:100%;height:auto;display:block"
    image.save(buffer, "JPEG", quality=90)
    content = b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/jpeg;base64,{content}" alt="{escape(alt)}" style="{style}">'


def figure(source: Path | Image.Image, words: str, side: int) -> str:
    """`picture` as HTML with its caption: plain text, in which a new line is a new line."""
    style = f"display:inline-block;vertical-align:top;width:{side}px;max-width:100%;margin:0 10px 10px 0"
    return f'<figure style="{style};white-space:pre-line">{picture(source, words, side)}{escape(words)}</figure>'


def beside(parts: Iterable[str]) -> str:
    """HTML side by side, and below each other where the page is narrow."""
    return f'<div class="tdsp-beside">{"".join(parts)}</div>'


def gallery(root: Path, paths: Iterable[str], captions: Iterable[str], side: int = 125) -> str:
    """Image files below `root` side by side as HTML, below each its name and its caption."""
    named = zip(paths, captions, strict=True)
    return beside(figure(root / path, f"{Path(path).name}\n{caption}", side) for path, caption in named)


class Pages(widgets.HBox):
    """Rows, `size` of them on a page, and controls to turn it: Previous, Next, position, the number of the page.

    `visible` holds the rows of this page; `changed` is called with it, once, exactly when other rows are to be shown.
    No button is ever off, since one that were would lose the keyboard.
    """

    visible = traitlets.Tuple(help="ints, in the order in which they are shown")

    def __init__(self, size: int, changed: Callable[[tuple], None]):
        self.rows, self.size, self.position = (), size, widgets.Label()
        self.number = control(widgets.IntText, "Page", self.turn, "140px")
        back = button("Previous", lambda: self.turn(self.page - 1), icon="arrow-left")
        forward = button("Next", lambda: self.turn(self.page + 1), icon="arrow-right")
        super().__init__([back, forward, self.position, self.number], layout=ROW)
        self.observe(lambda change: changed(change["new"]), "visible")

    def show(self, rows: tuple[int, ...]) -> None:
        """Take other rows and go to the first page."""
        self.rows = rows
        self.turn(1)

    def turn_to(self, row: int, size: int) -> None:
        """Go to the page with `row`, of `size` rows from now on; stay where that is not among the rows."""
        if row in self.rows:
            self.size = size
            self.turn(self.rows.index(row) // size + 1)

    def turn(self, page: int) -> None:
        """Go to a page, counted from 1; a number outside of what exists becomes the nearest that does."""
        self.page = max(1, min(page, -(-len(self.rows) // self.size)))
        first, last = (self.page - 1) * self.size, min(self.page * self.size, len(self.rows))
        span = f"{first + 1}–{last}" if self.size > 1 else last
        self.position.value = f"{span} of {len(self.rows)}" if self.rows else "nothing to show"
        self.visible = self.rows[first:last]
        self.number.value = self.page


def button(description: str, pressed: Callable[[], None], **traits) -> widgets.Button:
    """A button as wide as its words, which calls `pressed`."""
    made = widgets.Button(description=description, tabbable=True, layout={"width": "auto"}, **traits)
    made.on_click(lambda _: pressed())
    return made


def control(kind: type[widgets.Widget], description: str, changed=lambda value: None, width="auto", **traits):
    """A control no wider than the page, with its description in full, which is read to the blind, too.

    Args:
        changed: is called with each new value.
    """
    style = {"description_width": "initial"}
    made = kind(description=description, layout={"width": width, "max_width": "98%"}, style=style, **traits)
    made.observe(lambda change: changed(change["new"]), "value")
    return made


def wrapping(children: Sequence[widgets.Widget]) -> widgets.HBox:
    """Side by side, and below each other where the page is narrow."""
    return widgets.HBox(children, layout=ROW)


def alert(words: str) -> str:
    """Plain text that something is wrong, as HTML; it is read to the blind at once."""
    return f'<b role="alert" style="color:{ORANGE}">{escape(words)}</b>'
