"""Folders of images for all tests of stage 1."""

from collections.abc import Callable
from pathlib import Path

import pytest
import zoo
from archive_server import ArchiveServer

from tdsp_vision.paths import DatasetPaths


@pytest.fixture
def server():
    """A server on loopback that nothing has been added to."""
    with ArchiveServer() as running:
        yield running


@pytest.fixture
def source(tmp_path) -> Path:
    """An empty folder that becomes a source of images."""
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


@pytest.fixture
def put(source) -> Callable[..., Path]:
    """Write one file below the source: `put("wren/1.png", 3)` draws picture number 3, bytes are taken as they are."""

    def write(name: str, content: int | bytes) -> Path:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else zoo.encode(zoo.picture(content), "PNG"))
        return path

    return write


@pytest.fixture
def birds(source, put) -> Path:
    """Four pictures, two of each label."""
    for seed, name in enumerate(["robin/1.png", "robin/2.png", "wren/1.png", "wren/2.png"]):
        put(name, seed)
    return source


@pytest.fixture
def dataset(tmp_path) -> DatasetPaths:
    """Where the images of `birds` go."""
    return DatasetPaths(str(tmp_path / "data"), "birds")
