"""The life of a deployed model: build, create, find, update, roll back, delete; the same on both backends.

Everything that is known of a deployment is seen from what runs: the server's process or container names the folder
`serving/<model>/`, whose `models.config` says which version is served (see `versions`). So an update writes files and
waits: one server, one port, and the old version answers until the new one does.

Out, below `outputs/<dataset>/deployment/`: `docker/` (Dockerfile, compose.yaml, the server's settings and the version
itself, so that `docker compose up` there needs nothing else), `kubernetes/` and `kserve/`. All of them name the image
`tdsp-vision/<model>:<version>`. KServe's file has a folder of its own because it takes the place of the others:
`kubectl apply -f kubernetes/` would otherwise deploy the model twice. Every file is validated strictly against its
schema; none was run on a cluster here.
"""

import shlex
import shutil
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
from jinja2 import Environment, StrictUndefined

from tdsp_vision import paths
from tdsp_vision.deployment import backends
from tdsp_vision.deployment.backends import SERVING_IMAGE, ContainerService, DockerBackend, LocalBackend, LocalService
from tdsp_vision.deployment.client import ServingClient, ServingError, request_body
from tdsp_vision.deployment.versions import MODELS, last_number, probe_image, read_model_info, versions_in, write_config
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.files import file_lock, whole_folder, write_text


def choose_backend(name: str, image: str = SERVING_IMAGE) -> tuple[LocalBackend | DockerBackend, str]:
    """The backend for a value of BACKEND, and one sentence that says which it is and why.

    Args:
        name: docker | local | auto; auto takes docker where an engine can be used and has, or can pull, the image.
        image: image of TensorFlow Serving; used by docker only.

    Raises:
        RunFailed: for docker, if it cannot be used; it says what to do.
    """
    reason = "BACKEND asks for it" if name == "local" else backends.obstacle(image)
    if not reason:
        return DockerBackend(image), f"Backend docker, because an engine answers and has the image {image}."
    if name == "docker":
        raise RunFailed(f"BACKEND is 'docker', but {reason}; mend that, or set BACKEND to 'local'.")
    what = "an embedded server that speaks TensorFlow Serving's REST protocol and stands in for TensorFlow Serving"
    return LocalBackend(), f"Backend local ({reason}): {what} itself."


