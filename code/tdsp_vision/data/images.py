"""Look at one file: is it a whole image that every later stage can read? Each file gets facts or a reason.

Kept byte for byte are JPEG and PNG of 8 bits. All other kinds that are read (GIF, WebP, BMP, TIFF, HEIC, AVIF, PPM)
are converted once, to PNG, or to JPEG where they come from a camera that knows no better; of several pictures in a
file the first is taken. A picture that asks to be turned (EXIF) is turned upright once, because TensorFlow ignores
that note. `as_stored` does all of it, for the data set and for whoever sends a file to the service.

Transparency is dropped. Of 16-bit gray pictures the upper 8 bits are kept, counted from the highest bit that the
picture uses (10, 12, 14 or 16): detectors of 12 bits would be nearly black otherwise.
"""

import hashlib
import io
import re
import threading
import warnings
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
import pillow_heif
import simplejpeg
from PIL import Image, ImageOps

pillow_heif.register_heif_opener()
warnings.filterwarnings("ignore", module=r"PIL\.")  # of oddities (EXIF, palettes) that do no harm here
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "HEIF", "AVIF", "PPM")
MIN_SIDE = 32  # pixels; a smaller picture has less than one value left after a network's five halvings
MAX_PIXELS = 100_000_000  # a small file can unfold to gigabytes
Image.MAX_IMAGE_PIXELS = None  # `as_stored` refuses what has more than MAX_PIXELS, before it is decoded
MAX_BYTES = 100_000_000
LARGE = 20_000_000  # pixels, from which on files are decoded one at a time, to bound the memory
SMALL_SIDE = 256  # pixels of the longer side, at which pictures are measured and compared
ORIENTATION, TURNED = 274, range(2, 9)  # tag of EXIF (CIPA DC-008, 4.6.4), and its values that mirror or turn
# The frame header of a lossless or arithmetic JPEG (ITU-T T.81, B.2.2): marker, length, precision; then its size.
NOT_DECODED = rb"\xff[\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf].{3}"
_one_large_picture = threading.Lock()


class RejectedImage(ValueError):
    """A file that cannot be used; the message is the reason that goes to `rejected.csv`, beside its `kind`."""

    def __init__(self, reason: str, kind: str = "damaged"):
        super().__init__(reason)
        self.kind = kind


class Stored(NamedTuple):
    """The file that is kept, its pixels (uint8 [h, w, 3], RGB), and how it was converted ("": not at all; "TIFF to
    PNG" and the like; "turned upright").
    """

    content: bytes
    pixels: np.ndarray
    converted: str


def read_image(path: Path) -> tuple[dict, np.ndarray]:
    """Decode one file completely.

    Returns:
        sha256 and 256-bit dHash in hex, width, height, bytes, all of the file as it is stored; converted as in
        `Stored`; source_sha256, of the file as it came. The dHash compares each pixel of a 17 x 16 gray miniature with
        its right neighbour (imagehash).
        the picture shrunk to at most 256 pixels, uint8 [h, w, 3].

    Raises:
        RejectedImage: if it is not a whole image of an accepted format and size; the message says why.
        OSError: if there is no such file or nobody may read it.
    """
    if (size := path.stat().st_size) > MAX_BYTES:
        raise RejectedImage(f"{size:,} bytes; at most {MAX_BYTES:,} are read", "size")
    content = path.read_bytes()
    stored, source = as_stored(content), hashlib.sha256(content).hexdigest()
    small = _shrunk(stored.pixels)
    return {
        "sha256": source if stored.content is content else hashlib.sha256(stored.content).hexdigest(),
        "dhash": str(imagehash.dhash(Image.fromarray(small), hash_size=16)),
        "width": stored.pixels.shape[1],
        "height": stored.pixels.shape[0],
        "bytes": len(stored.content),
        "converted": stored.converted,
        "source_sha256": source,
    }, small


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """A picture at most 256 pixels wide and high: halved by means of four, which is fast, then linearly."""
    while max(pixels.shape) >= 2 * SMALL_SIDE and min(pixels.shape[:2]) > 1:
        pixels = cv2.resize(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2), interpolation=cv2.INTER_AREA)
    scale = min(1, SMALL_SIDE / max(pixels.shape))
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)


