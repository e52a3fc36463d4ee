"""How many pixels an encoded image unfolds to, found inside of the graph from its header, before it is decoded.

A PNG of 31 kB can take gigabytes when it is decoded. A server in Python could look at it first, but TensorFlow
Serving has no Python: so the exported graph looks itself. In: string [], the bytes of a file. Out: int64 [], an upper
bound of the pixels that TensorFlow's decoder makes room for; an error (InvalidArgument) where a GIF is cut off.
A JPEG is decoded at a fraction of its size where that is enough, so the pixels of all other formats count twice.
"""

import numpy as np
import tensorflow as tf

MAX_PIXELS = 100_000_000  # of a JPEG; of any other image half as many: each takes at most 0.3 GB then
TOO_MANY = np.int64(2**40)
HEADER = 32  # bytes that tell the size, in every format but JPEG and GIF
GIF_FRAME, GIF_EXTENSION, GIF_END = 0x2C, 0x21, 0x3B


def pixel_count(content: tf.Tensor) -> tf.Tensor:
    """Pixels of a JPEG, PNG, GIF (all its frames), WebP or BMP of 24 or 32 bits; `TOO_MANY` for anything else."""

    def jpeg():
        return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.int64))

    return tf.cond(tf.io.is_jpeg(content), jpeg, lambda: 2 * _other(content))


def _other(content: tf.Tensor) -> tf.Tensor:
    head = tf.strings.join([tf.strings.substr(content, 0, HEADER), b"\0" * HEADER])
    raw = tf.io.decode_raw(tf.strings.substr(head, 0, HEADER), tf.uint8)

    def starts(magic: bytes, at: int = 0) -> tf.Tensor:
        return tf.strings.substr(head, at, len(magic)) == magic

    def png():
        return _number(raw, 16, 4, big=True) * _number(raw, 20, 4, big=True)

    def bmp():  # the height is negative where the top row comes first; TensorFlow takes colors of a palette for grays
        height = _number(raw, 22, 4)
        pixels = _number(raw, 18, 4) * tf.minimum(height, 2**32 - height)
        return tf.where(_number(raw, 28, 2) // 8 >= 3, pixels, TOO_MANY)

    def lossy():  # WebP: RFC 9649, 2.5 to 2.7
        return _number(raw, 26, 2) % 2**14 * (_number(raw, 28, 2) % 2**14)

    def lossless():
        bits = _number(raw, 21, 4)
        return (bits % 2**14 + 1) * (bits // 2**14 % 2**14 + 1)

    def extended():
        return (_number(raw, 24, 3) + 1) * (_number(raw, 27, 3) + 1)

    formats = [(starts(b"\x89PNG\r\n\x1a\n"), png), (starts(b"BM"), bmp), (starts(b"GIF8"), lambda: _gif(content))]
    formats += [(starts(b"WEBPVP8 ", 8), lossy), (starts(b"WEBPVP8L", 8), lossless), (starts(b"WEBPVP8X", 8), extended)]
    return tf.case(formats, default=lambda: tf.constant(TOO_MANY))


def _number(raw: tf.Tensor, at, size: int = 1, big: bool = False) -> tf.Tensor:
    """The unsigned number of `size` bytes at a position of uint8 [n], int64 []."""
    places = range(size)[:: -1 if big else 1]
    return sum(tf.cast(raw[at + step], tf.int64) * 256**place for step, place in enumerate(places))


def _gif(content: tf.Tensor) -> tf.Tensor:
    """Follow the blocks to the trailer (GIF89a, 17 to 27): the decoder reads all frames, of any size each."""
    raw = tf.concat([tf.io.decode_raw(content, tf.uint8), tf.zeros([16], tf.uint8)], axis=0)
    screen = _number(raw, 6, 2) * _number(raw, 8, 2)

    def table(flags):  # bytes of a color table
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(tf.constant(2, tf.int64), flags % 8), 0)

    def step(at, pixels):
        """One block, and all its sub-blocks."""
        kind = _number(raw, at)
        frame = tf.maximum(_number(raw, at + 5, 2) * _number(raw, at + 7, 2), screen)
        pixels += tf.where(
            kind == GIF_FRAME, frame, tf.where(kind == GIF_EXTENSION, tf.constant(0, tf.int64), TOO_MANY)
        )
        at += tf.where(kind == GIF_FRAME, 11 + table(_number(raw, at + 9)), 2)
        (at,) = tf.while_loop(lambda at: _number(raw, at) > 0, lambda at: [at + 1 + _number(raw, at)], [at])
        return at + 1, pixels  # behind the sub-blocks, each of which is led by its length

    def goes_on(at, pixels):
        return (_number(raw, at) != GIF_END) & (pixels <= MAX_PIXELS)

    start = 13 + table(_number(raw, 10))
    return tf.while_loop(goes_on, step, [start, tf.constant(0, tf.int64)], parallel_iterations=1)[1]
