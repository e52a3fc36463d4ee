"""What a sweep prints while it runs: a line for each trial that ends and, on a terminal, one that shows the rest."""

import time
from typing import TextIO

from tdsp_vision.sweeps.results import measure
from tdsp_vision.sweeps.trial import Trial


class SweepProgress:
    """`3/8 CLASSIFIER=svm IMAGE_SIZE=224 ..... 21 s  validation auc 0.912, about 1:40 left`.

    Args:
        total: trials in all.
        before: how many of them had ended before.
        jobs: how many run at once.
        metric: of the validation, to show.
    """

    def __init__(self, total: int, before: int, jobs: int, metric: str, out: TextIO):
        self.total, self.jobs, self.metric, self.out = total, jobs, metric, out
        self._count, self._old, self._start = before, before, time.monotonic()

    def ended(self, trial: Trial, result: dict, before: bool) -> None:
        """Show a trial that ended, now or `before` this command."""
        self._count += 1
        if before:
            self._old += 1
        how = result["status"]
        if how == "done":
            value = measure(trial, result, "validation", self.metric)
            how = f"validation {self.metric} " + ("-" if value is None else f"{value:.3f}")
        took = "before" if before else f"{result.get('seconds', 0):.0f} s"
        label = f"{self._count}/{self.total} {trial.title} "
        self._write(f"{label.ljust(40, '.')} {took:>6}  {how}{'' if self.out.isatty() else self._left()}\n")

    def redraw(self, running: int) -> None:
        """Show on a terminal how many run, for how long, and how long it may take."""
        if self.out.isatty():
            gone = clock(time.monotonic() - self._start)
            self._write(f"{self._count}/{self.total} ended, {running} running, {gone} gone{self._left()}")

    def close(self) -> None:
        """Leave no half line behind."""
        self._write("")

    def _left(self) -> str:
        """Time left, at the pace of the trials that ended under this command; nothing before the first one."""
        rest = self.total - self._count
        done = self._count - self._old
        gone = time.monotonic() - self._start
        return f", about {clock(gone / done * rest)} left" if done and rest else ""

    def _write(self, text: str) -> None:
        self.out.write(f"\r\x1b[K{text}" if self.out.isatty() else text)
        self.out.flush()


def clock(seconds: float) -> str:
    """`1:05:09`, without the hours where there are none."""
    return time.strftime("%-H:%M:%S" if seconds >= 3600 else "%-M:%S", time.gmtime(seconds))
