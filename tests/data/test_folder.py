"""A folder of labelled images: each visible file is used or refused with a reason, whatever people put there."""

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import zoo

from tdsp_vision.data import folder as folder_module
from tdsp_vision.data.corrections import EXCLUDE
from tdsp_vision.data.folder import find_source, scan_folder
from tdsp_vision.paths import SAMPLE_DATA, DatasetPaths

NOBODY = 65534


def scan(source: Path):
    """The two tables of `scan_folder`; the rejections as a dict."""
    images, rejected = scan_folder(source, quiet=True)
    assert list(rejected) == ["path", "reason"] and rejected.path.is_unique
    assert rejected.reason.str.strip().all()
    return images, dict(rejected.itertuples(index=False))


@contextmanager
def without_privilege():
    """As an ordinary user, who unlike root is kept out by permissions."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_birds(birds):
    """A copy of `birds` that everybody may reach: pytest closes its own folders to others."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield shutil.copytree(birds, Path(name, "birds"))


def test_images_and_rejections_together_are_every_visible_file(source, put):
    zoo_files = zoo.whole_images() | zoo.odd_but_usable()
    refused = {name: content for name, (content, _) in zoo.refused().items()}
    for label in ("odd birds", "kiwi"):
        for name, content in (zoo_files | refused).items():
            put(f"{label}/{name}", content)
    put("kiwi/north/deep/1.png", 3)
    put("stray.png", 4)
    put("notes.txt", b"notes")
    put("kiwi/metadata.csv", b"path\n")
    put("metadata.csv", b"path,age\nkiwi/baseline.jpg,3\n")
    put(".DS_Store", b"hidden")
    put("kiwi/.hidden.png", 5)
    put(".cache/1.png", 6)
    images, rejected = scan(source)
    visible = {path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()}
    visible = {name for name in visible if not any(part.startswith(".") for part in name.split("/"))}
    assert sorted([*images.file, *rejected]) == sorted(visible - {"metadata.csv"})
    expected = {f"{label}/{name}" for label in ("odd birds", "kiwi") for name in zoo_files}
    assert set(images.file) == expected | {"kiwi/north/deep/1.png"}
    assert set(images.label) == {"odd birds", "kiwi"}
    assert rejected["stray.png"] == rejected["notes.txt"] == "not in a sub-folder, so it has no label"


def test_links_folders_and_pipes_with_the_name_of_an_image(birds, put, tmp_path):
    (birds / "wren/folder.jpg").mkdir()
    put("wren/folder.jpg/inside.png", 9)
    (birds / "wren/broken.jpg").symlink_to(birds / "nowhere.jpg")
    (birds / "wren/loop.jpg").symlink_to("loop.jpg")
    (birds / "wren/linked.png").symlink_to(birds / "robin/1.png")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.png").write_bytes(zoo.encode(zoo.picture(8), "PNG"))
    (birds / "finch").symlink_to(tmp_path / "elsewhere")
    (birds / "wren/round").symlink_to(birds)
    os.mkfifo(birds / "wren/pipe.jpg")
    images, rejected = scan(birds)
    assert {"wren/folder.jpg/inside.png", "wren/linked.png"} <= set(images.file)
    assert len(images) == 6
    assert rejected == {
        "wren/broken.jpg": "a link to nothing",
        "wren/loop.jpg": "a link to nothing",
        "wren/pipe.jpg": "not a file with content",
        "finch": "a link to a folder, and such links are not followed",
        "wren/round": "a link to a folder, and such links are not followed",
    }


