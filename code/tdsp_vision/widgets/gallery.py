"""Several pictures as one piece of HTML, for `ipywidgets.HTML`: to be looked at, with nothing to press."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tdsp_vision.widgets.thumbnails import as_html, thumbnail


def gallery(files: Sequence[Path], captions: Sequence[str], side: int = 150) -> str:
    """Image files side by side, at most `side` pixels wide and high, each with its caption below.

    Captions are plain text, in which a new line is a new line.

    Raises:
        ValueError: if there is not one caption per file, or a file cannot be read as an image.
    """
    tile = f"width: {side}px; margin: 0; line-height: 1.3; overflow-wrap: anywhere"
    figures = [
        f'<figure style="{tile}">{as_html(thumbnail(file, side), caption, side)}'
        f'<figcaption style="white-space: pre-line; margin-top: 4px">{escape(caption)}</figcaption></figure>'
        for file, caption in zip(files, captions, strict=True)
    ]
    return f'<div style="display: flex; flex-wrap: wrap; gap: 12px 10px">{"".join(figures)}</div>'
