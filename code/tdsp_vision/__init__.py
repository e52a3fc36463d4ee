"""Image classification in three notebooks: what they call, by stage, and what runs them.

Keras reads settings of its user when it is imported; a backend or float type chosen for another program would change
scores or crash. So its backend is named here, and its settings file is one of this project's own.
"""

import importlib.util
import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["KERAS_HOME"] = str(Path.home() / ".cache" / "tdsp-vision" / "keras")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


class _QuietTensorFlow:
    """Finds TensorFlow for Python; its libraries write past every setting of the log while they load, in red."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        """What Python asks each finder; None for all other modules."""
        if name != "tensorflow":
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: _without_stderr(load, module)
        return spec


def _without_stderr(load, module) -> None:
    """Load a module while file descriptor 2 leads nowhere; Python's own warnings and errors are still seen."""
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        load(module)
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


sys.meta_path.insert(0, _QuietTensorFlow)
