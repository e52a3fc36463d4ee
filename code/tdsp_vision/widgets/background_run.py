"""One headless run in a process of its own, while the kernel that started it stays usable.

    python -m tdsp_vision run --watched …      the same interpreter, from the repository root

Its standard output is read by a thread: lines of JSON while it runs (`progress.ProgressLines`), then plain text, which
is the table of results or one sentence that says what went wrong. Its standard input is a pipe that carries nothing.
Closing it ends the run as Ctrl-C does, and the system closes it when this kernel ends, however that happens: no run
outlives the kernel that started it. Interrupting the kernel does not reach the run, which has a session of its own.
"""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence

import traitlets

from tdsp_vision import paths

PROGRAM = (sys.executable, "-m", "tdsp_vision")
_ENDS = {0: "done", 130: "stopped"}  # exit codes; all others are failures


class BackgroundRun(traitlets.HasTraits):
    """Starts, follows and stops one run at a time. Observers of the traits are called in the reading thread.

    Args:
        program: the command before the arguments.
    """

    status = traitlets.Enum(["idle", "running", "stopping", "done", "failed", "stopped"], "idle")
    progress = traitlets.Dict(help="the last line of `progress.ProgressLines`; {} before the first")
    said = traitlets.Unicode(help="everything else that the process printed; whole when the run has ended")

    def __init__(self, program: Sequence[str] = PROGRAM):
        super().__init__()
        self._program, self._process, self._thread = program, None, None

    @property
    def going(self) -> bool:
        """Whether a process is running."""
        return self.status in ("running", "stopping")

    def start(self, arguments: Sequence[str]) -> None:
        """Start `python -m tdsp_vision` with `arguments`; returns at once.

        Raises:
            RuntimeError: if the run before has not ended.
        """
        if self.going:
            raise RuntimeError("A run is going already; stop it or wait for its end before you start another.")
        self._process = subprocess.Popen(
            [*self._program, *arguments],
            cwd=paths.ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._thread = threading.Thread(target=self._follow, args=(self._process,), daemon=True)
        try:
            with self.hold_trait_notifications():
                self.progress, self.said, self.status = {}, "", "running"
        finally:  # whatever an observer does, the process is followed
            self._thread.start()

    def stop(self) -> None:
        """End the run and its kernel as Ctrl-C does; returns at once, `wait` waits. Does nothing if none is going."""
        if self.status == "running":
            self.status = "stopping"
            self._process.stdin.close()

    def wait(self) -> None:
        """Return when the run has ended and everything about it is known."""
        if self._thread:
            self._thread.join()

    def _follow(self, process: subprocess.Popen) -> None:
        try:
            with process:  # at its end, also after an error here, the pipes are closed and the process is gone
                self._read(process.stdout)
            if process.returncode < 0:
                name = signal.Signals(-process.returncode).name
                self.said += f"The run was ended by {name}; often it is a lack of memory."
            self.status = _ENDS.get(process.returncode, "failed")
        except Exception as error:
            self.said += f"The run was ended because it could not be followed: {error!r}"
            self.status = "failed"
            raise  # the thread's traceback is shown as well

    def _read(self, lines) -> None:
        for line in lines:
            if line.startswith('{"step":'):
                self.progress = json.loads(line)
            else:
                self.said += line
