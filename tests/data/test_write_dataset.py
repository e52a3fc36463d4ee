"""From a folder to `data/<dataset>/`: complete, repeatable, and never half-written."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from acquire import acquire

from tdsp_vision.data import manifest as manifest_module
from tdsp_vision.data.manifest import COLUMNS, load_manifest
from tdsp_vision.data.tables import read_csv
from tdsp_vision.paths import DatasetPaths


def files_below(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """Inode, time of change and content of each file."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in found
    }


def image_files(dataset: DatasetPaths) -> set[str]:
    return {path.relative_to(dataset.root).as_posix() for path in dataset.images.rglob("*") if path.is_file()}


def test_everything_lands_where_the_contract_says(birds, put, dataset):
    put("robin/copy.png", 0)
    put("wren/broken.jpg", b"no image")
    put("wren/deep/er/1.png", 7)
    put("metadata.csv", b"path,patient_id,license,age\nwren/1.png,007,CC-0,5\nrobin/2.png,008,CC-BY,\n")
    written = acquire(dataset, birds)
    assert list(written) == [*COLUMNS, "patient_id", "age"]
    assert image_files(dataset) == set(written.path)
    assert "images/wren/deep__er__1.png" in set(written.path)
    for row in written.itertuples():
        assert hashlib.sha256((dataset.root / row.path).read_bytes()).hexdigest() == row.sha256
        assert Path(row.path).parts[1] == row.label
    rejected = read_csv(dataset.rejected)
    assert rejected.path.tolist() == ["robin/copy.png", "wren/broken.jpg"]
    assert rejected.reason[0] == "duplicate of robin/1.png (0 of 256 bits differ)"
    info = json.loads(dataset.info.read_text(encoding="utf-8"))
    assert info == {
        "name": "birds",
        "classes": ["robin", "wren"],
        "counts": {"robin": 2, "wren": 3},
        "images": 5,
        "rejected": 2,
        "licenses": ["CC-0", "CC-BY"],
        "source": "birds",
        "seed": 0,
    }
    pd.testing.assert_frame_equal(load_manifest(dataset), written, check_dtype=False)


def test_a_second_run_changes_no_file_among_the_images(birds, dataset):
    acquire(dataset, birds)
    before = files_below(dataset.root)
    acquire(dataset, birds)
    after = files_below(dataset.root)
    assert {name: content for name, (_, _, content) in after.items()} == {
        name: content for name, (_, _, content) in before.items()
    }
    assert {name: facts for name, facts in after.items() if name.startswith("images/")} == {
        name: facts for name, facts in before.items() if name.startswith("images/")
    }


def test_changed_new_and_vanished_images_are_followed(birds, put, dataset):
    before = acquire(dataset, birds).set_index("path")
    put("wren/1.png", 40)
    put("wren/3.png", 41)
    (birds / "robin/2.png").unlink()
    after = acquire(dataset, birds).set_index("path")
    assert set(after.index) == image_files(dataset) == {
        "images/robin/1.png", "images/wren/1.png", "images/wren/2.png", "images/wren/3.png"
    }  # fmt: skip
    assert (dataset.images / "wren/1.png").read_bytes() == (birds / "wren/1.png").read_bytes()
    assert after.sha256["images/wren/1.png"] != before.sha256["images/wren/1.png"]
    assert after.sha256["images/wren/2.png"] == before.sha256["images/wren/2.png"]


def test_a_copy_that_was_damaged_is_made_again(birds, dataset):
    acquire(dataset, birds)
    (dataset.images / "wren/1.png").write_bytes(b"half")
    acquire(dataset, birds)
    assert (dataset.images / "wren/1.png").read_bytes() == (birds / "wren/1.png").read_bytes()


def test_another_source_under_the_same_name_is_refused_and_nothing_is_touched(birds, dataset):
    acquire(dataset, birds, name="birds")
    before = files_below(dataset.root)
    with pytest.raises(ValueError, match="DATASET_NAME is 'birds', and .* was made from 'birds', not 'fish'; choose"):
        acquire(dataset, birds, name="fish")
    assert files_below(dataset.root) == before


@pytest.mark.parametrize("place", [".", "images", "images/deeper"])
def test_a_source_within_the_dataset_is_refused_and_loses_nothing(birds, dataset, place):
    """Copies that a run leaves out are deleted; here they would be the only ones there are."""
    shutil.copyfile(birds / "wren/1.png", birds / "wren/copy_of_1.png")
    shutil.copytree(birds, dataset.root / place)
    before = files_below(dataset.root)
    with pytest.raises(ValueError, match="neither may lie within the other"):
        acquire(dataset, dataset.root / place)
    assert files_below(dataset.root) == before


def test_a_dataset_within_its_source_is_refused(birds):
    with pytest.raises(ValueError, match="SOURCE_PATH is .*neither may lie within the other. Choose another DATA_DIR"):
        acquire(DatasetPaths(str(birds / "data"), "birds"), birds)


@pytest.mark.parametrize("stop_at", [1, 2, 4])
def test_a_run_killed_while_it_copies_leaves_no_half_file_and_is_completed_by_the_next(
    birds, dataset, monkeypatch, stop_at
):
    calls = []

    def die_halfway(origin, target):
        calls.append(origin)
        content = Path(origin).read_bytes()
        dying = len(calls) == stop_at
        Path(target).write_bytes(content[: len(content) // 2] if dying else content)
        if dying:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(manifest_module.shutil, "copyfile", die_halfway)
        with pytest.raises(KeyboardInterrupt):
            acquire(dataset, birds)
    left = files_below(dataset.root)
    assert len(left) == stop_at - 1
    assert all(content == (birds / name.removeprefix("images/")).read_bytes() for name, (*_, content) in left.items())
    acquire(dataset, birds)
    after = files_below(dataset.root)
    assert {name: after[name] for name in left} == left
    assert len(image_files(dataset)) == 4 and dataset.info.is_file()


def test_what_a_power_cut_left_behind_is_cleared_away(birds, dataset):
    (dataset.images / "wren").mkdir(parents=True)
    (dataset.images / "wren/.1.png.x8h2k.png").write_bytes(b"half")
    acquire(dataset, birds)
    assert len(image_files(dataset)) == 4


def test_until_all_images_are_there_the_old_manifest_stands(birds, put, dataset, monkeypatch):
    acquire(dataset, birds)
    before = files_below(dataset.root)
    put("wren/3.png", 9)

    def fail(origin, target):
        raise OSError("disk full")

    monkeypatch.setattr(manifest_module.shutil, "copyfile", fail)
    with pytest.raises(OSError, match="disk full"):
        acquire(dataset, birds)
    assert files_below(dataset.root) == before


def test_two_files_that_would_get_one_name_are_refused(birds, put, dataset):
    put("wren/a/1.png", 8)
    put("wren/a__1.png", 9)
    with pytest.raises(ValueError, match="would both become images/wren/a__1.png; rename one"):
        acquire(dataset, birds)
    assert not dataset.root.exists()


def test_files_can_be_read_by_others(birds, dataset):
    acquire(dataset, birds)
    assert {oct(path.stat().st_mode & 0o777) for path in dataset.root.rglob("*") if path.is_file()} == {"0o644"}
