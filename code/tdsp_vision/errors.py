"""The two errors that reach a person as one sentence; every other one is a fault of the program, with its traceback."""

import click


class ParameterError(click.ClickException, ValueError):
    """A wrong name, value or file from whoever called."""

    exit_code = 2


class RunFailed(click.ClickException, RuntimeError):
    """Something that was started did not end well; the text says what, why and what is left; exit code 1."""
