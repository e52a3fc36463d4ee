"""The local backend: the embedded server as a process of its own on this machine.

A server is known by its command line, which names the model's `models.config`, and by the port that it listens on:
nothing has to be remembered to find it again. Its output goes to a file beside the versions, not to a pipe, because
a pipe that nobody reads would stop a server that is kept running.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from tdsp_vision.deployment.versions import CONFIG, version_folder, write_config

SERVER = "tdsp_vision.deployment.server"
STOP_SECONDS = 20
_started: list[subprocess.Popen] = []  # kept, so that a child that has ended is taken off the process table


@dataclass(frozen=True)
class LocalService:
    """One running server; `container.ContainerService` has the same attributes and methods."""

    serving_folder: Path
    process: psutil.Process
    backend = "local"

    @property
    def port(self) -> int:
        """Where it listens; 0 as long as it does not."""
        try:
            found = [item.laddr.port for item in self.process.net_connections("tcp") if item.status == "LISTEN"]
        except psutil.Error:
            found = []
        return found[0] if found else 0

    @property
    def url(self) -> str:
        """Where it answers, without a path: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    def alive(self) -> bool:
        """Whether the process runs."""
        for child in _started:
            child.poll()
        return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE

    def logs(self) -> str:
        """What the server wrote so far."""
        log = _log(self.serving_folder)
        return log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""

    def stop(self) -> None:
        """Stop the server, by force if it does not within twenty seconds; a second call does nothing."""
        try:
            self.process.terminate()
            self.process.wait(STOP_SECONDS)
        except psutil.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        except psutil.NoSuchProcess:
            return
        for child in _started:
            child.poll()


class LocalBackend:
    """Starts and finds embedded servers."""

    name = "local"

    def command(self, serving_folder: Path, port: int = 0, version: int = 0, keep_running: bool = True) -> list[str]:
        """What a person types to start the server."""
        config = f"--model_config_file={serving_folder / CONFIG}"
        parent = [] if keep_running else [f"--parent_pid={os.getpid()}"]
        return [sys.executable, "-m", SERVER, config, f"--rest_api_port={port}", *parent]

    def run(self, serving_folder: Path, port: int = 0, version: int = 0, keep_running: bool = False) -> LocalService:
        """Start a server of what `models.config` names; it may not answer yet. It ends with us, or is kept running."""
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true", **os.environ}
        with _log(serving_folder).open("wb") as log:
            command = self.command(serving_folder, port, version, keep_running)
            # A session of its own: an interrupted notebook cell does not interrupt the server.
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            _started.append(subprocess.Popen(command, env=environment, start_new_session=True, **streams))
        return LocalService(serving_folder, psutil.Process(_started[-1].pid))

    def find(self, folder: Path) -> list[LocalService]:
        """The running servers of all models below a folder."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            command = process.info["cmdline"] or []
            if SERVER in command and process.info["status"] != psutil.STATUS_ZOMBIE:
                configs = [Path(word.partition("=")[2]) for word in command if word.startswith("--model_config_file=")]
                found += [LocalService(file.parent, process) for file in configs if file.is_relative_to(folder)]
        return found

    def remove(self, serving_folder: Path) -> None:
        """Remove what servers that ended have left: their log."""
        _log(serving_folder).unlink(missing_ok=True)

    def start(self, serving_folder: Path, port: int = 0) -> LocalService:
        """Serve the highest version in a folder until this process ends; it answers when this returns."""
        from tdsp_vision.deployment.deployment import wait_until_served

        newest = version_folder(serving_folder)
        write_config(serving_folder, int(newest.name))
        service = self.run(serving_folder, port)
        wait_until_served(service, newest)
        return service


def _log(serving_folder: Path) -> Path:
    return serving_folder / "server.log"
