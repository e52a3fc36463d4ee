"""What belongs together, what is left out, and what comes back from the tables and their corrections."""

import numpy as np
import pandas as pd
import pytest
import zoo
from acquire import acquire

from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.manifest import duplicates_to_reject, load_manifest, mark_duplicates, write_dataset


def table(files: str, **columns) -> pd.DataFrame:
    """Images a, b, … with far-apart hashes unless `dhash` is given."""
    rng = np.random.default_rng(0)
    hashes = [rng.bytes(32).hex() for _ in files]
    return pd.DataFrame({"file": list(files), "label": "x", "dhash": hashes} | columns)


def together(images: pd.DataFrame) -> set[str]:
    """The groups, each as the names of its files."""
    return {"".join(names) for _, names in images.groupby("group").file}


def test_groups_join_patients_lesions_and_copies_through_each_other():
    patients = ["p1", "p1", None, None, None, "p7", None]
    lesions = [None, "l1", "l1", None, None, None, "p7"]  # the same text as a patient's id is another thing
    images = table("abcdefg", patient_id=patients, lesion_id=lesions)
    images.loc[3, "dhash"] = images.dhash[2]  # d shows what c shows; c shares b's lesion, b shares a's patient
    assert together(mark_duplicates(images, 10)) == {"abcd", "e", "f", "g"}
    assert together(mark_duplicates(images.drop(columns="lesion_id"), 10)) == {"ab", "cd", "e", "f", "g"}
    assert together(mark_duplicates(images.drop(columns="patient_id"), 10)) == {"a", "bcd", "e", "f", "g"}
    assert together(mark_duplicates(images.drop(columns=["patient_id", "lesion_id"]), 10)) == set("abefg") | {"cd"}


def test_missing_ids_join_nothing_and_the_index_does_not_matter():
    images = table("abcd", patient_id=[np.nan, None, pd.NA, "p"], lesion_id=[np.nan] * 4)
    assert together(mark_duplicates(images, 0)) == set("abcd")
    images = table("abcd", patient_id=["p", "q", "p", "q"])
    images.index = [7, 7, 3, 1]
    assert together(mark_duplicates(images, 0)) == {"ac", "bd"}


def test_copies_are_rejected_with_their_original_and_a_conflict_is_said():
    images = table("abcd", label=["wren", "wren", "robin", "robin"])
    images.loc[[1, 2], "dhash"] = images.dhash[0]
    marked = mark_duplicates(images, 10)
    reasons = dict(duplicates_to_reject(marked).itertuples(index=False))
    assert reasons == {
        "b": "duplicate of a (0 of 256 bits differ)",
        "c": "duplicate of a (0 of 256 bits differ); LABEL CONFLICT: robin against wren",
    }
    assert duplicates_to_reject(marked.iloc[[0, 3]]).empty


def test_labels_and_names_come_back_from_the_tables_as_they_were(source, put, dataset):
    names = ["None/NA.png", "NA/null.png", "null/nan.png", "1/007.png", "1.0/1e5.png", "True/x.png", "nan/#1.png"]
    names += ['a label, with "quotes"/it\'s; 50%.png', "Zaunkönig ♪/é.png", " wren /  .png", "=1+1/'.png", "-/-.png"]
    for seed, name in enumerate(names):
        put(name, seed)
    put("metadata.csv", b'path,patient_id,attribution,license\nNA/null.png,007,"Ann, ""A""",None\n')
    written = acquire(dataset, source)
    loaded = load_manifest(dataset)
    assert sorted(loaded.path) == sorted(f"images/{name}" for name in names)
    assert loaded.label.tolist() == [path.split("/")[1] for path in loaded.path]
    assert loaded[["path", "label", "license", "attribution"]].equals(
        written[["path", "label", "license", "attribution"]]
    )
    row = loaded.set_index("path").loc["images/NA/null.png"]
    assert (row.patient_id, row.attribution, row.license) == ("007", 'Ann, "A"', "None")
    assert all((dataset.root / path).is_file() for path in loaded.path)


def test_columns_that_look_like_numbers_stay_text(source, put, dataset):
    """Pictures of one color have a hash of zeros only, and a folder may well be called 2019."""
    for label, value in (("dark", 30), ("light", 220)):
        put(f"{label}/1.png", zoo.encode(zoo.Image.new("L", (40, 40), value), "PNG"))
    images, rejected = scan_folder(source, quiet=True)
    assert set(images.dhash) == {"0" * 64}
    write_dataset(dataset, mark_duplicates(images, 0), rejected, source, {"source": "2019"})
    loaded = load_manifest(dataset)
    assert loaded.dhash.tolist() == ["0" * 64] * 2
    assert loaded.source.tolist() == ["2019"] * 2


def test_corrections_relabel_and_exclude_and_the_last_line_wins(birds, dataset):
    acquire(dataset, birds)
    lines = ["path,label,who", "images/wren/1.png,EXCLUDE,Ann", "images/wren/2.png,robin,", "images/wren/1.png,1,Bo"]
    lines += ["images/robin/2.png,EXCLUDE,Ann"]
    dataset.corrections.write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    loaded = load_manifest(dataset)
    assert dict(zip(loaded.path, loaded.label, strict=True)) == {
        "images/robin/1.png": "robin",
        "images/wren/1.png": "1",  # a label that is new, and text
        "images/wren/2.png": "robin",
    }
    assert loaded.index.tolist() == [0, 1, 2] and "who" not in loaded
    acquire(dataset, birds)
    assert load_manifest(dataset).equals(loaded), "corrections outlive another run of stage 1"


@pytest.mark.parametrize(
    "text, message",
    [
        ("path,label\nimages/wren/9.png,robin\n", "names 'images/wren/9.png', which is not in the manifest; remove"),
        ("file,label\nimages/wren/1.png,robin\n", "needs the columns 'path' and 'label'"),
        ("path,new_label\nimages/wren/1.png,robin\n", "needs the columns 'path' and 'label'"),
        ("images/wren/1.png,EXCLUDE\n", "needs the columns 'path' and 'label'"),
        ("path,label\nimages/wren/1.png,\n", "both filled in each line"),
        ("path,label\n,robin\nimages/wren/9.png,robin\n", "both filled in each line"),
        ("path,label\nimages/wren/1.png,robin,\nimages/wren/2.png,robin,Ann\n", "corrections.csv cannot be read"),
        ("", "corrections.csv cannot be read"),
    ],
)
def test_corrections_that_cannot_be_followed_are_refused(birds, dataset, text, message):
    acquire(dataset, birds)
    dataset.corrections.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_manifest(dataset)


def test_corrections_without_a_line_change_nothing(birds, dataset):
    written = acquire(dataset, birds)
    dataset.corrections.write_text("path,label\n", encoding="utf-8")
    assert load_manifest(dataset).label.tolist() == written.label.tolist()


def test_without_a_manifest_the_message_says_what_to_run(dataset):
    with pytest.raises(ValueError, match=r"There is no .*manifest.csv; first run .* with DATASET_NAME 'birds'"):
        load_manifest(dataset)
