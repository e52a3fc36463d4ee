"""What can be seen of a deployment from any process: addresses, replicas, logs, scores. `life` changes it."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from tdsp_vision import paths
from tdsp_vision.deployment.backends import Backend, Release, Service
from tdsp_vision.deployment.record import read_record


class Deployed:
    """One deployed model.

    Attributes:
        folder: its folder, absolute.
        backend: what runs its servers.
        name: the model's name in the URL.
    """

    def __init__(self, folder: Path, backend: Backend):
        self.folder = folder
        self.backend = backend
        self.name = folder.name

    @property
    def record(self) -> dict:
        """The content of `deployment.json` as it is now."""
        return read_record(self.folder)

    @property
    def urls(self) -> list[str]:
        """Where the replicas answer now, each `http://127.0.0.1:PORT`."""
        return [replica["url"] for replica in self.record["replicas"]]

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the order of the served version's scores."""
        version = self.record["version"]
        info = self._release(version).models / str(version) / "assets.extra/model_info.json"
        return json.loads(info.read_text(encoding="utf-8"))["classes"]

    def client(self):
        """A `ServingClient` that takes the replicas in turn and follows updates and scaling."""
        from tdsp_vision.deployment.client import ServingClient
        from tdsp_vision.deployment.server import KEY_VARIABLE

        return ServingClient(lambda: self.urls, self.name, self.classes, os.environ.get(KEY_VARIABLE))

    def score(self, files: Sequence[Path]):
        """Score image files; the table of `ServingClient.score_paths`."""
        return self.client().score_paths(files)

    def services(self) -> list[Service]:
        """The recorded replicas, alive or not."""
        record = self.record
        release = self._release(record["version"])
        return [self.backend.attach(release, replica) for replica in record["replicas"]]

    def logs(self) -> str:
        """The logs of all replicas, each under its URL."""
        return "\n".join(f"== {service.url}\n{service.logs()}" for service in self.services())

    def summary(self) -> str:
        """One line: data set, model, backend, version, replicas, addresses."""
        record, alive = self.record, [service.url for service in self.services() if service.alive()]
        before = f" (before: {record['previous']})" if record["previous"] is not None else ""
        state = f"{len(alive)} of {len(record['replicas'])} replicas run: {', '.join(alive)}"
        state = state if record["replicas"] else "built, not started"
        return f"{self._dataset}/{self.name} on {self.backend.name}: version {record['version']}{before}, {state}"

    def stop_command(self) -> str:
        """What a person types in a shell to delete it."""
        options = f"--dataset {self._dataset} --model {self.name} --output-dir {paths.shown(self.folder.parents[3])}"
        return f"python -m tdsp_vision deploy {options} delete"

    @property
    def _dataset(self) -> str:
        return self.folder.parents[2].name

    def _release(self, version: int) -> Release:
        return Release(self.folder, self.name, version)
