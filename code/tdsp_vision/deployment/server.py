"""The embedded server: TensorFlow Serving's REST protocol for one model on this machine, where Docker is not at hand.

    python -m tdsp_vision.deployment.server --model_config_file=SERVING/MODEL/models.config --rest_api_port=8501

It stands in for TensorFlow Serving and says so in the header `Server`. It reads the same files (`versions`), takes
the folder of the config for the model's base path, loads a new version beside the old one, and answers

    GET  /v1/models/MODEL[/versions/N][/metadata]
    POST /v1/models/MODEL[/versions/N]:predict       {"instances": […]} or {"inputs": …}, bytes as {"b64": "…"}

with TensorFlow Serving's status codes and `{"error": "…"}`. gRPC, labels, classify and regress calls, and metrics are
left to the real one. It listens on 127.0.0.1 only. A key in the environment variable TDSP_SERVING_KEY is asked for in
every request (`Authorization: Bearer <key>`). On SIGTERM it ends the requests that run, and stops.
Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import asyncio
import base64
import gc
import hmac
import logging
import os
import re
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
import orjson
import tensorflow as tf
import uvicorn
from google.protobuf import json_format, text_format
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tdsp_vision.deployment.versions import probe_image, versions_in

NAME = "tdsp-vision embedded server, stands in for TensorFlow Serving"
ADDRESS = re.compile(r"/v1/models/([^/:]+)(?:/versions/([0-9]{1,18}))?(/metadata|:predict|)")
MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_VALUES = 3_000_000  # in one request: a value of two characters takes up to 70 bytes once it is parsed
MAX_REQUESTS = 32  # that wait or run
EXPECTED = '{"instances": [{"b64": "<base64 of an image file>"}, …]}, or the same list under the key "inputs"'
BAD_REQUEST = (ValueError, tf.errors.InvalidArgumentError, tf.errors.FailedPreconditionError)
tf.get_logger().setLevel("ERROR")  # the v1 loader warns that it is old; its age is the point here


class ServedVersion:
    """One version in a v1 Session: the way TensorFlow Serving loads and runs it.

    `run` may be called from several threads at once. Its memory goes with the last reference.

    Attributes:
        signatures: name -> SignatureDef, the protocol buffer that tells dtypes and shapes of its inputs and outputs.
    """

    def __init__(self, folder: Path):
        self._session = tf.compat.v1.Session(graph=tf.Graph())
        with self._session.graph.as_default():
            meta = tf.compat.v1.saved_model.loader.load(self._session, [tf.saved_model.SERVING], str(folder))
        self.signatures = {name: signature for name, signature in meta.signature_def.items() if signature.inputs}

    def run(self, signature: str, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs of a signature by name; HTTPException with the HTTP status and first line of what TensorFlow said.

        Strings are arrays of dtype object that hold bytes: NumPy's own byte strings drop trailing zeros.
        """
        definition = self.signatures[signature]
        outputs = {name: definition.outputs[name].name for name in sorted(definition.outputs)}
        try:
            return self._session.run(outputs, {definition.inputs[name].name: value for name, value in feeds.items()})
        except (ValueError, tf.errors.OpError) as error:  # a ValueError for another shape
            reason = str(error).removeprefix("Graph execution error:").strip().partition("\n")[0]
            status = 400 if isinstance(error, BAD_REQUEST) else 500
            raise HTTPException(status, f"{signature} cannot parse its feed, or it does not fit: {reason}") from error


