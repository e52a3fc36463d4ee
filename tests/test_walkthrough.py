"""The whole way, as a newcomer goes it: from images to a scored request, in a workspace of its own.

Two runs are looked at. One is made here, headless, on a few images with tiny settings. The other is the default run,
which `make test` makes while nbval compares the notebooks with their stored outputs (TDSP_NBVAL_WORKSPACE).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest

from tdsp_vision.paths import SAMPLE_DATA

TINY = ["-p", "IMAGE_SIZE", "64", "-p", "EPOCHS", "1", "-p", "SAMPLE_COUNT", "4", "-p", "BACKEND", "local"]


def run(workspace: Path, *arguments) -> str:
    """`python -m tdsp_vision run …` in a workspace, from a folder that is not the repository; its output."""
    command = [sys.executable, "-m", "tdsp_vision", "run", *map(str, arguments)]
    environment = os.environ | {"TDSP_WORKSPACE": str(workspace)}
    done = subprocess.run(command, env=environment, cwd=workspace, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed_by(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", [])) for output in outputs)


def left_behind(workspace: Path) -> list:
    """Drafts that should have been renamed, and processes that still name the workspace."""
    drafts = [path for path in workspace.rglob(".*") if re.search(r"\.[0-9a-f]{12}(\.|$)", path.name)]
    servers = [p.pid for p in psutil.process_iter(["cmdline"]) if str(workspace) in " ".join(p.info["cmdline"] or [])]
    return drafts + servers


def photos_of(source: Path, folder: Path, count: int) -> list[str]:
    """Copy the first `count` images of each label below `folder`; the settings that read them."""
    for label in sorted(path.name for path in source.iterdir() if path.is_dir()):
        (folder / label).mkdir(parents=True)
        for photo in sorted((source / label).glob("*.jpg"))[:count]:
            shutil.copy(photo, folder / label)
    return ["-p", "SOURCE", "folder", "-p", "SOURCE_PATH", str(folder), "-p", "DATASET_NAME", folder.name]


def check_run(folder: Path) -> dict:
    """A run folder is complete, and its metrics follow from its predictions; returns the metrics."""
    names = {path.name for path in folder.iterdir()}
    expected = {"splits.csv", "history.csv", "predictions.csv", "metrics.json", "model_card.json", "parameters.json"}
    assert expected | {"model.keras", "figures"} <= names
    metrics = json.loads((folder / "metrics.json").read_text())
    predictions, splits = pd.read_csv(folder / "predictions.csv"), pd.read_csv(folder / "splits.csv")
    assert splits.groupby("group").split.nunique().max() == 1
    test = predictions[predictions.split == "test"]
    assert np.mean(test.label == test.predicted) == pytest.approx(metrics["test"]["accuracy"])
    np.testing.assert_allclose(predictions.filter(like="score_").sum(axis=1), 1, atol=1e-5)
    assert metrics["validation"]["threshold"] == metrics["test"]["threshold"]
    assert {"roc_and_precision_recall.png", "confusion_matrix.png"} <= {p.name for p in (folder / "figures").iterdir()}
    return metrics


def check_deployment(folder: Path, images: int, scored: int) -> None:
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["n"] == images and parity["max_abs_diff"] <= 1e-5
    assert len(json.loads((folder / "response.json").read_text())["predictions"]) == scored


def test_a_few_images_go_the_whole_way_headless_twice(tmp_path):
    settings = [*photos_of(SAMPLE_DATA / "lesions", tmp_path / "birds", 16), *TINY]
    output = run(tmp_path, *settings)
    for number, title in enumerate(("data", "model-svm", "model-dnn", "deploy"), 1):
        assert re.search(rf"^{number}/4 {title} \.+ \d+ s, cell \d+ of \d+$", output, re.M)
    images = len(pd.read_csv(tmp_path / "data/birds/manifest.csv"))
    assert images + len(pd.read_csv(tmp_path / "data/birds/rejected.csv")) == 32
    outputs = tmp_path / "outputs/birds"
    classifiers = {check_run(folder)["classifier"]: folder for folder in (outputs / "runs").iterdir()}
    assert set(classifiers) == {"svm", "dnn"} and classifiers["dnn"].name in output
    check_deployment(outputs / "deployment", images, 4)
    assert len(re.findall(r"(?:benign|malignant)/lesion_\d{4}\.jpg .* (?:benign|malignant) +\[\d\.\d+", output)) == 4
    assert left_behind(tmp_path) == []
    again = {"DATASET_NAME": "birds", "IMAGE_SIZE": 64, "CLASSIFIER": "svm", "RUN_NAME": "again"}
    run(tmp_path, "--stage", "model", *(part for name, value in again.items() for part in ("-p", name, value)))
    newest = max((outputs / "notebooks").iterdir())
    assert "0 rows computed, the others from the cache" in printed_by(newest / "model-svm.ipynb")
    again = next((outputs / "runs").glob("*-again"))
    assert (again / "predictions.csv").read_text() == (classifiers["svm"] / "predictions.csv").read_text()


@pytest.fixture(scope="module")
def default_run() -> Path:
    """The workspace of the default run of the three notebooks."""
    if "TDSP_NBVAL_WORKSPACE" not in os.environ:
        pytest.skip("no default run to look at: `make test` makes one with nbval")
    return Path(os.environ["TDSP_NBVAL_WORKSPACE"])


def test_the_default_run_accounts_for_every_file_and_learns_something(default_run):
    data, outputs = default_run / "data/lesions", default_run / "outputs/lesions"
    manifest, rejected = pd.read_csv(data / "manifest.csv"), pd.read_csv(data / "rejected.csv")
    assert len(manifest) + len(rejected) == len(list((SAMPLE_DATA / "lesions").rglob("*.jpg")))
    assert all((data / path).is_file() for path in manifest.path)
    assert json.loads((data / "dataset.json").read_text())["classes"] == ["benign", "malignant"]
    (folder,) = (outputs / "runs").iterdir()
    test = check_run(folder)["test"]
    assert 0.6 < test["auc"] < 1 and test["accuracy"] < 1
    check_deployment(outputs / "deployment", len(manifest), 8)
    assert left_behind(default_run) == []


@pytest.mark.photos
@pytest.mark.parametrize(
    ("name", "stages", "measure", "least"),
    [("isic2019_256", ("data", "model", "deploy"), "auc", 0.80), ("ants_bees", ("data", "model"), "accuracy", 0.89)],
)
def test_real_photos(real_photos, tmp_path, name, stages, measure, least):
    settings = ["-p", "SOURCE", "folder", "-p", "SOURCE_PATH", real_photos / name, "-p", "DATASET_NAME", name]
    run(tmp_path, *settings, "-p", "CLASSIFIER", "svm", *(part for stage in stages for part in ("--stage", stage)))
    (folder,) = (tmp_path / "outputs" / name / "runs").iterdir()
    assert check_run(folder)["test"][measure] >= least
    photos = sum(path.is_file() for path in (real_photos / name).rglob("*"))
    images = photos - len(pd.read_csv(tmp_path / "data" / name / "rejected.csv"))
    assert len(pd.read_csv(folder / "predictions.csv")) == images
    if "deploy" in stages:
        check_deployment(tmp_path / "outputs" / name / "deployment", images, 8)
    assert left_behind(tmp_path) == []
