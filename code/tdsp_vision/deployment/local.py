"""The local backend: the embedded server as a process of its own on this machine.

The server's output goes to a temporary file, not to a pipe: a pipe nobody reads would stop a server that is kept
running.
"""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import orjson

from tdsp_vision import paths
from tdsp_vision.deployment.client import ServingClient, ServingError
from tdsp_vision.deployment.versions import versions_in

READY_SECONDS = 120
STOP_SECONDS = 10


class LocalService:
    """A server process; see `backends.Service`.

    Attributes:
        process: the server's process.
        log_file: its output, removed when it is stopped.
    """

    def __init__(self, process: subprocess.Popen, model_name: str, log_file: Path, keep_running: bool):
        self.process = process
        self.model_name = model_name
        self.log_file = log_file
        self.keep_running = keep_running
        self.url = ""
        self.stop_command = f"kill {process.pid} && rm -f {shlex.quote(str(log_file))}"
        self._last_log = ""

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def logs(self) -> str:
        """What the server wrote to its standard output and error."""
        if self.log_file.exists():
            self._last_log = self.log_file.read_text(encoding="utf-8", errors="replace")
        return self._last_log

    def stop(self) -> None:
        """Stop the server, by force if it does not within ten seconds, and remove its log file."""
        if self.alive():
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.logs()
        self.log_file.unlink(missing_ok=True)

    def __enter__(self) -> "LocalService":
        return self

    def __exit__(self, *exception) -> None:
        if not self.keep_running:
            self.stop()


class LocalBackend:
    """Starts the embedded server; see `backends.Backend`."""

    name = "local"

    def start(self, model_name: str, serving_folder: Path, port: int = 0, keep_running: bool = False) -> LocalService:
        """Start the server and return once the model is AVAILABLE; arguments and errors as in `backends.Backend`.

        Unless `keep_running`, the server also stops when this process ends, however it ends.
        """
        paths.checked_name("MODEL_NAME", model_name)
        if not versions_in(serving_folder):
            raise FileNotFoundError(f"{paths.shown(serving_folder)} holds no version; export a model first.")
        command = [sys.executable, "-m", "tdsp_vision.deployment.server", "--model-name", model_name]
        command += ["--model-base-path", str(serving_folder), "--port", str(port)]
        if not keep_running:
            command += ["--parent-pid", str(os.getpid())]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true", **os.environ}
        handle, name = tempfile.mkstemp(prefix=f"{model_name}-", suffix=".log")
        with os.fdopen(handle, "wb") as log:
            # A session of its own: an interrupted notebook cell does not interrupt the server.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        service = LocalService(process, model_name, Path(name), keep_running)
        try:
            _wait_until_available(service)
        except BaseException:  # also when a person interrupts the waiting: leave no process behind
            service.stop()
            raise
        return service


def _wait_until_available(service: LocalService) -> None:
    """Fill in the service's URL once its model answers; RuntimeError with the log if that does not happen."""
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        if not service.alive():
            raise RuntimeError(f"The server stopped before it was ready. Its log:\n{service.logs()}")
        service.url = service.url or _announced_url(service.logs())
        if service.url and _is_available(service):
            return
        time.sleep(0.05)
    raise RuntimeError(f"The server was not ready after {READY_SECONDS} seconds. Its log:\n{service.logs()}")


def _announced_url(log: str) -> str:
    """The URL in the line of JSON that the server writes when it listens; "" as long as there is none."""
    lines = [line for line in log.splitlines() if line.startswith('{"url"') and line.endswith("}")]
    return orjson.loads(lines[0])["url"] if lines else ""


def _is_available(service: LocalService) -> bool:
    """Whether the service says that its model is AVAILABLE; an error on the way means that it is not yet."""
    try:
        answer = ServingClient(service.url, service.model_name, []).status()
    except ServingError:
        return False
    return [version["state"] for version in answer["model_version_status"]] == ["AVAILABLE"]
