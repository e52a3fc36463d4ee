"""The local backend: the embedded server as a process of its own on this machine.

A server is known by its command line, which names the model's `models.config`, and by the port that it listens on:
nothing has to be remembered to find it again. Its output goes to a file beside the versions, not to a pipe, because
a pipe that nobody reads would stop a server that is kept running.
"""

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from tdsp_vision.deployment.versions import CONFIG, version_folder, write_config

LOG = "server.log"
SERVER = "tdsp_vision.deployment.server"
CONFIG_FLAG = "--model_config_file="
STOP_SECONDS = 20


@dataclass(frozen=True)
class LocalService:
    """One running server; `container.ContainerService` has the same attributes and methods."""

    serving_folder: Path
    process: psutil.Process
    backend = "local"

    @property
    def port(self) -> int:
        """Where it listens; 0 as long as it does not."""
        with contextlib.suppress(psutil.Error):
            for connection in self.process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    return connection.laddr.port
        return 0

    @property
    def url(self) -> str:
        """Where it answers, without a path: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE

    def logs(self) -> str:
        """What the server wrote so far."""
        log = self.serving_folder / LOG
        return log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""

    def stop(self) -> None:
        """Stop the server, by force if it does not within twenty seconds, and remove its log."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.terminate()
            if psutil.wait_procs([self.process], STOP_SECONDS)[1]:
                self.process.kill()
        (self.serving_folder / LOG).unlink(missing_ok=True)


class LocalBackend:
    """Starts and finds embedded servers."""

    name = "local"

    def command(self, serving_folder: Path, port: int = 0, version: int = 0, keep_running: bool = True) -> list[str]:
        """What a person types to start the server."""
        command = [sys.executable, "-m", SERVER, f"{CONFIG_FLAG}{serving_folder / CONFIG}", f"--rest_api_port={port}"]
        return command if keep_running else [*command, f"--parent_pid={os.getpid()}"]

    def run(self, serving_folder: Path, port: int = 0, version: int = 0, keep_running: bool = False) -> LocalService:
        """Start a server of what `models.config` names; it may not answer yet. It ends with us, or is kept running."""
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "TF_FORCE_GPU_ALLOW_GROWTH": "true", **os.environ}
        command = self.command(serving_folder, port, version, keep_running)
        with (serving_folder / LOG).open("wb") as log:
            # A session of its own: an interrupted notebook cell does not interrupt the server.
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            return LocalService(serving_folder, psutil.Popen(command, env=environment, **streams))

    def find(self, folder: Path) -> list[LocalService]:
        """The running servers of all models below a folder."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            command = process.info["cmdline"] or []  # none for a process that has ended and was not waited for
            if SERVER in command:
                config = next(word for word in command if word.startswith(CONFIG_FLAG)).removeprefix(CONFIG_FLAG)
                found.append(LocalService(Path(config).parent, process))
        return [service for service in found if service.serving_folder.is_relative_to(folder)]

    def start(self, serving_folder: Path, port: int = 0) -> LocalService:
        """Serve the highest version in a folder until this process ends; it answers when this returns."""
        from tdsp_vision.deployment.deployment import wait_until_served

        newest = version_folder(serving_folder)
        write_config(serving_folder, int(newest.name))
        service = self.run(serving_folder, port)
        wait_until_served(service, newest)
        return service
