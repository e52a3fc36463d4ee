"""How files are written: whole or not at all."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from tdsp_vision.paths import shown


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` when the block ends without an error.

    Its permissions are those of a new file under the process's umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.stem[:40]}.{uuid.uuid4().hex[:12]}{path.suffix[:10]}"
    try:
        yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it becomes `path` at the end, or FileExistsError where that is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name[:200]}.{uuid.uuid4().hex[:12]}"
    draft.mkdir()
    try:
        yield draft
        if path.exists():  # a rename would replace an empty folder
            raise FileExistsError(f"{shown(path)} is already there and is not overwritten.")
        draft.rename(path)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all."""
    with whole_file(path) as draft:
        draft.write_text(text, encoding="utf-8")


def write_json(path: Path, content: object) -> None:
    """Write `content` as indented JSON, whole or not at all; NaN and infinity are refused (ValueError)."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def file_lock(path: Path, wait: bool = True):
    """A lock on `path` (made where missing, with its folders) for `with`, held against threads and processes alike.

    The system frees it when its holder ends, however that happens. Not to be taken twice by the same thread: it would
    wait for itself. Between machines it holds only where their shared file system passes locks on (NFS 4 does).

    Args:
        wait: whether to wait for as long as another holds it.

    Raises:
        filelock.Timeout: without `wait`, where another process or thread holds it; an OSError that names the file.
    """
    return FileLock(path).acquire(blocking=wait)
