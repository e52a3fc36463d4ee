"""The one door to imgaug, whose last release, 0.4.0, is older than NumPy 2: `from … import iaa`, never imgaug itself.

Two names that NumPy 2 dropped are missed. `np.sctypes` (lists of types) is read once, while imgaug is imported, and
only its keys "float", "int" and "uint" are; `np.complex` (an old name of `complex`) is read by `imgaug.parameters`
whenever certain noise is drawn. So the first is lent to NumPy for the time of the import, and the second is given to
that one module. NumPy stays as it was: libraries that ask what it has (`hasattr(np, "sctypes")`) get a true answer.
"""

import importlib
import types

import numpy as np

SCTYPES = {
    "float": [np.float16, np.float32, np.float64, np.longdouble],
    "int": [np.int8, np.int16, np.int32, np.int64],
    "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
}


class _NumPyWithComplex(types.ModuleType):
    """NumPy, and the name `complex`."""

    complex = complex

    def __getattr__(self, name: str):
        return getattr(np, name)


def _import_augmenters() -> types.ModuleType:
    """`imgaug.augmenters`, imported with what it misses."""
    np.sctypes = SCTYPES
    try:
        augmenters = importlib.import_module("imgaug.augmenters")
    finally:
        del np.sctypes
    importlib.import_module("imgaug.parameters").np = _NumPyWithComplex("numpy")
    return augmenters


iaa = _import_augmenters()
RNG = importlib.import_module("imgaug.random").RNG
