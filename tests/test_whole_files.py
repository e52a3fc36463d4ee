"""Files and folders appear whole or not at all, and leave nothing behind."""

import errno
import os
import stat
from pathlib import Path

import pytest

from tdsp_vision.files import whole_file, whole_folder, write_json, write_text

WRITERS = [whole_file, whole_folder]


def fill(draft: Path, text: str) -> None:
    """Write `text` into a draft, or into a file in it where it is a folder."""
    (draft / "inside" if draft.is_dir() else draft).write_text(text)


def content(path: Path) -> dict[str, str]:
    """Every file below a folder and its text."""
    return {file.relative_to(path).as_posix(): file.read_text() for file in path.rglob("*") if file.is_file()}


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_is_written_appears_whole_alone_and_with_the_permissions_of_the_umask(tmp_path, write, umask):
    target = tmp_path / "new/folder/é 1.csv"
    before = os.umask(umask)
    try:
        with write(target) as draft:
            fill(draft, "all of it")
            assert draft.parent == target.parent and draft.name.startswith(".") and not target.exists()
    finally:
        os.umask(before)
    assert list(target.parent.iterdir()) == [target] and [*content(tmp_path).values()] == ["all of it"]
    assert stat.S_IMODE(target.stat().st_mode) == (0o777 if target.is_dir() else 0o666) & ~umask


@pytest.mark.parametrize("write", WRITERS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_fails_leaves_nothing_or_the_old_file(tmp_path, write, error):
    if write is whole_file:
        (tmp_path / "a").write_text("old")
    before = content(tmp_path)
    with pytest.raises(error), write(tmp_path / "a") as draft:
        fill(draft, "half")
        raise error
    assert content(tmp_path) == before and len([*tmp_path.iterdir()]) == len(before)


def test_two_writers_at_once_do_not_mix_and_a_reader_keeps_the_old_file(tmp_path):
    target = tmp_path / "a.csv"
    target.write_text("old" * 10_000)
    with target.open() as reader:
        start = reader.read(3)
        with whole_file(target) as one, whole_file(target) as other:
            one.write_text("one")
            other.write_text("other")
        assert start + reader.read() == "old" * 10_000
    assert content(tmp_path) == {"a.csv": "one"}  # the outer block ends last


@pytest.mark.parametrize("there", ["a folder", "an empty folder", "a file", "a folder meanwhile"])
def test_a_folder_never_replaces_what_is_there(tmp_path, there):
    target = tmp_path / "r1"

    def make() -> None:
        target.write_text("old") if there == "a file" else target.mkdir()
        if there.startswith("a folder"):
            (target / "old").write_text("old")

    if "meanwhile" not in there:
        make()
    taken = pytest.raises(FileExistsError, match="r1 is already there and is not overwritten")
    with taken, whole_folder(target) as draft:
        (draft / "new").write_text("new")
        if "meanwhile" in there:
            make()
    assert list(tmp_path.iterdir()) == [target]
    assert [*tmp_path.rglob("new")] == [] and target.is_file() == (there == "a file")


def test_an_error_of_the_block_is_not_taken_for_a_folder_that_is_there(tmp_path):
    with pytest.raises(OSError, match="not empty") as error, whole_folder(tmp_path / "run"):
        raise OSError(errno.ENOTEMPTY, "not empty")
    assert not isinstance(error.value, FileExistsError)


def test_json_and_text_are_utf8_and_what_json_has_no_word_for_is_refused(tmp_path):
    write_json(tmp_path / "a.json", {"classes": ["鳥"], "auc": 0.5})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"auc": float("nan")})
    write_text(tmp_path / "a.txt", "é\n鳥")
    assert content(tmp_path) == {"a.json": '{\n  "classes": [\n    "鳥"\n  ],\n  "auc": 0.5\n}\n', "a.txt": "é\n鳥"}
