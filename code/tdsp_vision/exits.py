"""How a command ends. Exit codes: 0 done; 1 something failed; 2 a wrong name, value or file; 130 interrupted."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from tdsp_vision.execution import RunFailed
from tdsp_vision.parameters import DeclarationError, ParameterError


@contextmanager
def exit_codes(
    wrong: tuple[type[Exception], ...] = (ParameterError,),
    failed: tuple[type[Exception], ...] = (RunFailed, DeclarationError, OSError),
) -> Iterator[None]:
    """Say an error that has an explanation in its own words and leave with its exit code; others keep their traceback.

    Args:
        wrong: errors of whoever called, exit code 2; looked at first.
        failed: errors of what was called, exit code 1.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        leave(str(stop) or "interrupted", 130)
    except wrong as error:
        leave(str(error), 2)
    except failed as error:
        leave(str(error), 1)


def leave(message: str, code: int) -> None:
    """Print `message` to standard error and end the process with `code`."""
    click.echo(message, err=True)
    sys.exit(code)
