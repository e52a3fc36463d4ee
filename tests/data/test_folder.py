"""A folder of labelled images in every common form: each visible file is used or refused with a reason."""

import os
import shutil
import tempfile
import unicodedata
from contextlib import contextmanager
from pathlib import Path

import pytest
import zoo

from tdsp_vision.data.folder import scan_folder

NOBODY = 65534


def scan(source: Path, labels: str = "", column: str = "label"):
    """The table of images by file, and of the rejections reason by path."""
    images, rejected = scan_folder(source, labels, column)
    assert list(rejected) == ["path", "kind", "reason"] and rejected.path.is_unique
    assert rejected.reason.str.strip().all() and rejected.kind.str.strip().all()
    return images.set_index("file"), dict(rejected[["path", "reason"]].itertuples(index=False))


def write(put, name: str, *lines: str) -> None:
    put(name, "\n".join(lines).encode())


@contextmanager
def without_privilege():
    """As an ordinary user, who unlike root is kept out by permissions."""
    if os.geteuid():
        yield
        return
    os.setresuid(NOBODY, NOBODY, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)


def test_images_and_rejections_together_are_every_visible_file(birds, put):
    refused = {f"wren/deep/{name}": content for name, (content, _) in zoo.refused().items()}
    for name, content in refused.items():
        put(name, content)
    put("wren/.hidden.jpg", 5)
    put(".cache/thumb.jpg", 6)
    put("stray.png", 7)
    images, rejected = scan(birds)
    assert set(images.index) == {"robin/1.png", "robin/2.png", "wren/1.png", "wren/2.png"}
    assert set(rejected) == {*refused, "stray.png"} and "no label" in rejected["stray.png"]
    assert images.miniature.map(len).eq(2496).all() and images.sharpness.gt(0).all()


def test_links_and_places_that_cannot_be_read_are_named(birds, put):
    (birds / "wren/gone.png").symlink_to("nowhere")
    (birds / "wren/round").symlink_to("..")
    (birds / "wren/fine.png").symlink_to(put("robin/3.png", 9))
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        copy = shutil.copytree(birds, Path(name, "birds"), symlinks=True)
        (copy / "wren/fine.png").unlink()
        (copy / "robin/locked").mkdir(mode=0)
        (copy / "robin/2.png").chmod(0)
        with without_privilege():
            images, rejected = scan(copy)
    assert set(images.index) == {"robin/1.png", "robin/3.png", "wren/1.png", "wren/2.png"}
    assert "cannot be read" in rejected["robin/2.png"] and "cannot be read" in rejected["robin/locked"]
    assert rejected["wren/gone.png"] == rejected["wren/round"] and "not followed" in rejected["wren/round"]
    assert "wren/fine.png" in scan(birds)[0].index


def test_names_that_cannot_be_written_down_are_refused(birds, put):
    put("wren/new\nline.png", 5)
    put("wren/" + "x" * 235 + ".png", 6)
    put("EXCLUDE/1.png", 7)
    Path(os.fsdecode(os.fsencode(birds) + b"/wren/\xff.png")).write_bytes(b"x")
    images, rejected = scan(birds)
    assert len(images) == 5 and len(rejected) == 4  # and the folder EXCLUDE itself
    assert "the word that drops an image" in rejected["EXCLUDE/1.png"] and r"wren/\udcff.png" in rejected


FORMS = {
    "plain": ("{label}/{n}.png", None),
    "deeper": ("{label}/day/{n}.png", None),
    "in a folder of a zip": ("birds/birds/{label}/{n}.png", None),
    "train, val, test": ("{split}/{label}/{n}.png", ["test", "train", "val"]),
    "words around": ("ISIC_2019_{split}_Input/{label}/{n}.png", ["Training", "Validation"]),
    "folds": ("{split}/{label}/{n}.png", ["fold1", "fold2"]),
    "repeated": ("images/{split}_set/{split}_set/{label}/{n}.png", ["test", "train"]),
    "images below": ("{split}/images/{label}/{n}.png", ["train", "valid"]),
    "another word": ("{split}/{label}/{n}.jfif", ["train", "eval"]),
    "below the labels": ("{label}/{split}/{n}.png", ["train", "test"]),
    "parts": ("batch_{n}/{label}/{n}.png", None),
}


