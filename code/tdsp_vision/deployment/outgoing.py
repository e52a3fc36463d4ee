"""An image on its way to the service: what is checked before it is sent, and turned as its camera asks.

TensorFlow ignores the EXIF tag that says "turn me", so a photo would be scored lying on its side although the model
learned from upright ones. It is turned here the way data acquisition turns it (`data.orientation`): PNG and WebP
without loss, JPEG encoded again at quality 95. Every other file is sent byte for byte.
"""

import io
from pathlib import Path

from PIL import Image

from tdsp_vision.data.containers import RejectedImage
from tdsp_vision.data.images import TURNS, _orientation, as_stored
from tdsp_vision.data.web import FetchError, Patience
from tdsp_vision.deployment.image_header import checked_pixels

MAX_FILE_BYTES = 20 * 1024 * 1024
PATIENCE = Patience(attempts=2, connect_timeout=5, read_timeout=15, deadline=30)


def checked_image(content: bytes) -> tuple[bytes, int]:
    """The bytes to send for an image, and its number of pixels.

    Raises:
        RejectedImage: if it is empty, too long, too large, of a format that is not accepted, or asks to be turned
            and is damaged. Damage elsewhere is for the server to find.
    """
    if not content:
        raise RejectedImage("the file is empty")
    if len(content) > MAX_FILE_BYTES:
        raise RejectedImage(f"{len(content)} bytes; at most {MAX_FILE_BYTES} are sent")
    pixels = checked_pixels(content)
    try:
        with Image.open(io.BytesIO(content)) as image:
            if _orientation(image) in TURNS:
                content = as_stored(content).content
    except OSError as error:
        raise RejectedImage(f"damaged: {error}") from error
    return content, pixels


def read_file(path: Path) -> bytes:
    """The content of a file; RejectedImage if there is none, or it is longer than what is sent."""
    if not path.is_file():
        raise RejectedImage("no such file")
    if (size := path.stat().st_size) > MAX_FILE_BYTES:
        raise RejectedImage(f"{size} bytes; at most {MAX_FILE_BYTES} are sent")
    return path.read_bytes()


def read_url(url: str, private: bool = False) -> bytes:
    """The content at a web address.

    Args:
        url: of http or https.
        private: also fetch from addresses that are not public. Where a stranger may choose the URL, leave it off:
            this machine can reach servers that he cannot.

    Raises:
        RejectedImage: if it cannot be had; every redirect is held to the same rules.
    """
    from tdsp_vision.data.web import Client

    client = Client(PATIENCE, guarded=not private)
    try:
        return client.get(url, MAX_FILE_BYTES)
    except FetchError as error:
        raise RejectedImage(f"cannot be fetched: {error}") from error
