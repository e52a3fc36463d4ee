"""TensorFlow Serving's REST protocol, version 1: what all its calls share. Pure functions, no TensorFlow.

Source: https://www.tensorflow.org/tfx/serving/api_rest. In: a JSON object, bytes written as `{"b64": "…"}`.
Out: a JSON object, or `{"error": "…"}` with an HTTP status of 400 or more.
"""

import base64
import binascii
import hmac
from dataclasses import dataclass

import orjson

DEFAULT_SIGNATURE = "serving_default"
MAX_VALUES = 3_000_000  # in one request: a value of two characters takes up to 70 bytes once it is parsed

NEEDS_KEY = "This service asks for its key, in the header: Authorization: Bearer <key>"
INTERNAL = "Internal error; the server's log has the details."


class RequestError(Exception):
    """A request that is answered with an error: HTTP `status` and a `message` for the body."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class TensorSpec:
    """`dtype` is a TensorFlow name ("string", "float32", …); `shape` has -1 where any size fits."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs by name."""

    inputs: dict[str, TensorSpec]
    outputs: dict[str, TensorSpec]


def parse_object(body: bytes) -> dict:
    """The JSON object in a request's body; RequestError 400 if it is not one, 413 for more than `MAX_VALUES` values."""
    if not body:
        raise RequestError(400, "JSON Parse error: The document is empty")
    if body.count(b",") > MAX_VALUES:  # counted before they take memory
        raise RequestError(413, f"More than {MAX_VALUES:,} values; send fewer at a time, images as encoded files.")
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"JSON Parse error: {error.msg} at offset: {error.pos}") from error
    if not isinstance(document, dict):
        raise RequestError(400, f"JSON Value: {shown(document)} Is not object")
    return document


def signature_name(document: dict) -> str:
    """The signature that a request asks for; `serving_default` where it names none."""
    name = document.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise RequestError(400, f"'signature_name' key must be a string value, not {shown(name)}.")
    return name or DEFAULT_SIGNATURE


def is_allowed(key: str, authorization: str) -> bool:
    """Whether a request may pass: no key is asked for, or its header says `Bearer <key>`.

    The comparison takes the same time however many characters are right, so the key cannot be guessed one by one.
    """
    return not key or hmac.compare_digest(authorization.encode(), f"Bearer {key}".encode())


def to_json(content: object) -> bytes:
    """JSON that every parser reads: NaN and infinity, which JSON does not have, become null."""
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def is_b64(value: object) -> bool:
    """Whether a JSON value stands for bytes: `{"b64": "…"}` and nothing else in it."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def decode_b64(value: dict) -> bytes:
    """The bytes in `{"b64": "…"}`; white space and missing padding are forgiven, anything else is an error 400."""
    text = "".join(value["b64"].split())
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise RequestError(400, "Unable to base64 decode") from error


def shown(value: object) -> str:
    """A JSON value as an error names it: itself, or just its type where it can be of any length."""
    if isinstance(value, (list, dict)):
        return "array" if isinstance(value, list) else "object"
    text = orjson.dumps(value).decode()
    return text if len(text) <= 100 else f"{text[:100]}…"
