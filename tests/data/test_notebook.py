"""The first notebook: every cell twice, on the smallest folders, with many labels, and with each remote source."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import zoo

from tdsp_vision.data.tables import read_csv
from tdsp_vision.paths import NOTEBOOKS


@pytest.fixture
def run_cells(tmp_path, monkeypatch):
    """The code cells of the notebook in one namespace, each so many times in a row; the folder of the dataset."""
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))

    def run(times: int = 1, **parameters) -> Path:
        names = {"__name__": "__main__", "display": lambda *shown: None}
        for cell in json.loads(NOTEBOOKS["data"].read_text(encoding="utf-8"))["cells"]:
            if cell["cell_type"] == "code":
                for _ in range(times):
                    exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            if "parameters" in cell["metadata"].get("tags", []):
                names |= {"DATASET_NAME": "few"} | parameters
        plt.close("all")
        return tmp_path / "data/few"

    return run


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("labels", "each"), [(2, 1), (14, 2)])
def test_cells_run_again_give_the_same_files(put, source, run_cells, labels, each):
    for n in range(labels * each):
        put(f"label {n % labels}/{n}.png", zoo.encode(zoo.photo(n, 80, 60), "PNG"))
    put("label 0/stray.txt", b"no image")
    settings = {"SOURCE": "folder", "SOURCE_PATH": str(source)}
    once = files_below(run_cells(**settings))
    assert {"manifest.csv", "rejected.csv", "data_report.md", "data_dictionary.md", "ATTRIBUTION.md"} <= set(once)
    assert files_below(run_cells(2, **settings)) == once


def test_isic(server, run_cells):
    for number in range(28):  # two images of each class share a lesion
        diagnosis, lesion = ("Benign", "Malignant")[number % 2], f"IL_{number // 4:04d}"
        server.add_record(f"ISIC_{number:07d}", diagnosis_1=diagnosis, lesion_id=lesion, age_approx=45)
    queries = {"benign": "diagnosis_1:Benign", "malignant": "diagnosis_1:Malignant"}
    parameters = {"SOURCE": "isic", "ISIC_API": server.isic_api, "ISIC_QUERIES": queries, "IMAGES_PER_CLASS": 14}
    server.fail("/files/ISIC_0000002.jpg", 404, forever=True)
    with pytest.raises(ValueError, match="ISIC_0000002"):
        run_cells(**parameters)
    folder = run_cells(**parameters, ALLOW_SHORTFALL=True)
    assert read_csv(folder / "rejected.csv").path.tolist() == ["benign/ISIC_0000002"]
    manifest = read_csv(folder / "manifest.csv").set_index("isic_id")
    assert manifest.label.value_counts().to_dict() == {"benign": 13, "malignant": 14}
    assert manifest.groupby("lesion_id").group.nunique().max() == 1
    row = manifest.loc["ISIC_0000005"]
    assert (row.label, row.lesion_id, row.age_approx, row.license) == ("malignant", "IL_0001", 45, "CC-BY")
    assert (row.image_type, row.attribution, row.source) == ("dermoscopic", "Hospital, with a comma", server.isic_api)
    assert "Hospital, with a comma" in (folder / "ATTRIBUTION.md").read_text()
    assert "age of the patient in years" in (folder / "data_dictionary.md").read_text()


def test_urls(server, run_cells, tmp_path):
    rows = [(server.add_file(f"/{n}.png", n, "PNG"), "ab"[n % 2]) for n in range(12)]
    rows += [(f"{server.url}/dead.jpg", "a"), ("sftp://example.org/x.jpg", "b")]
    (tmp_path / "list.tsv").write_text("".join(f"{url}\t{label}\n" for url, label in rows))
    with pytest.raises(ValueError, match="Nothing could be fetched: a/.*not public .http://127.0.0.1"):
        run_cells(SOURCE="urls", SOURCE_PATH="list.tsv")  # loopback is private
    folder = run_cells(SOURCE="urls", SOURCE_PATH="list.tsv", ALLOW_PRIVATE_ADDRESSES=True)
    assert read_csv(folder / "manifest.csv").label.value_counts().to_dict() == {"a": 6, "b": 6}
    reasons = read_csv(folder / "rejected.csv").reason
    assert [any(url in reason for reason in reasons) for url, _ in rows] == [False] * 12 + [True] * 2


def test_openverse(server, run_cells):
    for seed in range(16):
        query = f"{('dotted', 'striped')[seed % 2]} {('shirt', 'vest')[seed // 2 % 2]}"
        result = {"id": f"p{seed}", "url": server.add_file(f"/pictures/{seed}", seed), "license": "by"}
        server.results[query].append(result | {"attribution": f"p{seed} by Ann"})
    search = {"SEARCH_QUERIES": {"dotted": ["dotted {item}"], "striped": ["striped {item}"]}}
    search |= {"SEARCH_ITEMS": ["shirt", "vest"], "IMAGES_PER_CLASS": 6, "ALLOW_PRIVATE_ADDRESSES": True}
    folder = run_cells(SOURCE="openverse", OPENVERSE_API=server.openverse_api, **search)
    manifest = read_csv(folder / "manifest.csv")
    assert manifest.label.value_counts().to_dict() == {"dotted": 6, "striped": 6}
    assert manifest.attribution.str.endswith("by Ann").all()
