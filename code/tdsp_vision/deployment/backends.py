"""Where a model is served: the seam between the deployment notebook and the ways to run a server.

A backend takes a folder of versions and gives a running service, the same one to the caller whatever runs below:
a URL that speaks TensorFlow Serving's REST protocol, a log, a way to stop it.
"""

from pathlib import Path
from typing import Protocol

BACKENDS = ("auto", "local")


class Service(Protocol):
    """A running server. As a context manager it stops at the end of the block, unless it was told to keep running.

    Attributes:
        url: where it answers, without a path: `http://127.0.0.1:PORT`.
        model_name: the name in the URL's path.
        stop_command: what a person types in a shell to stop it.
    """

    url: str
    model_name: str
    stop_command: str

    def alive(self) -> bool:
        """Whether the server runs."""

    def logs(self) -> str:
        """What it wrote so far; still there after it has stopped."""

    def stop(self) -> None:
        """Stop it and leave nothing behind: no process, port or file. A second call does nothing."""

    def __enter__(self) -> "Service":
        """The service itself."""

    def __exit__(self, *exception) -> None:
        """Stop, unless the service was told to keep running."""


class Backend(Protocol):
    """A way to run a server.

    Attributes:
        name: the value of BACKEND that chooses it.
    """

    name: str

    def start(self, model_name: str, serving_folder: Path, port: int = 0, keep_running: bool = False) -> Service:
        """Serve the highest version in a folder, and return once it answers.

        Args:
            model_name: name of the model in the URL.
            serving_folder: folder of versions, as `export.export_model` fills it.
            port: port on the loopback address; 0 for any free one.
            keep_running: whether the server outlives this process.

        Raises:
            FileNotFoundError: if the folder holds no version.
            RuntimeError: if the server does not come up, with its log.
        """


def choose_backend(name: str) -> tuple[Backend, str]:
    """The backend for a value of BACKEND, and one sentence that says which it is and why.

    Raises:
        ValueError: for a name that is not in `BACKENDS`.
    """
    if name not in BACKENDS:
        raise ValueError(f"BACKEND is {name!r}; allowed are {', '.join(BACKENDS)}.")
    from tdsp_vision.deployment.local import LocalBackend

    reason = "BACKEND asks for it" if name == "local" else "it is the only one here and needs nothing installed"
    sentence = (
        f"Backend local, because {reason}: an embedded server that speaks TensorFlow Serving's REST protocol "
        "and stands in for TensorFlow Serving itself."
    )
    return LocalBackend(), sentence
