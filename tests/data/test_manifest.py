"""From a folder to `data/<dataset>/`: complete, repeatable, never half-written, and checked when it is loaded."""

import hashlib
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import zoo
from acquire import acquire

from tdsp_vision.data import manifest as manifest_module
from tdsp_vision.data import tables
from tdsp_vision.data.manifest import EXCLUDE, corrections_table, load_manifest, read_corrections, write_corrections
from tdsp_vision.data.tables import COLUMNS, read_csv, write_csv
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
    put("wren/deep/er/1.tif", zoo.encode(zoo.picture(7), "TIFF"))
    put("metadata.csv", b"path,patient_id,license,age\nwren/1.png,007,CC-0,5\nrobin/2.png,008,CC-BY,\n")
    modes = {path: path.stat().st_mode for path in birds.rglob("*")}
    written = acquire(dataset, birds)
    assert list(written) == [*list(COLUMNS)[:-1], "patient_id", "age"]
    assert image_files(dataset) == set(written.path)
    converted = written.set_index("path").converted
    assert converted[converted != ""].to_dict() == {"images/wren/deep__er__1.png": "TIFF to PNG"}
    for row in written.itertuples():
        content = (dataset.root / row.path).read_bytes()
        assert hashlib.sha256(content).hexdigest() == row.sha256 and len(content) == row.bytes
        assert Path(row.path).parts[1] == row.label
    rejected = read_csv(dataset.rejected)
    assert rejected[["path", "kind"]].to_numpy().tolist() == [
        ["robin/copy.png", "duplicate"], ["wren/broken.jpg", "format"]
    ]  # fmt: skip
    assert json.loads(dataset.info.read_text(encoding="utf-8")) == {
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
    assert {path: path.stat().st_mode for path in birds.rglob("*")} == modes
    assert (dataset.images / "wren/1.png").stat().st_ino == (birds / "wren/1.png").stat().st_ino, "a link, no copy"


def test_changed_new_vanished_and_damaged_images_are_followed(birds, put, dataset):
    before = acquire(dataset, birds).set_index("path")
    (birds / "wren/1.png").unlink()
    put("wren/1.png", 40)
    put("wren/3.png", 41)
    (birds / "robin/2.png").unlink()
    (dataset.images / "wren/2.png").unlink()
    (dataset.images / "wren/2.png").write_bytes(b"half")
    (dataset.images / "wren/.3.png.x8h2k.png").write_bytes(b"left by a power cut")
    after = acquire(dataset, birds).set_index("path")
    names = {"images/robin/1.png", "images/wren/1.png", "images/wren/2.png", "images/wren/3.png"}
    assert set(after.index) == image_files(dataset) == names
    assert all((dataset.root / name).read_bytes() == (birds / name[7:]).read_bytes() for name in names)
    assert (after.sha256 == before.sha256.reindex(after.index)).to_dict() == {
        name: name in ("images/robin/1.png", "images/wren/2.png") for name in sorted(names)
    }


def test_a_label_that_changes_its_case_loses_no_image_on_a_disk_that_ignores_case(birds, dataset, monkeypatch):
    acquire(dataset, birds)
    (birds / "robin").rename(birds / "Robin")
    unlink = Path.unlink

    def unlink_both(path, missing_ok=False):
        """On such a disk `robin/1.png` and `Robin/1.png` are one file."""
        unlink(path, missing_ok)
        for twin in (Path(str(path).replace("/robin/", "/Robin/")),):
            if twin.parent.parent == path.parent.parent and not twin.name.startswith("."):
                unlink(twin, True)

    monkeypatch.setattr(Path, "unlink", unlink_both)
    written = acquire(dataset, birds)
    assert image_files(dataset) == set(written.path) and "images/Robin/1.png" in image_files(dataset)


@pytest.mark.parametrize("place", [".", "images/deeper"])
def test_a_source_within_the_dataset_is_refused_and_loses_nothing(birds, dataset, place):
    """Copies that a run leaves out are deleted; here they would be the only ones there are."""
    shutil.copytree(birds, dataset.root / place)
    before = files_below(dataset.root)
    with pytest.raises(ValueError, match="neither may lie within the other"):
        acquire(dataset, dataset.root / place)
    with pytest.raises(ValueError, match="neither may lie within the other. Choose another DATA_DIR"):
        acquire(DatasetPaths(str(birds / "data"), "birds"), birds)
    assert files_below(dataset.root) == before


def test_another_source_is_refused_and_the_advice_costs_no_corrections(birds, dataset):
    acquire(dataset, birds)
    dataset.corrections.write_text("path,label\nimages/wren/1.png,robin\n")
    before = files_below(dataset.root)
    with pytest.raises(ValueError, match=r"made from 'birds', not 'fish'; choose .* or delete .*dataset.json"):
        acquire(dataset, birds, name="fish")
    assert files_below(dataset.root) == before
    dataset.info.unlink()
    acquire(dataset, birds, name="fish")
    assert load_manifest(dataset).label.tolist() == ["robin", "robin", "robin", "wren"]


def test_a_run_killed_while_it_copies_leaves_no_half_file_and_is_completed_by_the_next(birds, dataset, monkeypatch):
    calls, stop_at = [], 2

    def no_links(*_):
        raise OSError("another disk")

    def die_halfway(origin, target):
        calls.append(origin)
        content = Path(origin).read_bytes()
        dying = len(calls) == stop_at
        Path(target).write_bytes(content[: len(content) // 2] if dying else content)
        if dying:
            raise KeyboardInterrupt

    monkeypatch.setattr(tables.os, "link", no_links)
    with monkeypatch.context() as patch:
        patch.setattr(tables.shutil, "copyfile", die_halfway)
        with pytest.raises(KeyboardInterrupt):
            acquire(dataset, birds)
    left = files_below(dataset.root)
    assert len(left) == stop_at - 1
    assert all(content == (birds / name.removeprefix("images/")).read_bytes() for name, (*_, content) in left.items())
    acquire(dataset, birds)
    after = files_below(dataset.root)
    assert {name: after[name] for name in left} == left and len(image_files(dataset)) == 4
    assert {oct(path.stat().st_mode & 0o777) for path in dataset.root.rglob("*") if path.is_file()} == {"0o644"}


def test_until_all_images_are_there_the_old_manifest_stands(birds, put, dataset, monkeypatch):
    acquire(dataset, birds)
    before = files_below(dataset.root)
    put("wren/3.png", 9)

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(manifest_module, "link_or_copy", fail)
    with pytest.raises(OSError, match="disk full"):
        acquire(dataset, birds)
    assert files_below(dataset.root) == before


def test_two_files_that_would_get_one_name_both_stay(birds, put, dataset):
    for seed, name in enumerate(
        ["wren/a/1.png", "wren/a__1.png", "wren/A__1.png", "wren/b.png", "wren/b.gif", "wren/" + "x" * 240 + ".png"]
    ):
        put(name, 10 + seed) if name != "wren/b.gif" else put(name, zoo.encode(zoo.picture(20), "GIF"))
    written = acquire(dataset, birds)
    assert len(written) == 10 == len({path.casefold() for path in written.path})
    assert image_files(dataset) == set(written.path)


def test_texts_come_back_from_the_tables_as_they_were(source, put, dataset):
    names = ["None/NA.png", "NA/null.png", "null/nan.png", "1/007.png", "2.0/1e5.png", "True/x.png", "nan/#1.png"]
    names += ['a label, with "quotes"/it\'s; 50%.png', "Zaunkönig ♪/é.png", " wren /  .png", "=1+1/'.png", "-/-.png"]
    for seed, name in enumerate(names):
        put(name, seed)
    attribution = 'Ann, "A"\rand\nBo'
    table = pd.DataFrame(
        {"path": ["NA/null.png"], "patient_id": ["007"], "attribution": [attribution], "license": ["None"]}
    )
    write_csv(source / "metadata.csv", table)
    written = acquire(dataset, source, name="2019")
    loaded = load_manifest(dataset)
    assert sorted(loaded.path) == sorted(f"images/{name}" for name in names)
    columns = ["path", "label", "license", "attribution", "source", "dhash"]
    assert loaded[columns].equals(written[columns]) and set(loaded.source) == {"2019"}
    row = loaded.set_index("path").loc["images/NA/null.png"]
    assert (row.patient_id, row.attribution, row.license) == ("007", attribution, "None")


CHANGES = {"images/wren/1.png": EXCLUDE, "images/robin/1.png": 'a new, "odd" label'}


def test_corrections_are_written_read_and_followed(birds, dataset):
    acquire(dataset, birds)
    assert write_corrections(dataset, CHANGES, {}) == 2 and read_corrections(dataset) == CHANGES
    loaded = load_manifest(dataset)
    assert dict(zip(loaded.path, loaded.label, strict=True)) == {
        "images/robin/1.png": 'a new, "odd" label',
        "images/robin/2.png": "robin",
        "images/wren/2.png": "wren",
    }
    given = load_manifest(dataset, corrected=False)
    table = corrections_table(given, CHANGES | {"images/wren/2.png": "wren"})
    assert table[["path", "given", "now"]].to_numpy().tolist() == [
        ["images/robin/1.png", "robin", 'a new, "odd" label'], ["images/wren/1.png", "wren", EXCLUDE]
    ]  # fmt: skip
    acquire(dataset, birds)
    assert load_manifest(dataset).equals(loaded), "corrections outlive another run of stage 1"
    dataset.corrections.write_text("path,label\nimages/wren/1.png, Exclude \nimages/wren/2.png, Excluded\n")
    assert read_corrections(dataset) == {"images/wren/1.png": EXCLUDE, "images/wren/2.png": "Excluded"}
