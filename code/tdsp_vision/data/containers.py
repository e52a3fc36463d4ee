"""What a JPEG or PNG must be beyond what decoders forgive, so that TensorFlow reads the same picture.

Both functions take the bytes of a file whose format is known and raise `RejectedImage` with the reason.
"""

import re
import struct
import zlib

# Neither a stuffed zero (FF 00) nor a restart marker (FF D0 to FF D7), which occur inside of coded pixels.
JPEG_MARKER = re.compile(rb"\xff[\x02-\xcf\xd8-\xfe]")
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15 without DHT, JPG and DAC
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by color type
PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"  # the last chunk, with its checksum


class RejectedImage(ValueError):
    """A file that cannot be used; the message is the reason that goes to `rejected.csv`, beside its `kind`."""

    def __init__(self, reason: str, kind: str = "damaged"):
        super().__init__(reason)
        self.kind = kind


def check_jpeg(content: bytes) -> None:
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


def check_png(content: bytes) -> None:
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
