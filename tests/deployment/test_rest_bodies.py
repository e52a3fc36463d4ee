"""The pure part of the REST protocol: JSON to arrays and arrays to JSON, for signatures of any form."""

import json

import numpy as np
import pytest

from tdsp_vision.deployment.classify_body import classify_feeds
from tdsp_vision.deployment.predict_body import predict_answer, predict_feeds
from tdsp_vision.deployment.protocol import RequestError, Signature, TensorSpec

IMAGE = {"image_bytes": TensorSpec("string", (-1,))}
PAIR = Signature({"a": TensorSpec("float32", (-1, 2)), "b": TensorSpec("int64", (-1,))}, {})


def test_two_inputs_in_rows_and_in_columns():
    rows, row_format = predict_feeds({"instances": [{"a": [1, 2], "b": 3}, {"b": 6, "a": [4, 5.5]}]}, PAIR)
    assert row_format
    columns, row_format = predict_feeds({"inputs": {"a": [[1, 2], [4, 5.5]], "b": [3, 6]}}, PAIR)
    assert not row_format
    for feeds in (rows, columns):
        np.testing.assert_array_equal(feeds["a"], np.array([[1, 2], [4, 5.5]], np.float32))
        np.testing.assert_array_equal(feeds["b"], [3, 6])
        assert (feeds["a"].dtype, feeds["b"].dtype) == (np.float32, np.int64)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"instances": [1, 2]}, "plain list"),
        ({"inputs": [1, 2]}, "plain value/list"),
        ({"instances": [{"a": [1, 2]}]}, "must be equal to: a, b"),
        ({"inputs": {"a": [[1, 2]]}}, "Missing named input: b"),
        ({"instances": [{"a": [1, 2], "b": 3.5}]}, "expected type: int64"),
        ({"instances": [{"a": [1, 2, 3], "b": 3}]}, "shape"),
        ({"instances": [{"a": [1, 2], "b": 3}, 4]}, "item 1"),
    ],
)
def test_two_inputs_wrong(document, says):
    with pytest.raises(RequestError, match=says) as caught:
        predict_feeds(document, PAIR)
    assert caught.value.status == 400


def test_bytes_keep_their_trailing_zeros():
    feeds, _ = predict_feeds({"instances": [{"b64": "AQAA"}, {"b64": "AA"}]}, Signature(IMAGE, {}))
    assert feeds["image_bytes"].tolist() == [b"\x01\x00\x00", b"\x00"]


def test_an_output_named_bytes_is_written_in_base64_and_a_single_one_without_its_name():
    raw = np.array([b"\xff\x00", b"ab"], dtype=object)
    assert json.loads(predict_answer({"raw_bytes": raw}, True)) == {"predictions": [{"b64": "/wA="}, {"b64": "YWI="}]}
    assert json.loads(predict_answer({"label": raw[1:]}, False)) == {"outputs": ["ab"]}


def test_answers_are_valid_json_whatever_the_numbers():
    scores = np.array([[np.nan, np.inf], [0.1, 1.0]], np.float32)
    answer = predict_answer({"scores": scores, "valid": np.array([False, True])}, True)
    assert answer == b'{"predictions":[{"scores":[null,null],"valid":false},{"scores":[0.1,1.0],"valid":true}]}'


def test_the_context_of_a_classification_belongs_to_every_example():
    alone = classify_feeds({"examples": [{"age": 40, "image_bytes": {"b64": "YWI="}}]})["inputs"][0]
    shared = classify_feeds({"context": {"age": 40}, "examples": [{"image_bytes": "ab"}]})["inputs"][0]
    assert sorted(alone) == sorted(shared)
    for part in (b"age", b"image_bytes", b"ab"):
        assert part in shared
