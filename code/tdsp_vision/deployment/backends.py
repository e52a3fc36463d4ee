"""Where a model is served: the embedded server as a process, or TensorFlow Serving in a container; the same calls.

Nothing has to be remembered to find a server again. A process is known by its command line, which names the model's
`models.config`, and by the port that it listens on. All that belongs to a model in an engine carries the label `LABEL`
with the path of its folder: `docker ps -a --filter label=tdsp-vision.serving` shows it.

The `docker` command knows contexts, rootless engines, Colima and Docker Desktop, and whatever is run here a person can
type. An image holds a version and serves it alone; a running container gets the folder `serving/` instead, read-only,
so that it takes up new versions from there.
"""

import contextlib
import os
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from tdsp_vision.deployment.versions import CONFIG, MODELS
from tdsp_vision.errors import RunFailed

LOG = "server.log"
SERVER = "tdsp_vision.deployment.server"
CONFIG_FLAG = "--model_config_file="
LABEL = "tdsp-vision.serving"
SERVING_IMAGE = "tensorflow/serving:2.20.0"
HARDENED = ["--init", "--read-only", "--tmpfs=/tmp:rw,noexec,nosuid,size=64m", "--cap-drop=ALL"]
HARDENED += ["--security-opt=no-new-privileges", "--memory=2g", "--memory-swap=2g", "--pids-limit=256"]


@dataclass(frozen=True)
class Service:
    """A server of the model whose exported versions lie in a folder."""

    serving_folder: Path

    @property
    def url(self) -> str:
        """Where it answers, without a path: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class LocalService(Service):
    """One embedded server; `ContainerService` has the same attributes and methods."""

    process: psutil.Process
    backend = "local"

    @property
    def port(self) -> int:
        """Where it listens; 0 as long as it does not."""
        with contextlib.suppress(psutil.Error):
            listening = [c.laddr.port for c in self.process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
            return max(listening, default=0)
        return 0

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.is_running() and self.process.status() != psutil.STATUS_ZOMBIE

    def logs(self) -> str:
        """What the server wrote so far."""
        log = self.serving_folder / LOG
        return log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""

    def stop(self) -> None:
        """Stop the server, by force if it does not within twenty seconds."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.terminate()
            if psutil.wait_procs([self.process], timeout=20)[1]:
                self.process.kill()


class LocalBackend:
    """Starts and finds embedded servers."""

    name = "local"

    def command(self, serving_folder: Path, port: int = 0, version: int = 0, keep_running: bool = True) -> list[str]:
        """What a person types to start the server."""
        command = [sys.executable, "-m", SERVER, f"{CONFIG_FLAG}{serving_folder / CONFIG}", f"--rest_api_port={port}"]
        return command if keep_running else [*command, f"--parent_pid={os.getpid()}"]

    def run(self, serving_folder: Path, port: int, version: int, keep_running: bool = False) -> LocalService:
        """Start a server of what `models.config` names; it may not answer yet. It ends with us, or is kept running."""
        # The older Keras is not installed, so none is loaded: the server needs none, and it takes seconds.
        environment = {"TF_FORCE_GPU_ALLOW_GROWTH": "true", **os.environ, "TF_USE_LEGACY_KERAS": "1"}
        command = self.command(serving_folder, port, version, keep_running)
        # Its output goes to a file: a pipe that nobody reads would stop a server that is kept running. It has a session
        # of its own: an interrupted notebook cell does not interrupt it.
        with (serving_folder / LOG).open("wb") as log:
            streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            return LocalService(serving_folder, psutil.Popen(command, env=environment, **streams))

    def find(self, folder: Path) -> list[LocalService]:
        """The running servers of all models below a folder."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            for word in process.info["cmdline"] or []:  # none for a process that has ended and was not waited for
                config = Path(word.removeprefix(CONFIG_FLAG))
                if word.startswith(CONFIG_FLAG) and config.is_relative_to(folder):
                    found.append(LocalService(config.parent, process))
        return found


def docker(*arguments: str, timeout: float | None = 15) -> str:
    """What a docker command prints; RunFailed with what it said, if it fails or takes longer than `timeout` seconds."""
    command = ["docker", *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=timeout).stdout.strip()
    except (OSError, subprocess.SubprocessError) as error:  # not installed, no answer in time, or refused
        reason = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        raise RunFailed(f"`docker {arguments[0]}` failed: {reason}") from error


def _lines(*arguments: str) -> list[str]:
    """Lines that a docker command prints; none without the command, or an engine that answers: nothing runs then."""
    with contextlib.suppress(RunFailed):
        return docker(*arguments).splitlines()
    return []


def image_tag(model_name: str, version: int) -> str:
    """Name of the image with a version inside: `tdsp-vision/<model>:<version>`."""
    return f"tdsp-vision/{cluster_name(model_name)}:{version}"


def cluster_name(model_name: str) -> str:
    """A model's name as images and clusters allow it: at most 40 lower-case letters, digits and '-', a letter first."""
    name = re.sub(r"[^a-z0-9]+", "-", model_name.lower()).strip("-")
    return (name if name[:1].isalpha() else f"model-{name}")[:40].strip("-")


