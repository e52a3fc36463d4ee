"""The first notebook with each remote source, against a server on loopback: from a search to a manifest."""

import json

import pandas as pd
import pytest

from tdsp_vision.errors import RunFailed
from tdsp_vision.paths import NOTEBOOKS
from tdsp_vision.runner import run_notebook

BENIGN, MALIGNANT = "diagnosis_1:Benign", "diagnosis_1:Malignant"


@pytest.fixture
def acquire(tmp_path, monkeypatch):
    """Run the notebook in a workspace of its own; the folder of the dataset."""
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))

    def run(**parameters):
        run_notebook(NOTEBOOKS["data"], {"DATASET_NAME": "remote"} | parameters, tmp_path / "executed.ipynb")
        return tmp_path / "data" / "remote"

    return run


def fill_archive(server, each=14):
    for number in range(2 * each):
        diagnosis = ("Benign", "Malignant")[number % 2]
        lesion = f"IL_{number // 4:04d}"  # two images of each class share a lesion
        server.add_record(f"ISIC_{number:07d}", diagnosis_1=diagnosis, lesion_id=lesion, age_approx=45, sex="female")


def test_isic(server, acquire):
    fill_archive(server)
    server.page_size = 5
    server.fail("/files/ISIC_0000003.jpg", "cut", 503)
    queries = {"benign": BENIGN, "malignant": MALIGNANT}
    parameters = {"SOURCE": "isic", "ISIC_API": server.isic_api, "ISIC_QUERIES": queries, "IMAGES_PER_CLASS": 14}
    folder = acquire(**parameters)
    manifest = pd.read_csv(folder / "manifest.csv")
    assert manifest.label.value_counts().to_dict() == {"benign": 14, "malignant": 14}
    assert set(manifest.license) == {"CC-BY"} and manifest.isic_id.is_unique
    assert manifest.groupby("lesion_id").group.nunique().max() == 1
    assert json.loads((folder / "dataset.json").read_text())["source"] == server.isic_api
    assert "Hospital, with a comma" in (folder / "ATTRIBUTION.md").read_text()
    assert "age_approx" in (folder / "data_dictionary.md").read_text()
    fetched = {path: count for path, count in server.requests.items() if path.startswith("/files/")}
    before = (folder / "manifest.csv").read_bytes()
    acquire(**parameters)
    assert (folder / "manifest.csv").read_bytes() == before
    assert {path: count for path, count in server.requests.items() if path.startswith("/files/")} == fetched


def test_isic_that_cannot_keep_its_promise_fails_by_name(server, acquire, tmp_path):
    fill_archive(server, each=4)
    server.fail("/files/ISIC_0000002.jpg", 404, forever=True)
    queries = {"benign": BENIGN, "malignant": MALIGNANT}
    parameters = {"SOURCE": "isic", "ISIC_API": server.isic_api, "ISIC_QUERIES": queries, "IMAGES_PER_CLASS": 4}
    with pytest.raises(RunFailed, match="ISIC_0000002"):
        acquire(**parameters)
    assert not (tmp_path / "data/remote/manifest.csv").exists()
    folder = acquire(**parameters, ALLOW_SHORTFALL=True)
    assert len(pd.read_csv(folder / "manifest.csv")) == 7
    assert pd.read_csv(folder / "rejected.csv").path.str.contains("ISIC_0000002").sum() == 1


def test_an_unreachable_archive_names_the_offline_sources(acquire):
    with pytest.raises(RunFailed, match="'sample'.*'folder'"):
        acquire(SOURCE="isic", ISIC_API="http://127.0.0.1:9/api/v2", IMAGES_PER_CLASS=2)


def test_urls(server, acquire, tmp_path):
    rows = [
        (server.add_file(f"/{label}{n}.png", 10 * n + k, "PNG"), label)
        for k, label in enumerate("ab")
        for n in range(6)
    ]
    rows += [(f"{server.url}/dead.jpg", "a"), ("ftp://example.org/x.jpg", "b")]
    (tmp_path / "list.tsv").write_text("".join(f"{url}\t{label}\n" for url, label in rows))
    with pytest.raises(RunFailed, match="Nothing could be fetched: http://127.0.0.1.*not public"):
        acquire(SOURCE="urls", SOURCE_PATH="list.tsv")  # loopback is private
    folder = acquire(SOURCE="urls", SOURCE_PATH="list.tsv", ALLOW_PRIVATE_ADDRESSES=True)
    assert pd.read_csv(folder / "manifest.csv").label.value_counts().to_dict() == {"a": 6, "b": 6}
    rejected = pd.read_csv(folder / "rejected.csv")
    assert rejected.path.str.endswith("/dead.jpg").sum() == 1 and rejected.path.str.contains("ftp://").sum() == 1


def test_openverse(server, acquire):
    for kind in ("dotted", "striped"):
        for item in ("shirt", "vest"):
            for rank in range(4):
                name = f"{kind}-{item}-{rank}"
                seed = rank + 10 * (item == "vest") + 100 * (kind == "striped")
                url = server.add_file(f"/pictures/{name}", seed, "JPEG")
                result = {"id": name, "url": url, "title": name, "creator": "Ann", "license": "by"}
                result |= {
                    "license_version": "2.0",
                    "license_url": "http://example.org",
                    "attribution": f"{name} by Ann",
                }
                server.results[f"{kind} {item}"].append(result)
    folder = acquire(
        SOURCE="openverse",
        OPENVERSE_API=server.openverse_api,
        SEARCH_QUERIES={"dotted": ["dotted {item}"], "striped": ["striped {item}"]},
        SEARCH_ITEMS=["shirt", "vest"],
        IMAGES_PER_CLASS=6,
    )
    manifest = pd.read_csv(folder / "manifest.csv")
    assert manifest.label.value_counts().to_dict() == {"dotted": 6, "striped": 6}
    assert manifest.attribution.str.endswith("by Ann").all()
