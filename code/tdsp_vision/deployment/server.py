"""The embedded server: TensorFlow Serving's REST protocol over a v1 Session, in one process, on this machine only.

    python -m tdsp_vision.deployment.server --model-name NAME --model-base-path FOLDER [--port 0]

It serves the highest version below FOLDER at http://127.0.0.1:PORT/v1/models/NAME and prints one line of JSON,
`{"url": …, "port": …, "version": …}`, once it answers. Warnings and errors go to standard error. It stops on
SIGTERM and SIGINT, and with its parent process where `--parent-pid` names that.
"""

import asyncio
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
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, Response

from tdsp_vision.deployment.protocol import RequestError, to_json
from tdsp_vision.deployment.versions import versions_in

HOST = "127.0.0.1"
MAX_REQUEST_BYTES = 64 * 1024 * 1024
METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE"}  # any other method is answered with 501
PAGE = "<!DOCTYPE html>\n<title>{title}</title>\n<h1>{title}</h1>\n"
logger = logging.getLogger("tdsp_vision.deployment.server")


class App:
    """The web application (ASGI): reads a request, has it answered in a thread, writes the answer.

    Attributes:
        routes: the `Routes` that answer.
        max_request_bytes: a longer body is read to its end, thrown away and answered with 413.
    """

    def __init__(self, routes, max_request_bytes: int = MAX_REQUEST_BYTES):
        self.routes = routes
        self.max_request_bytes = max_request_bytes
        # TensorFlow spreads one request over all cores, so more threads than cores gain nothing.
        self._workers = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="request")

    async def __call__(self, scope, receive, send) -> None:
        try:
            response = await self._respond(Request(scope, receive))
        except ClientDisconnect:
            return  # nobody is left to answer
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        path = request.scope["raw_path"].decode("ascii", errors="replace")
        if request.method not in METHODS:
            return HTMLResponse(PAGE.format(title="501 Not Implemented"), 501)
        if not path.lower().startswith("/v1/"):
            return HTMLResponse(PAGE.format(title="404 Not Found"), 404)
        query = request.scope["query_string"].decode("ascii", errors="replace")
        body = await self._body(request)
        if body is None:
            return _json(413, _error(f"The request is longer than {self.max_request_bytes} bytes."))
        loop = asyncio.get_running_loop()
        path_and_query = f"{path}?{query}" if query else path
        status, answer = await loop.run_in_executor(self._workers, self._answer, request.method, path_and_query, body)
        return _json(status, answer)

    async def _body(self, request: Request) -> bytes | None:
        """The whole body, or None for one that is too long; that is read on, so that the client gets its answer."""
        chunks, length = [], 0
        async for chunk in request.stream():
            length += len(chunk)
            if length > self.max_request_bytes:
                chunks.clear()
            else:
                chunks.append(chunk)
        return None if length > self.max_request_bytes else b"".join(chunks)

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body for one request; an error of the server's own is logged and tells the client no details."""
        try:
            return 200, self.routes.answer(method, path, body)
        except RequestError as error:
            return error.status, _error(error.message)
        except Exception:
            logger.exception("%s %s failed", method, path)
            return 500, _error("Internal error; the server's log has the details.")


class _Server(uvicorn.Server):
    """Uvicorn that says on standard output when it answers."""

    ready_line = b""

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets=sockets)
        sys.stdout.buffer.write(self.ready_line + b"\n")
        sys.stdout.flush()


def _error(message: str) -> bytes:
    return to_json({"error": message})


def _json(status: int, body: bytes) -> Response:
    return Response(body, status, media_type="application/json")


def _stop_with_parent(parent_pid: int) -> None:
    """Ask this process to stop when the one that started it is gone: an orphan gets another parent."""
    while os.getppid() == parent_pid:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _bound_socket(port: int) -> socket.socket:
    """A socket on the loopback address; binding before TensorFlow loads shows a taken port at once."""
    # The protocol is named because asyncio turns off Nagle's algorithm (40 ms a request) only where it is.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        listener.close()
        raise click.ClickException(f"PORT {port} on {HOST} cannot be used ({error.strerror}).") from error
    return listener


@click.command()
@click.option("--model-name", required=True, help="Name of the model in the URL.")
@click.option("--model-base-path", required=True, type=click.Path(path_type=Path), help="Folder of versions.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port on 127.0.0.1; 0: any free one.")
@click.option("--max-request-bytes", default=MAX_REQUEST_BYTES, help="Longest body that is accepted.")
@click.option("--parent-pid", type=int, help="Stop when this parent process ends.")
def main(model_name: str, model_base_path: Path, port: int, max_request_bytes: int, parent_pid: int | None):
    """Serve the highest version of a model over TensorFlow Serving's REST protocol, on 127.0.0.1 only."""
    logging.basicConfig(stream=sys.stderr, level="WARNING", format="%(asctime)s %(levelname)s %(message)s")
    if parent_pid is not None:
        threading.Thread(target=_stop_with_parent, args=[parent_pid], daemon=True).start()
    numbers = versions_in(model_base_path)
    if not numbers:
        raise click.ClickException(f"There is no version in {model_base_path}; export a model first.")
    listener = _bound_socket(port)

    from tdsp_vision.deployment.routes import Routes  # TensorFlow takes seconds: after the checks above
    from tdsp_vision.deployment.session import ServedVersion

    routes = Routes(model_name, {numbers[-1]: ServedVersion(model_base_path / str(numbers[-1]))})
    config = uvicorn.Config(
        App(routes, max_request_bytes),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    chosen = listener.getsockname()[1]
    ready = {"url": f"http://{HOST}:{chosen}", "port": chosen, "version": numbers[-1]}
    server.ready_line = to_json(ready)
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
