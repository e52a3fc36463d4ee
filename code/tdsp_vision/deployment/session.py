"""One version of a served model in a v1 Session: the way TensorFlow Serving loads and runs it.

In: `<version>/` as `export.export_model` writes it. Feeds and answers are NumPy arrays by name; strings are arrays of
dtype object that hold bytes, because NumPy's own byte strings drop trailing zeros.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf
from google.protobuf import json_format

tf.get_logger().setLevel("ERROR")  # the v1 loader warns that it is old; its age is the point here
BAD_REQUEST = {tf.errors.INVALID_ARGUMENT, tf.errors.FAILED_PRECONDITION, tf.errors.OUT_OF_RANGE}


class RequestError(Exception):
    """A request that is answered with an error: HTTP `status` and a `message` for the body."""

    def __init__(self, status: int, message: str):
        super().__init__(message)
        self.status, self.message = status, message


class ServedVersion:
    """A loaded version; `run` may be called from several threads at once. Its memory goes with the last reference.

    Attributes:
        signatures: name -> SignatureDef, the protocol buffer that tells dtypes and shapes of its inputs and outputs.
    """

    def __init__(self, folder: Path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            meta = tf.compat.v1.saved_model.loader.load(self._session, [tf.saved_model.SERVING], str(folder))
        self.signatures = {name: signature for name, signature in meta.signature_def.items() if signature.inputs}

    def run(self, signature: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of a signature by name; RequestError with the HTTP status and first line of what TensorFlow said."""
        definition = self.signatures[signature]
        outputs = {name: definition.outputs[name].name for name in sorted(definition.outputs)}
        try:
            return self._session.run(outputs, {definition.inputs[name].name: value for name, value in feeds.items()})
        except ValueError as error:  # another shape, or bytes that cannot be parsed, nor then quoted
            raise RequestError(400, f"{signature} cannot parse its feed, or it does not fit: {error}") from error
        except tf.errors.OpError as error:
            first_line = error.message.removeprefix("Graph execution error:").strip().partition("\n")[0]
            raise RequestError(400 if error.error_code in BAD_REQUEST else 500, first_line) from error

    def metadata(self) -> dict:
        """The SignatureDefs as a JSON object, every field present, names as in the protocol buffer."""
        options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        return {name: json_format.MessageToDict(proto, **options) for name, proto in self.signatures.items()}
