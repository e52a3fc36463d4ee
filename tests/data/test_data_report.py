"""The report says what the tables say, its links lead somewhere, and what nobody knows is a question."""

import re

import pandas as pd
import pytest
import zoo
from acquire import acquire
from PIL import Image

from tdsp_vision.data.confounders import predict_label_alone
from tdsp_vision.data.lookalikes import find_look_alikes
from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.data.quality import measure_images
from tdsp_vision.data.report import write_data_report
from tdsp_vision.data.tables import read_csv

METADATA = "path,patient_id,sex,age,license,note\nwren/1.png,p1,f,40,CC-0,a | b\nwren/2.png,p1,m,,CC-BY,c\n"


def report(dataset, look_alikes=None) -> tuple[str, str]:
    """Report and dictionary of a dataset that was acquired."""
    manifest = load_manifest(dataset)
    measures = measure_images([dataset.root / path for path in manifest.path], quiet=True)
    found = predict_label_alone(measures, manifest.label, manifest.group, resamples=20)
    if look_alikes is None:
        look_alikes = pd.DataFrame(columns=["first", "second", "correlation"])
    path = write_data_report(dataset, manifest, read_csv(dataset.rejected), measures, found, look_alikes)
    assert path == dataset.root / "data_report.md"
    return path.read_text(encoding="utf-8"), (dataset.root / "data_dictionary.md").read_text(encoding="utf-8")


def cells(text: str, first: str) -> list[str]:
    """The cells of the table line that begins with `first`."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_counts_conflicts_and_questions(birds, put, dataset):
    put("metadata.csv", METADATA.encode())
    put("wren/copy_of_robin.png", 0)
    put("wren/broken.jpg", b"no image")
    acquire(dataset, birds)
    text, dictionary = report(dataset)
    assert "- 4 images of 2 classes in 3 groups" in text
    assert "- 2 files left out, 1 of them as duplicates, 1 for other reasons" in text
    assert "- 1 of the duplicates left out had another label than the image that stayed" in text
    assert cells(text, "wren") == ["wren", "2", "1", "0.5"]
    assert cells(text, "(unknown)") == ["(unknown)", "2"]
    assert cells(text, "not an image that can be recognized") == ["not an image that can be recognized", "1"]
    questions = text.split("## Open questions")[1]
    assert "- Which label is right? wren/copy_of_robin.png: duplicate of robin/1.png" in questions
    assert "- What licence do the 2 images have" in questions
    assert "patient" not in questions and all(
        line[-1] in "?)" or "label" in line for line in questions.split("\n- ")[1:]
    )
    assert cells(dictionary, "age") == ["age", "number", "age of the patient", "years", "25%", "40 to 40"]
    assert cells(dictionary, "note")[2:] == ["(from the source; not documented)", "", "50%", r"a \| b, c"]
    assert {line.split(" | ")[0][2:] for line in dictionary.splitlines()[6:]} == set(load_manifest(dataset))


def test_every_link_leads_to_a_picture_and_a_second_time_changes_nothing(source, put, dataset):
    labels = ["a label, with ](parts) | and #?", "wren", "Zaunkönig ♪"]
    for seed, label in enumerate(labels * 2):
        put(f"{label}/{seed} $x$ and a name that is longer than its picture is wide.png", seed)
    acquire(dataset, source)
    once = report(dataset)
    links = re.findall(r"^!\[[^\]]*\]\(([^)]+)\)$", once[0], re.M)
    assert len(links) == 2 + len(labels) and once[0].count("![") == len(links)
    for link in links:
        with Image.open(dataset.root / link) as picture:
            assert picture.format == "PNG" and min(picture.size) > 50
    pictures = {path: path.read_bytes() for path in dataset.root.glob("figures/*.png")}
    assert len(pictures) == len(links)
    assert report(dataset) == once
    assert {path: path.read_bytes() for path in dataset.root.glob("figures/*.png")} == pictures


def test_look_alikes_are_asked_about_unless_they_are_known_duplicates(source, put, dataset):
    large = zoo.picture(1, 300, 300)
    for name, picture in (("a/1.png", large), ("b/1.png", large.crop((5, 5, 297, 297))), ("b/deep/2.png", large)):
        put(name, zoo.encode(picture, "PNG"))
    put("a/2.png", 5)
    look_alikes = find_look_alikes(source, ["a/1.png", "b/1.png", "b/deep/2.png", "a/2.png"], quiet=True)
    assert len(look_alikes) == 3
    acquire(dataset, source)
    text, _ = report(dataset, look_alikes)
    assert "- 1 pairs of different pictures that may show the same" in text
    assert text.count("show the same? (detail") == 1 and "Do images/a/1.png and images/b/1.png show" in text


def test_measures_of_another_manifest_are_refused(birds, dataset):
    manifest = acquire(dataset, birds)
    with pytest.raises(ValueError, match="the manifest has 4 rows and the measures 3; they must be equal"):
        write_data_report(dataset, manifest, *[pd.DataFrame()] * 1, pd.DataFrame(index=range(3)), *[pd.DataFrame()] * 2)
    assert not (dataset.root / "data_report.md").exists()


@pytest.mark.slow
def test_real_photos_show_their_known_confounders(real_photos, dataset):
    manifest = acquire(dataset, real_photos / "isic2019_256")
    measures = measure_images([dataset.root / path for path in manifest.path], quiet=True)
    found = predict_label_alone(measures, manifest.label, manifest.group, resamples=200).set_index("measure")
    for name in ("file_kb", "dark_corners", "thin_lines", "sharpness"):
        assert found.low[name] > 0.55 and found.direction[name] == "larger in malignant"
    assert 0.65 < found.auc["all together"] < 0.8
    assert found.direction["megapixels"] == "no difference"
