"""Small pictures for the widgets: the bytes of an image file, shrunk for people to look at."""

import io
from base64 import b64encode
from functools import lru_cache
from html import escape
from pathlib import Path

from tdsp_vision.data import plots
from tdsp_vision.paths import shown


@lru_cache(maxsize=600)  # about 50 pages of 12; a picture of 160 pixels a side takes some 10 kB
def thumbnail(path: Path, side: int = plots.THUMBNAIL) -> bytes:
    """`data.plots.thumbnail` as a JPEG file. The last ones are kept, since the files of a data set never change.

    Raises:
        ValueError: if the file cannot be read as an image.
    """
    try:
        picture = plots.thumbnail(path, side)
    except Exception as error:  # decoders raise whatever they like on damaged bytes
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"{shown(path)} cannot be shown ({reason}); run the data acquisition notebook again."
        ) from error
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def as_html(picture: bytes, alt: str, height: int, faint: bool = False) -> str:
    """An <img> of the bytes of `thumbnail`, `height` pixels high, in its own shape; `alt` is read to the blind.

    `ipywidgets.Image` has no text for them, and with a `tooltip` it is not drawn at all (ipywidgets 8.1).
    """
    source = b64encode(picture).decode()
    style = f"width:100%;height:{height}px;object-fit:contain;display:block;opacity:{0.5 if faint else 1}"
    return f'<img src="data:image/jpeg;base64,{source}" alt="{escape(alt)}" style="{style}">'
