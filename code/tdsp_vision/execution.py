"""Run one notebook with papermill, in a kernel of the running interpreter.

The output notebook is written after every cell, also when a cell fails. Papermill is imported inside the function:
it costs a second, which a wrong parameter should not have to wait for.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from tdsp_vision import paths

# Nobody watches a headless run, so a training prints a line per epoch instead of redrawing its curves (TDSP_HEADLESS).
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "TDSP_HEADLESS": "1"}

_OPTIONS = {"kernel_name": "python3", "language": "python", "progress_bar": False}


class RunFailed(RuntimeError):
    """A notebook, or what it should have left behind, failed; the text says where and why, no traceback needed."""


def run_notebook(
    notebook: Path,
    parameters: Mapping[str, object],
    output: Path,
    on_cell: Callable[[int, int], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Execute `notebook` with `parameters` (typed, declared by it) in its own folder; returns `output`, absolute.

    Args:
        on_cell: called with (number, how many) as each code cell starts, counted from 1.
        environment: variables for the kernel, on top of this process's own.

    Raises:
        RunFailed: a cell raised an error, or the kernel died or did not start; `output` then holds what ran.
    """
    from papermill import PapermillExecutionError, execute_notebook

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # its errors are raised as well, and told from here
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    cells = _CellCounter(_count_code_cells(notebook) + bool(parameters), on_cell)  # papermill adds a cell for them
    with tempfile.TemporaryFile() as kernel_log, tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
        kernel = _kernel_of_this_interpreter(environment or {}, kernel_log, Path(sockets))
        try:
            execute_notebook(
                _as_it_is(notebook),
                _as_it_is(output),
                dict(parameters),
                **_OPTIONS,
                cwd=notebook.parent,
                on_cell_execute=cells.started,
                kernel_manager_class=kernel,
            )
        except PapermillExecutionError as error:
            raise RunFailed(_failure(error, output)) from None
        except RuntimeError as error:  # how nbclient reports a kernel that died or never started
            words = f"{cells.place()}: {error}; its last words: {_last_line(kernel_log)}"
            raise RunFailed(f"{words}\npartly executed notebook: {paths.shown(output)}") from None
    return output


class _CellCounter:
    """Counts the code cells that papermill starts, and tells `on_cell` of each."""

    def __init__(self, total: int, on_cell: Callable[[int, int], None] | None):
        self.number, self.total, self.on_cell = 0, total, on_cell

    def started(self, cell, cell_index) -> None:
        self.number += 1
        if self.on_cell:
            self.on_cell(self.number, self.total)

    def place(self) -> str:
        return f"code cell {self.number} of {self.total}" if self.number else "the start of its kernel"


def _as_it_is(path: Path) -> str:
    """Papermill formats paths with the parameters; doubled braces survive that as single ones."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _count_code_cells(notebook: Path) -> int:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return sum(cell["cell_type"] == "code" and bool("".join(cell["source"]).strip()) for cell in cells)


def _failure(error, output: Path) -> str:
    message = " ".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", error.evalue).split())
    # A wrong parameter explains itself; the class name would only be noise.
    reason = message if error.ename == "ParameterError" else f"{error.ename}: {message or '(no message)'}"
    return f"cell In [{error.exec_count}]: {reason[:1000]}\npartly executed notebook: {paths.shown(output)}"


def _last_line(log: BinaryIO) -> str:
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    words = [line for line in lines if line and not line.startswith("[IPKernelApp] WARNING")]
    return words[-1] if words else "none (often it is a lack of memory)"


def _kernel_of_this_interpreter(environment: Mapping[str, str], log: BinaryIO, sockets: Path) -> type:
    """Kernel manager class that starts `sys.executable`, whatever kernels are registered on the machine.

    A kernel named `python3` may be registered for the user or the system and belong to another Python. What the
    kernel process itself prints, apart from the notebook's output, goes to `log` and not between progress lines.
    It is spoken to through files in the empty folder `sockets`: free network ports are looked for by one process and
    taken by another a moment later, so of many kernels that start at once two may want the same.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    quiet = {name: os.environ.get(name, value) for name, value in _QUIET.items()}

    class KernelOfThisInterpreter(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict(), env=quiet | dict(environment))

        def __init__(self, **options):
            # A socket's path may have 104 characters on macOS, 108 on Linux; Windows has no such sockets.
            files = {"transport": "ipc", "ip": str(sockets / "k")} if os.name == "posix" else {}
            super().__init__(**options, **files if len(str(sockets)) < 90 else {})

        async def start_kernel(self, **options):
            return await super().start_kernel(**options, stdout=log, stderr=log)

    return KernelOfThisInterpreter
