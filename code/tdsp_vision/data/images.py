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
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
import pillow_heif
import simplejpeg
from PIL import Image, ImageFile
from PIL.Image import Transpose

pillow_heif.register_heif_opener()
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF", "HEIF", "AVIF", "PPM")  # MPO: JPEG with more behind it
MIN_SIDE = 32  # pixels; a smaller picture has less than one value left after a network's five halvings
MAX_PIXELS = 100_000_000  # a small file can unfold to gigabytes
MAX_BYTES = 100_000_000
LARGE = 20_000_000  # pixels, from which on files are decoded one at a time, to bound the memory
HASH_SIDE = 16  # dHash of 16 x 16 bits
SMALL_SIDE = 256  # pixels of the longer side, at which pictures are measured and compared
JPEG_QUALITY = 95
ORIENTATION = 274  # tag of EXIF (CIPA DC-008, 4.6.4): 1 is upright, 2 to 8 are mirrored or turned
# What makes the picture upright, and how the manifest calls it: mirrored left to right, then degrees clockwise.
TURNS = {
    2: (Transpose.FLIP_LEFT_RIGHT, "mirrored"),
    3: (Transpose.ROTATE_180, "180"),
    4: (Transpose.FLIP_TOP_BOTTOM, "mirrored 180"),
    5: (Transpose.TRANSPOSE, "mirrored 270"),
    6: (Transpose.ROTATE_270, "90"),  # Pillow counts counter-clockwise
    7: (Transpose.TRANSVERSE, "mirrored 90"),
    8: (Transpose.ROTATE_90, "270"),
}
NOT_TURNED = "0"
# Neither a stuffed zero (FF 00) nor a restart marker (FF D0 to FF D7), which occur inside of coded pixels.
JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG and DAC
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"  # the last chunk, with its checksum
_one_large_picture = threading.Lock()


class RejectedImage(ValueError):
    """A file that cannot be used; the message is the reason that goes to `rejected.csv`, beside its `kind`."""

    def __init__(self, reason: str, kind: str = "damaged"):
        super().__init__(reason)
        self.kind = kind


@dataclass(frozen=True)
class ImageFacts:
    """What the manifest says of one file: sha256 and 256-bit dHash in hex, size in pixels and bytes, all of the file
    as it is stored; by how much that was turned ("0": not at all), from what it was converted ("": not at all; else
    such as "TIFF to PNG"), and the sha256 of the file as it came.
    """

    sha256: str
    dhash: str
    width: int
    height: int
    bytes: int
    turned: str
    converted: str
    source_sha256: str


class Stored(NamedTuple):
    """The file that is kept, its pixels (uint8 [h, w, 3], RGB), and `turned`, `converted` as in `ImageFacts`."""

    content: bytes
    pixels: np.ndarray
    turned: str
    converted: str


