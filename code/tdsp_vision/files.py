"""How files are written: whole or not at all."""

import errno
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from tdsp_vision.paths import shown

FULL = [os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT)]


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    """Say in one sentence what a full disk kept from being written: most libraries do not, TensorFlow in a riddle."""
    try:
        yield
    except Exception as error:
        reason = next((words for words in FULL if words in str(error)), "")
        if not reason:
            raise
        told = f"{reason}: nothing of {shown(path)} is kept; make room there and go on"
        raise OSError(errno.ENOSPC, told) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes the place of `path` when the block ends without an error.

    Its permissions are those of a new file under the process's umask.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.stem[:40]}.{uuid.uuid4().hex[:12]}{path.suffix[:10]}"
    draft.touch(exist_ok=False)
    try:
        with _full_disk_named(path):
            yield draft
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; it becomes `path` at the end, or FileExistsError where that is taken."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f".{path.name[:200]}.{uuid.uuid4().hex[:12]}"
    _refuse_taken(path)
    draft.mkdir()
    try:
        with _full_disk_named(path):
            yield draft
        try:
            draft.rename(path)
        except OSError:  # another process may have made it meanwhile
            _refuse_taken(path)
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _refuse_taken(path: Path) -> None:
    if path.exists():
        raise FileExistsError(f"{shown(path)} is already there and is not overwritten.")


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
        BlockingIOError: without `wait`, where another process or thread holds it.
    """
    try:
        return FileLock(path).acquire(blocking=wait)
    except Timeout:
        raise BlockingIOError(f"{shown(path)} is locked: another process works there; wait until it ends.") from None
