"""Which versions of a model are served: kept in step with its folder, without dropping a request.

A version that appears is loaded while the old one answers, then takes its place; the old one is closed when the
requests that run on it have ended. A version that cannot be loaded leaves the old one serving and shows in the status.
Which versions are wanted: the highest in the folder, or those that were named.
Source: https://www.tensorflow.org/tfx/serving/architecture (availability-preserving policy)
"""

import gc
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tensorflow.core.protobuf import error_codes_pb2

from tdsp_vision.deployment.protocol import RequestError
from tdsp_vision.deployment.session import ServedVersion
from tdsp_vision.deployment.versions import versions_in

logger = logging.getLogger(__name__)


class LoadedVersions:
    """The served versions of one model; may be used from several threads at once.

    Args:
        model_name: name of the model in requests.
        folder: folder of versions.
        wanted: numbers of the versions to serve; none for the highest.
        labels: number of a version by its label.

    Attributes:
        states: (state, error code, error message) by version number, as TensorFlow Serving's status names them.
    """

    def __init__(
        self, model_name: str, folder: Path, wanted: tuple[int, ...] = (), labels: dict[str, int] | None = None
    ):
        self.model_name, self.folder = model_name, folder
        self.wanted, self.labels = wanted, labels or {}
        self.states: dict[int, tuple[str, str, str]] = {}
        self._loaded: dict[int, ServedVersion] = {}
        self._failed: dict[int, float] = {}  # newest change in the folder of a version that did not load
        self._users: Counter[int] = Counter()
        self._changed = threading.Condition()

    def available(self) -> list[int]:
        """Numbers of the versions that answer, in ascending order."""
        return sorted(self._loaded)

    @contextmanager
    def lease(
        self, model_name: str, number: int | None, label: str | None = None
    ) -> Iterator[tuple[int, ServedVersion]]:
        """Number and version for one request; it is not closed before the block ends.

        Args:
            model_name, number, label: what the request names; None: the highest version.

        Raises:
            RequestError: 404 where it is not served, 400 for an unknown label.
        """
        with self._changed:
            number = self._find(model_name, number, label)
            version = self._loaded[number]
            self._users[number] += 1
        try:
            yield number, version
        finally:
            with self._changed:
                self._users[number] -= 1
                self._changed.notify_all()

    def number(self, number: int | None, label: str | None) -> int | None:
        """The version number that a request names, if any; RequestError 400 for an unknown label."""
        if label is not None and label not in self.labels:
            raise RequestError(400, f"Unrecognized servable version label: {label}")
        return number if label is None else self.labels[label]

    def status(self, model_name: str, number: int | None) -> list[tuple[int, tuple[str, str, str]]]:
        """Number and state of one version, or of all, the highest first; RequestError 404 where there is none."""
        states = dict(self.states) if model_name == self.model_name else {}
        if number is not None and number not in states:
            raise RequestError(404, f"Could not find version {number} of model {model_name}")
        if not states:
            raise RequestError(404, f"Could not find any versions of model {model_name}")
        return sorted(states.items(), reverse=True) if number is None else [(number, states[number])]

    def refresh(self) -> None:
        """Look at the folder once: load what is wanted and new, then close what is no longer wanted."""
        present = versions_in(self.folder)
        wanted = [number for number in present if number in self.wanted] if self.wanted else present[-1:]
        for number in wanted:
            if number not in self._loaded and self._failed.get(number) != _newest_change(self.folder / str(number)):
                self._load(number)
        if any(number in self._loaded for number in wanted):
            for number in set(self._loaded) - set(wanted):
                self._unload(number)

    def watch(self, seconds: float) -> None:
        """Call `refresh` again and again, in a thread that ends with the process."""

        def run() -> None:
            """Without end; the thread is a daemon."""
            while True:
                time.sleep(seconds)
                try:
                    self.refresh()
                except OSError:
                    logger.exception("%s cannot be read; the loaded versions stay", self.folder)

        threading.Thread(target=run, name="versions", daemon=True).start()

    def _find(self, model_name: str, number: int | None, label: str | None) -> int:
        number = self.number(number, label)
        if model_name == self.model_name and self._loaded and number is None:
            return max(self._loaded)
        if model_name == self.model_name and number in self._loaded:
            return number
        wanted = f"Latest({model_name})" if number is None else f"Specific({model_name}, {number})"
        raise RequestError(404, f"Servable not found for request: {wanted}")

    def _load(self, number: int) -> None:
        folder = self.folder / str(number)
        self.states[number] = ("LOADING", "OK", "")
        changed = _newest_change(folder)
        try:
            version = ServedVersion(folder)
        except Exception as error:  # TensorFlow raises whatever it likes on a damaged version; it becomes its status
            self._failed[number] = changed
            code = getattr(error, "error_code", error_codes_pb2.UNKNOWN)
            self.states[number] = ("END", error_codes_pb2.Code.Name(code), str(error))
            logger.error("version %d of %s cannot be loaded: %s", number, self.model_name, error)
            return
        with self._changed:
            self._loaded[number] = version
            self.states[number] = ("AVAILABLE", "OK", "")

    def _unload(self, number: int) -> None:
        with self._changed:
            version = self._loaded.pop(number)
            self.states[number] = ("UNLOADING", "OK", "")
            self._changed.wait_for(lambda: not self._users[number])
        version.close()
        del version
        gc.collect()  # a graph refers to itself, so its memory is not freed at once
        self.states[number] = ("END", "OK", "")


def _newest_change(folder: Path) -> float:
    """When the content of a version last changed: one that failed is tried again after that, not before."""
    return max((entry.stat().st_mtime for entry in [folder, *folder.rglob("*")]), default=0.0)
