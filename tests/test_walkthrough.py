"""The whole way, as a newcomer goes it: from images to a scored request, in a workspace of its own."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import psutil
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from tdsp_vision.paths import SAMPLE_DATA

pytestmark = pytest.mark.slow
BLOCK = {"accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", "auc_ci", "average_precision", "ece"}
BLOCK |= {"threshold", "sensitivity", "specificity", "per_class", "confusion_matrix", "n", "intervals", "macro_auc"}
BLOCK |= {"ece_positive", "brier", "log_loss", "sensitivity_at_specificity", "auc_sens_80", "partial_auc_80"}


def run(workspace, *arguments) -> str:
    """`python -m tdsp_vision run …` in a workspace, from a folder that is not the repository; its output."""
    command = [sys.executable, "-m", "tdsp_vision", "run", *map(str, arguments)]
    environment = os.environ | {"TDSP_WORKSPACE": str(workspace), "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, env=environment, cwd=workspace, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed_by(notebook) -> str:
    """Everything that the cells of an executed notebook printed."""
    cells = json.loads(notebook.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    return "".join("".join(output.get("text", [])) for output in outputs)


def left_behind(workspace) -> list:
    """Drafts that should have been renamed, and processes that still name the workspace."""
    drafts = [path for path in workspace.rglob(".*") if path.name != ".ipynb_checkpoints"]
    servers = [p.pid for p in psutil.process_iter(["cmdline"]) if str(workspace) in " ".join(p.info["cmdline"] or [])]
    return drafts + servers


@pytest.fixture(scope="module")
def walkthrough(tmp_path_factory):
    """Workspace and output of the default run: both classifiers on the sample."""
    workspace = tmp_path_factory.mktemp("workspace")
    return workspace, run(workspace)


@pytest.fixture(scope="module")
def runs(walkthrough):
    """Run folders of the default run by classifier."""
    folders = (walkthrough[0] / "outputs/lesions/runs").iterdir()
    return {json.loads((folder / "metrics.json").read_text())["classifier"]: folder for folder in folders}


def test_one_line_per_stage_and_a_table(walkthrough):
    _, output = walkthrough
    for number, title in enumerate(("data acquisition", "modeling (svm)", "modeling (dnn)", "deployment"), 1):
        assert re.search(rf"^{number}/4 {re.escape(title)} \.+ \d+ s$", output, re.M)
    assert re.search(r"^images +120: benign 60, malignant 60$", output, re.M)
    for classifier in ("svm", "dnn"):
        assert re.search(rf"^{classifier} +0\.\d{{3}} +0\.\d{{3}} +0\.\d{{3}} \(0\.\d{{3}}-\d\.\d{{3}}\)", output, re.M)
    assert "stands in for TensorFlow Serving" in output
    assert len(re.findall(r"(?:benign|malignant)/lesion_\d{4}\.jpg +(?:benign|malignant) \d\.\d+", output)) == 8


def test_the_manifest_accounts_for_every_file(walkthrough):
    workspace, _ = walkthrough
    folder = workspace / "data/lesions"
    manifest, rejected = pd.read_csv(folder / "manifest.csv"), pd.read_csv(folder / "rejected.csv")
    assert len(manifest) + len(rejected) == len(list((SAMPLE_DATA / "lesions").rglob("*.jpg")))
    assert all((folder / path).is_file() for path in manifest.path)
    assert rejected.reason.str.contains("LABEL CONFLICT").sum() == 1
    assert json.loads((folder / "dataset.json").read_text())["classes"] == ["benign", "malignant"]


@pytest.mark.parametrize("classifier", ["svm", "dnn"])
def test_run_folder_is_complete(runs, classifier):
    folder = runs[classifier]
    names = {path.name for path in folder.iterdir()}
    tables = {"splits.csv", "history.csv", "predictions.csv"}
    assert names == tables | {"metrics.json", "model_card.json", "parameters.json", "model.keras", "figures"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["validation"]) == BLOCK
    assert set(metrics["test"]) == BLOCK | {"subgroups", "best_confounder"}
    assert set(metrics["seconds"]) == {"featurize", "train", "total"}
    assert metrics["validation"]["threshold"] == metrics["test"]["threshold"]
    assert sum(metrics["splits"].values()) == 120
    assert {"roc_and_precision_recall.png", "confusion_matrix.png"} <= {p.name for p in (folder / "figures").iterdir()}


@pytest.mark.parametrize("classifier", ["svm", "dnn"])
def test_the_sample_teaches_something_and_not_everything(runs, classifier):
    test = json.loads((runs[classifier] / "metrics.json").read_text())["test"]
    assert 0.6 < test["auc"] < 1 and test["accuracy"] < 1


def test_metrics_follow_from_the_predictions(runs):
    for folder in runs.values():
        metrics = json.loads((folder / "metrics.json").read_text())
        predictions = pd.read_csv(folder / "predictions.csv")
        splits = pd.read_csv(folder / "splits.csv")
        assert splits.groupby("group").split.nunique().max() == 1
        test = predictions[predictions.split == "test"]
        assert np.mean(test.label == test.predicted) == pytest.approx(metrics["test"]["accuracy"])
        np.testing.assert_allclose(predictions.filter(like="score_").sum(axis=1), 1, atol=1e-5)


def test_served_scores_equal_the_notebooks(walkthrough):
    workspace, _ = walkthrough
    folder = workspace / "outputs/lesions/deployment"
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["n"] == 120 and parity["max_abs_diff"] <= 1e-5
    assert len(json.loads((folder / "response.json").read_text())["predictions"]) == 8
    latency = json.loads((folder / "latency.json").read_text())
    assert [row["clients"] for row in latency["service"]] == [1, 8] and latency["in_process_p50_ms"] > 0
    assert all(row["p50_ms"] > 0 and row["errors"] == 0 for row in latency["service"])


def test_the_export_loads_on_the_session_path(walkthrough):
    workspace, _ = walkthrough
    version = workspace / "outputs/lesions/serving/lesions/1"
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version))
    assert {"serving_default", "float_images", "classify"} <= set(loaded.signature_def)


def test_nothing_half_written_or_running_is_left(walkthrough):
    assert left_behind(walkthrough[0]) == []


def test_again_nothing_is_computed_and_the_scores_are_the_same(walkthrough, runs):
    workspace, _ = walkthrough
    run(workspace, "--stage", "data", "--stage", "model", "-p", "CLASSIFIER", "svm", "-p", "RUN_NAME", "again")
    newest = max((workspace / "outputs/lesions/notebooks").iterdir())
    assert "0 computed, 120 from the cache" in printed_by(newest / "model-svm.ipynb")
    again = next((workspace / "outputs/lesions/runs").glob("*-again"))
    assert (again / "splits.csv").read_text() == (runs["svm"] / "splits.csv").read_text()
    assert (again / "predictions.csv").read_text() == (runs["svm"] / "predictions.csv").read_text()


def test_one_changed_image_recomputes_one(tmp_path):
    birds = tmp_path / "birds"
    for label in ("benign", "malignant"):
        for photo in sorted((SAMPLE_DATA / "lesions" / label).glob("*.jpg"))[:12]:
            (birds / label).mkdir(parents=True, exist_ok=True)
            (birds / label / photo.name).write_bytes(photo.read_bytes())
    settings = ["-p", "SOURCE", "folder", "-p", "SOURCE_PATH", birds, "-p", "DATASET_NAME", "birds"]
    settings += ["-p", "CLASSIFIER", "svm", "-p", "IMAGE_SIZE", "64", "--stage", "data", "--stage", "model"]
    run(tmp_path, *settings)
    changed = next((birds / "benign").iterdir())
    with Image.open(changed) as photo:
        ImageOps.flip(photo).save(changed)
    run(tmp_path, *settings)
    notebooks = sorted((tmp_path / "outputs/birds/notebooks").iterdir())
    assert "24 computed" in printed_by(notebooks[0] / "model-svm.ipynb")
    assert "1 computed, 23 from the cache" in printed_by(notebooks[1] / "model-svm.ipynb")


@pytest.mark.parametrize(
    ("name", "positive", "stages", "measure", "least"),
    [
        ("isic2019_256", "malignant", ("data", "model", "deploy"), "auc", 0.80),
        ("ants_bees", "", ("data", "model"), "accuracy", 0.89),
    ],
)
def test_real_photos(real_photos, tmp_path, name, positive, stages, measure, least):
    settings = {"SOURCE": "folder", "SOURCE_PATH": real_photos / name, "DATASET_NAME": name, "CLASSIFIER": "svm"}
    settings["POSITIVE_CLASS"] = positive
    given = [part for key, value in settings.items() for part in ("-p", key, value)]
    run(tmp_path, *given, *(part for stage in stages for part in ("--stage", stage)))
    folder = next((tmp_path / "outputs" / name / "runs").iterdir())
    assert json.loads((folder / "metrics.json").read_text())["test"][measure] >= least
    photos = sum(path.is_file() for path in (real_photos / name).rglob("*"))
    rejected = len(pd.read_csv(tmp_path / "data" / name / "rejected.csv"))
    assert len(pd.read_csv(folder / "predictions.csv")) == photos - rejected
    if "deploy" in stages:
        parity = json.loads((tmp_path / "outputs" / name / "deployment/parity.json").read_text())
        assert parity["n"] == photos - rejected and parity["max_abs_diff"] <= 1e-5
    assert left_behind(tmp_path) == []