@pytest.mark.parametrize("form", FORMS)
def test_labels_stand_below_wrappers_and_divisions(put, source, form):
    path, splits = FORMS[form]
    for n, split in enumerate((splits or [""]) * 2):
        for k, label in enumerate(("robin", "wren")):
            put(path.format(label=label, split=split, n=n), 10 * n + k)
    write(put, "readme.txt", "hello")
    images, rejected = scan(source)
    assert set(images.label) == {"robin", "wren"} and set(rejected) == {"readme.txt"}
    if splits is None:
        assert "split" not in images
    else:
        words = {"train": "train", "Training": "train", "val": "validation", "valid": "validation"}
        words |= {"Validation": "validation", "test": "test", "eval": "test", "fold1": "fold1", "fold2": "fold2"}
        assert set(images.split) == {words[split] for split in splits}
        assert all(words[next(s for s in splits if s in name)] == split for name, split in images.split.items())


def test_a_division_with_something_beside_it_is_asked_about_and_a_label_called_train_is_one(put, source):
    for n, name in enumerate(["train/robin/1.png", "train/wren/1.png", "val/robin/2.png", "more/robin/3.png"]):
        put(name, n)
    with pytest.raises(
        ValueError, match="folders train, val the set came divided, and beside them stand more; move or"
    ):
        scan(source)
    shutil.rmtree(source / "val")
    (source / "train").rename(source / "seg_train")
    (source / "more").rename(source / "seg_pred")
    put("seg_test/robin/4.png", 4)
    with pytest.raises(ValueError, match="folders seg_test, seg_train the set .* beside them stand seg_pred; move"):
        scan(source)
    shutil.rmtree(source)
    for n, name in enumerate(["train/test/1.png", "train/train/2.png", "bus/test_0/3.png", "train stop/1.png"]):
        put(name, n)
    images, _ = scan(source)
    assert set(images.label) == {"train", "bus", "train stop"} and "split" not in images


def test_a_sub_folder_that_became_no_label_is_named(birds, put, capsys):
    put("finch/a.jpg", b"no image")
    put("finch/b.jpg", b"none either")
    (birds / "owl").mkdir()
    _, rejected = scan_folder(birds)
    reasons = dict(zip(rejected.path, rejected.reason, strict=True))
    assert "became no label: no file of 2 can be used (the first: not an image" in reasons["finch/"]
    assert "became no label: it has no files" in reasons["owl/"]
    assert "finch/: this sub-folder became no label" in capsys.readouterr().out


@pytest.mark.parametrize("other", ["Wren", "wren ", unicodedata.normalize("NFD", "wrén")])
def test_labels_that_differ_only_in_case_blanks_or_unicode_form(birds, put, other):
    put(f"{other}/9.png", 9)
    if "́" in other:
        put("WRÉN/8.png", 8)
    with pytest.raises(ValueError, match="The labels 'W.*differ only in case, blanks or Unicode form|'wren '"):
        scan(birds)


def test_a_decomposed_folder_and_a_composed_table_are_one(source, put):
    for n, label in enumerate(["Zaunkönig", "Rotkehlchen", "Grünfink"]):
        put(unicodedata.normalize("NFD", f"{label}/é.png"), n)
    write(put, "metadata.csv", "path,lesion_id", "Zaunkönig/é.png,a", "Rotkehlchen/é.png,b", "Grünfink/é.png,c")
    images, rejected = scan(source)
    assert not rejected and images.lesion_id.notna().all()
    assert set(images.label) == {"Zaunkönig", "Rotkehlchen", "Grünfink"}


@pytest.mark.parametrize("gone", ["wren", "."])
def test_fewer_than_two_labels_are_refused(birds, gone):
    shutil.rmtree(birds / gone)
    birds.mkdir(exist_ok=True)
    with pytest.raises(
        ValueError, match="no two folders are labels, and no one table has those of the images .looked at: none"
    ):
        scan(birds)


PATHS = {
    "as they are": lambda name: name,
    "with ./": lambda name: f"./{name}",
    "with backslashes": lambda name: name.replace("/", "\\"),
    "absolute, of another machine": lambda name: f"/home/ann/birds/{name}",
    "other case": lambda name: name.replace(".png", ".PNG").title(),
    "without endings": lambda name: name.removesuffix(".png"),
    "with blanks": lambda name: f" {name} ",
}


@pytest.mark.parametrize("how", PATHS)
def test_metadata_find_their_files_however_these_are_spelled(birds, put, how):
    names = ["robin/1.png", "robin/2.png", "wren/1.png", "wren/2.png"]
    lines = [f"{PATHS[how](name)},p{n} ,CC-0" for n, name in enumerate(names)]
    write(put, "metadata.csv", "image , Patient-ID,Licence", *lines)
    images, rejected = scan(birds)
    assert not rejected and images.patient_id[names].tolist() == ["p0", "p1", "p2", "p3"]
    assert set(images.license) == {"CC-0"}


