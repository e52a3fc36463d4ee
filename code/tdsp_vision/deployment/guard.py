"""Keep from the graph what would unfold to more memory than the server may take, before anything is decoded.

In: the feeds of a signature; every string input holds encoded images or, for `classify`, serialized Examples of them.
Out: the same feeds. An image that `image_header` rejects is fed as an empty one: its answer is that of a damaged
image (valid = false), and the others of its batch are scored.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.example import example_pb2

from tdsp_vision.data.containers import RejectedImage
from tdsp_vision.deployment.image_header import MAX_PIXELS, checked_pixels
from tdsp_vision.deployment.protocol import RequestError, Signature

LARGE_PIXELS = 25_000_000  # a progressive JPEG takes up to nine bytes a pixel while it is decoded
_one_large_request = threading.Lock()


@contextmanager
def guarded(feeds: dict[str, np.ndarray], signature: Signature) -> Iterator[dict[str, np.ndarray]]:
    """Feeds in which every image may be decoded, to be run in the block.

    A request of more than `LARGE_PIXELS` waits until no other such request runs: memory is enough for one.

    Raises:
        RequestError: 413 if the images together exceed `MAX_PIXELS`.
    """
    budget = [MAX_PIXELS]
    replace = _example if "classes" in signature.outputs else _image
    safe = {name: _replaced(values, replace, budget) for name, values in feeds.items()}
    with _one_large_request if MAX_PIXELS - budget[0] > LARGE_PIXELS else nullcontext():
        yield safe


def _replaced(values: np.ndarray, replace, budget: list[int]) -> np.ndarray:
    """A feed, object [n], with each string looked at; any other feed as it is."""
    if values.dtype != object:
        return values
    safe = np.empty(values.shape, dtype=object)
    safe[:] = [replace(item, budget) for item in values]
    return safe


def _image(content: bytes, budget: list[int]) -> bytes:
    """`content`, or nothing in place of what must not be decoded; takes its pixels from the request's budget."""
    try:
        budget[0] -= checked_pixels(content)
    except RejectedImage:
        return b""
    if budget[0] < 0:
        raise RequestError(413, f"The images unfold to more than {MAX_PIXELS:,} pixels; send fewer at a time.")
    return content


def _example(serialized: bytes, budget: list[int]) -> bytes:
    """The same for the images inside of a serialized Example; what is none goes on to the graph's own parser."""
    try:
        example = example_pb2.Example.FromString(serialized)
    except DecodeError:
        return serialized
    for feature in example.features.feature.values():
        values = feature.bytes_list.value
        values[:] = [_image(content, budget) for content in values]
    return example.SerializeToString()
