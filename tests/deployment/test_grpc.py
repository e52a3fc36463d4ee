"""TensorFlow Serving's gRPC services, called with its official stubs."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2 as classification
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_service_pb2_grpc, predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc as prediction_service
from tiny_run import KEY, png

AUTHORIZED = [("authorization", f"Bearer {KEY}")]


@pytest.fixture(scope="module")
def channel(strict):
    with grpc.insecure_channel(f"127.0.0.1:{strict.ready['grpc_port']}") as opened:
        yield opened


@pytest.fixture(scope="module")
def predictions(channel):
    return prediction_service.PredictionServiceStub(channel)


def request(images: list[bytes], version: int | None = 1, **changes) -> predict_pb2.PredictRequest:
    """A request for a prediction; `changes` to its model_spec."""
    asked = predict_pb2.PredictRequest()
    asked.model_spec.name = changes.get("name", "tiny")
    asked.model_spec.signature_name = changes.get("signature", "")
    if "label" in changes:
        asked.model_spec.version_label = changes["label"]
    elif version:
        asked.model_spec.version.value = version
    asked.inputs[changes.get("input", "image_bytes")].CopyFrom(tf.make_tensor_proto(images))
    return asked


def refused(call, asked, metadata=AUTHORIZED) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call(asked, timeout=30, metadata=metadata)
    return caught.value.code(), caught.value.details()


def test_predict(predictions, two_classes, photos):
    answer = predictions.Predict(request([photos[0], b"damaged", photos[1]]), timeout=30, metadata=AUTHORIZED)
    assert (answer.model_spec.name, answer.model_spec.version.value) == ("tiny", 1)
    outputs = {name: tf.make_ndarray(proto) for name, proto in answer.outputs.items()}
    assert outputs["valid"].tolist() == [True, False, True]
    np.testing.assert_allclose(outputs["scores"][[0, 2]], two_classes.scores(photos[:2]), atol=1e-6)
    assert outputs["label"][1] == b""


def test_versions_labels_and_wanted_outputs(predictions, photos):
    for version, label, classes in ((None, None, 3), (2, None, 3), (1, None, 2), (None, "stable", 2)):
        asked = request(photos[:1], version, **({"label": label} if label else {}))
        asked.output_filter.append("scores")
        answer = predictions.Predict(asked, timeout=30, metadata=AUTHORIZED)
        assert list(answer.outputs) == ["scores"]
        assert tf.make_ndarray(answer.outputs["scores"]).shape == (1, classes)


def test_metadata_and_status(predictions, channel):
    asked = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    asked.model_spec.name = "tiny"
    answer = predictions.GetModelMetadata(asked, timeout=30, metadata=AUTHORIZED)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    answer.metadata["signature_def"].Unpack(signatures)
    assert answer.model_spec.version.value == 2
    assert {"serving_default", "float_images", "classify"} <= set(signatures.signature_def)
    models = model_service_pb2_grpc.ModelServiceStub(channel)
    asked = get_model_status_pb2.GetModelStatusRequest()
    asked.model_spec.name = "tiny"
    status = models.GetModelStatus(asked, timeout=30, metadata=AUTHORIZED).model_version_status
    available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
    assert [(entry.version, entry.state) for entry in status] == [(2, available), (1, available)]


def test_wrong_requests(predictions, photos):
    code = grpc.StatusCode
    floats = request([b"x"], input="images", signature="float_images")
    few_bytes_many_values = request([b"x"], input="images", signature="float_images")
    few_bytes_many_values.inputs["images"].CopyFrom(tf.make_tensor_proto(np.float32(1), shape=[1, 32, 32, 3]))
    few_bytes_many_values.inputs["images"].tensor_shape.dim[0].size = 10**9
    unknown_output = request(photos[:1])
    unknown_output.output_filter.append("nope")
    table = [
        (request(photos[:1], name="nope"), code.NOT_FOUND, r"Servable not found for request: Specific(nope, 1)"),
        (request(photos[:1], 5), code.NOT_FOUND, "Specific(tiny, 5)"),
        (request(photos[:1], label="nope"), code.INVALID_ARGUMENT, "Unrecognized servable version label: nope"),
        (request(photos[:1], signature="nope"), code.INVALID_ARGUMENT, '"nope" not found in signature def'),
        (request(photos[:1], input="nope"), code.INVALID_ARGUMENT, "['nope'] and must be ['image_bytes']"),
        (request([]), code.INVALID_ARGUMENT, "is of type float32, expected string"),
        (request([[photos[0]]]), code.INVALID_ARGUMENT, "has shape [1, 1], expected [-1]"),
        (request([b"x"], signature="classify", input="inputs"), code.INVALID_ARGUMENT, "Could not parse example"),
        (floats, code.INVALID_ARGUMENT, "is of type string, expected float32"),
        (few_bytes_many_values, code.RESOURCE_EXHAUSTED, "more than 3,000,000 values"),
        (unknown_output, code.INVALID_ARGUMENT, "['nope']"),
        (request([png(10_000, 6_000)] * 2), code.RESOURCE_EXHAUSTED, "unfold to more than 100,000,000 pixels"),
        (request([bytes(100_001)]), code.RESOURCE_EXHAUSTED, "larger than max"),
    ]
    for asked, status, says in table:
        got, details = refused(predictions.Predict, asked)
        assert got == status, details
        assert says in details
    assert predictions.Predict(request(photos[:1]), timeout=30, metadata=AUTHORIZED).outputs["valid"].bool_val[0]


def test_without_the_key_nothing_is_answered(predictions, photos):
    for metadata in ([], [("authorization", "Bearer wrong")], [("authorization", KEY)]):
        got, details = refused(predictions.Predict, request(photos[:1]), metadata)
        assert (got, "asks for its key" in details) == (grpc.StatusCode.UNAUTHENTICATED, True)


def test_what_is_not_offered_says_so(predictions):
    assert refused(predictions.Classify, classification.ClassificationRequest())[0] == grpc.StatusCode.UNIMPLEMENTED