class Versions:
    """The versions of one model, kept in step with its folder: the new one is loaded before the old one goes.

    Attributes:
        loaded: version by number; replaced as a whole, and a request keeps the version that it began with.
        errors: why a version cannot be loaded, by number; it is not tried again.
    """

    def __init__(self, config_file: Path):
        self.config_file, self.name = config_file, config_file.parent.name
        self.loaded: dict[int, ServedVersion] = {}
        self.errors: dict[int, str] = {}

    def refresh(self) -> None:
        """Read config and folder once: load what is wanted and new, then drop what is no longer wanted."""
        servers = text_format.Parse(self.config_file.read_text(encoding="utf-8"), ModelServerConfig())
        there = versions_in(self.config_file.parent)
        named = servers.model_config_list.config[0].model_version_policy.specific.versions
        wanted = set(named or there[-1:]) & set(there)
        for number in wanted - set(self.loaded) - set(self.errors):
            try:
                version = ServedVersion(self.config_file.parent / str(number))
                version.run("serving_default", {"image_bytes": np.array([probe_image()], dtype=object)})  # the first
                self.loaded = self.loaded | {number: version}
            except Exception as error:  # TensorFlow raises whatever it likes on a damaged version: its status tells it
                self.errors[number] = str(error)
        if wanted & set(self.loaded) and set(self.loaded) - wanted:
            self.loaded = {number: version for number, version in self.loaded.items() if number in wanted}
            gc.collect()  # a graph refers to itself, so its memory is not freed at once

    def watch(self, parent_pid: int | None) -> None:
        """Refresh every second; files that cannot be read leave everything as it is. Stop without the parent."""
        while True:
            time.sleep(1)
            if parent_pid not in (None, os.getppid()):  # an orphan gets another parent
                os._exit(0)
            try:
                self.refresh()
            except (OSError, ValueError, text_format.ParseError):
                logging.exception("%s cannot be read; what is loaded stays", self.config_file)

    def status(self, asked: str | None) -> dict:
        """The states of all versions, the latest first, or of the one that is asked for."""
        entries = []
        for number, problem in sorted((self.errors | dict.fromkeys(self.loaded, "")).items(), reverse=True):
            code = {"error_code": "UNKNOWN" if problem else "OK", "error_message": problem}
            entries.append({"version": str(number), "state": "END" if problem else "AVAILABLE", "status": code})
        return {"model_version_status": [entry for entry in entries if asked in (None, entry["version"])]}

    def metadata(self, number: int) -> dict:
        """A version's SignatureDefs, every field present, names as in the protocol buffer."""
        options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
        signatures = self.loaded[number].signatures
        definitions = {name: json_format.MessageToDict(proto, **options) for name, proto in signatures.items()}
        spec = {"name": self.name, "signature_name": "", "version": str(number)}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": definitions}}}


def application(versions: Versions, key: str):
    """The web application (ASGI); `key` is asked for in every request, "" for none."""
    workers = ThreadPoolExecutor(2)  # TensorFlow spreads one request over all cores, so more gain nothing
    waiting = set()

    async def answer(request: Request) -> bytes:
        """Body of the answer; 429 while too many others wait or run, 413 for a body that is too long."""
        body, full = bytearray(), len(waiting) > MAX_REQUESTS
        async for chunk in request.stream():  # to its end, so that the sender gets the answer
            if len(body) <= MAX_BODY_BYTES and not full:
                body += chunk
        # The comparison is as slow for a wrong first letter as for a wrong last one.
        if key and not hmac.compare_digest(request.headers.get("authorization", "").encode(), f"Bearer {key}".encode()):
            raise HTTPException(401, "The service asks for its key, a bearer token", {"www-authenticate": "Bearer"})
        path = request.url.path
        address = ADDRESS.fullmatch(path)
        if not address or request.method != ("POST" if address[3] == ":predict" else "GET"):
            status = 400 if path.startswith("/v1/") else 404  # as TensorFlow Serving
            raise HTTPException(status, f"Malformed request: {request.method} {path[:200]}")
        model, asked, what = address.groups()
        loaded = versions.loaded
        number = int(asked or max(loaded))
        if model != versions.name or number not in (loaded if what else loaded | versions.errors):
            raise HTTPException(404, f"Servable not found for request: {model}, version {number}")
        if what != ":predict":
            return orjson.dumps(versions.metadata(number) if what else versions.status(asked))
        if full:
            raise HTTPException(429, "The server is busy; send this request again later.", {"retry-after": "1"})
        if len(body) > MAX_BODY_BYTES or body.count(b",") > MAX_VALUES:
            raise HTTPException(413, f"At most {MAX_BODY_BYTES:,} bytes and {MAX_VALUES:,} values; send fewer images.")
        return await asyncio.get_running_loop().run_in_executor(workers, _predict, loaded[number], body)

    async def respond(scope, receive, send) -> None:
        """Answer one request, whatever happens."""
        request = Request(scope, receive)
        waiting.add(request)
        try:
            response = Response(await answer(request), media_type="application/json")
        except Exception as error:
            if not isinstance(error, HTTPException):
                logging.exception("%s %s", request.method, request.url.path)
                error = HTTPException(500, "Internal error; the log of the server has the details.")
            content = orjson.dumps({"error": error.detail})
            response = Response(content, error.status_code, error.headers, "application/json")
        finally:
            waiting.discard(request)
        await response(scope, receive, send)

    return respond


