"""The loop of a sweep: hand out trials, watch them, collect results; ended at any moment, it goes on where it was."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TextIO

from tdsp_vision import paths
from tdsp_vision.files import file_lock, write_text
from tdsp_vision.sweeps.figure import write_figure
from tdsp_vision.sweeps.plan import Sweep
from tdsp_vision.sweeps.progress import SweepProgress
from tdsp_vision.sweeps.results import write_csv
from tdsp_vision.sweeps.trial import Trial, run_trial


class Threads:
    """Runs trials on this machine, `jobs` at once, each watched by a thread."""

    def __init__(self, jobs: int):
        self.jobs = jobs
        self._pool = ThreadPoolExecutor(jobs)

    def submit(self, trial: Trial, environment: Mapping[str, str]) -> Future:
        """Start a trial; the result of the future is that of `run_trial`."""
        return self._pool.submit(run_trial, trial, environment)

    def close(self) -> None:
        """Wait for the threads, which end with their trials."""
        self._pool.shutdown()


class SweepLoop:
    """Runs what `source` (`Grid`, `Search`) hands out on `machines` (`Threads`, `RayCluster`).

    The caller holds `only_sweep`.

    Args:
        metric: of the validation, by which results are sorted.
        out: where progress is shown.

    Attributes:
        ended: every trial that ended, now or before, with its result (see `trial`).
    """

    def __init__(self, sweep: Sweep, source, machines, metric: str, out: TextIO):
        self.sweep, self.source, self.machines, self.metric = sweep, source, machines, metric
        self.ended: list[tuple[Trial, dict]] = list(source.past)
        self._running: dict[Future, Trial] = {}
        self._open: list[Trial] = []  # those that run, also one that is just being started
        self._progress = SweepProgress(source.total, len(self.ended), machines.jobs, metric, out)

    def run(self) -> None:
        """Run to the end; results.csv is written anew after each trial, results.png at the end.

        Raises:
            KeyboardInterrupt: when interrupted; no trial runs any more then.
        """
        try:
            while self._start() or self._running:
                for future in wait(self._running, timeout=0.5, return_when=FIRST_COMPLETED).done:
                    self._note(self._running.pop(future), _result(future))
                    write_csv(self.sweep, self.ended, self.metric)
                for trial in self._running.values():
                    if self.source.hopeless(trial):
                        write_text(trial.file("end.txt"), "pruned")
                self._progress.redraw(len(self._running))
        except KeyboardInterrupt:
            words = f"{len(self.ended)} of {self.source.total} trials; the same command goes on from there"
            raise KeyboardInterrupt(f"interrupted after {words}") from None
        finally:
            for trial in self._open:
                write_text(trial.file("end.txt"), "stopped")
            wait(self._running, timeout=30)
            self._progress.close()
            self.machines.close()
        write_csv(self.sweep, self.ended, self.metric)
        write_figure(self.sweep, self.ended)

    def _start(self) -> bool:
        """Start trials until all places are taken; whether one was started. One that is done is only noted."""
        before = len(self._open)
        while len(self._running) < self.machines.jobs and (trial := self.source.next()):
            if trial.result().get("status") == "done":
                self._note(trial, trial.result(), before=True)
                continue
            trial.file("end.txt").unlink(missing_ok=True)
            self._open.append(trial)
            self._running[self.machines.submit(trial, _environment())] = trial
        return len(self._open) > before

    def _note(self, trial: Trial, result: dict, before: bool = False) -> None:
        self._open = [other for other in self._open if other is not trial]
        self.source.tell(trial, result)
        self.ended.append((trial, result))
        self._progress.ended(trial, result, before)


@contextlib.contextmanager
def only_sweep(sweep: Sweep) -> Iterator[None]:
    """Hold the sweep's folder while the block runs.

    Raises:
        BlockingIOError: if another process runs the same sweep.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(sweep.folder / "lock", wait=False))
        except BlockingIOError:
            raise BlockingIOError(
                f"Sweep {sweep.id} is running already, started by the same command; wait until it ends."
            ) from None
        yield


def _result(future: Future) -> dict:
    """What a trial came to; an error of the machines that ran it is a failure of this trial only."""
    error = future.exception()
    if error is None:
        return future.result()
    return {"status": "failed", "error": " ".join(f"{type(error).__name__}: {error}".split())[:500]}


def _environment() -> dict[str, str]:
    """Variables that a trial needs on another machine too: where the workspace lies and where history is kept."""
    ours = {name: value for name, value in os.environ.items() if name.startswith(("TDSP_", "MLFLOW_"))}
    return ours | {"TDSP_WORKSPACE": str(paths.workspace())}
