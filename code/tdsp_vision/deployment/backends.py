"""Where a model is served: the seam between the life of a deployment and the ways to run a server.

A backend takes a release (one version of one deployed model, as a build context in a folder) and gives running
services, the same ones to the caller whatever runs below: a URL that speaks TensorFlow Serving's REST protocol, a log,
a way to stop it, and a record from which another process finds it again.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

BACKENDS = ("auto", "docker", "local")
SERVING_IMAGE = "tensorflow/serving:2.20.0"


@dataclass(frozen=True)
class Release:
    """One version of a deployed model.

    Attributes:
        folder: folder of the deployment, absolute; its path also labels everything that belongs to the deployment.
        model_name: name of the model in the URL.
        version: number of the version.
    """

    folder: Path
    model_name: str
    version: int

    @property
    def context(self) -> Path:
        """Build context: the Dockerfile and all that it copies."""
        return self.folder / f"v{self.version}"

    @property
    def models(self) -> Path:
        """Folder of versions that holds this version only."""
        return self.context / "model"

    @property
    def tag(self) -> str:
        """Name for an image or container; the same model in another folder gets another one."""
        return f"{self.model_name}-{hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]}-v{self.version}"


class Service(Protocol):
    """One running server.

    Attributes:
        url: where it answers, without a path: `http://127.0.0.1:PORT`.
        model_name: the name in the URL's path.
        record: plain JSON values, `url` among them, from which `Backend.attach` finds the server again.
    """

    url: str
    model_name: str
    record: dict

    def alive(self) -> bool:
        """Whether the server runs."""

    def logs(self) -> str:
        """What it wrote so far; "" once it was stopped."""

    def stop(self) -> None:
        """Stop it and leave nothing of it behind: no process, container, port or log. A second call does nothing."""


class Backend(Protocol):
    """A way to run servers.

    Attributes:
        name: the value of BACKEND that chooses it.
    """

    name: str

    def build(self, release: Release) -> str:
        """Make what a server of this release starts from, without starting one; what it is called.

        Raises:
            RuntimeError: if that fails, with the log.
        """

    def run(self, release: Release, port: int = 0, keep_running: bool = True) -> Service:
        """Start a server on the loopback address (port 0: any free one); it answers when this returns.

        Raises:
            RuntimeError: if it does not come up, with its log; nothing of it is left then.
        """

    def attach(self, release: Release, record: dict) -> Service:
        """The service that a record speaks of, alive or not."""

    def services(self, folder: Path) -> list[Service]:
        """Every server that carries the label of a deployment's folder, recorded or not."""

    def discard(self, release: Release) -> None:
        """Remove what `build` made; nothing happens where it is gone already."""


def choose_backend(name: str, serving_image: str = SERVING_IMAGE) -> tuple[Backend, str]:
    """The backend for a value of BACKEND, and one sentence that says which it is and why.

    Args:
        name: docker | local | auto; auto takes docker where an engine answers and has, or can pull, the image.
        serving_image: image of TensorFlow Serving; used by docker only.

    Raises:
        ValueError: for a name that is not in `BACKENDS`.
        RuntimeError: for docker, if no engine answers or the image cannot be had; it says what to do.
    """
    if name not in BACKENDS:
        raise ValueError(f"BACKEND is {name!r}; allowed are {', '.join(BACKENDS)}.")
    reason = "BACKEND asks for it"
    if name != "local":
        from tdsp_vision.deployment.container import DockerBackend, obstacle

        hindrance = obstacle(serving_image)
        if not hindrance:
            found = reason if name == "docker" else "an engine answers and the image can be had"
            backend = DockerBackend(serving_image)
            return backend, f"Backend docker, because {found}: {backend.what()}."
        if name == "docker":
            raise RuntimeError(f"BACKEND is 'docker', but {hindrance}; or set BACKEND to 'local'.")
        reason = hindrance
    from tdsp_vision.deployment.local import LocalBackend

    what = "an embedded server that speaks TensorFlow Serving's REST protocol and stands in for TensorFlow Serving"
    return LocalBackend(), f"Backend local, because {reason}: {what} itself."
