"""Files and folders appear whole or not at all, and leave nothing behind."""

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from tdsp_vision.files import whole_file, whole_folder, write_json, write_text


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_appears_whole_readable_and_alone(tmp_path):
    target = tmp_path / "new/folder/é 1.csv"
    with whole_file(target) as draft:
        assert draft.parent == target.parent and draft.suffix == ".csv" and draft.name.startswith(".")
        draft.write_text("half")
        assert not target.exists()
        draft.write_text("all of it")
    assert target.read_text() == "all of it"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_file_that_fails_leaves_the_old_one_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.csv"
    target.write_text("old")
    before = target.stat()
    with pytest.raises(error), whole_file(target) as draft:
        draft.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert list(tmp_path.iterdir()) == [target]


def test_who_has_the_old_file_open_reads_it_to_its_end(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old" * 10_000)
    with target.open() as reader:
        start = reader.read(3)
        write_text(target, "new")
        assert start + reader.read() == "old" * 10_000
    assert target.read_text() == "new"


def test_two_writers_at_once_do_not_mix(tmp_path):
    target = tmp_path / "a.csv"
    with whole_file(target) as one, whole_file(target) as other:
        assert one != other
        one.write_text("one")
        other.write_text("other")
    assert target.read_text() == "one"  # the outer block ends last
    assert list(tmp_path.iterdir()) == [target]


def test_a_folder_in_the_place_of_the_file_is_not_replaced(tmp_path):
    (tmp_path / "a.csv/inside").mkdir(parents=True)
    with pytest.raises(OSError), whole_file(tmp_path / "a.csv") as draft:
        draft.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]
    assert (tmp_path / "a.csv/inside").is_dir()


def test_a_draft_that_was_removed_is_an_error_and_not_an_empty_file(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "a.csv") as draft:
        draft.unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_appears_whole_and_can_be_entered(tmp_path):
    target = tmp_path / "runs/r1"
    with whole_folder(target) as draft:
        assert draft.parent == target.parent and not target.exists()
        (draft / "sub").mkdir()
        (draft / "sub/file").write_text("x")
    assert (target / "sub/file").read_text() == "x"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_nothing(tmp_path, error):
    with pytest.raises(error), whole_folder(tmp_path / "r1") as draft:
        (draft / "file").write_text("half")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["folder", "empty folder", "file"])
def test_a_folder_never_replaces_what_is_there(tmp_path, there):
    target = tmp_path / "r1"
    if there == "file":
        target.write_text("old")
    else:
        target.mkdir()
        if there == "folder":
            (target / "old").write_text("old")
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    with (
        pytest.raises(FileExistsError, match="r1 is already there and is not overwritten"),
        whole_folder(target) as draft,
    ):
        (draft / "new").write_text("new")
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_is_written_has_the_permissions_that_the_umask_leaves(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.csv", "patients")
        with whole_folder(tmp_path / "run") as draft:
            write_text(draft / "b.csv", "patients")
    finally:
        os.umask(before)
    assert mode(tmp_path / "a.csv") == mode(tmp_path / "run/b.csv") == 0o666 & ~umask
    assert mode(tmp_path / "run") == 0o777 & ~umask


def test_an_error_of_the_block_is_not_taken_for_a_folder_that_is_there(tmp_path):
    with pytest.raises(OSError, match="not empty") as error, whole_folder(tmp_path / "run"):
        raise OSError(errno.ENOTEMPTY, "not empty")
    assert not isinstance(error.value, FileExistsError)


def test_json_is_readable_text_and_refuses_what_json_has_no_word_for(tmp_path):
    target = tmp_path / "a.json"
    content = {"classes": ["Zaunkönig", "鳥"], "n": 1, "auc": 0.5, "none": None}
    write_json(target, content)
    assert json.loads(target.read_text(encoding="utf-8")) == content
    assert "Zaunkönig" in target.read_text(encoding="utf-8") and target.read_bytes().endswith(b"}\n")
    for number in (float("nan"), float("inf")):
        with pytest.raises(ValueError):
            write_json(target, {"auc": number})
    assert json.loads(target.read_text(encoding="utf-8")) == content
    assert list(tmp_path.iterdir()) == [target]


def test_text_is_utf8_with_the_line_ends_it_was_given(tmp_path):
    write_text(tmp_path / "a.txt", "é\n鳥")
    assert (tmp_path / "a.txt").read_bytes() == "é\n鳥".encode()
