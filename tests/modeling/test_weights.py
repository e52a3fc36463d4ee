"""PyTorch checkpoints of both formats: what is read is what was written, and nothing else is read."""

import itertools
import os
import pickle
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from legacy_checkpoint import Saved, Writer

from tdsp_vision.modeling.weights import read_checkpoint

VALUES = np.arange(24, dtype="<f4")


def _read(tree, path: Path, **spoiled) -> dict[str, np.ndarray]:
    Writer(tree, **spoiled).write(path)
    return read_checkpoint(path)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", "<i4", "<i8"])
@pytest.mark.parametrize("shape", [(), (5,), (2, 3, 1, 4)])
def test_values_shape_and_dtype_come_back(tmp_path, dtype, shape):
    array = (np.arange(np.prod(shape, dtype=int)).reshape(shape) * 3 - 7).astype(dtype)
    got = _read(OrderedDict(weight=Saved.of(array)), tmp_path / "w.pth")["weight"]
    assert got.shape == shape and got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, array)


def test_tensors_share_a_storage_by_offset(tmp_path):
    tree = OrderedDict(
        first=Saved(VALUES, (2, 3), (3, 1)), second=Saved(VALUES, (4,), (1,), 6), last=Saved(VALUES, (), (), 23)
    )
    got = _read(tree, tmp_path / "w.pth")
    assert list(got) == ["first", "second", "last"]
    np.testing.assert_array_equal(got["first"], VALUES[:6].reshape(2, 3))
    np.testing.assert_array_equal(got["second"], VALUES[6:10])
    assert got["last"] == 23


def test_strides_are_honoured(tmp_path):
    tree = OrderedDict(transposed=Saved(VALUES, (6, 4), (1, 6)), every_third=Saved(VALUES, (7,), (3,), 2))
    got = _read(tree, tmp_path / "w.pth")
    np.testing.assert_array_equal(got["transposed"], VALUES.reshape(4, 6).T)
    np.testing.assert_array_equal(got["every_third"], VALUES[2::3][:7])


def test_the_result_owns_its_memory(tmp_path):
    tree = OrderedDict(a=Saved(VALUES, (3,), (1,)), b=Saved(VALUES, (3,), (1,)))
    got = _read(tree, tmp_path / "w.pth")
    got["a"][:] = -1
    np.testing.assert_array_equal(got["b"], VALUES[:3])


def test_an_unused_stride_may_be_any_number(tmp_path):
    tree = OrderedDict(one=Saved(VALUES, (1, 4), (2**62, 1)), none=Saved(VALUES, (0, 3), (2**62, 1)))
    got = _read(tree, tmp_path / "w.pth")
    np.testing.assert_array_equal(got["one"], VALUES[None, :4])
    assert got["none"].shape == (0, 3)


def _expected(offset: int, shape: list[int], strides: list[int]):
    """The tensor by the definition, element for element; None where it must be refused."""
    if min([offset, *shape, *strides]) < 0:
        return None
    places = [
        offset + sum(i * s for i, s in zip(index, strides, strict=True))
        for index in itertools.product(*(range(n) for n in shape))
    ]
    if len(places) > len(VALUES) or any(place >= len(VALUES) for place in places):
        return None
    return VALUES[np.array(places, int)].reshape(shape)


@settings(max_examples=200, deadline=None)
@given(st.integers(-3, 26), st.lists(st.tuples(st.integers(-1, 5), st.integers(-2, 7) | st.just(2**62)), max_size=3))
def test_any_view_is_right_or_refused(offset, sizes):
    shape, strides = [n for n, _ in sizes], [s for _, s in sizes]
    expected = _expected(offset, shape, strides)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "w.pth")
        tree = OrderedDict(weight=Saved(VALUES, tuple(shape), tuple(strides), offset))
        if expected is None:
            with pytest.raises(ValueError, match=r"w\.pth is not a PyTorch checkpoint"):
                _read(tree, path)
        else:
            np.testing.assert_array_equal(_read(tree, path)["weight"], expected)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (25,), (1,)),
        (23, (2,), (1,)),
        (-1, (2,), (1,)),
        (23, (24,), (-1,)),
        (4, (2, 2), (-4, 8)),
        (0, (2,), (2**62,)),
        (0, (2, 2), (2**61, -(2**61))),
        (0, (2**40,), (0,)),
        (0, (2**33, 2**33), (0, 0)),
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


