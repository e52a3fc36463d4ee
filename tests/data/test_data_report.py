"""The report says what the tables say, its links lead somewhere, and what nobody knows is a question."""

import re

import pandas as pd
import zoo
from PIL import Image

from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.manifest import duplicates_to_reject, load_manifest, mark_duplicates, write_dataset
from tdsp_vision.data.quality import MEASURES, predict_label_alone
from tdsp_vision.data.report import write_data_report

METADATA = "path,patient_id,sex,age,license,note\nwren/1.png,p1,f,40,CC-0,a | b\nwren/2.png,p1,m,,CC-BY,c\n"


def report(dataset, source) -> tuple[str, str]:
    """Acquire `source`; its report and dictionary."""
    images, unusable = scan_folder(source)
    marked = mark_duplicates(images)
    copies = duplicates_to_reject(marked)
    rejected, kept = pd.concat([unusable, copies]), marked[~marked.file.isin(copies.path)]
    write_dataset(dataset, kept, rejected, source, {"source": "birds"})
    manifest = load_manifest(dataset)
    measures = kept.set_index("path").loc[manifest.path, list(MEASURES)]
    found = predict_label_alone(measures, manifest.label, manifest.group)
    path = write_data_report(dataset, manifest, rejected, measures, found, marked.attrs["sentences"])
    assert path == dataset.root / "data_report.md"
    return path.read_text(encoding="utf-8"), (dataset.root / "data_dictionary.md").read_text(encoding="utf-8")


def cells(text: str, first: str) -> list[str]:
    """The cells of the table line that begins with `first`."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_counts_conflicts_and_questions(birds, put, dataset):
    for seed in range(10, 20):
        put(f"wren/{seed}.png", seed)
    put("metadata.csv", METADATA.encode())
    put("wren/copy_of_robin.png", 0)
    put("wren/broken.jpg", b"no image")
    put("wren/dark.png", zoo.encode(Image.new("RGB", (50, 50), (3, 3, 3)), "PNG"))
    put("finch/1.png", b"")
    text, dictionary = report(dataset, birds)
    assert "\n14 images of 2 classes in " in text and "- 1 images are nearly black" in text
    assert cells(text, "wren")[:2] == ["wren", "13"]
    assert cells(text, "(unknown)") == ["(unknown)", "12"]
    assert cells(text, "label conflict") == ["label conflict", "2"]
    questions = text.split("## Open questions")[1]
    assert (
        "- Which label is right, if any? wren/copy_of_robin.png: duplicate of robin/1.png; LABEL CONFLICT" in questions
    )
    assert "- Which label is right, if any? finch/: this sub-folder became no label" in questions
    assert "patient" not in questions
    assert "- What do these columns of the source mean, and in which units: `sex`, `age`, `note`?" in questions
    assert cells(dictionary, "age")[1] == "(from the source; what does it mean?)"
    assert cells(dictionary, "note")[2:] == ["14%", "0%", "15%", r"a \| b, c"]
    assert {line.split(" | ")[0][2:] for line in dictionary.splitlines()[6:]} == set(load_manifest(dataset))


def test_every_link_leads_to_a_picture_and_a_second_time_changes_nothing(source, put, dataset):
    labels = ["a label, with ](parts) | and #?", "wren", "Zaunkönig ♪"]
    labels += [f"species {n}" for n in range(13)]
    for seed, label in enumerate(labels * 2):
        put(f"{label}/{seed} $x$ and a name that is longer than its picture is wide.png", seed)
    once = report(dataset, source)
    links = re.findall(r"^!\[[^\]]*\]\(([^)]+)\)$", once[0], re.M)
    assert len(links) == 2 and once[0].count("![") == len(links)
    for link in links:
        with Image.open(dataset.root / link) as picture:
            assert picture.format == "PNG" and min(picture.size) > 50
    pictures = {path: path.read_bytes() for path in dataset.root.glob("figures/*.png")}
    assert len(pictures) == len(links)
    assert report(dataset, source) == once
    assert {path: path.read_bytes() for path in dataset.root.glob("figures/*.png")} == pictures