def as_stored(content: bytes) -> Stored:
    """The file that is kept of `content`, byte for byte the same where that serves, else turned or converted.

    Raises:
        RejectedImage: if it is not a whole image of an accepted format and size; the message says why.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if min(image.size) < MIN_SIDE or image.width * image.height > MAX_PIXELS:
                limits = f"each side needs {MIN_SIDE} pixels, and more than {MAX_PIXELS:,} in all are not read"
                raise RejectedImage(f"{image.width} x {image.height}: {limits}", "size")
            with _one_large_picture if image.width * image.height > LARGE else nullcontext():
                return _stored(content, image)
    except RejectedImage:
        raise
    except Exception as error:  # decoders raise whatever they like on damaged bytes; each becomes a named reason
        if isinstance(error, Image.UnidentifiedImageError) or content[4:8] == b"ftyp":
            raise RejectedImage("not an image that can be recognized (DICOM, HEIC: export as PNG)", "format") from error
        raise RejectedImage(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def _stored(content: bytes, image: Image.Image) -> Stored:
    if image.format == "TIFF" and (image.mode == "F" or image.n_frames > 1):
        raise RejectedImage("a TIFF of decimal numbers or several pages; save each page with 8 or 16 bits", "format")
    kind = "JPEG" if image.format == "MPO" else image.format  # MPO: a JPEG with more pictures behind it
    target = "JPEG" if kind in ("JPEG", "HEIF", "AVIF") else "PNG"
    if kind == "JPEG":
        size = re.escape(image.height.to_bytes(2) + image.width.to_bytes(2))
        if re.search(NOT_DECODED + size, content, re.DOTALL):
            raise RejectedImage("a lossless or arithmetic JPEG, as medical exporters write; convert to PNG", "format")
        pixels = simplejpeg.decode_jpeg(content, "RGB")  # strict: what is missing in a cut file is an error
    else:
        pixels = np.asarray(as_rgb(image))
    if kind == "PNG" and cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) is None:
        raise RejectedImage("damaged: a part of the PNG is missing")  # which Pillow draws in black
    # TensorFlow takes the upper 8 bits of 16, of which the first two would be empty in such a picture
    dark = kind == "PNG" and image.mode.startswith("I") and image.getextrema()[1] < 2**14
    orientation = None
    with suppress(Exception):  # a block of EXIF that cannot be read is no damage: no decoder needs it
        orientation = image.getexif().get(ORIENTATION)
    if kind == target and not dark and orientation not in TURNED:
        return Stored(content, pixels, "")
    converted = f"{'16-bit ' * dark}{kind} to {target}" if kind != target or dark else "turned upright"
    picture = Image.fromarray(pixels if image.mode != "L" else pixels[..., 0])
    picture.getexif()[ORIENTATION] = orientation
    picture, buffer = ImageOps.exif_transpose(picture), io.BytesIO()
    picture.save(buffer, target, icc_profile=image.info.get("icc_profile"), quality=95, subsampling=0)
    return Stored(buffer.getvalue(), np.asarray(picture.convert("RGB")), converted)


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB, 8 bits a channel, with the values TensorFlow decodes (JPEG: within rounding).

    Alpha is dropped and EXIF orientation ignored.
    """
    if image.mode.startswith("I"):
        low, high = image.getextrema()
        if low < 0 or high >= 2**16:
            raise RejectedImage("gray values outside of 0 to 65,535; save it with 8 or 16 bits a pixel", "format")
        bits = next(bits for bits in (8, 10, 12, 14, 16) if high < 2**bits)
        image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))
    return image.convert("RGB")
