"""Writes checkpoints in the two formats of PyTorch, without PyTorch, well-formed or spoiled."""

import collections
import io
import pickle
import sys
import types
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "i4": "IntStorage"}


@dataclass
class Saved:
    """A tensor as a checkpoint holds it: a view of a storage (1-d array); offset and strides count elements.

    A `parameter` is wrapped once more, as `torch.nn.Parameter` is saved.
    """

    storage: np.ndarray
    shape: tuple
    strides: tuple
    offset: int = 0
    parameter: bool = False

    @classmethod
    def of(cls, array: np.ndarray) -> "Saved":
        """A contiguous tensor in a storage of its own."""
        strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)
        return cls(array.ravel(), array.shape, strides[: array.ndim])


@dataclass
class Writer:
    """Writes `tree` in the formats of PyTorch; each attribute can be spoiled before."""

    tree: object

    def write(self, path: Path) -> list[int]:
        """Write the file; returns where each section ends: 5 pickles, then a count and values for each storage."""
        storages: dict[int, np.ndarray] = {}
        about = {"little_endian": True}
        parts = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, about)]
        parts += [self._tree(storages), pickle.dumps([str(key) for key in storages], protocol=2)]
        for storage in storages.values():
            parts += [len(storage).to_bytes(8, "little"), storage.tobytes()]
        path.write_bytes(b"".join(parts))
        return np.cumsum([len(part) for part in parts]).tolist()

    def write_zip(self, path: Path, **spoiled: bytes | None) -> None:
        """Write the zip format; `spoiled` replaces records ("data.pkl", "data/0", ...), None leaves one out."""
        storages: dict[int, np.ndarray] = {}
        records = {"data.pkl": self._tree(storages, zipped=True), "byteorder": b"little"}
        records |= {f"data/{number}": storage.tobytes() for number, storage in enumerate(storages.values())}
        records |= {"version": b"3\n", ".data/serialization_id": b"0" * 40} | spoiled
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in records.items():
                if content is not None:
                    archive.writestr(f"{path.stem}/{name}", content)

    def _tree(self, storages: dict[int, np.ndarray], zipped: bool = False) -> bytes:
        torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
        for name in STORAGES.values():
            setattr(torch, name, type(name, (), {"__module__": "torch"}))

        for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):  # only their names are written
            function = types.FunctionType((lambda: None).__code__, {}, name)
            function.__module__, function.__qualname__ = "torch._utils", name
            setattr(utils, name, function)

        class Pickler(pickle._Pickler):
            def persistent_id(self, thing):
                if not isinstance(thing, np.ndarray):
                    return None
                storages[id(thing)] = thing
                kind = getattr(torch, STORAGES[thing.dtype.str[1:]])
                if zipped:
                    return ("storage", kind, str(list(storages).index(id(thing))), "cpu", len(thing))
                return ("storage", kind, str(id(thing)), "cpu", len(thing), None)

            def save(self, thing, save_persistent_id=True):
                hooks = collections.OrderedDict()
                if isinstance(thing, Saved) and thing.parameter:
                    args = (replace(thing, parameter=False), True, hooks)
                    return self.save_reduce(utils._rebuild_parameter, args, obj=thing)
                if isinstance(thing, Saved):
                    args = (thing.storage, thing.offset, thing.shape, thing.strides, False, hooks)
                    return self.save_reduce(utils._rebuild_tensor_v2, args, obj=thing)
                return super().save(thing, save_persistent_id)

        stream = io.BytesIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "torch", torch)
            patch.setitem(sys.modules, "torch._utils", utils)
            Pickler(stream, protocol=2).dump(self.tree)
        return stream.getvalue()