def read_image(path: Path) -> tuple[ImageFacts, np.ndarray]:
    """Decode one file completely; its facts, and its picture shrunk to at most 256 pixels, uint8 [h, w, 3].

    The dHash compares each pixel of a 17 x 16 gray miniature with its right neighbour (imagehash).

    Raises:
        RejectedImage: if it is not a whole image of an accepted format and size; the message says why.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise RejectedImage(f"{size:,} bytes; at most {MAX_BYTES:,} are read", "size")
        content = path.read_bytes()
    except OSError as error:
        raise RejectedImage(f"cannot be read: {error.strerror}", "unreadable") from error
    stored = as_stored(content)
    height, width = stored.pixels.shape[:2]
    small = _shrunk(stored.pixels)
    sha256 = hashlib.sha256(stored.content).hexdigest()
    source_sha256 = sha256 if stored.content is content else hashlib.sha256(content).hexdigest()
    dhash = str(imagehash.dhash(Image.fromarray(small), hash_size=HASH_SIDE))
    return ImageFacts(
        sha256, dhash, width, height, len(stored.content), stored.turned, stored.converted, source_sha256
    ), small


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """A picture at most 256 pixels wide and high: halved by means of four, which is fast, then linearly."""
    while max(pixels.shape) >= 2 * SMALL_SIDE and min(pixels.shape[:2]) > 1:
        pixels = cv2.resize(pixels, (pixels.shape[1] // 2, pixels.shape[0] // 2), interpolation=cv2.INTER_AREA)
    scale = min(1, SMALL_SIDE / max(pixels.shape))
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR) if scale < 1 else pixels


def as_stored(content: bytes) -> Stored:
    """The file that is kept of `content`, byte for byte the same where that serves, else turned or converted.

    Raises:
        RejectedImage: if it is not a whole image of an accepted format and size; the message says why.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise RuntimeError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set; with it, half a picture counts as a whole one.")
    if not content:
        raise RejectedImage("the file is empty")
    if content[128:132] == b"DICM":
        raise RejectedImage("a DICOM file; export it as PNG from the program that shows it", "format")
    try:
        with Image.open(io.BytesIO(content)) as image:
            _check_size(image)
            with _one_large_picture if image.width * image.height > LARGE else nullcontext():
                return _stored(content, image)
    except RejectedImage:
        raise
    except Image.DecompressionBombError:
        raise RejectedImage(f"too large: more pixels than the {MAX_PIXELS:,} that are read", "size") from None
    except Exception as error:  # decoders raise whatever they like on damaged bytes; each becomes a named reason
        if content[4:8] == b"ftyp":
            raise RejectedImage("a HEIC or AVIF file that cannot be decoded; export it as JPEG", "format") from error
        if isinstance(error, Image.UnidentifiedImageError):
            raise RejectedImage("not an image that can be recognized", "format") from None
        raise RejectedImage(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def _check_size(image: Image.Image) -> None:
    if image.format == "TIFF" and (image.mode == "F" or image.n_frames > 1):
        raise RejectedImage("a TIFF of decimal numbers or several pages; save each page with 8 or 16 bits", "format")
    if image.format not in FORMATS:
        raise RejectedImage(f"{image.format} is not an accepted format; convert it to JPEG or PNG", "format")
    if min(image.size) < MIN_SIDE:
        raise RejectedImage(f"too small: {image.width} x {image.height} pixels, each side needs {MIN_SIDE}", "size")
    if image.width * image.height > MAX_PIXELS:
        raise RejectedImage(
            f"too large: {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read", "size"
        )


def _stored(content: bytes, image: Image.Image) -> Stored:
    kind = "JPEG" if image.format == "MPO" else image.format
    target = "JPEG" if kind in ("JPEG", "HEIF", "AVIF") else "PNG"
    if kind == "JPEG":
        _check_jpeg(content)
        pixels = simplejpeg.decode_jpeg(content, "RGB")  # strict: what is missing in a cut file is an error
    else:
        image.load()
        pixels = np.asarray(as_rgb(image))
    if kind == "PNG":
        _check_png(content)
    turn, turned = TURNS.get(_orientation(image), (None, NOT_TURNED))
    if kind == target and turn is None and not (image.mode.startswith("I") and _used_bits(image) < 16):
        return Stored(content, pixels, turned, "")
    picture = Image.fromarray(pixels) if image.mode != "L" else Image.fromarray(pixels[..., 0])
    picture = picture if turn is None else picture.transpose(turn)
    buffer = io.BytesIO()
    picture.save(buffer, target, icc_profile=image.info.get("icc_profile"), quality=JPEG_QUALITY, subsampling=0)
    converted = "" if kind == target and turn is not None else f"{'16-bit ' * (kind == target)}{kind} to {target}"
    return Stored(buffer.getvalue(), np.asarray(picture.convert("RGB")), turned, converted)


def _check_jpeg(content: bytes) -> None:
    """Find the frame header (ITU-T T.81, B.1): baseline, extended or progressive, of 8 bits; nobody decodes the rest.

    Whether the coded pixels are whole is for a strict decoder to say.
    """
    position = 2
    while marker := JPEG_MARKER.search(content, position):
        position, kind = marker.end(), content[marker.end() - 1]
        if kind in FRAMES:
            if kind > 0xC2 or content[position + 2] != 8:
                raise RejectedImage(
                    "a lossless, arithmetic or 12-bit JPEG, as medical exporters write; convert it to PNG", "format"
                )
            return
        position += int.from_bytes(content[position : position + 2], "big")
    raise RejectedImage("damaged: the JPEG has no frame header")


def _check_png(content: bytes) -> None:
    """The last chunk must be there, and the packed rows of a picture that is not interlaced (PNG specification, 5, 7).

    Pillow compares the checksums of the chunks, and draws what is missing in black.
    """
    if PNG_END not in content:
        raise RejectedImage("damaged: the PNG ends before its IEND chunk")
    width, height, depth, color, _, _, interlaced = struct.unpack_from(">IIBBBBB", content, 16)
    position, packed = 8, []
    while not interlaced and (kind := content[position + 4 : position + 8]) != b"IEND":
        end = position + 12 + int.from_bytes(content[position : position + 4], "big")
        packed += [content[position + 8 : end - 4]] if kind == b"IDAT" else []
        position = end
    expected = height * (1 + (width * depth * PNG_CHANNELS[color] + 7) // 8)
    if not interlaced and len(zlib.decompressobj().decompress(b"".join(packed), expected)) < expected:
        raise RejectedImage("damaged: the PNG has fewer pixels than its header says")


def _orientation(image: Image.Image) -> int:
    """What EXIF asks for; 1, upright, where it cannot be read: no decoder needs it."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # a damaged block is no reason to refuse a picture
        return 1


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB, 8 bits a channel, with the values TensorFlow decodes (JPEG: within rounding).

    Alpha is dropped and EXIF orientation ignored.
    """
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image) >> (_used_bits(image) - 8)).astype(np.uint8))
    return image.convert("RGB")


def _used_bits(image: Image.Image) -> int:
    """8, 10, 12, 14 or 16: the least of them in which all gray values fit."""
    low, high = image.getextrema()
    if low < 0 or high >= 2**16:
        raise RejectedImage("gray values outside of 0 to 65,535; save it with 8 or 16 bits a pixel", "format")
    return next(bits for bits in (8, 10, 12, 14, 16) if high < 2**bits)


def shown_upright(image: Image.Image) -> Image.Image:
    """The picture as people should see it, whether or not its file was turned already; for looking only."""
    orientation = _orientation(image)
    return image.transpose(TURNS[orientation][0]) if orientation in TURNS else image


@contextmanager
def quiet_decoders() -> Iterator[None]:
    """No warnings of Pillow's oddities (EXIF, palettes), which do no harm here.

    Set around a pool of threads and not in each: threads that restore the filters out of order leave them changed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
