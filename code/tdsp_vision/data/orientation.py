"""Turn a picture upright once, when it is brought in: TensorFlow ignores the EXIF tag by which cameras say "turn me".

Orientation is tag 274 of EXIF (CIPA DC-008, 4.6.4): 1 is upright, 2 to 8 are mirrored or turned. Only JPEG, PNG and
WebP carry it. A file whose tag says 1, or that has none, stays byte for byte as it is.
"""

import io
import struct

from PIL import Image
from PIL.Image import Transpose
from PIL.JpegImagePlugin import get_sampling

TAG, SHORT = 274, 3  # number and type of the orientation in a TIFF directory
JPEG_QUALITY = 95
LONGEST_EXIF = 65_533  # bytes that fit into one JPEG segment
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


def upright(content: bytes, image: Image.Image) -> tuple[bytes, str]:
    """The file to store, and by how much its picture was turned.

    PNG and WebP are written again without loss (a PNG of 16 bits a color channel keeps the upper 8, which is what
    TensorFlow reads). Pillow cannot turn a JPEG's coefficients, so it is encoded again at quality 95 with its
    chroma subsampling if that is 4:2:0, with full chroma if it is any other. Of a file with several pictures the
    first is kept. EXIF (but for the orientation, which becomes 1) and the color profile stay.

    Args:
        content: a whole file.
        image: the same, opened and loaded.

    Returns:
        `content` itself and "0" if it is upright; else the new bytes, the same on every call, and "90", "180" or
        "270" (degrees clockwise), "mirrored", or "mirrored 90" and so on (left to right first, then turned).
    """
    exif = image.info.get("exif") or b""
    orientation, upright_exif = read_orientation(exif)
    if orientation not in TURNS:
        return content, NOT_TURNED
    transpose, name = TURNS[orientation]
    kind = "JPEG" if image.format == "MPO" else image.format
    options = {"exif": upright_exif, "icc_profile": image.info.get("icc_profile")}
    if kind == "WEBP":
        options |= {"lossless": True}
    if kind == "JPEG":
        quarter = get_sampling(image) == 2  # 4:2:0; only there is the chroma as coarse in both directions
        options |= {"quality": JPEG_QUALITY, "subsampling": 2 if quarter else 0}
        if len(upright_exif) > LONGEST_EXIF:  # was spread over several segments, which Pillow does not write
            del options["exif"]
    buffer = io.BytesIO()
    image.transpose(transpose).save(buffer, kind, **options)
    return buffer.getvalue(), name


def shown_upright(image: Image.Image) -> Image.Image:
    """The picture as people should see it, whether or not its file was turned already; for looking only."""
    orientation, _ = read_orientation(image.info.get("exif") or b"")
    return image.transpose(TURNS[orientation][0]) if orientation in TURNS else image


def read_orientation(exif: bytes) -> tuple[int, bytes]:
    """Orientation that an EXIF block asks for (0 if it names none that can be read), and the block with it set to 1.

    A damaged block is no reason to refuse a picture: no decoder needs it, so it counts as naming none.
    """
    start = 6 if exif.startswith(b"Exif\0\0") else 0
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[start : start + 4])
    if order is None or len(exif) < start + 8:
        return 0, exif
    at = start + struct.unpack_from(order + "I", exif, start + 4)[0]
    entries = struct.unpack_from(order + "H", exif, at)[0] if at + 2 <= len(exif) else 0
    for entry in range(at + 2, min(at + 2 + 12 * entries, len(exif) - 11), 12):
        tag, kind, count, value = struct.unpack_from(order + "HHIH", exif, entry)
        if (tag, kind, count) == (TAG, SHORT, 1):
            return value, exif[: entry + 8] + struct.pack(order + "H", 1) + exif[entry + 10 :]
    return 0, exif
