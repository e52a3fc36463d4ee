"""PyTorch checkpoints of both formats: what is read is what was written, and nothing else is read."""

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tdsp_vision.modeling.weights import read_checkpoint

VALUES = np.arange(24, dtype="<f4")
KINDS = {code: type(name, (), {"__module__": "torch"}) for code, name in [("f", "FloatStorage"), ("l", "LongStorage")]}


def _rebuild_tensor_v2():
    """Only its name is written."""


_rebuild_tensor_v2.__module__ = "torch._utils"
TORCH = {"torch": types.SimpleNamespace(**{kind.__name__: kind for kind in KINDS.values()})}
TORCH["torch._utils"] = types.SimpleNamespace(_rebuild_tensor_v2=_rebuild_tensor_v2)


@dataclass
class Saved:
    """A tensor as a checkpoint holds it: a view of a storage (1-d array); offset and strides count elements."""

    storage: np.ndarray
    shape: tuple
    strides: tuple = (1,)
    offset: int = 0

    def __reduce__(self):
        return _rebuild_tensor_v2, (self.storage, self.offset, self.shape, self.strides, False, OrderedDict())


class Pickler(pickle.Pickler):
    """Writes a tree as PyTorch does, with its storages apart."""

    def __init__(self, stream, *more):
        super().__init__(stream, protocol=2)
        self.storages, self.more = {}, more

    def persistent_id(self, thing):
        if not isinstance(thing, np.ndarray):
            return None
        self.storages[str(id(thing))] = thing
        return "storage", KINDS[thing.dtype.char], str(id(thing)), "cpu", len(thing), *self.more


def write(tree, path: Path, zipped: bool = False) -> Path:
    """Write `tree` in the old or the new format."""
    pickler = Pickler(stream := io.BytesIO(), *([] if zipped else [None]))
    with pytest.MonkeyPatch.context() as patch:
        for name, module in TORCH.items():
            patch.setitem(sys.modules, name, module)
        pickler.dump(tree)
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{path.stem}/data.pkl", stream.getvalue())
            for key, values in pickler.storages.items():
                archive.writestr(f"{path.stem}/data/{key}", values.tobytes())
        return path
    parts = [pickle.dumps(part, protocol=2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    parts += [stream.getvalue(), pickle.dumps(list(pickler.storages), protocol=2)]
    parts += [len(values).to_bytes(8, "little") + values.tobytes() for values in pickler.storages.values()]
    path.write_bytes(b"".join(parts))
    return path


OUTSIDE = [(0, (25,), (1,)), (23, (2,), (1,)), (-1, (2,), (1,)), (0, (2,), (2**62,)), (0, (2**40,), (0,))]
OUTSIDE += [(2**63, (1,), (1,)), (0, (-2, -2), (1, 1)), (0, (2, 3), (1,))]


@pytest.mark.parametrize(("offset", "shape", "strides"), OUTSIDE)
def test_no_tensor_reaches_outside_its_storage(tmp_path, offset, shape, strides):
    write(OrderedDict(weight=Saved(VALUES, shape, strides, offset)), tmp_path / "w.pth")
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_cut_anywhere_is_refused(tmp_path, zipped):
    tree = OrderedDict(a=Saved(VALUES, (24,)), b=Saved(np.arange(3, dtype="<i8"), (3,)))
    path = write(tree, tmp_path / "w.pth", zipped)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"w\.pth is not a PyTorch checkpoint of plain tensors"):
            read_checkpoint(path)


class _RunsACommand:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("zipped", [False, True])
def test_no_checkpoint_runs_code(tmp_path, zipped):
    path, harm = tmp_path / "w.pth", _RunsACommand(tmp_path / "ran")
    for tree in (harm, OrderedDict(a=harm)):
        with pytest.raises(ValueError, match="may not hold (posix|nt).system"):
            read_checkpoint(write(tree, path, zipped))
    path.write_bytes(pickle.dumps(harm))
    with pytest.raises(ValueError, match="may not hold (posix|nt).system"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("tree", [[1, 2], OrderedDict(epoch=3), OrderedDict(a=OrderedDict(b=Saved(VALUES, (24,))))])
def test_other_trees_are_refused(tmp_path, tree):
    with pytest.raises(ValueError, match=r"w\.pth is not a PyTorch checkpoint of plain tensors"):
        read_checkpoint(write(tree, tmp_path / "w.pth"))


@pytest.mark.parametrize("zipped", [False, True])
def test_a_state_dict_comes_back_from_both_formats(tmp_path, zipped):
    tree = OrderedDict(part=Saved(VALUES, (2, 3), (1, 4), 5), whole=Saved(VALUES, (4, 6), (6, 1)))
    tree["counter"] = Saved(np.array([7], "<i8"), (1,))
    tree._metadata = OrderedDict([("", {"version": 1})])
    path = write(tree, tmp_path / "w.pth", zipped)
    got = read_checkpoint(path)
    assert list(got) == ["part", "whole", "counter"]
    np.testing.assert_array_equal(got["part"], VALUES[[[5, 9, 13], [6, 10, 14]]])
    np.testing.assert_array_equal(got["whole"], VALUES.reshape(4, 6))
    assert got["counter"].tolist() == [7] and got["counter"].dtype == np.int64
