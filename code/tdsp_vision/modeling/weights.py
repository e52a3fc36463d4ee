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

import numpy as np

STORAGES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8", "Int": "<i4"}
# What a tree of tensors may name. A tensor is read as (storage, offset, shape, strides), the last three in elements and
# not in bytes, and a storage as (dtype, key, count).
ALLOWED = {f"torch.{name}Storage": np.dtype(code) for name, code in STORAGES.items()}
ALLOWED["collections.OrderedDict"] = collections.OrderedDict
ALLOWED["torch._utils._rebuild_tensor_v2"] = lambda *parts: parts[:4]


class _TreeOfTensors(pickle.Unpickler):
    def find_class(self, module, name):
        """The few names that a tree of tensors needs."""
        if f"{module}.{name}" not in ALLOWED:
            raise pickle.UnpicklingError(f"a checkpoint may not hold {module}.{name}")
        return ALLOWED[f"{module}.{name}"]

    def persistent_load(self, pid):
        """A reference to a storage."""
        _kind, dtype, key, _device, count, *_view = pid
        return dtype, key, count


def read_checkpoint(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a PyTorch checkpoint of either format, by name, in the shape and dtype they were saved with.

    Raises:
        ValueError: if the file is no such checkpoint, is cut short, or holds anything but tensors.
    """
    try:
        tree, values = (_from_zip if zipfile.is_zipfile(path) else _from_pickles)(Path(path))
        return {name: _array(values[key], *place) for name, ((_, key, _), *place) in tree.items()}
    except OSError:
        raise
    except Exception as error:  # a pickle that is none can raise almost anything (Python documentation, "pickle")
        raise ValueError(f"{path} is not a PyTorch checkpoint of plain tensors: {error}.") from error


def _from_pickles(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    """The tree of tensors and the values of each storage, by its key."""
    with path.open("rb") as file:
        _magic, _version, _system, tree, keys = (_TreeOfTensors(file).load() for _ in range(5))
        storages, values = {tensor[0][1]: tensor[0] for tensor in tree.values()}, {}
        for key in keys:
            file.seek(8, io.SEEK_CUR)  # the count once more
            dtype, _, count = storages[key]
            values[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return tree, values


def _from_zip(path: Path) -> tuple[dict, dict[str, np.ndarray]]:
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].split("/")[0]
        tree = _TreeOfTensors(archive.open(f"{root}/data.pkl")).load()
        storages = {tensor[0] for tensor in tree.values()}
        return tree, {key: np.frombuffer(archive.read(f"{root}/data/{key}"), kind, n) for kind, key, n in storages}


def _array(values: np.ndarray, offset: int, shape: tuple, strides: tuple) -> np.ndarray:
    """A copy of a tensor; ValueError where it leads out of its storage, from NumPy where offset or strides do so."""
    if math.prod(shape) > values.size:
        raise ValueError(f"no tensor of shape {shape} fits a storage of {values.size} values")
    steps = [values.itemsize * stride for stride in strides]
    return np.ndarray(shape, values.dtype, values, values.itemsize * offset, steps).copy()


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
                tensor = f"its tensor {name!r} is missing or does not become one of shape {tuple(weight.shape)}"
                raise ValueError(f"{path} does not hold {network.name}: {tensor}.")
            values.append(value)
        layer.set_weights(values)
