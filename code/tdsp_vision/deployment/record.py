"""`deployment.json`, the record of one deployment: read, written whole, changed by one process at a time."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdsp_vision import paths
from tdsp_vision.files import write_json

RECORD = "deployment.json"
LOCK = ".lock"


def read_record(folder: Path) -> dict:
    """The record in a deployment's folder.

    Raises:
        FileNotFoundError: if there is none: nothing of this name is deployed.
    """
    try:
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{folder.name} is not deployed: there is no {paths.shown(folder / RECORD)}."
        ) from error


def write_record(folder: Path, record: dict) -> None:
    """Write the record, whole or not at all."""
    write_json(folder / RECORD, record)


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold the deployment's lock; it is let go with this process, however that ends.

    Raises:
        FileNotFoundError: if nothing is deployed here.
        RuntimeError: if another process, or another thread of this one, changes the deployment just now.
    """
    try:
        lock = (folder / LOCK).open("w")
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{folder.name} is not deployed: there is no {paths.shown(folder)}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f"{folder.name} is being changed by somebody else; try again after that.") from error
        yield
