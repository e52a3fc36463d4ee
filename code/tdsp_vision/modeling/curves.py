"""Training as one watches it: curves that grow in a notebook, one quiet line per epoch everywhere else.

Rows of the history, later history.csv, are plain numbers: epoch (from 1), loss and the metrics of `compile`, the same
with val_ before them for validation, learning_rate (of the epoch's first step), seconds (validation included).
"""

import os
import time
from collections.abc import Iterable

import keras
import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure

from tdsp_vision.data.plots import BLUE, ORANGE
from tdsp_vision.modeling.plots import learning_curves
from tdsp_vision.modeling.rate_finder import smooth


class LiveCurves(keras.callbacks.Callback):
    """A callback for `fit(…, verbose=0)` that shows loss and metrics after each epoch and keeps them.

    In a notebook that somebody watches it is one figure, drawn anew; elsewhere, and where the environment variable
    TDSP_HEADLESS is 1, one line of text per epoch; never both. Rate and seconds are added to the epoch's logs, so
    callbacks that come after this one keep them too.

    Args:
        epochs: how many there will be, those before a resumed run included.
        rows: history of the run that is resumed, a dict for each epoch; its curves and numbers are continued.
    """

    def __init__(self, epochs: int, rows: Iterable[dict[str, float]] = ()):
        super().__init__()
        self.epochs = epochs
        self.rows = [dict(row) for row in rows]
        self._figure = None  # handle of what is shown in the notebook

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch, columns as the head of this module says."""
        return pd.DataFrame(self.rows)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Note rate and time; forget epochs that are trained once more."""
        self.rows = [row for row in self.rows if row["epoch"] <= epoch]
        self._rate = float(self.model.optimizer.learning_rate)
        self._clock = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        """Add a row and show it."""
        measures = sorted(logs, key=lambda name: (name.startswith("val_"), not name.endswith("loss"), name))
        row = {"epoch": epoch + 1} | {name: float(logs[name]) for name in measures}
        logs |= {"learning_rate": self._rate, "seconds": round(time.perf_counter() - self._clock, 3)}
        self.rows.append(row | {name: logs[name] for name in ("learning_rate", "seconds")})
        if not in_notebook():
            print(_line(self.rows[-1], self.epochs), flush=True)
        elif self._figure is None:
            self._figure = display(learning_curves(self.history), display_id=True)
        else:
            self._figure.update(learning_curves(self.history))


def in_notebook() -> bool:
    """Whether somebody watches: a Jupyter kernel runs this, and TDSP_HEADLESS, which headless runs set, is not 1."""
    return os.environ.get("TDSP_HEADLESS") != "1" and hasattr(get_ipython(), "kernel")


def learning_rate_curve(table: pd.DataFrame, suggested: float) -> Figure:
    """Loss against rate (columns rate, loss of `learning_rate_range_test`), smoothed too, with the suggested rate."""
    figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
    axis.plot(table.rate, table.loss, color=BLUE, lw=0.8, alpha=0.5, label="loss of one batch")
    axis.plot(table.rate, smooth(table.loss), color=BLUE, label="smoothed")
    axis.axvline(suggested, color=ORANGE, ls="--", lw=1, label=f"suggested: {suggested:.1e}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8)
    plt.close(figure)
    return figure


def _line(row: dict[str, float], epochs: int) -> str:
    measures = "  ".join(f"{k} {v:.3f}" for k, v in row.items() if k not in ("epoch", "learning_rate", "seconds"))
    return f"epoch {row['epoch']}/{epochs}  {measures}  rate {row['learning_rate']:.1e}  {row['seconds']:.0f} s"
