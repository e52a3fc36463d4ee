"""How a command ends. Exit codes: 0 done; 1 something failed; 2 a wrong name, value or file; 130 interrupted."""

import os
import signal
import sys
import threading
import time
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


def end_with_starter() -> None:
    """Interrupt this process, as Ctrl-C does, when its standard input closes.

    It has to be a pipe that carries nothing: whoever started this process closes it to stop it, and the system does
    when the starter ends, however that happens. What has not ended 30 seconds later is killed, with its children.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a Jupyter kernel is born deaf to it
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()


def _interrupt_at_end_of_input(grace: float = 30.0) -> None:
    import psutil

    os.read(0, 1)  # not through sys.stdin, whose lock would disturb this process's end
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(grace)  # seconds; a clean end takes the process, and so this thread, away long before
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(130)
