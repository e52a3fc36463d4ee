"""Goes with the last module that still imports it."""

from tdsp_vision.parameters import CLASSIFIERS, read_settings  # noqa: F401
