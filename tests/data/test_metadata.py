"""`metadata.csv` beside the labels: joined by path, or refused with a clear reason."""

from pathlib import Path

import pytest

from tdsp_vision.data.folder import scan_folder


def scan(source: Path):
    """The two tables of `scan_folder`; the rejections as a dict."""
    images, rejected = scan_folder(source, quiet=True)
    assert list(rejected) == ["path", "reason"] and rejected.path.is_unique
    assert rejected.reason.str.strip().all()
    return images, dict(rejected.itertuples(index=False))


def test_metadata_are_joined_by_path_and_ids_stay_text(birds, put):
    lines = ["path,patient_id,lesion_id,id,isic_id,age,site,license,attribution"]
    lines += ["wren/2.png,007,1e5,0010,00,40,NA,CC-0,Ann", "robin/1.png,,12,0020,01,50.5,None,CC-BY,"]
    put("metadata.csv", "\n".join(lines).encode())
    images, rejected = scan(birds)
    rows = images.set_index("file")
    assert rejected == {} and len(images) == 4
    assert rows.loc["wren/2.png", ["patient_id", "lesion_id", "id", "isic_id"]].tolist() == ["007", "1e5", "0010", "00"]
    assert rows.loc["wren/2.png", "age"] == 40 and rows.loc["robin/1.png", "age"] == 50.5
    assert rows.loc[["wren/2.png", "robin/1.png"], "site"].tolist() == ["NA", "None"]
    assert rows.patient_id.isna().tolist() == [True, True, True, False]
    assert rows.loc["robin/2.png", "patient_id":].isna().all()


@pytest.mark.parametrize(
    "text", ["\ufeffpath,patient_id\r\nwren/1.png,01\r\n", '\ufeff"path","patient_id"\n"wren/1.png","01"']
)
def test_metadata_as_spreadsheets_save_them(birds, put, text):
    put("metadata.csv", text.encode("utf-8"))
    assert scan(birds)[0].set_index("file").patient_id["wren/1.png"] == "01"


def test_commas_at_the_end_of_lines_do_not_shift_the_columns(birds, put):
    put("metadata.csv", b"path,patient_id\nwren/1.png,01,\nwren/2.png,02,\n")
    assert scan(birds)[0].patient_id.tolist()[2:] == ["01", "02"]


def test_metadata_of_a_file_that_is_not_there_are_said(birds, put):
    put("wren/broken.png", b"no image")
    put("metadata.csv", b"path,age\nwren/1.png,3\nwren/gone.png,4\nwren/broken.png,5\nwren\\2.png,6\n")
    images, rejected = scan(birds)
    assert rejected == {
        "wren/broken.png": "not an image that can be recognized",
        "wren/gone.png": "listed in metadata.csv, but there is no such file",
        "wren\\2.png": "listed in metadata.csv, but there is no such file",
    }
    assert images.age.dropna().tolist() == [3]


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "metadata.csv cannot be read .*No columns"),
        (b"file,age\nwren/1.png,3\n", "needs a column 'path'"),
        (b"path;age\nwren/1.png;3\n", "needs a column 'path'"),
        (b"path,age\nwren/1.png,3\nwren/1.png,4\n", "names each image once"),
        (b"path,age\nwren/1.png,3\n,4\n", "names each image once"),
        (b"path,age\nwren/1.png,3\nwren/2.png,4,5\n", "metadata.csv cannot be read .*Expected 2 fields"),
        (b"path,name\nwren/1.png,Smith, Ann\n", "metadata.csv cannot be read .*Length of header"),
        (b'path,age\nwren/1.png,"3\n', "metadata.csv cannot be read .*EOF inside string"),
        (b"path,name\nwren/1.png,caf\xe9\n", "metadata.csv cannot be read .*UTF-8"),
        ("path,age\nwren/1.png,3\n".encode("utf-16"), "metadata.csv cannot be read .*UTF-8"),
    ],
)
def test_metadata_that_cannot_be_used_are_refused(birds, put, content, message):
    put("metadata.csv", content)
    with pytest.raises(ValueError, match=message):
        scan_folder(birds, quiet=True)


@pytest.mark.parametrize(
    "column", ["label", "group", "cluster", "sha256", "width", "source", "file", "original", "bits"]
)
def test_a_metadata_column_that_the_manifest_fills_itself_is_refused(birds, put, column):
    put("metadata.csv", f"path,{column}\nwren/1.png,3\n".encode())
    with pytest.raises(ValueError, match=f"has a column '{column}', which the manifest fills itself; rename it"):
        scan_folder(birds, quiet=True)
