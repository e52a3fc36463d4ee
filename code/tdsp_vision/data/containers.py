"""Is the file whole? The container of each format, followed from its first byte to its end mark.

Decoders forgive a cut or a damaged file, each in its own way. What one forgives and another does not would enter
the manifest and stop a training run, so the bytes are held against the format itself and what TensorFlow needs.
All functions take the bytes of a file whose format is known and raise `RejectedImage` with the reason.
"""

import re
import struct
import zlib

# Neither a stuffed zero (FF 00) nor a restart marker (FF D0 to FF D7), which occur inside of coded pixels.
JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
JPEG_END = 0xD9
# First row and column and their steps in the seven passes of an interlaced PNG (Adam7; PNG specification, 8.1).
PNG_PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


class RejectedImage(ValueError):
    """A file that cannot be used; the message is the reason that goes to `rejected.csv`."""


def check_jpeg(content: bytes) -> None:
    """Follow the segments to the end-of-image marker (ITU-T T.81, B.1); what comes after it does not matter.

    Searching for the marker alone is not enough: the thumbnail inside of the EXIF segment has one, too.
    """
    position = 2
    while marker := JPEG_MARKER.search(content, position):
        position = marker.end()
        if content[position - 1] == JPEG_END:
            return
        position += int.from_bytes(content[position : position + 2], "big")
    raise RejectedImage("damaged: the JPEG ends before its end-of-image marker")


def check_png(content: bytes) -> None:
    """Follow the chunks to IEND, compare their checksums and count the pixels' bytes (PNG specification, 5.3, 7.2)."""
    position, packed = 8, []
    while position + 12 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if zlib.crc32(content[position + 4 : end - 4]).to_bytes(4, "big") != content[end - 4 : end]:
            raise RejectedImage(f"damaged: the checksum of a PNG chunk {kind!r} is wrong")
        if kind == b"IDAT":
            packed.append(content[position + 8 : end - 4])
        if kind == b"IEND":
            expected = _png_bytes(*struct.unpack_from(">IIBBBBB", content, 16))
            if len(zlib.decompressobj().decompress(b"".join(packed), expected)) < expected:
                raise RejectedImage("damaged: the PNG has fewer pixels than its header says")
            return
        position = end
    raise RejectedImage("damaged: the PNG ends before its IEND chunk")


def _png_bytes(width: int, height: int, depth: int, color: int, _: int, __: int, interlaced: int) -> int:
    """Length of the rows, each with its filter byte, in all passes."""
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]
    passes = PNG_PASSES if interlaced else [(0, 0, 1, 1)]
    sizes = [(-(-(height - top) // down), -(-(width - left) // right)) for top, left, down, right in passes]
    return sum(rows * (1 + (columns * bits + 7) // 8) for rows, columns in sizes if columns > 0)


def check_gif(content: bytes, highest_color: int) -> None:
    """Follow the blocks to the trailer (GIF89a, 17 to 27); the first frame must fill the screen.

    TensorFlow gives a smaller first frame its own size, and refuses a color that the frame's table does not have.

    Args:
        content: the file.
        highest_color: highest color index among the pixels of the first frame.
    """
    try:
        frames = list(gif_frames(content))
    except (IndexError, struct.error):
        raise RejectedImage("damaged: the GIF ends before its trailer") from None
    place, colors = frames[0]
    if place != [0, 0, *struct.unpack_from("<HH", content, 6)]:
        raise RejectedImage("a GIF whose first frame does not fill the picture; convert it to PNG")
    if highest_color >= colors:
        raise RejectedImage(f"damaged: the GIF uses color {highest_color} of a table of {colors}")


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
