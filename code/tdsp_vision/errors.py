"""The two errors that reach a person as one sentence; every other one is a fault of the program, with its traceback."""


class ParameterError(ValueError):
    """A wrong name, value or file from whoever called; exit code 2."""


class RunFailed(RuntimeError):
    """Something that was started did not end well; the text says what, why and what is left; exit code 1."""
