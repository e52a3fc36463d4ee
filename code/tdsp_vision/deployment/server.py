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
import signal
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
from google.protobuf import text_format
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tdsp_vision.deployment.session import RequestError, ServedVersion
from tdsp_vision.deployment.versions import probe_image, versions_in

NAME = "tdsp-vision embedded server, stands in for TensorFlow Serving"
MAX_BODY_BYTES = 32 * 1024 * 1024
MAX_VALUES = 3_000_000  # in one request: a value of two characters takes up to 70 bytes once it is parsed
MAX_REQUESTS = 32  # that wait or run
EXPECTED = '{"instances": [{"b64": "<base64 of an image file>"}, …]}, or the same list under the key "inputs"'
HEADERS = {401: {"www-authenticate": "Bearer"}, 429: {"retry-after": "1"}}


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
        named = set(servers.model_config_list.config[0].model_version_policy.specific.versions)
        there = versions_in(self.config_file.parent)
        wanted = named & set(there) if named else set(there[-1:])
        for number in wanted - set(self.loaded) - set(self.errors):
            try:
                version = ServedVersion(self.config_file.parent / str(number))
                version.run("serving_default", {"image_bytes": np.array([probe_image()], dtype=object)})  # the first
            except Exception as error:  # TensorFlow raises whatever it likes on a damaged version: its status tells it
                logging.error("version %d cannot be loaded: %s", number, error)
                self.errors[number] = str(error)
            else:
                self.loaded = self.loaded | {number: version}
        if wanted & set(self.loaded) and set(self.loaded) - wanted:
            self.loaded = {number: version for number, version in self.loaded.items() if number in wanted}
            gc.collect()  # a graph refers to itself, so its memory is not freed at once

    def watch(self, parent_pid: int | None) -> None:
        """Refresh every second; files that cannot be read leave everything as it is. Stop without the parent."""
        while True:
            time.sleep(1)
            if parent_pid not in (None, os.getppid()):  # an orphan gets another parent
                os.kill(os.getpid(), signal.SIGTERM)
            try:
                self.refresh()
            except (OSError, ValueError, text_format.ParseError):
                logging.exception("%s cannot be read; what is loaded stays", self.config_file)


def application(versions: Versions, key: str) -> Starlette:
    """The web application; `key` is asked for in every request, "" for none."""
    workers = ThreadPoolExecutor(2)  # TensorFlow spreads one request over all cores, so more gain nothing
    waiting = set()

    def find(request: Request) -> tuple[int, ServedVersion]:
        """Number and version that answer a request; the highest where it names none."""
        given = request.headers.get("authorization", "").encode()
        if key and not hmac.compare_digest(given, f"Bearer {key}".encode()):  # as slow for a wrong first letter
            raise RequestError(401, "This service asks for its key, in the header: Authorization: Bearer <key>")
        model, loaded = request.path_params["model"], versions.loaded
        number = request.path_params.get("version", max(loaded, default=0))
        if model != versions.name or number not in loaded:
            problem = (400, "Malformed request") if ":" in model else (404, "Servable not found for request")
            raise RequestError(problem[0], f"{problem[1]}: {model}, version {number}")
        return number, loaded[number]

    async def status(request: Request) -> Response:
        """The state of all versions, or of the one that is asked for."""
        asked = request.path_params.get("version")
        if asked not in versions.errors:
            find(request)
        entries = []
        for number, problem in sorted((versions.errors | dict.fromkeys(versions.loaded, "")).items(), reverse=True):
            code = {"error_code": "UNKNOWN" if problem else "OK", "error_message": problem}
            if asked in (None, number):
                state = "END" if problem else "AVAILABLE"
                entries.append({"version": str(number), "state": state, "status": code})
        return _json({"model_version_status": entries})

    async def metadata(request: Request) -> Response:
        number, version = find(request)
        spec = {"name": versions.name, "signature_name": "", "version": str(number)}
        return _json({"model_spec": spec, "metadata": {"signature_def": {"signature_def": version.metadata()}}})

    async def predict(request: Request) -> Response:
        """Scores; 429 while too many others wait or run, 413 for a body that is too long."""
        body, full = bytearray(), len(waiting) >= MAX_REQUESTS
        waiting.add(request)
        try:
            async for chunk in request.stream():  # to its end, so that the sender gets the answer
                if len(body) <= MAX_BODY_BYTES and not full:
                    body += chunk
            _, version = find(request)
            if full:
                raise RequestError(429, "The server is busy; send this request again later.")
            if len(body) > MAX_BODY_BYTES or body.count(b",") > MAX_VALUES:
                limits = f"{MAX_BODY_BYTES:,} bytes and {MAX_VALUES:,} values"
                raise RequestError(413, f"The request is longer than {limits}; send fewer images at a time, as files.")
            answer = await asyncio.get_running_loop().run_in_executor(workers, _answer, version, body)
            return Response(answer, media_type="application/json")
        finally:
            waiting.discard(request)

    model, version = "/v1/models/{model}", "/v1/models/{model}/versions/{version:int}"
    routes = [Route(path, status) for path in (model, version)]
    routes += [Route(path + "/metadata", metadata) for path in (model, version)]
    routes += [Route(path + ":predict", predict, methods=["POST"]) for path in (model, version)]
    return Starlette(routes=routes, exception_handlers=dict.fromkeys([RequestError, HTTPException, Exception], _error))


