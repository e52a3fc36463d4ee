"""Look at one file: is it a whole image that every later stage can read? Each file gets facts or a reason.

Accepted are JPEG, PNG, GIF, WebP without transparency and BMP of 24 or 32 bits: what TensorFlow decodes, to the
same size, so that a file which enters the manifest can be trained on and can be sent to the service. Pillow reads
more than that and forgives more, so `containers` looks at the bytes as well. Files are never changed; of a file
that asks to be turned (`orientation`), the facts are those of the upright copy which the dataset will hold.
"""

import hashlib
import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageFile
from tqdm.auto import tqdm

from tdsp_vision.data.containers import RejectedImage, check_bmp, check_gif, check_jpeg, check_png
from tdsp_vision.data.orientation import NOT_TURNED, upright

FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP")  # MPO: a JPEG with more pictures behind it, as phones write
MIN_SIDE = 32  # pixels; a smaller picture has less than one value left after a network's five halvings
MAX_PIXELS = 100_000_000  # a small file can unfold to gigabytes
MAX_BYTES = 100_000_000
HASH_SIDE = 16  # dHash of 16 x 16 bits


@dataclass(frozen=True)
class ImageFacts:
    """What the manifest says of one file: sha256 and 256-bit dHash in hex, and the size in pixels, all of the file
    as it is stored; by how much that was turned ("0": a copy byte for byte), and the sha256 of the file as it came.
    """

    sha256: str
    dhash: str
    width: int
    height: int
    turned: str
    source_sha256: str


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
        return _decode(content)
    except RejectedImage:
        raise
    except Image.UnidentifiedImageError:
        raise RejectedImage("not an image that can be recognized") from None
    except Image.DecompressionBombError:
        raise RejectedImage(f"too large: more pixels than the {MAX_PIXELS:,} that are read") from None
    except Exception as error:  # decoders raise whatever they like on damaged bytes; each becomes a named reason
        raise RejectedImage(f"damaged: {' '.join(str(error).split()) or type(error).__name__}") from error


def _decode(content: bytes) -> ImageFacts:
    with Image.open(io.BytesIO(content)) as image:
        if image.format not in FORMATS:
            raise RejectedImage(f"{image.format} is not an accepted format; convert it to JPEG or PNG")
        if min(image.size) < MIN_SIDE:
            raise RejectedImage(f"too small: {image.width} x {image.height} pixels, each side needs {MIN_SIDE}")
        if image.width * image.height > MAX_PIXELS:
            raise RejectedImage(f"too large: {image.width} x {image.height} pixels, at most {MAX_PIXELS:,} are read")
        image.load()
        _check_container(image, content)
        stored, turned = upright(content, image)
        sha256, source_sha256 = (hashlib.sha256(one).hexdigest() for one in (stored, content))
        if turned != NOT_TURNED:
            image = Image.open(io.BytesIO(stored))
        dhash = imagehash.dhash(as_rgb(image), hash_size=HASH_SIDE)
        return ImageFacts(sha256, str(dhash), image.width, image.height, turned, source_sha256)


def upright_copy(origin: Path, target: Path) -> None:
    """Write the upright picture of `origin`, an accepted image file, to `target`; the same bytes on every call."""
    content = origin.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        target.write_bytes(upright(content, image)[0])


def _check_container(image: Image.Image, content: bytes) -> None:
    if image.format in ("JPEG", "MPO"):
        check_jpeg(content)
    elif image.format == "PNG":
        check_png(content)
    elif image.format == "GIF":
        check_gif(content, highest_color=image.getextrema()[1])
    elif image.format == "BMP":
        check_bmp(content)
    elif image.mode != "RGB" or image.is_animated:
        raise RejectedImage("a WebP with transparency or animation; convert it to PNG")


def as_rgb(image: Image.Image) -> Image.Image:
    """The picture in RGB, 8 bits a channel, with the values TensorFlow decodes (JPEG: within rounding).

    Alpha is dropped and EXIF orientation ignored; transparent pixels of a GIF are black. Of 16 gray bits the upper
    8 stay; Pillow alone would turn every value above 255 to white.
    """
    if image.format == "GIF" and "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.composite(image, Image.new("RGBA", image.size, "black"), image).convert("RGB")
    if image.mode == "I;16":
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def inspect_images(paths: list[Path], quiet: bool = False) -> list[ImageFacts | RejectedImage]:
    """`inspect_image` for many files, several at a time; one result per path, in order, a rejection as a value."""
    assert not ImageFile.LOAD_TRUNCATED_IMAGES  # with that switch on, half a picture would count as a whole one

    def facts_or_reason(path: Path) -> ImageFacts | RejectedImage:
        """What a thread gives back for one file."""
        try:
            return inspect_image(path)
        except RejectedImage as reason:
            return reason
        except OSError as error:
            return RejectedImage(f"cannot be read: {error.strerror}")

    # Set here and not in each thread: threads that restore the filters out of order would leave them changed.
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # Pillow warns of oddities (EXIF, palettes) that do no harm here
        results = pool.map(facts_or_reason, paths)
        return list(tqdm(results, total=len(paths), desc="checking images", unit="image", disable=quiet or None))
