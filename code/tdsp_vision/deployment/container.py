"""The docker backend: TensorFlow Serving in a container, hardened, on the loopback address, over the Docker engine.

Everything that belongs to a deployment carries one label: `LABEL`, with the path of the deployment's folder for its
value. `docker ps -a --filter label=tdsp-vision.deployment` shows it.
"""

from pathlib import Path

import docker
import requests
from docker.errors import APIError, BuildError, DockerException, ImageNotFound, NotFound

from tdsp_vision.deployment.backends import SERVING_IMAGE, Release
from tdsp_vision.deployment.build_context import USER
from tdsp_vision.deployment.ready import wait_until_answering

LABEL = "tdsp-vision.deployment"
STAND_IN = "tdsp-vision.stand-in"  # an image that is not the real one says so in this label
REPOSITORY = "tdsp-vision"
REST_PORT = "8501/tcp"
ASK_SECONDS = 10
WORK_SECONDS = 60
STOP_SECONDS = 10
MAX_CPUS = 2
HARDENED = {
    "user": f"{USER}:{USER}",
    "init": True,  # a process 1 that passes signals on
    "read_only": True,
    "tmpfs": {"/tmp": "rw,noexec,nosuid,size=64m"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "mem_limit": "2g",
    "memswap_limit": "2g",  # the same number: no swap beyond it
    "pids_limit": 256,
}


def obstacle(serving_image: str) -> str:
    """Why `DockerBackend(serving_image)` cannot work here, as half a sentence; "" if it can. Asks for ten seconds."""
    try:
        engine = docker.from_env(timeout=ASK_SECONDS)
        engine.ping()
    except (DockerException, requests.RequestException):
        return "no Docker engine answers; start one (`sudo service docker start`)"
    try:
        engine.images.get(serving_image)
    except ImageNotFound:
        try:
            engine.images.get_registry_data(serving_image)
        except (DockerException, requests.RequestException):
            return f"the engine neither has nor can pull the image {serving_image}; pull or load it"
    finally:
        engine.close()
    return ""


class ContainerService:
    """A running container; see `backends.Service`.

    Attributes:
        record: `container` (its id) and `url`.
    """

    def __init__(self, engine: docker.DockerClient, model_name: str, record: dict):
        self._engine = engine
        self.model_name = model_name
        self.record = record

    @property
    def url(self) -> str:
        """Where it answers; "" as long as the engine has not published its port."""
        container = None if self.record["url"] else self._container()
        if container is not None and (published := container.ports.get(REST_PORT)):
            self.record["url"] = f"http://127.0.0.1:{published[0]['HostPort']}"
        return self.record["url"]

    def alive(self) -> bool:
        """Whether the container runs."""
        container = self._container()
        return container is not None and container.status == "running"

    def logs(self) -> str:
        """What the server wrote, and how it ended if it did; "" once it was removed."""
        container = self._container()
        if container is None:
            return ""
        text = container.logs().decode("utf-8", errors="replace")
        state = container.attrs["State"]
        if state["Running"]:
            return text
        memory = ", out of memory" if state["OOMKilled"] else ""
        return f"{text}\n[the container ended with exit code {state['ExitCode']}{memory}]"

    def stop(self) -> None:
        """Stop the container, by force if it does not stop within ten seconds, and remove it."""
        container = self._container()
        if container is None:
            return
        try:
            container.stop(timeout=STOP_SECONDS)
            container.remove(v=True, force=True)
        except NotFound:
            return  # somebody else removed it just now

    def _container(self):
        """The container as the engine sees it now; None if it is gone."""
        try:
            return self._engine.containers.get(self.record["container"])
        except NotFound:
            return None


class DockerBackend:
    """Builds images and runs containers; see `backends.Backend`.

    Args:
        serving_image: the image that the model is added to.
    """

    name = "docker"

    def __init__(self, serving_image: str = SERVING_IMAGE):
        self.serving_image = serving_image
        try:
            self._engine = docker.from_env(timeout=WORK_SECONDS)
            self._cpus = min(MAX_CPUS, self._engine.info()["NCPU"])
        except (DockerException, requests.RequestException) as error:
            raise RuntimeError(f"No Docker engine answers ({error}); start it first.") from error

    def what(self) -> str:
        """What runs in the containers, for a person to read."""
        try:
            stands_in = self._engine.images.get(self.serving_image).labels.get(STAND_IN)
        except ImageNotFound:  # it will be pulled by the first build
            stands_in = None
        return f"{self.serving_image}, {stands_in}" if stands_in else f"TensorFlow Serving from {self.serving_image}"

    def build(self, release: Release) -> str:
        """Build the image of a release, labelled; its name. See `backends.Backend`."""
        name = f"{REPOSITORY}:{release.tag}"
        options = {"buildargs": {"SERVING_IMAGE": self.serving_image}, "labels": _labels(release)}
        try:
            self._engine.images.build(path=str(release.context), tag=name, rm=True, forcerm=True, **options)
        except (BuildError, APIError) as error:
            lines = [part.get("stream", "") for part in getattr(error, "build_log", ())]
            raise RuntimeError(f"The image {name} was not built: {error}\n{''.join(lines)}") from error
        return name

    def run(self, release: Release, port: int = 0, keep_running: bool = True) -> ContainerService:
        """Run a container of a built release; it outlives this process either way. See `backends.Backend`."""
        container = self._engine.containers.create(
            f"{REPOSITORY}:{release.tag}",
            labels=_labels(release),
            ports={REST_PORT: ("127.0.0.1", port or None)},
            nano_cpus=self._cpus * 10**9,
            **HARDENED,
        )
        service = ContainerService(self._engine, release.model_name, {"container": container.id, "url": ""})
        try:
            container.start()
            wait_until_answering(service)
        except APIError as error:
            service.stop()
            raise RuntimeError(f"The container did not start: {error.explanation}") from error
        except BaseException:  # also when a person interrupts the waiting: leave no container behind
            service.stop()
            raise
        return service

    def attach(self, release: Release, record: dict) -> ContainerService:
        """The service that a record speaks of."""
        return ContainerService(self._engine, release.model_name, record)

    def services(self, folder: Path) -> list[ContainerService]:
        """Every container that carries the label of `folder`, running or not."""
        found = self._engine.containers.list(all=True, filters={"label": f"{LABEL}={folder}"})
        return [ContainerService(self._engine, "", {"container": container.id, "url": ""}) for container in found]

    def discard(self, release: Release) -> None:
        """Remove the image of a release, and what an earlier build of it left without a name."""
        labels = [f"{name}={value}" for name, value in _labels(release).items()]
        for image in self._engine.images.list(filters={"label": labels}):
            self._engine.images.remove(image.id, force=True)


def _labels(release: Release) -> dict[str, str]:
    """What an image or container carries."""
    return {LABEL: str(release.folder), f"{LABEL}.version": str(release.version)}
