"""A lock between processes, on a file: who holds it works, the others wait.

The kernel frees the lock when its holder ends, however it ends, so a killed process leaves nothing to clear away. The
file stays, empty, and is never removed: a removed one could be locked by two at once. Linux and macOS; not Windows,
which has no `fcntl`. Between machines it holds only where their shared file system passes locks on (NFS 4 does).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdsp_vision.paths import shown


@contextmanager
def file_lock(path: Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock on `path` (made where missing, with its folders) while the block runs; threads count as well.

    Not to be taken twice by the same thread: it would wait for itself. Source: flock(2).

    Args:
        wait: whether to wait for as long as another holds it.

    Raises:
        BlockingIOError: without `wait`, where another process or thread holds it.
    """
    import fcntl  # here, so that on Windows only what needs a lock fails

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise BlockingIOError(
                f"{shown(path)} is locked: another process works there; wait until it ends."
            ) from None
        yield
