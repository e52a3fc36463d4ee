"""One version of a served model in a v1 Session: the way TensorFlow Serving loads and runs it.

In: `<version>/` as `export.export_model` writes it. Feeds and answers are NumPy arrays by signature; strings are
arrays of dtype object that hold bytes, because NumPy's own byte strings drop trailing zeros.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import config_pb2

from tdsp_vision.deployment.protocol import RequestError, Signature, TensorSpec

# As TensorFlow Serving's REST server maps them; every other code is an internal error.
HTTP_STATUS = {
    tf.errors.INVALID_ARGUMENT: 400,
    tf.errors.FAILED_PRECONDITION: 400,
    tf.errors.OUT_OF_RANGE: 400,
    tf.errors.NOT_FOUND: 404,
    tf.errors.RESOURCE_EXHAUSTED: 429,
    tf.errors.UNIMPLEMENTED: 501,
    tf.errors.UNAVAILABLE: 503,
    tf.errors.DEADLINE_EXCEEDED: 504,
}


class ServedVersion:
    """A loaded version; `run` may be called from several threads at once.

    Attributes:
        definitions: the SignatureDefs (protocol buffers) by name.
        signatures: what can be called, by name.
    """

    def __init__(self, folder: Path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        self.definitions = dict(_load(self._session, folder).signature_def)
        callables = {name: definition for name, definition in self.definitions.items() if definition.inputs}
        self.signatures = {name: _signature(definition) for name, definition in callables.items()}
        self._calls = {name: self._prepared(definition) for name, definition in callables.items()}

    def run(self, signature_name: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of a signature by name.

        Raises:
            RequestError: with the HTTP status for what TensorFlow said, in its first line.
        """
        signature = self.signatures[signature_name]
        try:
            values = self._calls[signature_name](*(feeds[name] for name in signature.inputs))
            return dict(zip(signature.outputs, values, strict=True))
        except tf.errors.OpError as error:
            first_line = error.message.removeprefix("Graph execution error:").strip().partition("\n")[0]
            raise RequestError(HTTP_STATUS.get(error.error_code, 500), first_line) from error

    def metadata(self) -> dict:
        """The SignatureDefs as a JSON object, every field present, names as in the protocol buffer."""
        options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        return {name: json_format.MessageToDict(proto, **options) for name, proto in self.definitions.items()}

    def close(self) -> None:
        """Free the Session; the version cannot run after it."""
        self._session.close()

    def __enter__(self) -> "ServedVersion":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _prepared(self, definition):
        """A function of a signature's inputs to its outputs, both in order of their names.

        `Session.run` looks every name up anew on each call; what is prepared once costs a third of a millisecond less.
        """
        feed = [definition.inputs[name].name for name in sorted(definition.inputs)]
        fetch = [definition.outputs[name].name for name in sorted(definition.outputs)]
        return self._session._make_callable_from_options(config_pb2.CallableOptions(feed=feed, fetch=fetch))


def _load(session: tf.compat.v1.Session, folder: Path):
    """Restore a SavedModel into a session; its MetaGraphDef."""
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # the v1 loader warns that it is old; its age is the point here
    try:
        with session.graph.as_default():
            return tf.compat.v1.saved_model.loader.load(session, [tf.saved_model.SERVING], str(folder))
    finally:
        logger.setLevel(level)


def _signature(definition) -> Signature:
    """A SignatureDef in plain types, inputs and outputs in order of their names."""
    return Signature(
        inputs={name: _spec(definition.inputs[name]) for name in sorted(definition.inputs)},
        outputs={name: _spec(definition.outputs[name]) for name in sorted(definition.outputs)},
    )


def _spec(info) -> TensorSpec:
    """A TensorInfo in plain types."""
    return TensorSpec(tf.DType(info.dtype).name, tuple(dim.size for dim in info.tensor_shape.dim))
