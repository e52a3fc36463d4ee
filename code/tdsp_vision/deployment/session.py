"""One version of a served model in a v1 Session: the way TensorFlow Serving loads and runs it.

In: `<version>/` as `export.export_model` writes it. Feeds and answers are NumPy arrays by name; strings are arrays of
dtype object that hold bytes, because NumPy's own byte strings drop trailing zeros.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import config_pb2

BAD_REQUEST = {tf.errors.INVALID_ARGUMENT, tf.errors.FAILED_PRECONDITION, tf.errors.OUT_OF_RANGE}


class RequestError(Exception):
    """A request that is answered with an error: HTTP `status` and a `message` for the body."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


class ServedVersion:
    """A loaded version; `run` may be called from several threads at once. Its memory goes with the last reference.

    Attributes:
        signatures: name -> input's name -> (dtype, shape with -1 where any size fits).
        outputs: signature's name -> names of its outputs.
    """

    def __init__(self, folder: Path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        logger = tf.get_logger()
        level = logger.level
        logger.setLevel("ERROR")  # the v1 loader warns that it is old; its age is the point here
        try:
            with self._session.graph.as_default():
                meta = tf.compat.v1.saved_model.loader.load(self._session, [tf.saved_model.SERVING], str(folder))
        finally:
            logger.setLevel(level)
        self._definitions = {name: signature for name, signature in meta.signature_def.items() if signature.inputs}
        self.signatures = {name: _specs(definition.inputs) for name, definition in self._definitions.items()}
        self.outputs = {name: sorted(definition.outputs) for name, definition in self._definitions.items()}
        self._calls = {name: self._prepared(definition) for name, definition in self._definitions.items()}

    def run(self, signature: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of a signature by name; RequestError with the HTTP status and first line of what TensorFlow said."""
        try:
            values = self._calls[signature](*(feeds[name] for name in self.signatures[signature]))
        except UnicodeDecodeError as error:  # TensorFlow quotes what it cannot parse
            raise RequestError(400, f"The feed of {signature} cannot be parsed.") from error
        except tf.errors.OpError as error:
            first_line = error.message.removeprefix("Graph execution error:").strip().partition("\n")[0]
            raise RequestError(400 if error.error_code in BAD_REQUEST else 500, first_line) from error
        return dict(zip(self.outputs[signature], values, strict=True))

    def metadata(self) -> dict:
        """The SignatureDefs as a JSON object, every field present, names as in the protocol buffer."""
        options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        return {name: json_format.MessageToDict(proto, **options) for name, proto in self._definitions.items()}

    def _prepared(self, definition):
        """A function of a signature's inputs to its outputs; `Session.run` would look every name up on each call."""
        feed = [definition.inputs[name].name for name in sorted(definition.inputs)]
        fetch = [definition.outputs[name].name for name in sorted(definition.outputs)]
        return self._session._make_callable_from_options(config_pb2.CallableOptions(feed=feed, fetch=fetch))


def _specs(tensors) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of each tensor, in order of their names."""
    shapes = {name: tuple(dim.size for dim in tensors[name].tensor_shape.dim) for name in sorted(tensors)}
    return {name: (tf.DType(tensors[name].dtype).name, shape) for name, shape in shapes.items()}