def test_files_and_folders_without_permission(open_birds):
    closed = {"wren/closed.png": 0, "wren/locked": 0, "wren/listed": 0o444}
    for name in ("wren/closed.png", "wren/locked/1.png", "wren/listed/1.png"):
        (open_birds / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(open_birds / "wren/1.png", open_birds / name)
    for name, mode in closed.items():
        (open_birds / name).chmod(mode)
    try:
        with without_privilege():
            images, rejected = scan(open_birds)
    finally:
        for name in closed:
            (open_birds / name).chmod(0o755)
    assert len(images) == 4
    names = ["wren/closed.png", "wren/listed/1.png", "wren/locked"]
    assert rejected == dict.fromkeys(names, "cannot be read: Permission denied")


def test_names_that_people_give(source, put):
    usable = ["Zaunkönig ♪/é café.png", 'a label, with "quotes"/it\'s; 50% = #1.png', " wren /  .png", "-rf/--help.png"]
    usable += ["日本語/鳥　一.png", "wren/no_ending", "wren/" + "n" * 230 + ".png", "NA/None.png", "1/007.png"]
    for seed, name in enumerate(usable):
        put(name, seed)
    images, rejected = scan(source)
    assert sorted(images.file) == sorted(usable) and rejected == {}
    assert set(images.label) == {name.split("/")[0] for name in usable}


def test_names_that_no_table_or_file_system_could_hold(birds, put):
    put("wren/" + "n" * 240 + ".png", 5)
    put("wren/" + "d" * 120 + "/" + "n" * 120 + ".png", 6)
    put("wren/a." + "x" * 150, 7)
    put("wren/two\nlines.png", 8)
    put("wren/back\rhere.png", 9)
    put(f"{EXCLUDE}/1.png", 10)
    latin = birds / os.fsdecode(b"wren/caf\xe9.png")
    latin.write_bytes(zoo.encode(zoo.picture(11), "PNG"))
    images, rejected = scan(birds)
    assert len(images) == 4
    assert [reason for name, reason in rejected.items() if "two" in name or "back" in name or "caf" in name] == [
        "its name has a control character or is not UTF-8; rename it"
    ] * 3
    assert r"wren/caf\udce9.png" in rejected
    assert sum(reason.endswith("too long; rename it") for reason in rejected.values()) == 3
    assert "drops an image" in rejected[f"{EXCLUDE}/1.png"]
    "".join(rejected).encode("utf-8")


def test_the_order_is_alphabetical_and_does_not_depend_on_the_file_system(birds, put, monkeypatch):
    put("robin/10.png", 9)
    put("robin/a/1.png", 8)
    images, _ = scan(birds)
    assert images.file.tolist() == sorted(images.file)
    walk = os.walk
    monkeypatch.setattr(folder_module.os, "walk", lambda *args, **more: reversed(list(walk(*args, **more))))
    assert scan(birds)[0].equals(images)


@pytest.mark.parametrize("files, labels", [([], 0), (["wren/1.png"], 1), (["a.png", "b.png"], 0)])
def test_fewer_than_two_labels_are_refused(source, put, files, labels):
    for seed, name in enumerate(files):
        put(name, seed)
    with pytest.raises(ValueError, match=rf"SOURCE_PATH is .*usable images of {labels} label\(s\)"):
        scan_folder(source, quiet=True)


def test_when_nothing_is_usable_the_message_says_why(source, put):
    put("robin/1.tif", zoo.encode(zoo.picture(), "TIFF"))
    put("wren/1.tif", zoo.encode(zoo.picture(), "TIFF"))
    with pytest.raises(ValueError, match=r"2 files rejected, the first, 'robin/1.tif': TIFF is not an accepted"):
        scan_folder(source, quiet=True)


def test_the_sample_of_that_name_or_the_drawn_lesions(tmp_path, monkeypatch):
    assert find_source("sample", "", "lesions") == SAMPLE_DATA / "lesions"
    assert find_source("sample", "", "no_such_sample") == SAMPLE_DATA / "lesions"
    monkeypatch.setattr(folder_module, "SAMPLE_DATA", tmp_path)
    (tmp_path / "birds").mkdir()
    assert find_source("sample", "", "birds") == tmp_path / "birds"


def test_a_path_that_would_not_be_used_is_refused():
    with pytest.raises(ValueError, match=r"SOURCE_PATH is 'x/y', which SOURCE 'sample' does not use; set SOURCE to"):
        find_source("sample", "x/y", "lesions")


def test_a_folder_is_taken_from_the_workspace_and_must_exist(birds, monkeypatch, tmp_path):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    monkeypatch.chdir("/")
    assert find_source("folder", "source", "birds") == birds
    assert find_source("folder", str(birds), "birds") == birds
    for wrong in ("", "sourc", "source/robin/1.png"):
        with pytest.raises(ValueError, match=f"SOURCE_PATH is '{wrong}', and there is no such folder; name one"):
            find_source("folder", wrong, "birds")


def test_a_dataset_name_is_one_folder_name():
    with pytest.raises(ValueError, match=r"DATASET_NAME is '\.\./birds'"):
        DatasetPaths("data", "../birds")
