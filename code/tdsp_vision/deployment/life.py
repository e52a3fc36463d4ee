"""The life of a deployment: start, score, update, roll back, scale, delete; the same on every backend.

A deployment is a folder, `outputs/<dataset>/deployment/services/<model>/`: a build context per version (`v1/`, …), the
servers' logs where they are plain processes, and `deployment.json`, the record that another process finds it by:
`backend, serving_image, port, keep_running, owner, version, previous, replicas`; `replicas` lists the servers that
answer, each with its `url`.

Every server has a port of its own. An update starts the new servers beside the old ones, checks them, writes their
addresses into the record, waits, and stops the old ones; `Deployment.client()` reads the record, so it loses nothing.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tdsp_vision.deployment.backends import Release, Service
from tdsp_vision.deployment.build_context import WARMUP, prepare, version_number
from tdsp_vision.deployment.deployed import Deployed
from tdsp_vision.deployment.record import changing, write_record
from tdsp_vision.deployment.servers import check_replicas, retire, start_all


class Deployment(Deployed):
    """One deployed model; `deployments` makes and finds them. As a context manager it is deleted at the end of the
    block, unless it is to be kept running.
    """

    def start(self, replicas: int = 1) -> None:
        """Start a deployment that was built only.

        Raises:
            ValueError: if it was started already, or for a number of replicas outside of 1 to 32.
            RuntimeError: if it does not come up, with the log.
        """
        check_replicas(replicas)
        with changing(self.folder):
            record = self.record
            if record["replicas"]:
                raise ValueError(f"{self.name} was started already; use update or scale.")
            self._replace(record, record["version"], replicas, record["port"])

    def update(self, version_folder: Path, warmup: Sequence[Path] = ()) -> None:
        """Replace the served version; while the new one starts, and if it fails, the old one answers.

        Args:
            version_folder: the exported version, `serving/<model>/<version>`.
            warmup: image files for warmup; by default the requests of the version served now.

        Raises:
            ValueError: if this version is served already, or nothing is.
            RuntimeError: if the new version cannot be built or does not come up, with the log.
        """
        with changing(self.folder):
            record = self._started_record()
            release = self._release(version_number(version_folder))
            if release.version == record["version"]:
                raise ValueError(f"Version {release.version} of {self.name} is served already.")
            requests = self._release(record["version"]).models / str(record["version"]) / WARMUP
            try:
                prepare(self.backend, release, version_folder, warmup or (requests if requests.is_file() else ()))
                self._switch(record, release.version)
            except BaseException:
                if release.version not in (self.record["version"], record["previous"]):
                    self._discard(release)
                raise

    def rollback(self) -> None:
        """Serve the version before the last update again; a second rollback undoes the first.

        Raises:
            ValueError: if there was no update.
            RuntimeError: if it does not come up, with the log; the version served now goes on.
        """
        with changing(self.folder):
            record = self._started_record()
            if record["previous"] is None:
                raise ValueError(f"{self.name} has no version before {record['version']} to go back to.")
            self._switch(record, record["previous"])

    def scale(self, replicas: int) -> None:
        """Bring the number of running replicas to `replicas`; those that died are replaced.

        Raises:
            ValueError: if nothing was started, or for a number outside of 1 to 32.
            RuntimeError: if a new one does not come up, with the log; the others go on.
        """
        check_replicas(replicas)
        with changing(self.folder):
            record = self._started_record()
            alive, dead = [], []
            for service in self.services():
                (alive if service.alive() else dead).append(service)
            retire(dead)  # what is left of them may hold the fixed port
            kept = alive[:replicas]
            taken = any(service.url.endswith(f":{record['port']}") for service in kept)
            added = self._start(record, record["version"], replicas - len(kept), 0 if taken else record["port"])
            self._write(record, record["version"], record["previous"], kept + added)
            retire(alive[replicas:])

    def delete(self) -> None:
        """Stop and remove everything: servers, images, files. Nothing with the deployment's label is left."""
        with changing(self.folder):
            for service in [*self.services(), *self.backend.services(self.folder)]:
                service.stop()
            for version in self._prepared():
                self.backend.discard(self._release(version))
            shutil.rmtree(self.folder)

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *exception) -> None:
        if self.folder.exists() and not self.record["keep_running"]:
            self.delete()

    def _prepared(self) -> set[int]:
        """Versions that have a build context."""
        return {int(path.name[1:]) for path in self.folder.glob("v*") if path.name[1:].isdigit()}

    def _started_record(self) -> dict:
        """The record; ValueError if the deployment was never started."""
        if not self.record["replicas"]:
            raise ValueError(f"{self.name} is built, not started; start it first.")
        return self.record

    def _switch(self, record: dict, version: int) -> None:
        """Replace all replicas by as many of another version, and drop all versions but this and the one before.

        A fixed port is free only when the old servers are gone: the new version then moves there in a second step.
        """
        count = len(record["replicas"])
        self._replace(record, version, count, 0)
        if record["port"]:
            self._replace(self.record, version, count, record["port"])
        for other in self._prepared() - {version, record["version"]}:
            self._discard(self._release(other))

    def _replace(self, record: dict, version: int, count: int, port: int) -> None:
        """Start `count` servers, record them, and retire those that were recorded."""
        old = self.services()
        new = self._start(record, version, count, port)
        self._write(record, version, record["previous"] if version == record["version"] else record["version"], new)
        retire(old)

    def _start(self, record: dict, version: int, count: int, port: int) -> list[Service]:
        """New servers; they end with this process only if it made the deployment and does not keep it running."""
        keep = record["keep_running"] or record["owner"] != os.getpid()
        return start_all(self.backend, self._release(version), count, port, keep)

    def _write(self, record: dict, version: int, previous: int | None, services: list[Service]) -> None:
        """Record what answers from now on."""
        replicas = [service.record for service in services]
        write_record(self.folder, record | {"version": version, "previous": previous, "replicas": replicas})

    def _discard(self, release: Release) -> None:
        """Remove a version's image and context."""
        self.backend.discard(release)
        shutil.rmtree(release.context, ignore_errors=True)
