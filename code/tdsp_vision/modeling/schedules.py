"""Learning rate by step, from the notebook's parameter `SCHEDULE`, a text of one of three kinds.

    "cosine"                                  warm-up to LEARNING_RATE in the first tenth, then down a cosine to 0
    "constant"                                LEARNING_RATE in every step
    "[0.05]*7 + [0.005]*7 + [0.0005]"         one rate per epoch; LEARNING_RATE is not used

A rate depends on the number of steps the optimizer has taken and on nothing else, so a resumed run goes on where it
stopped. Keras is imported only to build a schedule: a wrong text is answered at once.
"""

import ast
import math

import pandas as pd

KINDS = ("cosine", "constant")
LONGEST = 10_000  # rates; also keeps "[1]*1000000000" from filling the memory
ALLOWED = (
    f"'cosine', 'constant' or a list of one rate above 0 for each epoch (at most {LONGEST:,}), "
    "such as '[0.05]*7 + [0.005]*7 + [0.0005]'"
)


def check_schedule(schedule: str, epochs: int) -> None:
    """Refuse a `SCHEDULE` that is no schedule, or a list that has not one rate for each of the `epochs`.

    Raises:
        ValueError: one sentence with what was received, what is allowed and what to do.
    """
    if schedule in KINDS:
        return
    rates = step_list(schedule)
    if len(rates) != epochs:
        raise ValueError(
            f"SCHEDULE is {schedule!r} and has {len(rates)} rates, but EPOCHS is {epochs}; write one for each epoch."
        )


def step_list(schedule: str) -> list[float]:
    """The rates that a text such as "[0.05]*7 + [0.005]" stands for: lists of numbers, `+`, and `*` whole number.

    Raises:
        ValueError: for anything else, rates that are not above 0 and finite, and no or more than `LONGEST` rates.
    """
    try:
        rates = _rates(ast.parse(schedule, mode="eval").body)
        if not rates:
            raise ValueError("no rates")
    except (SyntaxError, TypeError, ValueError, RecursionError):  # TypeError: not a text at all
        raise ValueError(f"SCHEDULE is {_short(schedule)}; allowed are {ALLOWED}.") from None
    return rates


def learning_rate_schedule(schedule: str, peak: float, epochs: int, steps_per_epoch: int):
    """The schedule for an optimizer's `learning_rate`.

    Warming up, from a tenth of the peak, spares the pre-trained weights the large steps of an optimizer that has
    seen no gradients yet; the slow end settles (Goyal et al. 2017, arXiv:1706.02677; Loshchilov and Hutter 2017,
    arXiv:1608.03983). A list of rates drops them by steps, as in He et al. 2016, arXiv:1512.03385.

    Args:
        schedule: see the head of this module.
        peak: highest rate of "cosine", the rate of "constant".
        epochs: passes over the training images.
        steps_per_epoch: batches in one pass, at least 1.

    Returns:
        `keras.optimizers.schedules.LearningRateSchedule`, of a kind that Keras itself can save and load.

    Raises:
        ValueError: as `check_schedule`.
    """
    from keras.optimizers.schedules import CosineDecay, PiecewiseConstantDecay

    check_schedule(schedule, epochs)
    steps = int(epochs * steps_per_epoch)
    if schedule == "cosine":
        warmup = max(1, steps // 10)
        return CosineDecay(peak / 10, max(1, steps - warmup), warmup_target=peak, warmup_steps=warmup)
    rates = [float(peak)] * epochs if schedule == "constant" else step_list(schedule)
    changes = [epoch for epoch in range(1, epochs) if rates[epoch] != rates[epoch - 1]]
    last_steps = [int(epoch * steps_per_epoch) - 1 for epoch in changes]
    # The boundary at the end changes nothing, but there has to be one.
    return PiecewiseConstantDecay([*last_steps, steps], [rates[0], *(rates[e] for e in changes), rates[-1]])


def rate_by_epoch(schedule: str, peak: float, epochs: int, steps_per_epoch: int) -> pd.DataFrame:
    """Columns epoch (1 to `epochs`) and rate, that of the epoch's first step; arguments of `learning_rate_schedule`."""
    rates = learning_rate_schedule(schedule, peak, epochs, steps_per_epoch)
    first = [float(rates(epoch * steps_per_epoch)) for epoch in range(epochs)]
    return pd.DataFrame({"epoch": range(1, epochs + 1), "rate": first})


def _rates(node: ast.expr) -> list[float]:
    """Only lists, sums of lists and lists times a whole number: no name, call or other operator has a meaning here."""
    match node:
        case ast.List(elts=elements):
            rates = [_rate(element) for element in elements]
        case ast.BinOp(left, ast.Add(), right):
            rates = _rates(left) + _rates(right)
        case ast.BinOp(part, ast.Mult(), ast.Constant(times)) | ast.BinOp(ast.Constant(times), ast.Mult(), part):
            rates = _rates(part)
            if type(times) is not int or len(rates) * times > LONGEST:
                raise ValueError("not a whole number of times, or too often")
            rates = rates * times
        case _:
            raise ValueError("not a list of rates")
    if len(rates) > LONGEST:
        raise ValueError("too many rates")
    return rates


def _rate(node: ast.expr) -> float:
    match node:
        case ast.Constant(int() | float() as rate) if not isinstance(rate, bool) and 0 < rate < math.inf:
            return float(rate)
    raise ValueError("not a rate")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