class Deployment:
    """One deployed model, made by whichever process.

    Attributes:
        outputs, name: data set and model.
        folder: `outputs/<dataset>/serving/<model>`.
        was_running: whether `create` found it running, so that whoever called it should leave it so.
    """

    was_running = False

    def __init__(self, outputs: paths.OutputPaths, name: str):
        self.outputs, self.name, self.folder = outputs, name, outputs.serving(name)

    def check_port(self, backend: LocalBackend | DockerBackend, port: int) -> None:
        """Refuse a fixed port that another one uses, before anything is exported; the same service may keep its own.

        Raises:
            ParameterError: if something answers on the port, and it is not this model's service on this backend.
        """
        own = [service.port for service in self.services() if service.backend == backend.name]
        with socket.socket() as probe:
            if port and port not in own and probe.connect_ex(("127.0.0.1", port)) == 0:
                raise ParameterError(f"PORT is {port}, which another program uses; name another, or 0 for any free.")

    def build(self, version: Path, backend: LocalBackend | DockerBackend, replicas: int = 1) -> list[str]:
        """Write `deployment/docker/` for a version, in place of that of an earlier one; build it for docker.

        Args:
            version: the exported version, `serving/<model>/<version>`.
            backend: as `choose_backend` gives it.
            replicas: servers that compose starts.

        Returns:
            The command that builds the image, also where the backend has no images.
        """
        docker = backend if isinstance(backend, DockerBackend) else DockerBackend()
        folder = self.outputs.deployment / "docker"
        shutil.rmtree(folder, ignore_errors=True)
        with whole_folder(folder) as draft:
            shutil.copytree(version, draft / "models" / self.name / version.name)
            write_config(draft / "models" / self.name, int(version.name))
            _fill_templates("docker", draft, version, docker.image, replicas)
        command = docker.build_command(self.folder, int(version.name), folder)
        if docker is backend:
            backends.docker(*command[1:], timeout=None)
        return command

    def create(self, version: Path, backend: LocalBackend | DockerBackend, port: int = 0, keep_running: bool = False):
        """Serve a version; it answers when this returns. A service of this model that runs is updated in place.

        Where that is not possible (another backend or port is asked for), the new server starts beside the old one,
        which is stopped when the new one answers. If it does not come up, the old one goes on.

        Args:
            version: the exported version, `serving/<model>/<version>`.
            backend: as `choose_backend` gives it; for docker, the image must have been built.
            port: port on the loopback address; 0 for any free one.
            keep_running: whether a server that is started here outlives this process.

        Returns:
            The deployment.

        Raises:
            RunFailed: if it does not come up, as where the port is taken, with the log.
        """
        running = [service for service in self.services() if service.alive()]
        self.was_running = bool(running)
        if any(service.backend == backend.name and port in (0, service.port) for service in running):
            self.update(version)
            return self
        self._serve(version, lambda: backend.run(self.folder, port, int(version.name), keep_running))
        for service in running:
            service.stop()
        return self

    def services(self) -> list[LocalService | ContainerService]:
        """Its servers, found by process and label; one, but for the moment in which another takes over."""
        return find_services(self.folder)

    def service(self) -> LocalService | ContainerService:
        """The server that answers; ParameterError if there is none."""
        for service in self.services():
            if service.alive():
                return service
        raise ParameterError(f"{self.name} is not deployed: no server of {paths.shown(self.folder)} runs.")

    def client(self) -> ServingClient:
        """A client of it, with the key of the environment."""
        return ServingClient(self.service().url, self.name)

    def update(self, version: Path) -> None:
        """Serve another version: the server loads it, and drops the old one then. Nothing happens if it is served.

        Raises:
            ParameterError: if nothing is deployed.
            RunFailed: if it cannot be loaded, with the log; the version before goes on.
        """
        self._serve(version, self.service)

    def rollback(self) -> None:
        """Serve the version below the present one; ParameterError if there is none, RunFailed as for `update`."""
        now = self.client().version()
        below = [version for version in versions_in(self.folder) if version < now]
        if not below:
            raise ParameterError(f"{self.name} has no version below {now} to go back to.")
        self.update(self.folder / str(below[-1]))

    def _serve(self, version: Path, server) -> None:
        """Write `models.config` for a version and wait until `server()` answers with it, or bring back what was."""
        with file_lock(last_number(self.folder), wait=False):
            before = [service for service in self.services() if service.alive()]
            served = self.client().version() if before else None
            write_config(self.folder, int(version.name))
            try:
                wait_until_served(server(), version)
            except BaseException:  # also when a person interrupts the waiting
                for left in self.services():  # a port that is taken leaves a container without a server
                    if left not in before:
                        left.stop()
                if served in versions_in(self.folder):
                    write_config(self.folder, served)
                raise

    def logs(self) -> str:
        """What its servers wrote; if none is there, what the last one did, or nothing."""
        found = [f"== {service.url}\n{service.logs()}" for service in self.services()]
        return "\n".join(found) or LocalService(self.folder, None).logs()

    def summary(self) -> str:
        """One line: data set, model, backend, version, address; or why it does not answer."""
        service, said = self.service(), "does not answer yet, hangs, or asks for a key"
        with suppress(ServingError):
            said = f"version {self.client().version()} answers at {service.url}"
        return f"{self.outputs.dataset}/{self.name} on {service.backend}: {said}"

    def command(self, verb: str) -> str:
        """What a person types in a shell, as `deployment.command("delete")`."""
        model = f"--dataset {self.outputs.dataset} --model {self.name}"
        return f"python -m tdsp_vision deploy {model} --output-dir {shlex.quote(self.outputs.output_dir)} {verb}"

    def curl(self, request: Path) -> str:
        """A shell command that sends a request; it takes the key, where there is one, from the environment."""
        client = self.client()
        header = """printf 'Authorization: Bearer %s' "$TDSP_SERVING_KEY" | """ * ("Authorization" in client.headers)
        options = "-H @- " * bool(header) + f"-d @{shlex.quote(str(request))}"
        return f"{header}curl --noproxy '*' {options} {client.address}:predict"

    def stop(self) -> None:
        """Stop the server; image, build context and exported versions stay."""
        for service in self.services():
            service.stop()

    def delete(self) -> bool:
        """Stop the server, remove images, build context and log; exported versions stay. Whether there was any."""
        context = self.outputs.deployment / "docker"
        found = [*self.services(), *context.glob(f"models/{self.name}")]
        self.stop()
        (self.folder / backends.LOG).unlink(missing_ok=True)
        if (context / "models" / self.name).is_dir():
            shutil.rmtree(context)
        return DockerBackend().remove(self.folder) or bool(found)


