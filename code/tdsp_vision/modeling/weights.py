"""PyTorch checkpoints without PyTorch: a file of tensors (a state dict) becomes numpy arrays by tensor name.

Two formats (`torch/serialization.py`, `_legacy_save` and `_save`). Before 1.6, a row of pickles (magic number, protocol
version, system information, the tree of tensors, the list of storage keys), then the raw storages, each an int64 count
and its values. Since 1.6, an uncompressed zip archive with the tree in `<name>/data.pkl` and each storage in
`<name>/data/<key>`. A pickle can run any code; here it may name `OrderedDict`, tensors and storages and nothing else.
"""

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}


class _Storage(NamedTuple):
    dtype: np.dtype
    key: str
    count: int


class _Tensor(NamedTuple):
    """Where a tensor lies in its storage; offset and strides count elements, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple
    strides: tuple

    def read(self, storages: dict[str, np.ndarray]) -> np.ndarray:
        """A copy of the tensor; ValueError where it leads out of its storage."""
        values = storages[self.storage.key]
        if math.prod(self.shape) > values.size:
            raise ValueError(f"no tensor of shape {self.shape} fits a storage of {values.size} values")
        strides = [values.itemsize * stride for stride in self.strides]
        # NumPy raises ValueError where offset or strides lead out of the storage.
        return np.ndarray(self.shape, values.dtype, values, values.itemsize * self.offset, strides).copy()


class _TreeOfTensors(pickle.Unpickler):
    def find_class(self, module, name):
        """The few names that a tree of tensors needs."""
        if module == "torch" and name in DTYPES:
            return np.dtype(DTYPES[name])
        allowed = {
            "collections.OrderedDict": collections.OrderedDict,
            "torch._utils._rebuild_tensor_v2": lambda *parts: _Tensor(*parts[:4]),
            "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
        }
        if f"{module}.{name}" not in allowed:
            raise pickle.UnpicklingError(f"a checkpoint may not hold {module}.{name}")
        return allowed[f"{module}.{name}"]

    def persistent_load(self, pid):
        """A reference to a storage."""
        _kind, dtype, key, _device, count, *_view = pid
        return _Storage(dtype, key, count)


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a PyTorch checkpoint of either format, by name, in the shape and dtype they were saved with.

    Raises:
        ValueError: if the file is no such checkpoint, is cut short, or holds anything but tensors.
    """
    try:
        with Path(path).open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            tree, storages = _from_zip(path) if is_zip else _from_pickles(file)
        return {name: tensor.read(storages) for name, tensor in tree.items()}
    except OSError:
        raise
    except Exception as error:  # a pickle that is none can raise almost anything (Python documentation, "pickle")
        raise ValueError(f"{path} is not a PyTorch checkpoint of plain tensors: {error}.") from error


def _from_pickles(file) -> tuple[dict, dict]:
    _magic, _version, _system = (_TreeOfTensors(file).load() for _ in range(3))
    tree, keys = _TreeOfTensors(file).load(), _TreeOfTensors(file).load()
    wanted = {tensor.storage.key: tensor.storage for tensor in tree.values()}
    storages = {}
    for key in keys:
        file.seek(8, io.SEEK_CUR)  # the count once more
        dtype, _, count = wanted[key]
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return tree, storages


def _from_zip(path: Path) -> tuple[dict, dict]:
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        tree = _TreeOfTensors(io.BytesIO(archive.read(f"{root}/data.pkl"))).load()
        wanted = {tensor.storage.key: tensor.storage for tensor in tree.values()}
        storages = {
            key: np.frombuffer(archive.read(f"{root}/data/{key}"), storage.dtype, storage.count)
            for key, storage in wanted.items()
        }
    return tree, storages


def fill(network, path: Path, names_of: Callable, arrange: Callable) -> None:
    """Give the layers of a Keras network the tensors of a checkpoint.

    Args:
        network: keras.Model whose layers are all its own (none is a model).
        path: of the checkpoint, see `read_checkpoint`.
        names_of: layer to the names of its tensors, in the order of its Keras weights.
        arrange: (layer, array as PyTorch has it) to the array as Keras has it.

    Raises:
        ValueError: if a tensor is missing or has another shape.
    """
    tensors = read_checkpoint(path)
    for layer in network.layers:
        values = []
        for name, weight in zip(names_of(layer) if layer.weights else [], layer.weights, strict=True):
            value = arrange(layer, tensors[name]) if name in tensors else np.empty(0)
            if value.shape != tuple(weight.shape):
                raise ValueError(
                    f"{path} does not hold {network.name}: its tensor {name!r} is missing or does not become one of "
                    f"shape {tuple(weight.shape)}."
                )
            values.append(value)
        layer.set_weights(values)
