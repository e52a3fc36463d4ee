"""How many pixels an encoded image unfolds to, read from its header: a PNG of 31 kB can take gigabytes when decoded.

In: the bytes of a file as it was sent. Out: a number of pixels, or `RejectedImage` with the reason. Nothing is decoded,
so the answer takes microseconds; whether the rest of the file is whole is the decoder's to say.
"""

import struct

from tdsp_vision.data.containers import JPEG_MARKER, RejectedImage

MAX_PIXELS = 100_000_000  # of one image, and of all images of one request; the data stage accepts as many
ACCEPTED = "JPEG, PNG, GIF, WebP or BMP"
FRAME_HEADERS = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # JPEG: SOF0 to SOF15 without DHT, JPG and DAC


def checked_pixels(content: bytes) -> int:
    """Number of pixels of an image that may be decoded.

    Args:
        content: an encoded image, whole or not.

    Raises:
        RejectedImage: for bytes of any other format than `ACCEPTED`, more than `MAX_PIXELS` pixels (of a GIF: in all
            its frames), or a BMP that is not of 24 or 32 bits: TensorFlow takes color numbers for gray values.
    """
    try:
        pixels = _pixels(content)
    except (struct.error, IndexError):
        raise RejectedImage("damaged: the file ends inside of its header") from None
    if pixels > MAX_PIXELS:
        raise RejectedImage(f"too large: {pixels:,} pixels, at most {MAX_PIXELS:,} are decoded")
    return pixels


def _pixels(content: bytes) -> int:
    """Pixels by the format that the first bytes tell, as TensorFlow's decoder does."""
    if content.startswith(b"\xff\xd8\xff"):
        return _jpeg(content)
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        width, height = struct.unpack_from(">II", content, 16)
    elif content.startswith(b"GIF8"):
        return sum(width * height for (_, _, width, height), _ in gif_frames(content))
    elif content.startswith(b"RIFF") and content[8:12] == b"WEBP":
        width, height = _webp(content)
    elif content.startswith(b"BM"):
        check_bmp(content)
        width, height = struct.unpack_from("<ii", content, 18)
    else:
        raise RejectedImage(f"not an image that is known here; send {ACCEPTED}")
    return width * abs(height)


def _jpeg(content: bytes) -> int:
    """Follow the segments to the first frame header (ITU-T T.81, B.2.2)."""
    position = 2
    while marker := JPEG_MARKER.search(content, position):
        position = marker.end()
        if content[position - 1] in FRAME_HEADERS:
            height, width = struct.unpack_from(">HH", content, position + 3)
            return width * height
        position += int.from_bytes(content[position : position + 2], "big")
    raise RejectedImage("damaged: the JPEG has no frame header")


def _webp(content: bytes) -> tuple[int, int]:
    """Width and height from the first chunk: lossy, lossless or extended (RFC 9649, 2.5 to 2.7)."""
    kind = content[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", content, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", content, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    _, width, high, height, top = struct.unpack_from("<IHBHB", content, 20)
    return (width | high << 16) + 1, (height | top << 16) + 1


def gif_frames(content: bytes):
    """Yield [left, top, width, height] and number of colors of each frame."""
    colors = _table_size(content[10])
    position = 13 + 3 * colors
    while content[position] != 0x3B:  # trailer
        if content[position] == 0x2C:  # image descriptor, color table, code size, coded pixels
            *place, flags = struct.unpack_from("<4HB", content, position + 1)
            yield place, _table_size(flags) or colors
            position += 11 + 3 * _table_size(flags)
        elif content[position] == 0x21:  # extension
            position += 2
        else:
            raise RejectedImage(f"damaged: the GIF has an unknown block at byte {position}")
        while content[position]:  # sub-blocks, each led by its length
            position += content[position] + 1
        position += 1


def _table_size(flags: int) -> int:
    return 2 << (flags & 7) if flags & 0x80 else 0


def check_bmp(content: bytes) -> None:
    """The header must promise 24 or 32 bits a pixel, not compressed, and exactly the bytes that are there."""
    start, header, width, height, _, bits, compression = struct.unpack_from("<IIiiHHI", content, 10)
    if header < 40 or bits not in (24, 32) or compression:
        raise RejectedImage("a BMP with other than 24 or 32 bits a pixel, or compressed; convert it to PNG")
    expected = start + (bits * width + 31) // 32 * 4 * abs(height)
    if len(content) != expected:
        raise RejectedImage(f"a BMP of {len(content):,} bytes, where its header says {expected:,}; convert it to PNG")
