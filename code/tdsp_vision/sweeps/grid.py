"""Where the trials of a grid come from; `search` has the same methods for a search."""

from collections.abc import Iterator

from tdsp_vision.sweeps.plan import Sweep
from tdsp_vision.sweeps.trial import Trial


class Grid:
    """All combinations of a sweep, in order.

    Attributes:
        total: number of trials.
        past: trials that ended before this command, each with its result; none here, where a trial that is done says
            so itself and one that failed is tried again.
    """

    def __init__(self, sweep: Sweep):
        self._trials: Iterator[Trial] = iter(sweep.grid())
        self.total = len(sweep.grid())
        self.past: list[tuple[Trial, dict]] = []

    def next(self) -> Trial | None:
        """The next trial; None when there is none left."""
        return next(self._trials, None)

    def hopeless(self, trial: Trial) -> bool:
        """Whether a running trial should be ended: never, a grid is wanted whole."""
        return False

    def tell(self, trial: Trial, result: dict) -> None:
        """Take note of a result; a grid learns nothing from it."""
