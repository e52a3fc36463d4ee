"""The predict call: request body to the arrays of a signature, output arrays to the answer. Pure functions.

In: `{"signature_name"?, "instances": […]}` (row format: one entry per image) or `{"signature_name"?, "inputs": …}`
(column format: one array per input), never both. Where the signature has one input, its name may be left out.
Out: `{"predictions": […]}` for rows, `{"outputs": …}` for columns.
Source: https://www.tensorflow.org/tfx/serving/api_rest#predict_api
"""

import base64
from itertools import chain

import numpy as np

from tdsp_vision.deployment.protocol import (
    RequestError,
    Signature,
    TensorSpec,
    decode_b64,
    is_b64,
    shown,
    to_json,
)


def predict_feeds(document: dict, signature: Signature) -> tuple[dict[str, np.ndarray], bool]:
    """Arrays for a signature's inputs, and whether the request is in row format.

    Raises:
        RequestError: 400 for both or neither of `instances` and `inputs`, an empty batch, a name that is not an
            input, a wrong type, a wrong shape, or damaged base64.
    """
    if "instances" in document and "inputs" in document:
        raise RequestError(400, "Expecting only one of 'inputs' or 'instances' keys to exist")
    if "instances" in document:
        columns, row_format = _columns(document["instances"], signature), True
    elif "inputs" in document:
        columns, row_format = _named_inputs(document["inputs"], signature), False
    else:
        raise RequestError(400, "Missing 'inputs' or 'instances' key")
    return {name: _array(name, columns[name], spec) for name, spec in signature.inputs.items()}, row_format


def predict_answer(outputs: dict[str, np.ndarray], row_format: bool) -> bytes:
    """Body for a prediction; a single output stands by itself, without its name.

    Args:
        outputs: arrays whose first dimension is the batch; float32 is written in its shortest exact form.
        row_format: one object per image (`predictions`), or one array per output (`outputs`).
    """
    plain = {name: _plain(name, values) for name, values in outputs.items()}
    if len(plain) == 1:
        (values,) = plain.values()
        return to_json({"predictions" if row_format else "outputs": values})
    if not row_format:
        return to_json({"outputs": plain})
    rows = zip(*plain.values(), strict=True)
    return to_json({"predictions": [dict(zip(plain, row, strict=True)) for row in rows]})


def _columns(instances: object, signature: Signature) -> dict[str, list]:
    """Values by input name from a list of instances: values of the only input, or objects, but no mixture."""
    if not isinstance(instances, list):
        raise RequestError(400, "Expecting 'instances' to be an list/array")
    if not instances:
        raise RequestError(400, "No values in 'instances' array")
    names = list(signature.inputs)
    if not _is_named(instances[0]):
        if len(names) > 1:
            raise RequestError(400, f"instances is a plain list, but objects with {', '.join(names)} are expected")
        for position, item in enumerate(instances):
            if _is_named(item):
                raise RequestError(400, f"Expecting value/list but got object at item {position} of input list")
        return {names[0]: instances}
    for position, item in enumerate(instances):
        if not _is_named(item):
            raise RequestError(400, f"Expecting object but got value/list at item {position} of input list")
        if set(item) != set(names):
            keys = f"keys are {', '.join(item)} and must be equal to: {', '.join(names)}"
            raise RequestError(400, f"Failed to process element: {position} of 'instances' list. JSON object: {keys}")
    return {name: [item[name] for item in instances] for name in names}


def _named_inputs(inputs: object, signature: Signature) -> dict[str, object]:
    """Values by input name from the column format."""
    names = list(signature.inputs)
    if not _is_named(inputs):
        if len(names) > 1:
            raise RequestError(400, f"inputs is a plain value/list, but an object with {', '.join(names)} is expected")
        return {names[0]: inputs}
    for name in names:
        if name not in inputs:
            raise RequestError(400, f"Missing named input: {name} in 'inputs' object.")
    return inputs


def checked(name: str, array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """`array` itself; RequestError 400 unless it has the input's shape and is not empty."""
    fits = array.ndim == len(spec.shape) and all(
        wanted in (-1, got) for got, wanted in zip(array.shape, spec.shape, strict=True)
    )
    if not fits:
        raise RequestError(400, f"Input {name} has shape {list(array.shape)}, expected {list(spec.shape)}")
    if array.size == 0:
        raise RequestError(400, f"Input {name} is an empty batch of shape {list(array.shape)}")
    return array


def _array(name: str, value: object, spec: TensorSpec) -> np.ndarray:
    """`value` as an array of the input's dtype and shape."""
    return checked(name, _strings(value) if spec.dtype == "string" else _numbers(value, spec.dtype), spec)


def _strings(value: object) -> np.ndarray:
    """Bytes in an array of dtype object: [] for one value, [n] for a list of them."""
    if not isinstance(value, list):
        return np.array(_bytes(value), dtype=object)
    return np.array([_bytes(item) for item in value], dtype=object)


def _bytes(value: object) -> bytes:
    """Bytes of one JSON value: text as UTF-8, or `{"b64": …}`."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict):
        if not is_b64(value):
            raise RequestError(400, f"JSON Value: {shown(value)} not formatted correctly for base64 data")
        return decode_b64(value)
    raise RequestError(400, f"JSON Value: {shown(value)} is not of expected type: string")


def _numbers(value: object, dtype: str) -> np.ndarray:
    """Nested lists of numbers as an array."""
    accepted = {int, float} if np.dtype(dtype).kind == "f" else {int}
    # Types first: NumPy would give every cell the length of the longest text, and so a small request gigabytes.
    if not _leaf_types(value) <= accepted:
        raise RequestError(400, f"JSON Value: {shown(value)} is not of expected type: {dtype}")
    try:
        with np.errstate(over="ignore"):
            numbers = np.asarray(value).astype(dtype)
    except (ValueError, OverflowError) as error:
        raise RequestError(400, "Encountered list at unexpected size: the lists of one level differ") from error
    if not np.isfinite(numbers).all():
        raise RequestError(400, f"Cannot convert JSON value to {dtype} without loss of precision.")
    return numbers


def _leaf_types(value: object) -> set[type]:
    """Types of everything in nested lists that is not itself a list."""
    found, level = set(), [value]
    while level:
        found |= set(map(type, level)) - {list}
        level = list(chain.from_iterable(item for item in level if type(item) is list))
    return found


def _plain(name: str, values: np.ndarray) -> list | np.ndarray:
    """An output as orjson writes it; bytes become text, or base64 where the output's name ends in `_bytes`."""
    if values.dtype != object:
        return np.ascontiguousarray(values)
    flat = [item if isinstance(item, bytes) else str(item).encode() for item in values.ravel()]
    if name.endswith("_bytes"):
        written = [{"b64": base64.b64encode(item).decode()} for item in flat]
    else:
        written = [item.decode("utf-8", errors="replace") for item in flat]
    cells = np.empty(len(written), dtype=object)
    cells[:] = written
    return cells.reshape(values.shape).tolist()


def _is_named(value: object) -> bool:
    """Whether a JSON value is an object of named inputs rather than one value."""
    return isinstance(value, dict) and not is_b64(value)
