"""The classify call: request body to serialized tf.train.Example, scores to the answer.

In: `{"signature_name"?, "context"?: {…}, "examples": [{feature: value or list of values, …}, …]}`; the features of
`context` belong to every example. Out: `{"results": [[[class, score], …], …]}`, one list per example.
Source: https://www.tensorflow.org/tfx/serving/api_rest#classify_and_regress_api
"""

import numpy as np
from tensorflow.core.example import example_pb2, feature_pb2

from tdsp_vision.deployment.protocol import RequestError, Signature, decode_b64, is_b64, shown, to_json


def classify_feeds(document: dict) -> dict[str, np.ndarray]:
    """Feed for the input `inputs`: serialized Examples, object [n].

    Raises:
        RequestError: 400 if `examples` is missing, empty or not a list of objects, or a feature's value is of no
            kind that an Example can hold.
    """
    examples = document.get("examples")
    if examples is None:
        raise RequestError(400, "When method is classify, key 'examples' is expected and was not found")
    if not isinstance(examples, list):
        raise RequestError(400, "Expecting 'examples' value to be an list/array")
    if not examples:
        raise RequestError(400, "'examples' value is an empty array")
    context = _features(document.get("context", {}))
    serialized = [_serialized({**context, **_features(example)}) for example in examples]
    return {"inputs": np.array(serialized, dtype=object)}


def check_classify(signature: Signature) -> None:
    """RequestError 400 unless the signature is one for classification: `inputs` -> `classes` and `scores`."""
    if len(signature.inputs) != 1:
        raise RequestError(400, "Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise RequestError(400, f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if "inputs" not in signature.inputs:
        raise RequestError(400, "No classification inputs found in SignatureDef")
    if not {"classes", "scores"} <= set(signature.outputs):
        raise RequestError(400, "Expected classification signature outputs to contain 'classes' and 'scores'")


def check_regress(signature: Signature) -> None:
    """RequestError 400, with what TensorFlow Serving says of a signature that is not one for regression."""
    if len(signature.inputs) != 1:
        raise RequestError(400, "Expected one input Tensor.")
    if len(signature.outputs) != 1:
        raise RequestError(400, "Expected one output Tensor.")
    raise RequestError(400, "Expected regression signature outputs to contain 'outputs'")


def classify_answer(outputs: dict[str, np.ndarray]) -> bytes:
    """Body for a classification, from `classes` object [n, K] and `scores` float32 [n, K]."""
    results = [
        [[name.decode("utf-8", errors="replace"), score] for name, score in zip(names, scores, strict=True)]
        for names, scores in zip(outputs["classes"], outputs["scores"], strict=True)
    ]
    return to_json({"results": results})


def _features(example: object) -> dict[str, feature_pb2.Feature]:
    """The features of one JSON object."""
    if not isinstance(example, dict):
        raise RequestError(400, f"Example must be JSON object but got JSON value {shown(example)}")
    return {name: _feature(name, value if isinstance(value, list) else [value]) for name, value in example.items()}


def _feature(name: str, values: list) -> feature_pb2.Feature:
    """Bytes, floats or integers; all values of one feature must be of one kind."""
    plain = [decode_b64(value) if is_b64(value) else value for value in values]
    plain = [value.encode() if isinstance(value, str) else value for value in plain]
    kinds = {type(value) for value in plain}
    if kinds <= {bytes}:
        return feature_pb2.Feature(bytes_list=feature_pb2.BytesList(value=plain))
    if kinds <= {bool, int}:
        if not all(-(2**63) <= value < 2**63 for value in plain):
            raise RequestError(400, f"Feature: {name} has uint64 element. Only int64 is supported.")
        return feature_pb2.Feature(int64_list=feature_pb2.Int64List(value=[int(value) for value in plain]))
    if kinds == {float}:
        return feature_pb2.Feature(float_list=feature_pb2.FloatList(value=plain))
    if kinds <= {bytes, bool, int, float}:
        raise RequestError(400, f"Unexpected element type in feature: {name} expecting one type for all values")
    wrong = next(value for value in plain if type(value) not in {bytes, bool, int, float})
    raise RequestError(400, f"Feature: {name} has element with unexpected JSON type: {shown(wrong)}")


def _serialized(features: dict[str, feature_pb2.Feature]) -> bytes:
    """A tf.train.Example as bytes."""
    return example_pb2.Example(features=feature_pb2.Features(feature=features)).SerializeToString()
