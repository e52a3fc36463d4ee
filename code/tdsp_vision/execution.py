"""Goes with the last module that still imports it."""

from tdsp_vision.errors import RunFailed  # noqa: F401
from tdsp_vision.runner import run_notebook  # noqa: F401