def _predict(version: ServedVersion, body: bytearray) -> bytes:
    """Body of the answer to a predict call; each signature of an export has one input."""
    try:
        document = orjson.loads(body)
        (form,) = {"instances", "inputs"} & set(document)
        name = document.get("signature_name") or "serving_default"
        ((key, tensor),) = version.signatures[name].inputs.items()
        values = document.pop(form)
        values = values[key] if form == "inputs" and isinstance(values, dict) else values
        if type(values) is not list:
            raise TypeError(f"{type(values).__name__} is no list")
        if form == "instances" and {tuple(row) for row in values if isinstance(row, dict)} == {(key,)}:
            values = [row[key] for row in values]  # every row says for which input it is
        feed = _array(values, tensor.dtype)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise HTTPException(400, f"Malformed request ({error!r:.200}); expected is {EXPECTED}.") from error
    content = {"outputs": (outputs := version.run(name, {key: feed}))}
    if form == "instances":
        content = {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}
    return orjson.dumps(content, _plain, orjson.OPT_SERIALIZE_NUMPY)


def _array(values: list, dtype: int) -> np.ndarray:
    """A list of a request as an array; a Python error where it is empty, or not of strings or numbers."""
    if dtype == tf.string.as_datatype_enum:
        array = np.array([_bytes(item) for item in values], dtype=object)
    elif (array := np.array(values)).dtype.kind not in "if" or not np.isfinite(array.astype(np.float32)).all():
        raise TypeError("other than numbers, or one that is too large")
    if not array.size:
        raise ValueError(f"shape {array.shape}")
    return array


def _bytes(value: str | dict) -> bytes:
    """Bytes of one JSON value: text as UTF-8, or `{"b64": …}`."""
    return value.encode() if isinstance(value, str) else base64.b64decode(value["b64"], validate=True)


def _plain(value: np.ndarray | bytes) -> list | str:
    """What orjson does not know, as what it does: an array of bytes, and each of them."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value.tolist()


@click.command()
@click.option("--model_config_file", required=True, type=click.Path(path_type=Path), help="models.config of the model.")
@click.option("--rest_api_port", default=0, help="0: any free one.")
@click.option("--parent_pid", type=int, help="Stop when this parent process ends.")
def serve(model_config_file: Path, rest_api_port: int, parent_pid: int | None, host: str = "127.0.0.1") -> None:
    """Load what is wanted and answer until SIGTERM; ends at once where the port is taken or nothing can be loaded."""
    logging.basicConfig(stream=sys.stderr, level="WARNING", format="%(asctime)s %(levelname)s %(message)s")
    try:
        listener = socket.create_server((host, rest_api_port), backlog=128)  # before it loads, so nobody else can
    except OSError as error:
        sys.exit(f"PORT {rest_api_port} cannot be used ({os.strerror(error.errno)}).")
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an answer may wait for 40 ms
    versions = Versions(model_config_file)
    versions.refresh()
    if not versions.loaded:
        sys.exit(f"No version in {model_config_file.parent} can be served: {versions.errors or 'none is there'}")
    threading.Thread(target=versions.watch, args=[parent_pid], daemon=True).start()
    sys.setswitchinterval(0.0005)  # seconds; the network must not wait ten times that for a thread that computes
    # h11 and not httptools, which drops the body of a request that offers HTTP/2 (Upgrade: h2c).
    options = {"http": "h11", "ws": "none", "lifespan": "off", "log_config": None, "access_log": False}
    options |= {"server_header": False, "headers": [("Server", NAME)], "timeout_graceful_shutdown": 8}
    app = application(versions, os.environ.get("TDSP_SERVING_KEY", ""))
    uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])


if __name__ == "__main__":
    serve()
