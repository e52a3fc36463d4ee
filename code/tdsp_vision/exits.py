"""Goes with the last command that still uses it: errors by name, as the two that `__main__` tells."""

from contextlib import contextmanager

from tdsp_vision.errors import ParameterError, RunFailed


@contextmanager
def exit_codes(wrong=(ParameterError,), failed=(RunFailed,)):
    try:
        yield
    except wrong as error:
        raise ParameterError(str(error)) from error
    except failed as error:
        raise RunFailed(str(error)) from error
