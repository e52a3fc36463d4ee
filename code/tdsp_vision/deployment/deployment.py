"""The life of a deployed model: create, find, update, roll back, delete; the same on both backends.

Everything that is known of a deployment is seen from what runs: the server's process or container names the folder
`serving/<model>/`, whose `models.config` says which version is served (see `versions`). So an update writes files and
waits: one server, one port, and the old version answers until the new one does.
"""

import base64
import shlex
import shutil
import socket
import sys
import time
from pathlib import Path

import numpy as np

from tdsp_vision import paths
from tdsp_vision.deployment.client import ServingClient, ServingError
from tdsp_vision.deployment.container import SERVING_IMAGE, ContainerService, DockerBackend, docker, obstacle
from tdsp_vision.deployment.local import LocalBackend, LocalService
from tdsp_vision.deployment.manifests import write_build_context
from tdsp_vision.deployment.versions import last_number, probe_image, read_model_info, versions_in, write_config
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.files import file_lock

BACKENDS = ("auto", "docker", "local")
READY_SECONDS = 120
FAILED = "END: "  # the state of a version that cannot be loaded, as `ServingClient.status` tells it
TOLERANCE = 1e-4  # of a score; enough to tell one model from another
Service = LocalService | ContainerService
Backend = LocalBackend | DockerBackend


def choose_backend(name: str, image: str = SERVING_IMAGE) -> tuple[Backend, str]:
    """The backend for a value of BACKEND, and one sentence that says which it is and why.

    Args:
        name: docker | local | auto; auto takes docker where an engine can be used and has, or can pull, the image.
        image: image of TensorFlow Serving; used by docker only.

    Raises:
        ParameterError: for a name that is not in `BACKENDS`.
        RunFailed: for docker, if it cannot be used; it says what to do.
    """
    if name not in BACKENDS:
        raise ParameterError(f"BACKEND is {name!r}; allowed are {', '.join(BACKENDS)}.")
    reason = "BACKEND asks for it" if name == "local" else obstacle(image)
    if not reason:
        backend = DockerBackend(image)
        return backend, f"Backend docker, because an engine answers and has the image: {backend.what()}."
    if name == "docker":
        raise RunFailed(f"BACKEND is 'docker', but {reason}; mend that, or set BACKEND to 'local'.")
    what = "an embedded server that speaks TensorFlow Serving's REST protocol and stands in for TensorFlow Serving"
    return LocalBackend(), f"Backend local, because {reason}: {what} itself."


def check_port(outputs: paths.OutputPaths, model_name: str, backend: Backend, port: int) -> None:
    """Refuse a fixed port that another one uses, before anything is exported; the same service may keep its own.

    Raises:
        ParameterError: if something answers on the port, and it is not this model's service on this backend.
    """
    own = [service for service in Deployment(outputs, model_name).services() if service.backend == backend.name]
    if port and port not in [service.port for service in own]:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise ParameterError(f"PORT is {port}, which another program uses; name another, or 0 for any free.")


def create_deployment(
    outputs: paths.OutputPaths,
    model_name: str,
    version_folder: Path,
    backend: Backend,
    port: int = 0,
    keep_running: bool = False,
) -> "Deployment":
    """Serve a version; it answers when this returns. A service of this model that runs already is updated in place.

    Where that is not possible (another backend or port is asked for), the new server starts beside the old one, which
    is stopped when the new one answers. If it does not come up, the old one goes on.

    Args:
        outputs, model_name: data set and model.
        version_folder: the exported version, `serving/<model>/<version>`.
        backend: as `choose_backend` gives it; for docker, the image must have been built.
        port: port on the loopback address; 0 for any free one.
        keep_running: whether a server that is started here outlives this process.

    Raises:
        RunFailed: if it does not come up, as where the port is taken, with the log.
    """
    deployment = Deployment(outputs, model_name)
    running = [service for service in deployment.services() if service.alive()]
    deployment.was_running = bool(running)
    for service in running:
        if service.backend == backend.name and port in (0, service.port):
            deployment.update(version_folder)
            return deployment
    version = int(version_folder.name)
    deployment.serve(version_folder, lambda: backend.run(deployment.folder, port, version, keep_running))
    for service in running:
        service.stop()
    return deployment


