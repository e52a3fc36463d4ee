"""Look at one file: is it a whole image that every later stage can read? Each file gets facts or a reason.

Accepted are JPEG, PNG, GIF, WebP and 24-bit BMP: what TensorFlow decodes, so that a file which enters the
manifest can be trained on and can be sent to the service. Files are read as they are, never changed.
"""

import hashlib
import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
from PIL import Image, ImageFile
from tqdm.auto import tqdm

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")
MIN_SIDE = 32  # pixels; a smaller picture has less than one value left after a network's five halvings
MAX_PIXELS = 100_000_000  # a small file can unfold to gigabytes
MAX_BYTES = 100_000_000
HASH_SIDE = 16  # dHash of 16 x 16 bits


class RejectedImage(ValueError):
    """A file that cannot be used; the message is the reason that goes to `rejected.csv`."""


@dataclass(frozen=True)
class ImageFacts:
    """What the manifest says of one file: size in pixels, sha256 of its bytes and 256-bit dHash, both in hex."""

    sha256: str
    dhash: str
    width: int
    height: int


def inspect_image(path: Path) -> ImageFacts:
    """Decode one file completely and describe it.

    The dHash compares each pixel of a 17 x 16 gray miniature with its right neighbour (imagehash), so copies
    that were saved again, resized or made a little brighter differ in few bits.

    Raises:
        RejectedImage: if it is not a whole image of an accepted format and size; the message says why.
    """
    size = path.stat().st_size
    if size == 0:
        raise RejectedImage("the file is empty")
    if size > MAX_BYTES:
        raise RejectedImage(f"{size:,} bytes; at most {MAX_BYTES:,} are read")
    content = path.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of oddities (EXIF, palettes) that do no harm here
            return _decode(content)
    except RejectedImage:
        raise
    except Image.UnidentifiedImageError:
        raise RejectedImage("not an image that can be recognized") from None
    except Exception as error:  # decoders raise whatever they like on damaged bytes; each becomes a named reason
        raise RejectedImage(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def _decode(content: bytes) -> ImageFacts:
    with Image.open(io.BytesIO(content)) as image:
        if image.format not in FORMATS:
            raise RejectedImage(f"{image.format} is not an accepted format; convert it to JPEG or PNG")
        if image.format == "BMP" and image.mode != "RGB":
            raise RejectedImage("a BMP with other than 24 bits a pixel; convert it to PNG")
        if min(image.size) < MIN_SIDE:
            raise RejectedImage(f"too small: {image.width} x {image.height} pixels, each side needs {MIN_SIDE}")
        if image.width * image.height > MAX_PIXELS:
            raise RejectedImage(f"too large: {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read")
        image.load()
        _refuse_cut_jpeg(image, content)
        dhash = imagehash.dhash(image.convert("RGB"), hash_size=HASH_SIDE)
        return ImageFacts(hashlib.sha256(content).hexdigest(), str(dhash), image.width, image.height)


def _refuse_cut_jpeg(image: Image.Image, content: bytes) -> None:
    """A JPEG cut inside its last rows can still load; the end-of-image marker tells (ITU-T T.81, B.1.1.3)."""
    if image.format == "JPEG" and b"\xff\xd9" not in content[-4096:]:
        raise RejectedImage("damaged: the JPEG ends before its end-of-image marker")


def inspect_images(paths: list[Path], quiet: bool = False) -> list[ImageFacts | RejectedImage]:
    """`inspect_image` for many files, several at a time; one result per path, in order, a rejection as a value."""
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # with that switch on, half a picture would count as a whole one

    def facts_or_reason(path: Path) -> ImageFacts | RejectedImage:
        try:
            return inspect_image(path)
        except RejectedImage as reason:
            return reason
        except OSError as error:
            return RejectedImage(f"cannot be read: {error.strerror}")

    with ThreadPoolExecutor() as pool:
        results = pool.map(facts_or_reason, paths)
        return list(tqdm(results, total=len(paths), desc="checking images", unit="image", disable=quiet or None))