def typed(command: list[str]) -> str:
    """A command as a person types it in the workspace's folder."""
    here, line = str(paths.workspace()), shlex.join(command).replace(sys.executable, "python")
    return line if "'" in line else line.replace(here, '"$PWD"')  # what is quoted stays as it is


def list_deployments(output_folder: Path) -> list[Deployment]:
    """What runs below an output folder, of all data sets."""
    folders = {service.serving_folder for service in find_services(output_folder) if service.alive()}
    return [Deployment(paths.OutputPaths(str(f.parents[2]), f.parents[1].name), f.name) for f in sorted(folders)]


def find_services(folder: Path) -> list[LocalService | ContainerService]:
    """All servers of all models below a folder, on both backends."""
    return [*LocalBackend().find(folder), *DockerBackend().find(folder)]


def wait_until_served(service: LocalService | ContainerService, version: Path) -> None:
    """Return once a server has exactly this version AVAILABLE and gives a picture the scores that it was exported with.

    Raises:
        RunFailed: with the log, if it stops, cannot load the version, or is not ready within two minutes.
    """
    expected = read_model_info(version)["probe_scores"]
    deadline, state = time.monotonic() + 120, ""  # seconds
    while not state.startswith("END: ") and time.monotonic() < deadline and service.alive():
        client = ServingClient(service.url, version.parent.name)  # its port is known once it listens
        try:
            states = client.status()
            state = states.get(int(version.name), "it has not been seen yet")
            if [number for number in states if states[number] == "AVAILABLE"] == [int(version.name)]:
                scores = client.call("POST", ":predict", request_body([probe_image()]))["predictions"][0]["scores"]
                if len(scores) == len(expected) and np.allclose(scores, expected, rtol=0, atol=1e-4):
                    return
                state = f"what answers scores {scores} and not {expected}, so it is another model; delete it first"
        except ServingError as error:
            state = str(error)
        time.sleep(0.1)
    stopped = "" if service.alive() else ", because the server stopped"
    advice = f"If {paths.shown(version)} is damaged, delete it: the run is exported anew then."
    raise RunFailed(f"Version {version.name} is not served{stopped}: {state}. {advice} The log:\n{service.logs()}")


def write_cluster_files(outputs: paths.OutputPaths, version: Path, replicas: int = 1) -> list[Path]:
    """Write the files for Kubernetes and KServe, in place of those of an earlier version; returns them.

    Args:
        outputs: of the data set.
        version: the exported version.
        replicas: servers at rest; up to four times as many under load.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/, https://kserve.github.io/website/
    """
    return _fill_templates("clusters", outputs.deployment, version, SERVING_IMAGE, replicas)


def _fill_templates(kind: str, folder: Path, version: Path, image: str, replicas: int) -> list[Path]:
    """Fill the templates of a kind with what all of them have to say; the files."""
    name, number = version.parent.name, int(version.name)
    facts = {"model": name, "version": number, "replicas": replicas, "base": image, "models": MODELS}
    facts |= {"name": backends.cluster_name(name), "image": backends.image_tag(name, number)}
    templates = Environment(undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    root, written = Path(__file__).with_name("templates") / kind, []
    for file in sorted(root.rglob("*.j2")):
        written.append(folder / file.relative_to(root).with_suffix(""))
        write_text(written[-1], templates.from_string(file.read_text(encoding="utf-8")).render(facts))
    return written