class Deployment:
    """One deployed model, made by whichever process.

    Attributes:
        outputs, name: data set and model.
        folder: `outputs/<dataset>/serving/<model>`.
        was_running: whether `create_deployment` found it running, so that whoever called it should leave it so.
    """

    was_running = False

    def __init__(self, outputs: paths.OutputPaths, name: str):
        self.outputs, self.name, self.folder = outputs, name, outputs.serving(name)
        self._key_file = outputs.deployment / f"{name}.authorization"

    def services(self) -> list[Service]:
        """Its servers, found by process and label; one, but for the moment in which another takes over."""
        return find_services(self.folder)

    def service(self) -> Service:
        """The server that answers; ParameterError if there is none."""
        alive = [service for service in self.services() if service.alive()]
        if not alive:
            raise ParameterError(f"{self.name} is not deployed: no server of {paths.shown(self.folder)} runs.")
        return alive[0]

    def client(self) -> ServingClient:
        """A client of it, with the key of the environment."""
        return ServingClient(self.service().url, self.name)

    def update(self, version_folder: Path) -> None:
        """Serve another version: the server loads it, and drops the old one then. Nothing happens if it is served.

        Raises:
            ParameterError: if nothing is deployed.
            RunFailed: if it cannot be loaded, with the log; the version before goes on.
        """
        self.serve(version_folder, self.service)

    def rollback(self) -> None:
        """Serve the version below the present one; ParameterError if there is none, RunFailed as for `update`."""
        now = self.client().version()
        below = [version for version in versions_in(self.folder) if version < now]
        if not below:
            raise ParameterError(f"{self.name} has no version below {now} to go back to.")
        self.update(self.folder / str(below[-1]))

    def serve(self, version_folder: Path, server) -> None:
        """Write `models.config` for a version and wait until `server()` answers with it, or bring back what was."""
        with file_lock(last_number(self.folder), wait=False):
            before = [service for service in self.services() if service.alive()]
            served = self.client().version() if before else None
            write_config(self.folder, int(version_folder.name))
            service = None
            try:
                service = server()
                wait_until_served(service, version_folder)
            except BaseException:  # also when a person interrupts the waiting
                for left in [service, *self.services()]:  # a port that is taken leaves a container without a server
                    if left and left not in before:
                        left.stop()
                if served in versions_in(self.folder):
                    write_config(self.folder, served)
                raise

    def logs(self) -> str:
        """What its servers wrote."""
        return "\n".join(f"== {service.url}\n{service.logs()}" for service in self.services())

    def summary(self) -> str:
        """One line: data set, model, backend, version, address."""
        service = self.service()
        version = self.client().version()
        return f"{self.outputs.dataset}/{self.name} on {service.backend}: version {version} answers at {service.url}"

    def command(self, verb: str) -> str:
        """What a person types in a shell, as `deployment.command("delete")`."""
        output = shlex.quote(paths.shown(self.outputs.root.parent))
        options = f"--dataset {self.outputs.dataset} --model {self.name} --output-dir {output}"
        return f"python -m tdsp_vision deploy {options} {verb}"

    def curl(self, request: Path) -> str:
        """A command that sends a request; a key stands in a file for its owner's eyes, and not in the command."""
        client, header = self.client(), ""
        if "Authorization" in client.headers:
            self._key_file.touch(mode=0o600)
            self._key_file.write_text(f"Authorization: {client.headers['Authorization']}\n", encoding="utf-8")
            header = f"-H @{shlex.quote(str(self._key_file))} "
        return f"curl --noproxy '*' {header}-d @{shlex.quote(str(request))} {client.address}:predict"

    def stop(self) -> None:
        """Stop the server; image, build context and exported versions stay."""
        for service in self.services():
            service.stop()

    def delete(self) -> bool:
        """Stop the server, remove images, build context and log; exported versions stay. Whether there was any."""
        found = self.services()
        self.stop()
        self._key_file.unlink(missing_ok=True)
        context = self.outputs.deployment / "docker"
        if (context / "models" / self.name).is_dir():
            shutil.rmtree(context)
            found = True
        return DockerBackend().remove(self.folder) or bool(found)


def build_image(outputs: paths.OutputPaths, version_folder: Path, backend: Backend, replicas: int = 1) -> list[str]:
    """Write the build context of a version and build it, where the backend has images; returns the command for it."""
    image = getattr(backend, "image", SERVING_IMAGE)
    context = write_build_context(outputs, version_folder, image, replicas)
    command = DockerBackend(image).build_command(version_folder.parent, int(version_folder.name), context)
    if backend.name == "docker":
        docker(*command[1:], timeout=None)
    return command


def typed(command: list[str]) -> str:
    """A command as a person types it in the workspace's folder."""
    here = str(paths.workspace())
    words = [shlex.quote(word.replace(sys.executable, "python")) for word in command]
    return " ".join(word if word.startswith("'") else word.replace(here, '"$PWD"') for word in words)


def list_deployments(output_folder: Path) -> list["Deployment"]:
    """What runs below an output folder, of all data sets."""
    folders = {service.serving_folder for service in find_services(output_folder) if service.alive()}
    roots = [(folder.parents[1], folder.name) for folder in sorted(folders)]
    return [Deployment(paths.OutputPaths(str(root.parent), root.name), name) for root, name in roots]


def find_services(folder: Path) -> list[Service]:
    """All servers of all models below a folder, on both backends."""
    return [*LocalBackend().find(folder), *DockerBackend().find(folder)]


def wait_until_served(service: Service, version_folder: Path) -> None:
    """Return once a server has exactly this version AVAILABLE and gives a picture the scores that it was exported with.

    Raises:
        RunFailed: with the log, if it stops, cannot load the version, or is not ready within two minutes.
    """
    deadline = time.monotonic() + READY_SECONDS
    advice = f"If {paths.shown(version_folder)} is damaged, delete it: the run is exported anew then. The log:"
    while reason := _not_ready(service, version_folder):
        if not service.alive():
            raise RunFailed(f"The server stopped before it was ready. {advice}\n{service.logs()}")
        if reason.startswith(FAILED) or time.monotonic() > deadline:
            raise RunFailed(f"Version {version_folder.name} is not served: {reason}. {advice}\n{service.logs()}")
        time.sleep(0.1)


def _not_ready(service: Service, version_folder: Path) -> str:
    """What is missing; "" if nothing is."""
    client, wanted = ServingClient(service.url, version_folder.parent.name), int(version_folder.name)
    try:
        states = client.status()
        if states.get(wanted, "").startswith(FAILED) or [v for v in states if states[v] == "AVAILABLE"] != [wanted]:
            return states.get(wanted, "it has not been seen yet")
        request = {"instances": [{"b64": base64.b64encode(probe_image()).decode()}]}
        scores = client.call("POST", ":predict", request)["predictions"][0]["scores"]
    except ServingError as error:
        return str(error)
    expected = read_model_info(version_folder)["probe_scores"]
    same = len(scores) == len(expected) and np.allclose(scores, expected, rtol=0, atol=TOLERANCE)
    return "" if same else f"what answers scores {scores} and not {expected}, so it is another model; delete it first"
