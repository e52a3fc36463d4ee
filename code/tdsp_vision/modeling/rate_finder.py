"""Learning-rate finder: raise the rate from step to step and see where the loss falls and where it breaks.

L. N. Smith 2017, "Cyclical learning rates for training neural networks", arXiv:1506.01186, section 3.3: a single
short trial instead of a search over whole runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

DIVERGED = 4  # times the lowest loss: from here on the trial shows nothing more


def learning_rate_range_test(
    model: keras.Model,
    batches: tf.data.Dataset,
    low: float = 1e-6,
    high: float = 1e-1,
    steps: int = 60,
    class_weight: dict[int, float] | None = None,
) -> pd.DataFrame:
    """Train for `steps` batches, each at a higher rate than the last, and take all of it back.

    Args:
        model: a compiled model; its loss and the kind and settings of its optimizer are used.
        batches: pairs (images, targets) as for `fit`, started again where they are fewer than `steps`. A shuffled
            dataset has been read once more afterwards: give the trial one of its own.
        low: rate of the first step.
        high: rate of the last step; in between the rates grow by a constant factor.
        steps: how many rates to try, at least 10.
        class_weight: as for `fit`.

    Returns:
        columns rate and loss (of that step's batch, before its update), one row per step; fewer than `steps` where
        the loss reached `DIVERGED` times its lowest value. Weights, the states of random layers (dropout) and the
        model's own optimizer are left as they were.

    Raises:
        ValueError: if the model is not compiled, or rates or steps make no trial.
    """
    if not model.compiled:
        raise ValueError(f"Model {model.name!r} is not compiled; the trial needs its loss and optimizer: compile it.")
    if not (0 < low < high and steps >= 10):
        raise ValueError(f"The trial got rates {low} to {high} in {steps} steps; it needs 0 < low < high and 10 steps.")
    trial, rows = _trial(model, low), []
    with _taken_back(model):
        for rate, (x, y) in zip(np.geomspace(low, high, steps), islice(batches.repeat(), steps), strict=True):
            trial.optimizer.learning_rate = rate
            loss = float(trial.train_on_batch(x, y, class_weight=class_weight))
            if not np.isfinite(loss) or loss > DIVERGED * min((row["loss"] for row in rows), default=loss):
                break
            rows.append({"rate": float(rate), "loss": loss})
    return pd.DataFrame(rows, columns=["rate", "loss"])


def _trial(model: keras.Model, rate: float) -> keras.Model:
    """The same layers, so the same weights, with an optimizer of its own whose rate can be set."""
    trial = keras.Model(model.inputs, model.outputs)
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # float16 wraps it
    trial.compile(type(optimizer).from_config(optimizer.get_config() | {"learning_rate": rate}), model.loss)
    return trial


@contextmanager
def _taken_back(model: keras.Model) -> Iterator[None]:
    """Afterwards, and after an error, all weights and states of random layers are what they were."""
    before = [(variable, variable.numpy().copy()) for variable in model.variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)


def smooth(losses: pd.Series) -> pd.Series:
    """Average of each loss and its neighbours, over a tenth of all (at least five): a single batch says little."""
    return losses.rolling(max(5, len(losses) // 10), center=True, min_periods=1).mean()


def suggest_rate(table: pd.DataFrame) -> float:
    """A tenth of the rate at which the smoothed loss is lowest: near the edge, but with room before it.

    Where the loss is lowest the rate is already too high to go on with, and one order below it still falls steeply
    (rule of thumb of Howard and Gugger 2020, "fastai: A layered API for deep learning", arXiv:2002.04688).

    Args:
        table: of `learning_rate_range_test`.

    Raises:
        ValueError: if there are fewer than ten rows or the loss never fell: then no rate can be read from them.
    """
    if len(table) < 10:
        raise ValueError(f"The trial has {len(table)} steps before the loss broke; start it at a lower rate.")
    losses = smooth(table.loss)
    if losses.idxmin() == losses.index[0]:
        raise ValueError(f"The loss only rose from rate {table.rate.iloc[0]:.1e} on; start the trial at a lower rate.")
    return float(table.rate[losses.idxmin()] / 10)
