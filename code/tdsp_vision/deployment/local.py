"""The local backend: the embedded server as a process of its own on this machine.

The server's output goes to a file, not to a pipe: a pipe nobody reads would stop a server that is kept running.
A deployment's servers are known by their command line: it names the deployment's folder.
"""

import os
import sys
import tempfile
from pathlib import Path

import orjson
import psutil

from tdsp_vision import paths
from tdsp_vision.deployment.backends import Release
from tdsp_vision.deployment.ready import wait_until_answering
from tdsp_vision.deployment.versions import versions_in

STOP_SECONDS = 20
SERVER = "tdsp_vision.deployment.server"


class LocalService:
    """A server process; see `backends.Service`. As a context manager it stops at the end of the block.

    Attributes:
        record: `pid`; `folder` of versions, which the command line names (a later process with the same pid is not
            taken for it); `log`, a file, "" if it is not known; `url`.
    """

    def __init__(self, model_name: str, record: dict):
        self.model_name = model_name
        self.record = record

    @property
    def url(self) -> str:
        """Where it answers; "" until it has said so in its log."""
        if not self.record["url"]:
            lines = [line for line in self.logs().splitlines() if line.startswith('{"url"') and line.endswith("}")]
            self.record["url"] = orjson.loads(lines[0])["url"] if lines else ""
        return self.record["url"]

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process() is not None

    def logs(self) -> str:
        """What the server wrote to its standard output and error; "" once it was stopped."""
        log = self.record["log"]
        return Path(log).read_text(encoding="utf-8", errors="replace") if log and Path(log).is_file() else ""

    def stop(self) -> None:
        """Stop the server, by force if it does not within twenty seconds, and remove its log file."""
        if process := self._process():
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait()
        if self.record["log"]:
            Path(self.record["log"]).unlink(missing_ok=True)

    def __enter__(self) -> "LocalService":
        return self

    def __exit__(self, *exception) -> None:
        self.stop()

    def _process(self) -> psutil.Process | None:
        """The process, if it still runs; a child that has ended is taken off the process table."""
        try:
            process = psutil.Process(self.record["pid"])
            if process.status() == psutil.STATUS_ZOMBIE and process.ppid() == os.getpid():
                process.wait()
            command = process.cmdline()  # empty in the moment of its start
            return process if not command or self.record["folder"] in command else None
        except psutil.Error:  # it is gone, or the number is now another user's
            return None


class LocalBackend:
    """Runs the embedded server; see `backends.Backend`."""

    name = "local"

    def build(self, release: Release) -> str:
        """The build context is all that the embedded server needs."""
        return paths.shown(release.context)

    def run(self, release: Release, port: int = 0, keep_running: bool = True) -> LocalService:
        """Start a server of a release; see `backends.Backend`. Unless kept running it ends with this process."""
        return self.start(release.model_name, release.models, port, keep_running, log_folder=release.folder)

    def attach(self, release: Release, record: dict) -> LocalService:
        """The service that a record speaks of."""
        return LocalService(release.model_name, record)

    def services(self, folder: Path) -> list[LocalService]:
        """Every server process whose model lies below `folder`."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []  # None: it has ended, or belongs to another user
            below = [part for part in command if part.startswith(f"{folder}{os.sep}")]
            if SERVER in command and below:
                found.append(LocalService("", {"pid": process.pid, "folder": below[0], "log": "", "url": ""}))
        return found

    def discard(self, release: Release) -> None:
        """Nothing was built beside the context."""

    def start(
        self,
        model_name: str,
        serving_folder: Path,
        port: int = 0,
        keep_running: bool = False,
        log_folder: Path | None = None,
    ) -> LocalService:
        """Serve the highest version in a folder, and return once it answers.

        Args:
            model_name: name of the model in the URL.
            serving_folder: folder of versions, as `export.export_model` fills it.
            port: port on the loopback address; 0 for any free one.
            keep_running: whether the server outlives this process, however this process ends.
            log_folder: where its log goes; None for the folder of temporary files.

        Raises:
            FileNotFoundError: if the folder holds no version.
            RuntimeError: if the server does not come up, with its log.
        """
        paths.checked_name("MODEL_NAME", model_name)
        if not versions_in(serving_folder):
            raise FileNotFoundError(f"{paths.shown(serving_folder)} holds no version; export a model first.")
        command = [sys.executable, "-m", SERVER, "--model-name", model_name]
        command += ["--model-base-path", str(serving_folder), "--port", str(port)]
        if not keep_running:
            command += ["--parent-pid", str(os.getpid())]
        handle, log = tempfile.mkstemp(prefix=f"{model_name}-", suffix=".log", dir=log_folder)
        with os.fdopen(handle, "wb"):
            pid = _spawn(command, handle)
        service = LocalService(model_name, {"pid": pid, "folder": str(serving_folder), "log": log, "url": ""})
        try:
            wait_until_answering(service)
        except BaseException:  # also when a person interrupts the waiting: leave no process behind
            service.stop()
            raise
        return service


def _spawn(command: list[str], log: int) -> int:
    """Start a process that writes to an open file; its pid. It is no Popen, which wants to see its end."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true", **os.environ}
    actions = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
    actions += [(os.POSIX_SPAWN_DUP2, log, output) for output in (1, 2)]
    # A session of its own: an interrupted notebook cell does not interrupt the server.
    return os.posix_spawn(command[0], command, environment, file_actions=actions, setsid=True)
