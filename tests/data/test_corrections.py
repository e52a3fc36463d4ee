"""corrections.csv: read, applied, written, and left alone where nothing changed."""

import pytest
from acquire import acquire

from tdsp_vision.data.corrections import EXCLUDE, corrections_table, read_corrections, write_corrections
from tdsp_vision.data.manifest import load_manifest

CHANGES = {"images/wren/1.png": EXCLUDE, "images/wren/2.png": 'a new, "odd" label', "images/robin/1.png": "007"}


def test_what_is_written_is_read_and_followed(birds, dataset):
    acquire(dataset, birds)
    assert write_corrections(dataset, CHANGES) == 3
    assert read_corrections(dataset) == CHANGES
    labels = load_manifest(dataset).set_index("path").label
    assert "images/wren/1.png" not in labels
    assert labels["images/wren/2.png"] == 'a new, "odd" label' and labels["images/robin/1.png"] == "007"
    given = load_manifest(dataset, corrected=False)
    assert given.label.tolist() == ["robin", "robin", "wren", "wren"]


def test_a_run_that_replays_the_file_leaves_it_as_it_is(birds, dataset):
    acquire(dataset, birds)
    text = b"\xef\xbb\xbfpath,label,who\r\nimages/wren/1.png,robin,Bo\r\nimages/wren/1.png,EXCLUDE,Ann\r\n"
    dataset.corrections.write_bytes(text)
    assert write_corrections(dataset, read_corrections(dataset)) == 1
    assert dataset.corrections.read_bytes() == text


def test_lines_that_stay_keep_who_wrote_them(birds, dataset):
    acquire(dataset, birds)
    dataset.corrections.write_text("path,label,who\nimages/wren/1.png,robin,Ann\nimages/wren/2.png,robin,Bo\n")
    write_corrections(dataset, {"images/wren/1.png": "robin", "images/wren/2.png": EXCLUDE, "images/robin/1.png": "x"})
    assert dataset.corrections.read_text().splitlines() == [
        "path,label,who",
        "images/wren/1.png,robin,Ann",
        "images/wren/2.png,EXCLUDE,",
        "images/robin/1.png,x,",
    ]


def test_no_correction_leaves_no_file(birds, dataset):
    acquire(dataset, birds)
    assert write_corrections(dataset, {}) == 0 and read_corrections(dataset) == {}
    assert not dataset.corrections.exists()
    write_corrections(dataset, CHANGES)
    assert write_corrections(dataset, {}) == 0
    assert not dataset.corrections.exists()
    assert len(load_manifest(dataset)) == 4


@pytest.mark.parametrize("path, label", [("a.png", ""), ("a.png", " "), ("", "wren"), ("a.png", None), ("a.png", 1)])
def test_what_could_not_be_read_again_is_not_written(dataset, path, label):
    with pytest.raises(ValueError, match="each needs a path and a label, both text and not empty"):
        write_corrections(dataset, {path: label})
    assert not dataset.corrections.exists()


def test_the_table_lists_what_differs_from_the_given_labels(birds, dataset):
    acquire(dataset, birds)
    given = load_manifest(dataset, corrected=False)
    table = corrections_table(given, {"images/wren/2.png": EXCLUDE, "images/robin/1.png": "robin"})
    assert table.to_dict("records") == [{"path": "images/wren/2.png", "given": "wren", "now": EXCLUDE}]
    assert list(corrections_table(given, {}).columns) == ["path", "given", "now"]
    with pytest.raises(ValueError, match="names 'x.png', which is not in the manifest"):
        corrections_table(given, {"x.png": "wren"})
