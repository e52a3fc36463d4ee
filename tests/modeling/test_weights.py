"""PyTorch checkpoints of both formats: what is read is what was written, and nothing else is read."""

import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from legacy_checkpoint import Saved, Writer

from tdsp_vision.modeling.weights import read_checkpoint

VALUES = np.arange(24, dtype="<f4")


def _read(tree, path: Path) -> dict[str, np.ndarray]:
    Writer(tree).write(path)
    return read_checkpoint(path)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (25,), (1,)),
        (23, (2,), (1,)),
        (-1, (2,), (1,)),
        (0, (2,), (2**62,)),
        (0, (2**40,), (0,)),
        (2**63, (1,), (1,)),
        (0, (-2, -2), (1, 1)),
        (0, (2, 3), (1,)),
    ],
)
def test_no_tensor_reaches_outside_its_storage(tmp_path, offset, shape, strides):
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        _read(OrderedDict(weight=Saved(VALUES, shape, strides, offset)), tmp_path / "w.pth")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    other = np.arange(3, dtype="<i8")
    ends = Writer(OrderedDict(a=Saved.of(VALUES), b=Saved.of(other))).write(path)
    whole = path.read_bytes()
    assert ends[-1] == len(whole) and len(ends) == 9
    for size in sorted({end + more for end in [0, *ends] for more in (-1, 0, 1, 5)}):
        if 0 <= size < len(whole):
            path.write_bytes(whole[:size])
            with pytest.raises(ValueError, match=r"w\.pth is not a PyTorch checkpoint"):
                read_checkpoint(path)


class _RunsACommand:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("section", range(5))
def test_no_section_can_run_code(tmp_path, section):
    path, marker = tmp_path / "w.pth", tmp_path / "ran"
    ends = Writer(OrderedDict(a=Saved.of(VALUES))).write(path)
    whole, start = path.read_bytes(), ([0, *ends])[section]
    path.write_bytes(whole[:start] + pickle.dumps(_RunsACommand(marker), protocol=2) + whole[ends[section] :])
    with pytest.raises(ValueError, match="may not hold"):
        read_checkpoint(path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", ["torch.nn.modules.linear Linear", "builtins eval", "collections Counter", "torch BFloat16Storage"]
)
def test_other_classes_are_refused_by_name(tmp_path, name):
    path, (module, attribute) = tmp_path / "w.pth", name.split()
    ends = Writer(OrderedDict()).write(path)
    header = path.read_bytes()[: ends[2]]
    path.write_bytes(header + f"c{module}\n{attribute}\n.".encode())
    with pytest.raises(ValueError, match=f"may not hold {module}.{attribute}"):
        read_checkpoint(path)


def _state_dict() -> OrderedDict:
    """As PyTorch saves a network: with `_metadata` attached, one storage shared, one tensor a parameter."""
    tree = OrderedDict(part=Saved(VALUES, (2, 3), (1, 4), 5), whole=Saved.of(VALUES.reshape(4, 6)))
    tree["counter"] = Saved.of(np.array([7], "<i8"))
    tree["parameter"] = Saved(np.ones(3, "<f4"), (3,), (1,), parameter=True)
    tree._metadata = OrderedDict([("", {"version": 1})])
    return tree


OTHER_FILES = [b"", b"some text", pickle.dumps({"a": 1}), Writer([1, 2]), Writer(OrderedDict(epoch=3))]
OTHER_FILES += [Writer(OrderedDict(a=OrderedDict(b=Saved.of(VALUES))))]


@pytest.mark.parametrize("content", OTHER_FILES)
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "w.pth"
    content.write(path) if isinstance(content, Writer) else path.write_bytes(content)
    with pytest.raises(ValueError, match=r"w\.pth is not a PyTorch checkpoint of plain tensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("spoiled", [{"data/0": VALUES[:-1].tobytes()}, {"data/1": None}, {"data.pkl": b"no pickle"}])
def test_a_zip_that_pytorch_would_not_write_is_refused(tmp_path, spoiled):
    Writer(_state_dict()).write_zip(tmp_path / "w.pth", **spoiled)
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize("format", ["legacy", "zip"])
def test_a_state_dict_comes_back_from_both_formats(tmp_path, format):
    path = tmp_path / "w.pth"
    writer = Writer(_state_dict())
    writer.write(path) if format == "legacy" else writer.write_zip(path)
    got = read_checkpoint(path)
    assert list(got) == ["part", "whole", "counter", "parameter"]
    np.testing.assert_array_equal(got["part"], VALUES[[[5, 9, 13], [6, 10, 14]]])
    np.testing.assert_array_equal(got["whole"], VALUES.reshape(4, 6))
    assert got["counter"].tolist() == [7] and got["counter"].dtype == np.int64
    assert got["parameter"].tolist() == [1, 1, 1]


def test_a_zip_cannot_run_code(tmp_path):
    path, marker = tmp_path / "w.pth", tmp_path / "ran"
    for harm in (_RunsACommand(marker), OrderedDict(a=_RunsACommand(marker))):
        for protocol in (2, 4):
            Writer(OrderedDict()).write_zip(path, **{"data.pkl": pickle.dumps(harm, protocol)})
            with pytest.raises(ValueError, match="may not hold (posix|nt).system"):
                read_checkpoint(path)
    assert not marker.exists()


def test_the_packaged_checkpoint_is_lite0(checkpoint):
    assert len(checkpoint) == 296
    assert checkpoint["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert checkpoint["_blocks.15._project_conv.weight"].shape == (320, 1152, 1, 1)
    assert checkpoint["_fc.weight"].shape == (1000, 1280)
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learned = sum(tensor.size for name, tensor in checkpoint.items() if not name.endswith(statistics))
    assert learned == 4_652_008  # published: 4.7 million
    assert all(np.isfinite(tensor).all() for tensor in checkpoint.values())
    assert all((tensor >= 0).all() for name, tensor in checkpoint.items() if name.endswith("running_var"))
