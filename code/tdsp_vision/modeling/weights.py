"""Read PyTorch checkpoints without PyTorch and without unpickling objects: a file becomes arrays by tensor name.

Legacy format (before 1.6): a row of pickles (magic number, protocol version, system information, the tree of
tensors, the list of storage keys), then the raw storages, each a little-endian int64 count followed by its values.
Zip format (since 1.6): an archive, nothing compressed, with the tree in `<name>/data.pkl` and each storage in
`<name>/data/<key>`. Only `OrderedDict`, tensors and storages are allowed in the tree; anything else is refused, so
a checkpoint cannot run code. Formats: `torch/serialization.py`, `_legacy_save` and `_save` (PyTorch documentation,
"Serialization semantics").
"""

import collections
import io
import math
import os
import pickle
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
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


def _parameter(tensor: _Tensor, *_) -> _Tensor:
    return tensor


class _TensorTreeUnpickler(pickle.Unpickler):
    def find_class(self, module, name):
        """The few names that a tree of tensors needs; every other is refused."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return _parameter
        if module == "torch" and name in STORAGE_DTYPES:
            return STORAGE_DTYPES[name]
        raise pickle.UnpicklingError(f"a checkpoint may not hold {module}.{name}")

    def persistent_load(self, pid):
        """Where the file refers to a storage."""
        if pid[0] != "storage":
            raise pickle.UnpicklingError(f"a checkpoint may not refer to {pid[0]!r}")
        _kind, dtype, key, _device, count, *view = pid  # only the legacy format has a view
        if any(part is not None for part in view):
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
    with _only_tensors(path, "legacy PyTorch checkpoint"), Path(path).open("rb") as file:
        header = [_TensorTreeUnpickler(file).load() for _ in range(3)]
        if header[:2] != [MAGIC_NUMBER, PROTOCOL_VERSION]:
            raise ValueError("its first bytes are not those of the legacy format")
        tree = _TensorTreeUnpickler(file).load()
        keys = _TensorTreeUnpickler(file).load()
        known = {tensor.storage.key: tensor.storage for tensor in tree.values()}
        storages = {key: _read_storage(file, known[key]) for key in keys}
        return {name: tensor.read(storages) for name, tensor in tree.items()}


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a PyTorch checkpoint of either format; see `read_legacy_checkpoint`."""
    with Path(path).open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return read_legacy_checkpoint(path)
    with _only_tensors(path, "PyTorch checkpoint"), zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        if f"{root}/byteorder" in archive.namelist() and archive.read(f"{root}/byteorder") != b"little":
            raise ValueError("its values are not little-endian")
        tree = _TensorTreeUnpickler(io.BytesIO(_read_record(archive, f"{root}/data.pkl"))).load()
        known = {tensor.storage.key: tensor.storage for tensor in tree.values()}
        storages = {}
        for key, storage in known.items():
            size = storage.count * storage.dtype.itemsize
            storages[key] = np.frombuffer(_read_record(archive, f"{root}/data/{key}", size), storage.dtype)
        return {name: tensor.read(storages) for name, tensor in tree.items()}


def fill(network, path: Path, title: str, names_of: Callable, arrange: Callable) -> None:
    """Give the layers of a Keras network the tensors of a checkpoint.

    Args:
        network: keras.Model whose layers are all its own (none is a model).
        path: checkpoint, see `read_checkpoint`.
        title: name of the network in messages.
        names_of: layer to the names of its tensors, in the order of its Keras weights.
        arrange: (layer, array as PyTorch has it) to the array as Keras has it.

    Raises:
        ValueError: if a tensor is missing or has another shape.
    """
    tensors = read_checkpoint(path)
    for layer in network.layers:
        names = names_of(layer)
        missing = [name for name in names if name not in tensors]
        if missing:
            raise ValueError(f"{path} has no tensor {missing[0]!r}; it does not hold {title}.")
        values = [arrange(layer, tensors[name]) for name in names]
        for name, value, weight in zip(names, values, layer.weights, strict=True):
            if value.shape != tuple(weight.shape):
                raise ValueError(
                    f"{path} does not hold {title}: its tensor {name!r} has shape {tensors[name].shape}, "
                    f"which becomes {value.shape} where {tuple(weight.shape)} is needed."
                )
        layer.set_weights(values)


@contextmanager
def _only_tensors(path: Path, kind: str):
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # a pickle that is none can raise almost anything (Python documentation, "pickle")
        raise ValueError(f"{path} is not a {kind} of plain tensors: {error}.") from error


def _read_record(archive: zipfile.ZipFile, name: str, size: int | None = None) -> bytes:
    """One file of the archive; its checksum is verified by `zipfile`."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed, which PyTorch never does")
    if size is not None and info.file_size != size:
        raise ValueError(f"{name} has {info.file_size} bytes where its tensors need {size}")
    return archive.read(info)


def _read_storage(file, storage: _Storage) -> np.ndarray:
    head = file.read(8)
    left = os.fstat(file.fileno()).st_size - file.tell()
    size = storage.count * storage.dtype.itemsize
    if len(head) < 8 or left < size:
        raise EOFError(f"a storage of {storage.count} values ends after {left} bytes")
    if int.from_bytes(head, "little") != storage.count:
        raise ValueError(f"storage {storage.key!r} is said to hold {storage.count} values and does not")
    return np.frombuffer(file.read(size), storage.dtype)