@pytest.mark.parametrize("place", ["birds/metadata.csv", "birds/Metadata.CSV"])
def test_metadata_lie_beside_the_images_wherever_these_are(put, source, place):
    for name in ("birds/robin/1.png", "birds/wren/2.png"):
        put(name, len(name))
    write(put, place, "path,patient", "robin/1.png,a", "wren/2.png,b")
    images, rejected = scan(source)
    assert images.patient_id.tolist() == ["a", "b"] and not rejected
    write(put, "docs/metadata.csv", "key,value", "author,Ann")
    assert scan(source)[0].patient_id.tolist() == ["a", "b"]


def test_values_that_are_missing_and_values_that_stay_text(birds, put):
    lines = ["path;patient_id;id;age;site;weight", "wren/1.png;007;0010;40;NA;inf", "wren/2.png;1e5;;NA;None;3"]
    write(put, "metadata.csv", *lines, "robin/1.png;NA;02;50.5;leg;", "robin/2.png;null;03;?;arm;-inf")
    images, _ = scan(birds)
    assert images.loc["wren/1.png", ["patient_id", "id", "site"]].tolist() == ["007", "0010", "NA"]
    assert images.patient_id["wren/2.png"] == "1e5" and images.patient_id.notna().sum() == 2
    assert images.age.dropna().tolist() == [50.5, 40] and images.weight.dropna().tolist() == [3]
    assert images.site["wren/2.png"] == "None"


def test_lines_that_match_nothing_are_counted_and_stop_the_run_when_they_are_most(birds, put):
    write(put, "metadata.csv", "path,age", "wren/1.png,3", "wren/gone.png,4", "robin/1.png,5", "robin/2.png,6")
    images, rejected = scan(birds)
    assert list(rejected) == ["metadata.csv, line 3: wren/gone.png"] and images.age.notna().sum() == 3
    write(put, "metadata.csv", "path,age", "wren/1.png,3", "a/1.png,4", "b/1.png,5")
    with pytest.raises(ValueError, match=r"2 of its 3 lines match no file or several \(first: .*, line 3: a/1.png\)"):
        scan(birds)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,age", "wren/1.png,3", "./wren/1.png,4"], "more than one line names wren/1.png; remove"),
        (["path,label", "wren/1.png,x"], "column 'label', which the manifest fills itself, or"),
        (["path,Patient_ID,patient id", "wren/1.png,1,2"], "has the column 'patient_id' twice"),
        (["path,age", "wren/1.png,3,4"], "metadata.csv cannot be read"),
        (["", "age", "3"], "needs a column that names the images"),
    ],
)
def test_metadata_that_cannot_be_used_are_refused(birds, put, lines, message):
    write(put, "metadata.csv", *lines)
    with pytest.raises(ValueError, match=message):
        scan(birds)


