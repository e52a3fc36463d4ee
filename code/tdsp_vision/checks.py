"""Checks of the exercise notebooks: what is still wrong, in one sentence and without a traceback.

In: what a learner wrote in place of `...`. Out: nothing if it is right so far, else `NotYet`, which stops the
notebook at that cell.
"""

from numbers import Real

from tdsp_vision.parameters import short

WORDS = {Real: "a number", str: "text", list: "a list", dict: "a dictionary"}


class NotYet(AssertionError):
    """A check that is not passed yet; Jupyter shows its sentence alone."""

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback."""
        return [f"Not yet: {self}"]


def require(passed: object, hint: str) -> None:
    """Raise NotYet with `hint` unless `passed` is true; NaN compares as false, so compare in the positive."""
    if not passed:
        raise NotYet(hint)


def answered(kind: type, **answers: object) -> None:
    """Refuse answers that are still `...`, or are not of `kind`, by name; True is no number (`numbers.Real`).

    Raises:
        NotYet: says what stands there and what is expected.
    """
    for name, value in answers.items():
        require(value is not ..., f"`{name}` is still `...`; put your answer there.")
        fits = isinstance(value, kind) and not (kind is Real and isinstance(value, bool))
        expected = WORDS.get(kind, f"a {kind.__name__}")
        require(fits, f"`{name}` is {short(value)} ({type(value).__name__}); {expected} is expected.")
