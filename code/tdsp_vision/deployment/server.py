"""The embedded server: TensorFlow Serving's REST and gRPC protocols over a v1 Session, in one process.

    python -m tdsp_vision.deployment.server --model-name NAME --model-base-path FOLDER [--port 0] [--grpc-port 0]

It serves the highest version below FOLDER at http://127.0.0.1:PORT/v1/models/NAME, takes up a higher one as soon as it
appears there, and prints one line of JSON, `{"url", "port", "grpc_port", "version"}`, once it answers (`grpc_port` is
null without gRPC). Warnings and errors go to standard error. On SIGTERM and SIGINT it takes no more requests, ends
those that run, and stops; so it does when its parent process ends, where `--parent-pid` names that. A bearer key comes
from the file of `--key-file` or the environment variable TDSP_SERVING_KEY: a command line can be read by everybody.
"""

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

from tdsp_vision.deployment.bounded_http import BoundedHttp
from tdsp_vision.deployment.protocol import to_json
from tdsp_vision.deployment.versions import versions_in

LOOPBACK = "127.0.0.1"
MAX_REQUEST_BYTES = 64 * 1024 * 1024
MAX_WAITING = 64
STOP_SECONDS = 8  # for requests that run when the server is told to stop
KEY_VARIABLE = "TDSP_SERVING_KEY"
SWITCH_SECONDS = 0.0005  # a thread that computes gives way after so long; the network must not wait ten times that
PORT = click.IntRange(0, 65535)


class _Server(uvicorn.Server):
    """Uvicorn that says on standard output when it answers, and stops gRPC together with itself."""

    ready_line = b""
    grpc_server = None

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets=sockets)
        sys.stdout.buffer.write(self.ready_line + b"\n")
        sys.stdout.flush()

    async def shutdown(self, sockets=None) -> None:
        stopped = self.grpc_server.stop(STOP_SECONDS) if self.grpc_server else None
        await super().shutdown(sockets=sockets)
        if stopped:
            stopped.wait()


def _stop_with_parent(parent_pid: int) -> None:
    """Ask this process to stop when the one that started it is gone: an orphan gets another parent."""
    while os.getppid() == parent_pid:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)


def _bound_socket(host: str, port: int) -> socket.socket:
    """A socket on an address; binding before TensorFlow loads shows a taken port at once."""
    # The protocol is named because asyncio turns off Nagle's algorithm (40 ms a request) only where it is.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise click.ClickException(f"PORT {port} on {host} cannot be used ({error.strerror}).") from error
    return listener


def _key(key_file: Path | None) -> str:
    """The bearer key, "" for none."""
    key = (key_file.read_text(encoding="utf-8") if key_file else os.environ.get(KEY_VARIABLE, "")).strip()
    if key_file and not key:
        raise click.ClickException(f"{key_file} is empty; write a key into it, or leave --key-file out.")
    return key


def _labels(context, parameter, pairs: tuple[str, ...]) -> dict[str, int]:
    """`NAME=VERSION` pairs as a dict."""
    split = [pair.rpartition("=") for pair in pairs]
    if wrong := [pair for pair, (name, _, number) in zip(pairs, split, strict=True) if not (name and number.isdigit())]:
        raise click.BadParameter(f"{wrong[0]!r} is not of the form NAME=VERSION, for instance stable=3")
    return {name: int(number) for name, _, number in split}


@click.command()
@click.option("--model-name", required=True, help="Name of the model in the URL.")
@click.option("--model-base-path", "folder", required=True, type=click.Path(path_type=Path), help="Folder of versions.")
@click.option("--host", default=LOOPBACK, help="Address to listen on; 0.0.0.0: every one of this machine.")
@click.option("--port", default=0, type=PORT, help="Port for REST; 0: any free one.")
@click.option("--grpc-port", type=PORT, help="Port for gRPC; 0: any free one; not named: no gRPC.")
@click.option("--model-version", "wanted", type=int, multiple=True, help="Serve this version; repeatable.")
@click.option("--label", "labels", multiple=True, callback=_labels, metavar="NAME=VERSION", help="Label of a version.")
@click.option("--poll-seconds", default=1.0, help="How often to look for a new version; 0: never.")
@click.option("--max-request-bytes", default=MAX_REQUEST_BYTES, help="Longest body that is accepted.")
@click.option("--max-waiting", default=MAX_WAITING, help="Requests that may wait or run; the next is refused (429).")
@click.option("--key-file", type=click.Path(path_type=Path, exists=True), help=f"Bearer key; or {KEY_VARIABLE}.")
@click.option("--parent-pid", type=int, help="Stop when this parent process ends.")
def main(model_name, folder, host, port, grpc_port, wanted, labels, poll_seconds, **options) -> None:
    """Serve the highest version of a model, or those named, over TensorFlow Serving's protocols."""
    logging.basicConfig(stream=sys.stderr, level="WARNING", format="%(asctime)s %(levelname)s %(message)s")
    if options["parent_pid"] is not None:
        threading.Thread(target=_stop_with_parent, args=[options["parent_pid"]], daemon=True).start()
    key = _key(options["key_file"])
    if not versions_in(folder):
        raise click.ClickException(f"There is no version in {folder}; export a model first.")
    listener = _bound_socket(host, port)

    from tdsp_vision.deployment.app import App  # TensorFlow takes seconds: after the checks above
    from tdsp_vision.deployment.loaded import LoadedVersions
    from tdsp_vision.deployment.routes import Routes

    versions = LoadedVersions(model_name, folder, wanted, labels)
    versions.refresh()
    if not versions.available():
        raise click.ClickException(f"No version in {folder} can be served: {versions.states or 'none is wanted'}")
    if poll_seconds > 0:
        versions.watch(poll_seconds)
    workers, limits = ThreadPoolExecutor(os.cpu_count() or 1), (options["max_request_bytes"], options["max_waiting"])
    server = _Server(_uvicorn_config(App(Routes(versions), workers, key, *limits)))
    ready = {"url": f"http://{host}:{listener.getsockname()[1]}", "port": listener.getsockname()[1], "grpc_port": None}
    if grpc_port is not None:
        from tdsp_vision.deployment.grpc_service import start_grpc

        server.grpc_server, ready["grpc_port"] = start_grpc(versions, workers, f"{host}:{grpc_port}", key, *limits)
    sys.setswitchinterval(SWITCH_SECONDS)
    server.ready_line = to_json(ready | {"version": versions.available()[-1]})
    server.run(sockets=[listener])


def _uvicorn_config(app) -> uvicorn.Config:
    quiet = {"log_config": None, "access_log": False, "lifespan": "off", "ws": "none"}
    return uvicorn.Config(app, **quiet, http=BoundedHttp, timeout_graceful_shutdown=STOP_SECONDS)


if __name__ == "__main__":
    main()