TABLES = {
    "HAM10000": ["lesion_id,image_id,dx,age", "L1,img_0,nv,40", "L1,img_1,mel,50", "L2,img_2,nv,", "L3,img_3,mel,60"],
    "ISIC challenge": ["image,MEL,NV,BKL", "img_0,0.0,1.0,0.0", "img_1,1.0,0,0", "img_2,0,1.0,0.0", "img_3,1,0,0"],
    "Kaggle": ["id,label", "img_0.png,nv", "img_1.png,mel", "img_2.png,nv", "img_3.png,mel"],
    "filename, class": ["filename;class", "x/img_0.png;nv", "x/img_1.png;mel", "x/img_2.png;nv", "x/img_3.png;mel"],
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("place", ["labels.csv", "../labels.csv", "tables/labels.csv"])
def test_a_flat_folder_gets_its_labels_from_a_table(put, source, kind, place):
    for n in range(4):
        put(f"images/img_{n}.png", n)
    write(put, place, *TABLES[kind])
    images, rejected = scan(source)
    assert images.label.str.lower().tolist() == ["nv", "mel", "nv", "mel"] and not rejected
    assert ("lesion_id" in images) == (kind == "HAM10000") and "MEL" not in images


def test_a_table_that_is_named_and_what_it_does_not_label(put, source):
    for n in range(5):
        put(f"{n:03d}.png", n)
    lines = ["id,good,species", "000,x,wren", "001,y,robin", "2,z,wren", "003,x,robin", "004,y,", "001,y,wren"]
    write(put, "one.csv", *lines)
    write(put, "two.csv", *TABLES["Kaggle"])
    images, rejected = scan(source, "one.csv", "species")
    assert images.label.to_dict() == {"000.png": "wren", "003.png": "robin"}
    assert rejected["001.png"] == "one.csv gives it the labels robin, wren"
    assert "no line for it" in rejected["004.png"] and "no label" in rejected["002.png"]
    with pytest.raises(ValueError, match="LABEL_COLUMN 'kind'; .* .looked at: .*one.csv with good, species"):
        scan(source, "one.csv", "kind")
    write(put, "one.csv", "id,label", *(f"{n:03d}," for n in range(5)))
    with pytest.raises(
        ValueError, match="no one table has those of the images .looked at: .*one.csv with label.; name one"
    ):
        scan(source, "one.csv")
    (source / "one.csv").unlink()
    with pytest.raises(ValueError, match="no one table has those of the images .looked at: .*two.csv with label"):
        scan(source)


def test_of_columns_that_fit_as_well_numbers_of_lines_and_patients_name_no_files(put, source):
    for n in range(3):
        put(f"{n}.png", n)
    write(put, "labels.csv", ",filename,label", "0,2.png,robin", "1,0.png,wren", "2,1.png,wren")
    put("../bank.csv", b"\xff,not ours\n1,2")
    for name in (".old/labels.csv", "sample_submission.csv"):
        write(put, name, "filename,label", *(f"{n}.png,0" for n in range(3)))
    assert scan(source)[0].label.tolist() == ["wren", "wren", "robin"]
    write(put, "labels.csv", "patient_id,image,dx", "0,2,robin", "1,0,wren", "2,1,wren")
    assert scan(source)[0].patient_id.tolist() == ["1", "2", "0"]


def test_tables_of_several_sides_are_joined_where_they_are_of_one_kind_and_else_asked_about(put, source, capsys):
    for n in range(6):
        put(f"{'train' if n < 4 else 'valid'}/{n % 4}.png", n)
    write(put, "train/_classes.csv", "filename, Mass, Cyst", "0.png,1,0", "1.png,0,1", "2.png,1,0", "gone.png,1,0")
    write(put, "valid/_classes.csv", "filename, Mass, Cyst", "0.png,0,1", "1.png,1,0")
    images, rejected = scan(source)
    assert images.label.tolist() == ["Mass", "Cyst", "Mass", "Cyst", "Mass"] and list(rejected) == ["train/3.png"]
    assert "labels by Mass, Cyst\n1 of its 6 lines name no image, or several" in capsys.readouterr().out
    write(put, "valid/_classes.csv", "filename,label", "0.png,Mass", "1.png,Cyst")
    with pytest.raises(
        ValueError, match="no one table .*train/_classes.csv with Mass, Cyst; .*valid/_classes.csv with label"
    ):
        scan(source)
    write(put, "train/_classes.csv", "filename,Mass,Cyst", "0.png,0,0", "1.png,0,1", "2.png,1,0", "3.png,1,0")
    with pytest.raises(
        ValueError, match="looked at: .*_classes.csv with Mass, Cyst; .*name one"
    ):  # what is neither is no class
        scan(source)


def test_parts_of_a_set_are_no_labels_and_metadata_stand_beside_a_table_of_labels(put, source, capsys):
    for n in range(4):
        put(f"part_{n // 2}/img_{n}.png", n)
    write(put, "about.csv", *TABLES["HAM10000"])
    assert scan(source)[0].label.tolist() == ["nv", "mel", "nv", "mel"]
    (source / "part_0").rename(source / "ann")
    with pytest.raises(ValueError, match="other labels than the sub-folders: 'nv' for ann/img_0.png; set LABELS"):
        scan(source)
    write(put, "metadata.csv", "image,Patient ID", *(f"img_{n},P" for n in range(4)))
    write(put, "more.csv", *TABLES["Kaggle"])
    images, _ = scan(source, "about.csv")
    write(put, "metadata.csv", "image,age", "img_0,3")
    with pytest.raises(ValueError, match="column 'age', which the manifest fills itself, or another table; rename"):
        scan(source, "about.csv")
    assert images.label.tolist() == ["nv", "mel", "nv", "mel"] and set(images.patient_id) == {"P"}
    assert "more.csv names most of the images and is not used" in capsys.readouterr().out


def test_splits_without_labels_need_a_table_and_a_column_split_is_kept(put, source):
    for n in range(4):
        put(f"{'train' if n < 2 else 'test'}/{n}x.png", n)
    with pytest.raises(ValueError, match="no two folders are labels"):
        scan(source)
    write(put, "labels.csv", "file,label,Split", "0x,a,Train", "1x,b,val", "2x,a,", "3x,b,holdout")
    assert scan(source)[0].split.tolist() == ["test", "test", "train", "train"]
