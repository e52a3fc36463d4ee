"""The same model over gRPC: TensorFlow Serving's PredictionService and ModelService, with its official stubs.

Offered are `Predict`, `GetModelMetadata` and `GetModelStatus`; every other call is answered with UNIMPLEMENTED.
Where a key is asked for, the call's metadata must hold `authorization: Bearer <key>`.
Source: tensorflow_serving/apis/prediction_service.proto and model_service.proto
"""

import functools
import logging
import math
from concurrent.futures import Executor

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import error_codes_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2
from tensorflow_serving.apis import model_service_pb2_grpc as model_grpc
from tensorflow_serving.apis import prediction_service_pb2_grpc as prediction_grpc

from tdsp_vision.deployment.guard import guarded
from tdsp_vision.deployment.loaded import LoadedVersions
from tdsp_vision.deployment.predict_body import checked
from tdsp_vision.deployment.protocol import (
    DEFAULT_SIGNATURE,
    INTERNAL,
    MAX_VALUES,
    NEEDS_KEY,
    RequestError,
    TensorSpec,
    is_allowed,
)

logger = logging.getLogger(__name__)
CODES = {  # by the HTTP status that the same error has over REST
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def start_grpc(
    versions: LoadedVersions, workers: Executor, address: str, key: str, max_bytes: int, max_waiting: int
) -> tuple[grpc.Server, int]:
    """Start to answer at `address` (`127.0.0.1:PORT`, port 0 for any); the server and its port.

    Args:
        versions: what is served.
        workers: threads that run the calls; shared with REST, so that both together never run more than these.
        key: bearer key, "" for none.
        max_bytes: longest request.
        max_waiting: a call is answered with RESOURCE_EXHAUSTED while so many others are on their way.

    Raises:
        RuntimeError: if the address cannot be used.
    """
    options = [("grpc.max_receive_message_length", max_bytes), ("grpc.so_reuseport", 0)]
    server = grpc.server(workers, options=options, maximum_concurrent_rpcs=max_waiting)
    prediction_grpc.add_PredictionServiceServicer_to_server(Predictions(versions, key), server)
    model_grpc.add_ModelServiceServicer_to_server(Models(versions, key), server)
    port = server.add_insecure_port(address)
    server.start()
    return server, port


def _answers(call):
    """Check the key, and say errors the gRPC way; one of the server's own is logged and tells no details."""

    @functools.wraps(call)
    def answered(self, request, context):
        """The call, between the check before it and the errors after it."""
        try:
            metadata = dict(context.invocation_metadata())
            if not is_allowed(self.key, metadata.get("authorization", "")):
                raise RequestError(401, NEEDS_KEY)
            return call(self, request)
        except RequestError as error:
            code, details = CODES.get(error.status, grpc.StatusCode.INTERNAL), error.message
        except Exception:
            logger.exception("gRPC %s failed", call.__name__)
            code, details = grpc.StatusCode.INTERNAL, INTERNAL
        return context.abort(code, details)

    return answered


class Predictions(prediction_grpc.PredictionServiceServicer):
    """Predict and GetModelMetadata."""

    def __init__(self, versions: LoadedVersions, key: str):
        self.versions, self.key = versions, key

    @_answers
    def Predict(self, request, context=None):
        """Outputs of a signature; `output_filter` names those that are wanted, none of them: all."""
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with self.versions.lease(*_target(request.model_spec)) as (number, served):
            if name not in served.signatures:
                raise RequestError(400, f'Serving signature name: "{name}" not found in signature def')
            signature = served.signatures[name]
            if set(request.inputs) != set(signature.inputs):
                sent, wanted = sorted(request.inputs), sorted(signature.inputs)
                raise RequestError(400, f"Sent inputs are {sent} and must be {wanted}")
            unknown = set(request.output_filter) - set(signature.outputs)
            if unknown:
                raise RequestError(400, f"output tensor alias not found in signature: {sorted(unknown)}")
            feeds = {key: _array(key, request.inputs[key], spec) for key, spec in signature.inputs.items()}
            with guarded(feeds, signature) as safe:
                outputs = served.run(name, safe)
        answer = predict_pb2.PredictResponse()
        answer.model_spec.name, answer.model_spec.signature_name = self.versions.model_name, name
        answer.model_spec.version.value = number
        for output in request.output_filter or outputs:
            answer.outputs[output].CopyFrom(tf.make_tensor_proto(outputs[output]))
        return answer

    @_answers
    def GetModelMetadata(self, request, context=None):
        """Served version and signatures; the only field there is, is `signature_def`."""
        if list(request.metadata_field) != ["signature_def"]:
            raise RequestError(400, f"Metadata field {list(request.metadata_field)} is not supported: signature_def is")
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        with self.versions.lease(*_target(request.model_spec)) as (number, served):
            definitions = get_model_metadata_pb2.SignatureDefMap(signature_def=served.definitions)
        answer.model_spec.name, answer.model_spec.version.value = self.versions.model_name, number
        answer.metadata["signature_def"].Pack(definitions)
        return answer


class Models(model_grpc.ModelServiceServicer):
    """GetModelStatus."""

    def __init__(self, versions: LoadedVersions, key: str):
        self.versions, self.key = versions, key

    @_answers
    def GetModelStatus(self, request, context=None):
        """State of one version or of all, the highest first."""
        model, number, label = _target(request.model_spec)
        answer = get_model_status_pb2.GetModelStatusResponse()
        for version, (state, code, message) in self.versions.status(model, self.versions.number(number, label)):
            entry = answer.model_version_status.add(version=version, state=state)
            entry.status.error_code, entry.status.error_message = error_codes_pb2.Code.Value(code), message
        return answer


def _target(spec) -> tuple[str, int | None, str | None]:
    """Model, version and label that a ModelSpec names."""
    choice = spec.WhichOneof("version_choice")
    number = spec.version.value if choice == "version" else None
    return spec.name, number, spec.version_label if choice == "version_label" else None


def _array(name: str, proto, spec: TensorSpec) -> np.ndarray:
    """A tensor as an array of the input's dtype and shape."""
    if proto.dtype != tf.as_dtype(spec.dtype).as_datatype_enum:
        raise RequestError(400, f"Input {name} is of type {tf.as_dtype(proto.dtype).name}, expected {spec.dtype}")
    # A tensor of one value says its shape and is filled with that value, so a few bytes can ask for gigabytes.
    if math.prod(dim.size for dim in proto.tensor_shape.dim) > MAX_VALUES:
        raise RequestError(413, f"Input {name} has more than {MAX_VALUES:,} values; send fewer at a time.")
    try:
        return checked(name, tf.make_ndarray(proto), spec)
    except (ValueError, TypeError) as error:
        raise RequestError(400, f"Input {name} is not a whole tensor: {error}") from error
