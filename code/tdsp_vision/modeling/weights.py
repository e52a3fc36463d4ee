"""Read PyTorch checkpoints of the legacy format (before 1.6) without PyTorch and without unpickling objects.

The file is a row of pickles: magic number, protocol version, system information, the tree of tensors, the list
of storage keys; then the raw storages, each a little-endian int64 count followed by its values. Only
`OrderedDict`, tensors and storages are allowed in the tree; anything else is refused, so a checkpoint cannot
run code. Format: `torch/serialization.py`, `_legacy_save` (PyTorch documentation, "Serialization semantics").
"""

import collections
import math
import os
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
STORAGE_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ByteStorage": np.dtype("u1"),
}


class _Storage(NamedTuple):
    dtype: np.dtype
    key: str
    count: int


class _Tensor:
    """Where one tensor lies in its storage; elements are counted, not bytes."""

    def __init__(self, storage, offset, shape, strides, *_):
        self.storage = storage
        self.offset, self.shape, self.strides = offset, shape, strides

    def read(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """The tensor as an array of its own; ValueError if it reaches outside its storage."""
        values = storages[self.storage.key]
        count = math.prod(self.shape)
        if min((self.offset, *self.shape, *self.strides)) < 0 or count > values.size:
            raise ValueError(f"no tensor of shape {self.shape} fits a storage of {values.size} values")
        if count == 0:
            return np.empty(self.shape, values.dtype)
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        if last >= values.size:
            raise ValueError(f"a tensor of shape {self.shape} reaches outside its storage of {values.size} values")
        # Along a dimension of one element the stride is never used, and it may be any number.
        strides = [s * values.itemsize if n > 1 else 0 for n, s in zip(self.shape, self.strides, strict=True)]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, strides, writeable=False)
        return np.array(view)


class _TensorTreeUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        """The few names that a tree of tensors needs; every other is refused."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"a checkpoint may not hold {module}.{name}")

    def persistent_load(self, pid):
        """Where the file refers to a storage."""
        if pid[0] != "storage":
            raise pickle.UnpicklingError(f"a checkpoint may not refer to {pid[0]!r}")
        _kind, dtype, key, _device, count, view = pid
        if view is not None:
            raise pickle.UnpicklingError("storages that are views of others are not read")
        return _Storage(dtype, key, count)


def read_legacy_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a legacy PyTorch checkpoint (a state dict), by name.

    Args:
        path: the `.pth` file.

    Returns:
        one array per tensor, in the shape and dtype it was saved with (convolutions: out, in, height, width).

    Raises:
        ValueError: if the file is not such a checkpoint, is cut short, or holds anything but tensors.
    """
    try:
        with Path(path).open("rb") as file:
            header = [_TensorTreeUnpickler(file).load() for _ in range(3)]
            if header[:2] != [MAGIC_NUMBER, PROTOCOL_VERSION]:
                raise ValueError("its first bytes are not those of the legacy format")
            tree = _TensorTreeUnpickler(file).load()
            keys = _TensorTreeUnpickler(file).load()
            known = {tensor.storage.key: tensor.storage for tensor in tree.values()}
            storages = {key: _read_storage(file, known[key]) for key in keys}
        return {name: tensor.read(storages) for name, tensor in tree.items()}
    except OSError:
        raise
    except Exception as error:  # a pickle that is none can raise almost anything (Python documentation, "pickle")
        raise ValueError(f"{path} is not a legacy PyTorch checkpoint of plain tensors: {error}.") from error


def _read_storage(file, storage: _Storage) -> np.ndarray:
    head = file.read(8)
    left = os.fstat(file.fileno()).st_size - file.tell()
    size = storage.count * storage.dtype.itemsize
    if len(head) < 8 or left < size:
        raise EOFError(f"a storage of {storage.count} values ends after {left} bytes")
    if int.from_bytes(head, "little") != storage.count:
        raise ValueError(f"storage {storage.key!r} is said to hold {storage.count} values and does not")
    return np.frombuffer(file.read(size), storage.dtype)
