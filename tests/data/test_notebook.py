"""The first notebook: every cell twice, in any order that makes sense, on the smallest folders and with many labels."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import zoo

from tdsp_vision.paths import NOTEBOOKS


def run_cells(times: int, **parameters) -> None:
    """The code cells of the notebook in one namespace, each so many times in a row."""
    names = {"__name__": "__main__", "display": lambda *shown: None}
    for cell in json.loads(NOTEBOOKS["data"].read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            for _ in range(times):
                exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        if "parameters" in cell["metadata"].get("tags", []):
            names |= parameters
    plt.close("all")


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("labels", "each"), [(2, 1), (30, 2)])
def test_cells_run_again_give_the_same_files(put, source, tmp_path, monkeypatch, labels, each):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    for n in range(labels * each):
        put(f"label {n % labels}/{n}.png", zoo.encode(zoo.photo(n, 80, 60), "PNG"))
    put("label 0/stray.txt", b"no image")
    settings = {"DATASET_NAME": "few", "SOURCE": "folder", "SOURCE_PATH": str(source)}
    run_cells(1, **settings)
    once = files_below(tmp_path / "data/few")
    assert {"manifest.csv", "rejected.csv", "data_report.md", "data_dictionary.md", "ATTRIBUTION.md"} <= set(once)
    run_cells(2, **settings)
    assert files_below(tmp_path / "data/few") == once
