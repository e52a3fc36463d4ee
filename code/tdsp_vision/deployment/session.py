"""One version of a served model in a v1 Session: the way TensorFlow Serving loads and runs it.

In: `<version>/` as `export.export_model` writes it. Feeds and answers are NumPy arrays by signature; strings are
arrays of dtype object that hold bytes, because NumPy's own byte strings drop trailing zeros.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

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
        signatures: what can be called, by name.
        metadata: the SignatureDefs as the JSON object that the metadata route answers with.
    """

    def __init__(self, folder: Path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        meta_graph = _load(self._session, folder)
        definitions = meta_graph.signature_def
        self.metadata = {name: _as_json(definition) for name, definition in definitions.items()}
        callables = {name: definition for name, definition in definitions.items() if definition.inputs}
        self.signatures = {name: _signature(definition) for name, definition in callables.items()}
        self._tensors = {
            name: (self._by_alias(definition.inputs), self._by_alias(definition.outputs))
            for name, definition in callables.items()
        }

    def run(self, signature_name: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of a signature by name.

        Raises:
            RequestError: with the HTTP status for what TensorFlow said, in its first line.
        """
        inputs, outputs = self._tensors[signature_name]
        try:
            return self._session.run(outputs, {tensor: feeds[name] for name, tensor in inputs.items()})
        except tf.errors.OpError as error:
            first_line = error.message.removeprefix("Graph execution error:").strip().partition("\n")[0]
            raise RequestError(HTTP_STATUS.get(error.error_code, 500), first_line) from error

    def close(self) -> None:
        """Free the Session; the version cannot run after it."""
        self._session.close()

    def __enter__(self) -> "ServedVersion":
        return self

    def __exit__(self, *exception) -> None:
        self.close()

    def _by_alias(self, infos) -> dict[str, tf.Tensor]:
        """The graph's tensors by the names that a signature gives them."""
        tensor = self._session.graph.get_tensor_by_name
        return {name: tensor(infos[name].name) for name in sorted(infos)}


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


def _as_json(definition) -> dict:
    """A SignatureDef as JSON object, every field present, names as in the protocol buffer."""
    return json_format.MessageToDict(
        definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
