"""Writes checkpoints in the legacy format of PyTorch, without PyTorch, well-formed or spoiled."""

import collections
import io
import pickle
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "i4": "IntStorage"}


@dataclass
class Saved:
    """A tensor as a checkpoint holds it: a view of a storage (1-d array); offset and strides count elements."""

    storage: np.ndarray
    shape: tuple
    strides: tuple
    offset: int = 0

    @classmethod
    def of(cls, array: np.ndarray) -> "Saved":
        """A contiguous tensor in a storage of its own."""
        strides = tuple(step // array.itemsize for step in np.ascontiguousarray(array).strides)
        return cls(array.ravel(), array.shape, strides[: array.ndim])


@dataclass
class Writer:
    """Writes `tree` in the legacy format of PyTorch; each attribute can be spoiled before `write`."""

    tree: object
    magic: int = 0x1950A86A20F9469CFC6C
    protocol: int = 1001
    said_counts: dict[int, int] = field(default_factory=dict)
    view: object = None

    def write(self, path: Path) -> list[int]:
        """Write the file; returns where each section ends: 5 pickles, then a count and values for each storage."""
        storages: dict[int, np.ndarray] = {}
        about = {"protocol_version": self.protocol, "little_endian": True, "type_sizes": {"short": 2, "int": 4}}
        parts = [pickle.dumps(part, protocol=2) for part in (self.magic, self.protocol, about)]
        parts += [self._tree(storages), pickle.dumps([str(key) for key in storages], protocol=2)]
        for storage in storages.values():
            parts += [len(storage).to_bytes(8, "little"), storage.tobytes()]
        path.write_bytes(b"".join(parts))
        return np.cumsum([len(part) for part in parts]).tolist()

    def _tree(self, storages: dict[int, np.ndarray]) -> bytes:
        torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
        for name in STORAGES.values():
            setattr(torch, name, type(name, (), {"__module__": "torch"}))

        def _rebuild_tensor_v2():
            raise AssertionError("only its name is written")

        _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
        utils._rebuild_tensor_v2 = _rebuild_tensor_v2
        writer = self

        class Pickler(pickle._Pickler):
            def persistent_id(self, thing):
                if not isinstance(thing, np.ndarray):
                    return None
                storages[id(thing)] = thing
                kind = getattr(torch, STORAGES[thing.dtype.str[1:]])
                said = writer.said_counts.get(id(thing), len(thing))
                return ("storage", kind, str(id(thing)), "cpu", said, writer.view)

            def save(self, thing, save_persistent_id=True):
                if isinstance(thing, Saved):
                    args = (thing.storage, thing.offset, thing.shape, thing.strides, False, collections.OrderedDict())
                    return self.save_reduce(_rebuild_tensor_v2, args, obj=thing)
                return super().save(thing, save_persistent_id)

        stream = io.BytesIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "torch", torch)
            patch.setitem(sys.modules, "torch._utils", utils)
            Pickler(stream, protocol=2).dump(self.tree)
        return stream.getvalue()