def obstacle(image: str) -> str:
    """Why a container of `image` cannot serve this notebook, as half a sentence; "" if it can. Pulls the image."""
    try:
        here = docker("version", "--format={{.Server.Arch}}")
        inside = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
        if inside and docker("info", "--format={{.Name}}") != platform.node():
            return "this notebook runs in a container itself, beside those that the engine would start"
        known = docker("image", "ls", "--quiet", image)
        built_for = docker("image", "inspect", "--format={{.Architecture}}", image) if known else "amd64"
    except RunFailed as error:
        return str(error)
    if here != built_for:
        return f"the image {image} is for {built_for} processors and this one is {here}"
    if known:
        return ""
    print(f"docker pull {image}", flush=True)  # in sight of the reader
    failed = subprocess.run(["docker", "pull", image], stderr=subprocess.STDOUT).returncode
    return f"the engine neither has nor can pull the image {image}" if failed else ""


@dataclass(frozen=True)
class ContainerService(Service):
    """One container, running or not; `LocalService` has the same attributes and methods."""

    container: str
    backend = "docker"

    @property
    def port(self) -> int:
        """Where it answers on this machine; 0 as long as it does not."""
        return int("".join(_lines("port", self.container, "8501/tcp")[:1]).rpartition(":")[2] or 0)

    def alive(self) -> bool:
        """Whether it runs; one that is about to be restarted after a crash does not."""
        return _lines("inspect", "--format={{.State.Status}}", self.container) == ["running"]

    def logs(self) -> str:
        """What the server wrote, and whether it runs, or how it ended."""
        text = subprocess.run(["docker", "logs", self.container], capture_output=True, text=True)
        state = "[{{.State.Status}}, exit code {{.State.ExitCode}}, out of memory: {{.State.OOMKilled}}]"
        return text.stdout + text.stderr + docker("inspect", f"--format={state}", self.container)

    def stop(self) -> None:
        """Stop and remove the container; a second call does nothing."""
        if docker("ps", "--all", "--quiet", f"--filter=id={self.container}"):
            docker("stop", "--time=10", self.container, timeout=60)
            docker("rm", "--force", "--volumes", self.container, timeout=60)


@dataclass(frozen=True)
class DockerBackend:
    """Builds images upon TensorFlow Serving's `image`, starts and finds containers."""

    image: str = SERVING_IMAGE
    name = "docker"

    def build_command(self, serving_folder: Path, version: int, context: Path) -> list[str]:
        """What a person types to build the image of a version from its build context."""
        label, tag = f"--label={LABEL}={serving_folder}", image_tag(serving_folder.name, version)
        return ["docker", "build", f"--build-arg=SERVING_IMAGE={self.image}", label, f"--tag={tag}", str(context)]

    def command(self, serving_folder: Path, port: int = 0, version: int = 0, keep_running: bool = True) -> list[str]:
        """What a person types to run the image of a version."""
        label, cpus = f"--label={LABEL}={serving_folder}", f"--cpus={min(2, os.cpu_count() or 1)}"
        publish, volume = f"--publish=127.0.0.1:{port or ''}:8501", f"--volume={serving_folder.parent}:{MODELS}:ro"
        restart = f"--restart={'unless-stopped' if keep_running else 'no'}"
        options = ["--detach", "--pull=never", label, publish, volume, restart, cpus, "--log-driver=local", *HARDENED]
        return ["docker", "run", *options, image_tag(serving_folder.name, version)]

    def run(self, serving_folder: Path, port: int, version: int, keep_running: bool = False) -> ContainerService:
        """Start a container of a built version; it may not answer yet. RunFailed if it cannot."""
        command = self.command(serving_folder, port, version, keep_running)
        return ContainerService(serving_folder, docker(*command[1:], timeout=60))

    def find(self, folder: Path) -> list[ContainerService]:
        """The containers of all models below a folder, running or not."""
        template = f'--format={{{{.ID}}}}\t{{{{.Label "{LABEL}"}}}}'
        lines = _lines("ps", "--all", "--no-trunc", f"--filter=label={LABEL}", template)
        found = [ContainerService(Path(path), name) for name, _, path in (line.partition("\t") for line in lines)]
        return [service for service in found if service.serving_folder.is_relative_to(folder)]

    def remove(self, serving_folder: Path) -> bool:
        """Remove all images of a model that were built for this folder; whether there were any."""
        images = set(_lines("image", "ls", "--quiet", f"--filter=label={LABEL}={serving_folder}"))
        for image in images:
            docker("image", "rm", "--force", image, timeout=60)
        return bool(images)
