"""Checks of the exercise notebooks: what is still wrong, in one sentence.

In: what a learner wrote in place of `...`. Out: nothing if it is right so far; else `check` prints the sentence of the
first `assert` that fails in place of an error, and the cell ends there. NaN compares as false, so compare in the
positive.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from numbers import Number


@contextmanager
def check() -> Iterator[None]:
    """Print what is still wrong; no traceback, whatever the answer is."""
    try:
        yield
    except AssertionError as hint:
        print(f"Not yet: {hint}")
    except Exception as error:  # an answer that the check itself could not work with
        print(f"Not yet: with your answer Python stops here: {type(error).__name__}: {error}")


def answered(kind: type, **answers: object) -> None:
    """Refuse answers that are still `...`, or are not of `kind`, by name; True is no number (`Number`)."""
    for name, value in answers.items():
        assert value is not ..., f"`{name}` is still `...`; put your answer there."
        fits = isinstance(value, kind) and not (kind is Number and isinstance(value, bool))
        assert fits, f"`{name}` is of type {type(value).__name__}; {getattr(kind, '__name__', kind)} is expected."
