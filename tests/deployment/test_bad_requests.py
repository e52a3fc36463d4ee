"""What strangers send: each request gets its answer, the next good one is served, and memory stays under its limit."""

import gzip
import io
import re
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow as tf
from PIL import Image
from tiny_run import MODEL, PREDICT, b64, json_body, png, send

from tdsp_vision.data import images
from tdsp_vision.deployment import image_header
from tdsp_vision.deployment.guard import guarded
from tdsp_vision.deployment.protocol import MAX_VALUES, Signature, TensorSpec

MEMORY_LIMIT = 2 * 1024**3  # bytes; what a container is given
FLOATS = b'{"signature_name": "float_images", "inputs": %s}'
INVALID = rb'"predictions":[{"label":"","scores":[0.0,0.0],"valid":false}]'


def encoded(kind: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def patched(content: bytes, position: int, layout: str, *values: int) -> bytes:
    """`content` with other numbers in its header."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, position, *values)
    return bytes(changed)


def huge_jpeg() -> bytes:
    content = encoded("JPEG")
    return patched(content, content.index(b"\xff\xc0") + 5, ">HH", 65_500, 65_500)


def gif_with_huge_second_frame() -> bytes:
    second = Image.radial_gradient("L")
    content = encoded("GIF", save_all=True, append_images=[second])
    return patched(content, content.rindex(b"\x2c\x00\x00\x00\x00") + 5, "<HH", 65_535, 65_535)


def example(**features: bytes) -> bytes:
    lists = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for name, v in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()


BOMB = png(16_000, 16_000)
IMAGES = {  # all of them are answered with valid = false
    "a bomb of 16,000 x 16,000 pixels": BOMB,
    "a PNG that says 2 billion pixels a side": patched(png(8, 8), 16, ">II", 2**31 - 1, 2**31 - 1),
    "a PNG cut in its header": png(8, 8)[:20],
    "a PNG with a wrong checksum": png(64, 64)[:-20] + b"\0\0\0\0" + png(64, 64)[-16:],
    "a PNG without pixels": png(0, 0),
    "a JPEG that says 4 billion pixels": huge_jpeg(),
    "a JPEG without a frame": b"\xff\xd8\xff\xe0\x00\x04ab\xff\xd9",
    "half a JPEG": encoded("JPEG")[:900],
    "a GIF with a huge second frame": gif_with_huge_second_frame(),
    "a GIF cut off": encoded("GIF")[:100],
    "a WebP that says 281 billion pixels": b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0" + b"\0\0\0\0" + b"\xff" * 6 + bytes(8),
    "a WebP cut in its header": encoded("WEBP")[:20],
    "a BMP of 8 bits with a palette": encoded("BMP", "P"),
    "a BMP of 1 bit": encoded("BMP", "1"),
    "a BMP that says 2 billion rows": patched(encoded("BMP"), 22, "<i", 2**31 - 1),
    "a TIFF": encoded("TIFF"),
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj",
    "an SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "HTML": "<html>ü</html>".encode(),
    "a gzip file": gzip.compress(b"hello"),
    "zeros": bytes(10_000),
    "nothing": b"",
}
# name: (path, body, status, pattern that the body must contain)
REQUESTS = {
    "bombs that only together are too many": (
        PREDICT,
        json_body({"instances": [b64(png(10_000, 6_000)), b64(png(10_000, 6_000))]}),
        413,
        "unfold to more than 100,000,000 pixels; send fewer",
    ),
    "a bomb in an Example": (
        f"{MODEL}:classify",
        json_body({"signature_name": "classify", "examples": [{"image_bytes": b64(BOMB)}]}),
        200,
        r'\[\["benign",0.0\],\["malignant",0.0\]\]',
    ),
    "a bomb in a serialized Example": (
        PREDICT,
        json_body({"signature_name": "classify", "instances": [b64(example(image_bytes=BOMB))]}),
        200,
        r'"scores":\[0.0,0.0\]',
    ),
    "five million values": (PREDICT, FLOATS % (b"[" + b"0," * 5_000_000 + b"0]"), 413, "More than 3,000,000 values"),
    "five million objects": (PREDICT, FLOATS % (b"[" + b"{}," * 5_000_000 + b"{}]"), 413, "More than 3,000,000"),
    "one long text among many": (
        PREDICT,
        FLOATS % (b'["' + b"1" * 10_000_000 + b'"' + b',""' * 100_000 + b"]"),
        400,
        "expected type: float32",
    ),
    "lists 900 levels deep": (PREDICT, FLOATS % (b"[" * 900 + b"]" * 900), 400, "error"),
    "lists 50,000 levels deep": (PREDICT, FLOATS % (b"[" * 50_000 + b"]" * 50_000), 400, "JSON Parse error"),
    "objects 50,000 levels deep": (PREDICT, b'{"a":' * 50_000 + b"1" + b"}" * 50_000, 400, "JSON Parse error"),
    "NaN": (PREDICT, FLOATS % b"[[[[NaN]]]]", 400, "JSON Parse error"),
    "infinity": (PREDICT, FLOATS % b"[[[[-Infinity]]]]", 400, "JSON Parse error"),
    "a number beyond 64 bits": (PREDICT, FLOATS % b"[[[[1e999]]]]", 400, "error"),
    "a whole number beyond 64 bits": (PREDICT, FLOATS % (b"[[[[%d]]]]" % 2**70), 400, "error"),
    "true for a number": (PREDICT, FLOATS % b"[[[[true, false, true]]]]", 400, "expected type: float32"),
    "null for a number": (PREDICT, FLOATS % b"[[[[null]]]]", 400, "expected type: float32"),
    "numbers and lists": (PREDICT, FLOATS % b"[[[[1, [2], 3]]]]", 400, "lists of one level differ"),
    "bytes for pictures": (PREDICT, FLOATS % b'[{"b64": "AAAA"}]', 400, "float32"),
    "pixels for files": (PREDICT, json_body({"instances": [[[0, 0, 0]]]}), 400, "expected type: string"),
    "mixed keys": (PREDICT, b'{"instances": [], "inputs": []}', 400, "only one of"),
    "an empty object": (PREDICT, b"{}", 400, "Missing 'inputs' or 'instances' key"),
    "a text": (PREDICT, b'"instances"', 400, "Is not object"),
    "half a surrogate pair": (PREDICT, rb'{"instances": ["\ud800"]}', 400, "JSON Parse error"),
    "a byte order mark": (PREDICT, b'\xef\xbb\xbf{"instances": ["a"]}', 400, "JSON Parse error"),
    "UTF-16": (PREDICT, '{"instances": ["a"]}'.encode("utf-16"), 400, "JSON Parse error"),
    "gzip": (PREDICT, gzip.compress(b'{"instances": ["a"]}'), 400, "JSON Parse error"),
    "a form": (PREDICT, b"instances=a&b=c", 400, "JSON Parse error"),
    "names of other scripts": (PREDICT, '{"instances": [{"картинка": "ü"}]}'.encode(), 400, "картинка"),
    "text of other scripts": (PREDICT, '{"instances": ["😀"]}'.encode(), 200, '"valid":false'),
    "a name beside b64": (PREDICT, b'{"instances": [{"b64": "AA==", "x": 1}]}', 400, "must be equal to: image_bytes"),
    "base64 of the web alphabet": (PREDICT, b'{"instances": [{"b64": "-_-_"}]}', 400, "Unable to base64 decode"),
    "base64 with a letter too many": (PREDICT, b'{"instances": [{"b64": "AAAAA"}]}', 400, "base64"),
    "base64 of other scripts": (PREDICT, '{"instances": [{"b64": "ÄÄÄÄ"}]}'.encode(), 400, "base64"),
    "a signature named by a list": (PREDICT, b'{"signature_name": [], "inputs": []}', 400, "must be a string value"),
    "the initializer as signature": (
        PREDICT,
        b'{"signature_name": "__saved_model_init_op", "inputs": []}',
        400,
        "name",
    ),
    "a path with a zero": (f"{MODEL}%00:predict", b"{}", 404, "Servable not found"),
    "a path with a line break": (f"{MODEL}%0d%0aX: y:predict", b"{}", 400, "Malformed request"),
    "a path of 10,000 letters": (f"/v1/models/{'a' * 10_000}:predict", b"{}", 404, "Servable not found"),
    "a negative version": (f"{MODEL}/versions/-1:predict", b"{}", 400, "Malformed request"),
}
RAW = {  # bytes on the wire that are no proper HTTP
    "a negative length": b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n" % PREDICT.encode(),
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na",
    "a bad chunk": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a header without end": b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 100_000,
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


@pytest.fixture
def still_serves(service, photos, two_classes):
    """After the test: the next good request gets its answer, and the server's memory has stayed under the limit."""
    yield
    rows = send(service, "POST", PREDICT, json_body({"instances": [b64(photos[0])]})).json()["predictions"]
    np.testing.assert_allclose(rows[0]["scores"], two_classes.scores(photos[:1])[0], atol=1e-6)
    assert psutil.Process(service.record["pid"]).memory_info().rss < MEMORY_LIMIT


@pytest.mark.parametrize("name", IMAGES)
def test_what_is_no_image_is_invalid(service, still_serves, name):
    answer = send(service, "POST", PREDICT, json_body({"instances": [b64(IMAGES[name])]}))
    assert (answer.status_code, answer.content) == (200, b"{" + INVALID + b"}")


def test_bombs_do_not_touch_the_good_image_of_their_batch(service, still_serves, photos, two_classes):
    batch = [*IMAGES.values(), photos[1]]
    rows = send(service, "POST", PREDICT, json_body({"instances": [b64(data) for data in batch]})).json()["predictions"]
    assert [row["valid"] for row in rows] == [False] * len(IMAGES) + [True]
    np.testing.assert_allclose(rows[-1]["scores"], two_classes.scores(photos[1:2])[0], atol=1e-6)


@pytest.mark.parametrize("name", REQUESTS)
def test_bad_request(service, still_serves, name):
    path, body, status, pattern = REQUESTS[name]
    answer = send(service, "POST", path, body)
    assert answer.status_code == status, answer.text[:500]
    assert re.search(pattern, answer.text), answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    assert status == 200 or list(answer.json()) == ["error"]


def test_large_images_are_decoded_one_request_at_a_time():
    signature = Signature({"image_bytes": TensorSpec("string", (-1,))}, {})
    large, small = (np.array([png(side, 5_000)], dtype=object) for side in (5_001, 5_000))
    running, most = [], []

    def run(_) -> None:
        with guarded({"image_bytes": large}, signature) as feeds:
            running.append(feeds)
            most.append(len(running))
            with guarded({"image_bytes": small}, signature):
                time.sleep(0.02)
            running.pop()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    assert most == [1, 1, 1, 1]


def test_the_content_type_does_not_matter(service, still_serves, photos):
    body = json_body({"instances": [b64(photos[0])]})
    for kind in ("text/plain", "application/x-www-form-urlencoded", "nonsense"):
        assert send(service, "POST", PREDICT, body, **{"Content-Type": kind}).json()["predictions"][0]["valid"]


@pytest.mark.parametrize("name", RAW)
def test_what_is_no_http_is_answered_with_400(service, still_serves, name):
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=20) as connection:
        connection.sendall(RAW[name])
        assert b" 400 " in connection.recv(1000).partition(b"\r\n")[0]


def test_the_peak_of_memory_was_under_the_limit_too(service):
    status = Path(f"/proc/{service.record['pid']}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 < MEMORY_LIMIT


def test_limits_are_those_that_the_documentation_names():
    assert image_header.MAX_PIXELS == images.MAX_PIXELS == 100_000_000
    assert MAX_VALUES == 3_000_000
