"""The docker backend: TensorFlow Serving in a container on the loopback address, by the `docker` command.

The command knows contexts, rootless engines, Colima and Docker Desktop, and whatever is run here a person can type.
The image holds a version and serves it alone; a running container gets the folder `serving/` instead, read-only, so
that it takes up new versions from there. All that belongs to a model carries the label `LABEL` with the path of its
folder: `docker ps -a --filter label=tdsp-vision.serving` shows it.
"""

import json
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tdsp_vision.deployment.versions import MODELS
from tdsp_vision.errors import RunFailed

LABEL = "tdsp-vision.serving"
STAND_IN = "tdsp-vision.stand-in"  # an image that is not the real one says so in this label
SERVING_IMAGE = "tensorflow/serving:2.20.0"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
HARDENED = ["--init", "--read-only", "--tmpfs=/tmp:rw,noexec,nosuid,size=64m", "--cap-drop=ALL"]
HARDENED += ["--security-opt=no-new-privileges", "--memory=2g", "--memory-swap=2g", "--pids-limit=256"]


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
    try:
        return docker(*arguments).splitlines()
    except RunFailed:
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
        engine = json.loads(docker("info", "--format={{json .}}"))
        if problem := engine.get("ServerErrors"):
            return f"no Docker engine answers ({problem[0]})"
        host = docker("context", "inspect", "--format={{.Endpoints.docker.Host}}")
        if not host.startswith(("unix://", "npipe://")):
            return f"the Docker engine at {host} is another machine, whose loopback address this one cannot reach"
        inside = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()
        if inside and engine["Name"] != platform.node():
            return "this notebook runs in a container itself, beside those that the engine would start"
        here = MACHINES.get(engine["Architecture"], engine["Architecture"])
        known = docker("image", "ls", "--quiet", image)
        built_for = docker("image", "inspect", "--format={{.Architecture}}", image) if known else "amd64"
        if here != built_for:
            return f"the image {image} is for {built_for} processors and this one is {here}"
        return "" if known else _pull(image)
    except RunFailed as error:
        return str(error)


def _pull(image: str) -> str:
    """Pull an image in sight of the reader; what went wrong, or ""."""
    print(f"docker pull {image}", flush=True)
    failed = subprocess.run(["docker", "pull", image], stderr=subprocess.STDOUT).returncode
    return f"the engine neither has nor can pull the image {image}" if failed else ""


@dataclass(frozen=True)
class ContainerService:
    """One container, running or not; `local.LocalService` has the same attributes and methods."""

    serving_folder: Path
    container: str
    backend = "docker"

    @property
    def port(self) -> int:
        """Where it answers on this machine; 0 as long as it does not."""
        return int("".join(_lines("port", self.container, "8501/tcp")[:1]).rpartition(":")[2] or 0)

    @property
    def url(self) -> str:
        """Where it answers, without a path: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    def alive(self) -> bool:
        """Whether it runs; one that is about to be restarted after a crash does not."""
        return _lines("inspect", "--format={{.State.Status}}", self.container) == ["running"]

    def logs(self) -> str:
        """What the server wrote, and how it ended if it did."""
        command = ["docker", "logs", self.container]
        text = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        state = json.loads(docker("inspect", "--format={{json .State}}", self.container))
        if state["Status"] != "running":
            text += f"\n[exit code {state['ExitCode']}{', out of memory' if state['OOMKilled'] else ''}]"
        return text

    def stop(self) -> None:
        """Stop and remove the container; a second call does nothing."""
        if docker("ps", "--all", "--quiet", f"--filter=id={self.container}"):
            docker("stop", "--time=10", self.container, timeout=60)
            docker("rm", "--force", "--volumes", self.container, timeout=60)


class DockerBackend:
    """Builds images, starts and finds containers.

    Args:
        image: TensorFlow Serving's image, which the model is added to.
    """

    name = "docker"

    def __init__(self, image: str = SERVING_IMAGE):
        self.image = image

    def what(self) -> str:
        """What runs in the containers, for a person to read."""
        stands_in = docker("image", "inspect", f'--format={{{{index .Config.Labels "{STAND_IN}"}}}}', self.image)
        return f"{self.image}, {stands_in}" if stands_in else f"TensorFlow Serving from {self.image}"

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
        images = _lines("image", "ls", "--quiet", f"--filter=label={LABEL}={serving_folder}")
        if images:
            docker("image", "rm", "--force", *sorted(set(images)), timeout=60)
        return bool(images)