def test_a_whole_pickled_module_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    ends = Writer(OrderedDict()).write(path)
    reference = pickle.dumps(("module", "Net", "net.py", "class Net"), protocol=2)[:-1] + b"Q."
    path.write_bytes(path.read_bytes()[: ends[2]] + reference)
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "tree", [OrderedDict(state_dict=OrderedDict(a=Saved.of(VALUES))), [1, 2], OrderedDict(epoch=3)]
)
def test_a_tree_of_anything_but_tensors_is_refused(tmp_path, tree):
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        _read(tree, tmp_path / "w.pth")


@pytest.mark.parametrize("count", [0, 23, 25, 2**62, -1])
def test_a_storage_must_hold_what_is_said(tmp_path, count):
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        _read(OrderedDict(a=Saved(VALUES, (4,), (1,))), tmp_path / "w.pth", said_counts={id(VALUES): count})


@pytest.mark.parametrize("spoiled", [{"magic": 1}, {"protocol": 1000}, {"view": ("0", 1, 2)}])
def test_other_headers_and_storage_views_are_refused(tmp_path, spoiled):
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        _read(OrderedDict(a=Saved.of(VALUES)), tmp_path / "w.pth", **spoiled)


def test_files_of_other_kinds_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    for content in (b"", b"\x80", b"some text\n", b"\xff" * 64, pickle.dumps({"a": 1})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
            read_checkpoint(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
        read_checkpoint(path)
    with pytest.raises(FileNotFoundError):
        read_checkpoint(tmp_path / "missing.pth")


def _state_dict() -> OrderedDict:
    """As PyTorch saves a network: with `_metadata` attached, one storage shared, one tensor a parameter."""
    tree = OrderedDict(part=Saved(VALUES, (2, 3), (1, 4), 5), whole=Saved.of(VALUES.reshape(4, 6)))
    tree["counter"] = Saved.of(np.array([7], "<i8"))
    tree["parameter"] = Saved(np.ones(3, "<f4"), (3,), (1,), parameter=True)
    tree._metadata = OrderedDict([("", {"version": 1})])
    return tree


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


@pytest.mark.parametrize(
    ("spoiled", "message"),
    [
        ({"byteorder": b"big"}, "not little-endian"),
        ({"data/0": VALUES[:-1].tobytes()}, "buffer is smaller than requested size"),
        ({"data/1": None}, "no item named 'w/data/1'"),
        ({"data.pkl": None}, "no item named 'w/data.pkl'"),
        ({"data.pkl": b"not a pickle"}, "not a PyTorch checkpoint"),
        ({"compression": zipfile.ZIP_DEFLATED}, "compressed"),
    ],
)
def test_a_zip_that_pytorch_would_not_write_is_refused(tmp_path, spoiled, message):
    Writer(_state_dict()).write_zip(tmp_path / "w.pth", **spoiled)
    with pytest.raises(ValueError, match=message) as caught:
        read_checkpoint(tmp_path / "w.pth")
    assert str(caught.value).startswith(f"{tmp_path / 'w.pth'} is not a PyTorch checkpoint of plain tensors")


def test_a_zip_cut_short_or_changed_is_refused(tmp_path):
    path = tmp_path / "w.pth"
    Writer(_state_dict()).write_zip(path)
    whole = path.read_bytes()
    first = whole.index(VALUES.tobytes())
    for content in (whole[: len(whole) // 2], whole[:-30], whole[:first] + b"\x01" + whole[first + 1 :]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a PyTorch checkpoint"):
            read_checkpoint(path)


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