def _answer(version: ServedVersion, body: bytearray) -> bytes:
    """Body of the answer to a predict call; each signature of an export has one input."""
    try:
        document = orjson.loads(body)
        (form,) = {"instances", "inputs"} & set(document)
        name = document.get("signature_name") or "serving_default"
        ((key, tensor),) = version.signatures[name].inputs.items()
        feed = _feed(document.pop(form), form, key, tensor.dtype)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RequestError(400, f"Malformed request ({error!r:.200}); expected is {EXPECTED}.") from error
    content = {"outputs": (outputs := version.run(name, {key: feed}))}
    if form == "instances":
        content = {"predictions": [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]}
    return orjson.dumps(content, _plain, orjson.OPT_SERIALIZE_NUMPY)


def _feed(value: object, form: str, key: str, dtype: int) -> np.ndarray:
    """What a request says for an input, as an array; a Python error where that is not strings or not numbers."""

    def unnamed(item):
        if isinstance(item, dict) and "b64" not in item:
            ((name, item),) = item.items()
            if name != key:
                raise KeyError(name)
        return item

    if form == "instances" and type(value) is not list:
        raise TypeError("'instances' is no list")
    value = [unnamed(item) for item in value] if form == "instances" else unnamed(value)
    if dtype == tf.string.as_datatype_enum:
        values = np.array([_bytes(item) for item in value] if type(value) is list else _bytes(value), dtype=object)
    else:
        values = np.array(value, dtype=object)  # else NumPy would take a text or None for a number
        if set(map(type, values.ravel())) - {int, float}:
            raise TypeError("other than numbers, or lists of one level differ in length")
        with np.errstate(over="ignore"):
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise ValueError("a number is too large")
    if not values.size:
        raise ValueError(f"shape {values.shape}")
    return values


def _bytes(value: str | dict) -> bytes:
    """Bytes of one JSON value: text as UTF-8, or `{"b64": …}`."""
    return value.encode() if isinstance(value, str) else base64.b64decode(*value.values(), validate=True)


def _plain(value: np.ndarray | bytes) -> list | str:
    """What orjson does not know, as what it does: an array of bytes, and each of them."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value.tolist()


def _json(content: object, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, HEADERS.get(status), media_type="application/json")


async def _error(request: Request, error: Exception) -> Response:
    """As TensorFlow Serving: below /v1/ an unknown path is a bad request, whatever the method."""
    if isinstance(error, HTTPException):
        path = request.url.path[:200]
        error = RequestError(400 if path.startswith("/v1/") else 404, f"Malformed request: {request.method} {path}")
    elif not isinstance(error, RequestError):
        error = RequestError(500, "Internal error; the server's log has the details.")
    return _json({"error": error.message}, error.status)


def serve(config_file: Path, port: int, host: str = "127.0.0.1", parent_pid: int | None = None) -> None:
    """Load what is wanted and answer until SIGTERM; ends at once where the port is taken or nothing can be loaded."""
    try:
        listener = socket.create_server((host, port), backlog=128)  # it listens before it loads: nobody else can
    except OSError as error:
        sys.exit(f"PORT {port} cannot be used ({os.strerror(error.errno)}).")
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else an answer may wait for 40 ms
    versions = Versions(config_file)
    versions.refresh()
    if not versions.loaded:
        sys.exit(f"No version in {config_file.parent} can be served: {versions.errors or 'none is there'}")
    threading.Thread(target=versions.watch, args=[parent_pid], daemon=True).start()
    sys.setswitchinterval(0.0005)  # seconds; the network must not wait ten times that for a thread that computes
    # h11 and not httptools, which drops the body of a request that offers HTTP/2 (Upgrade: h2c).
    options = {"http": "h11", "ws": "none", "lifespan": "off", "log_config": None, "access_log": False}
    options |= {"server_header": False, "headers": [("Server", NAME)], "timeout_graceful_shutdown": 8}
    app = application(versions, os.environ.get("TDSP_SERVING_KEY", ""))
    uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])


@click.command()
@click.option("--model_config_file", required=True, type=click.Path(path_type=Path), help="models.config of the model.")
@click.option("--rest_api_port", default=0, help="0: any free one.")
@click.option("--parent_pid", type=int, help="Stop when this parent process ends.")
def main(model_config_file: Path, rest_api_port: int, parent_pid: int | None) -> None:
    """Serve what a models.config names, on this machine."""
    logging.basicConfig(stream=sys.stderr, level="WARNING", format="%(asctime)s %(levelname)s %(message)s")
    serve(model_config_file, rest_api_port, parent_pid=parent_pid)


if __name__ == "__main__":
    main()
