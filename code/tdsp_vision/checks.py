"""Checks of the exercise notebooks: what is still wrong, in one sentence.

In: what a learner wrote in place of `...`. Out: nothing if it is right so far; else `check` prints the sentence in
place of an error, and the cell ends there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Real

import numpy as np
import pandas as pd

from tdsp_vision.parameters import short

WORDS = {
    bool | np.bool_: "True or False",
    Real: "a number",
    str: "text",
    list: "a list",
    dict: "a dictionary",
    np.ndarray: "an array (numpy)",
    pd.Series: "a column (pandas Series)",
    pd.DataFrame: "a table (pandas DataFrame)",
}


class NotYet(AssertionError):
    """A check that is not passed yet."""


@contextmanager
def check() -> Iterator[None]:
    """Print what is still wrong; no traceback, whatever the answer is."""
    try:
        yield
    except NotYet as hint:
        print(f"Not yet: {hint}")
    except NameError as error:
        print(f"Not yet: `{error.name}` is not known; run the cells above first.")
    except Exception as error:  # an answer that the check itself could not work with
        print(f"Not yet: with your answer Python stops here: {type(error).__name__}: {error}")


def require(passed: object, hint: str) -> None:
    """Raise NotYet with `hint` unless `passed` is true; NaN compares as false, so compare in the positive."""
    if not passed:
        raise NotYet(hint)


def answered(kind: type, **answers: object) -> None:
    """Refuse answers that are still `...`, or are not of `kind` (a key of `WORDS`), by name; True is no number."""
    for name, value in answers.items():
        require(value is not ..., f"`{name}` is still `...`; put your answer there.")
        found = next((known for known in WORDS if isinstance(value, known)), type(value))
        said = WORDS.get(found, f"a {type(value).__name__}")
        quoted = f"{short(value)}, " if isinstance(value, str | Real) else ""
        require(
            isinstance(value, kind) and (found is kind or kind is not Real),
            f"`{name}` is {quoted}{said}; {WORDS[kind]} is expected.",
        )
