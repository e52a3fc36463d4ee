"""Run history and comparison: a run is logged whole and once and never lost; runs are compared on one test only."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from tdsp_vision.data.tables import file_sha256, write_csv
from tdsp_vision.files import write_json, write_text
from tdsp_vision.modeling.history import (
    QUIET,
    compare_runs,
    log_run,
    open_history,
    runs_to_compare,
    tracking_uri,
)
from tdsp_vision.modeling.metrics import evaluate, paired_auc_difference
from tdsp_vision.paths import OutputPaths
from tdsp_vision.runner import write_history

TWO, NUMBERS = ["benign", "malignant"], ["007", "07", "7"]
PARAMETERS = {"DATASET_NAME": "tiny", "CLASSIFIER": "svm", "SVM_C": [0.1], "RUN_NAME": "", "SEED": 0}
LOG = """
import os, signal, socket, sys
from pathlib import Path
def refuse(*args):
    print("connects to", args, flush=True)
    os._exit(3)  # an error would be lost in a thread
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from mlflow import MlflowClient
from tdsp_vision.modeling.history import log_run
from tdsp_vision.paths import OutputPaths
outputs = OutputPaths(sys.argv[1], "tiny")
for name in sys.argv[2:]:
    if name == "killed":
        MlflowClient.log_artifacts = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
    print(log_run(outputs, outputs.runs / name), flush=True)
"""


@pytest.fixture(scope="module")
def new_store(tmp_path_factory) -> Path:
    """A database as MLflow makes it, which takes seconds."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    folder = tmp_path_factory.mktemp("store")
    with open_history(OutputPaths(str(folder), "other")):
        return folder / "mlflow.db"


@pytest.fixture
def outputs(tmp_path, new_store, monkeypatch) -> OutputPaths:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "tiny").mkdir(parents=True)
    (tmp_path / "data" / "tiny" / "manifest.csv").write_text("path,label\n")
    outputs = OutputPaths(str(tmp_path / "out puts #1 é"), "tiny")
    outputs.root.mkdir(parents=True)
    shutil.copy(new_store, outputs.root.parent / "mlflow.db")
    return outputs


def _scores(classes: list[str], skill: float, n: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels in turn, and scores [n, K] that know them as well as `skill` says; 0 is guessing."""
    targets = np.arange(n) % len(classes)
    logits = np.random.default_rng(seed).normal(size=(n, len(classes))) + skill * np.eye(len(classes))[targets]
    return np.array(classes, object)[targets], np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def write_run(outputs, run_id, labels, scores, classes=TWO, positive="malignant", **parameters) -> Path:
    """A run folder as the notebook leaves it, with test images only."""
    predicted = np.array(classes, object)[scores.argmax(axis=1)]
    splits = pd.DataFrame({"path": [f"{k:03}.jpg" for k in range(len(labels))], "label": labels, "sha256": "same"})
    splits = splits.assign(group=np.arange(len(labels)) // 2, split="test")
    columns = {f"score_{name}": scores[:, k] for k, name in enumerate(classes)}
    table = splits[["path", "split", "label"]].assign(predicted=predicted, familiar=0.5, **columns)
    block = evaluate(labels, scores, classes, positive, 0.5 if positive else [1 / len(classes)] * len(classes))
    head = {"dataset": "tiny", "classes": classes, "positive_class": positive, "image_size": 32}
    folder = outputs.runs / run_id
    write_csv(folder / "splits.csv", splits)
    write_csv(folder / "predictions.csv", table.sample(frac=1, random_state=len(run_id)))  # its order does not matter
    write_json(folder / "metrics.json", head | {"validation": block, "test": block, "seconds": {"train": 1.25}})
    data = {"DATA_DIR": str(outputs.root.parents[1] / "data"), "OUTPUT_DIR": outputs.output_dir}
    write_json(folder / "parameters.json", PARAMETERS | data | parameters)
    curves = pd.DataFrame({"loss": [0.9, 0.5], "note": ["", "x"], "val_loss": [np.nan, 0.6], "epoch": [1, 2]})
    write_csv(folder / "history.csv", curves)
    write_text(folder / "figures" / "roc.txt", "a figure")
    return folder


@pytest.fixture
def folder(outputs) -> Path:
    return write_run(outputs, "r1", *_scores(TWO, 1.0), LONG="x" * 9000)


def logged(outputs: OutputPaths, status: str = "FINISHED") -> list:
    client = MlflowClient(tracking_uri(outputs.output_dir))
    experiment = client.get_experiment_by_name("tiny")
    return [run for run in client.search_runs([experiment.experiment_id]) if run.info.status == status or not status]


def test_everything_of_a_run_is_in_the_history(outputs, folder, tmp_path):
    notebook = tmp_path / "model-svm.ipynb"
    for text in ("{}", '{"cells": []}'):  # logged again it changes nothing, but takes the newer notebook
        notebook.write_text(text)
        assert log_run(outputs, folder, notebook) == "logged as run r1 of experiment tiny"
    [run] = logged(outputs, "")
    client = MlflowClient(tracking_uri(outputs.output_dir))
    parameters = json.loads((folder / "parameters.json").read_text())
    assert run.data.params == {name: str(value)[:6000] for name, value in parameters.items()}
    block = json.loads((folder / "metrics.json").read_text())["test"]
    assert run.data.metrics["test.auc"] == pytest.approx(block["auc"]) and run.data.metrics["seconds.train"] == 1.25
    assert len(run.data.metrics) < 100
    steps = {n: client.get_metric_history(run.info.run_id, f"history/{n}") for n in ("loss", "val_loss")}
    assert [(one.step, one.value) for one in steps["loss"]] == [(1, 0.9), (2, 0.5)]
    assert [(one.step, one.value) for one in steps["val_loss"]] == [(2, 0.6)]
    assert run.info.run_name == run.data.tags["run_folder"] == "r1" and len(run.data.tags["commit"]) >= 7
    assert run.data.tags["manifest_sha256"] == file_sha256(tmp_path / "data/tiny/manifest.csv")
    kept = Path(client.download_artifacts(run.info.run_id, ""))
    assert kept.is_relative_to(outputs.root.parent / "mlflow-artifacts")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*.*")} == files | {"notebook/model-svm.ipynb"}
    assert (kept / "notebook" / "model-svm.ipynb").read_text() == '{"cells": []}'
    assert not {path.name for path in tmp_path.iterdir()} & {"mlruns", "mlartifacts", "mlflow.db"}


def test_two_processes_in_a_new_store_one_is_killed_and_none_connects(outputs, folder):
    (outputs.root.parent / "mlflow.db").unlink()
    write_run(outputs, "killed", *_scores(TWO, 2.0))
    # Under pytest and in continuous integration MLflow reports nothing anyway, so it must not know of them.
    hidden = ("PYTEST_CURRENT_TEST", "CI", *QUIET)
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-c", LOG, outputs.output_dir]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    started = [subprocess.Popen([*command, *names], **pipes) for names in (["r1"], ["r1", "killed"])]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, -signal.SIGKILL], said
    assert said[0][0] == said[1][0] == "logged as run r1 of experiment tiny\n"
    assert [run.data.tags["run_folder"] for run in logged(outputs, "RUNNING")] == ["killed"]
    log_run(outputs, outputs.runs / "killed")
    assert sorted(run.data.tags["run_folder"] for run in logged(outputs, "")) == ["killed", "r1"]
    assert len(logged(outputs)) == 2


def test_another_history_is_taken_as_given_and_a_relative_path_from_the_workspace(tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    for given in ("sqlite:///{}own.db?timeout=60", "sqlite:////own.db", "http://history"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given.format(""))
        assert tracking_uri("outputs") == given.format(f"{tmp_path}/")


def test_the_runner_writes_the_history_in_place_of_its_notebooks(outputs, folder, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setenv("TDSP_HISTORY_WRITER", "the runner")
        assert log_run(outputs) == log_run(outputs, folder) == "the run history is written by the runner"
    (tmp_path / "model.ipynb").write_text("{}")
    write_history(outputs, folder.name, tmp_path / "model.ipynb")
    assert len(logged(outputs)) == 1 and capsys.readouterr().err == ""
    (outputs.root.parent / "mlflow.db").write_text("no database")
    write_history(outputs)
    assert re.search("^WARNING: the run history .* cannot be used", capsys.readouterr().err)


DIFFERENCES = {
    "clear": (0, 4, TWO, "malignant", "B's AUC", "does not contain 0."),
    "small": (1.0, 1.1, TWO, "malignant", "B's AUC", "contains 0: no difference is shown."),
    "of three classes that look like numbers": (0, 4, NUMBERS, "", "B's mean AUC", "does not contain 0."),
}


@pytest.mark.parametrize("case", DIFFERENCES)
def test_a_difference_is_measured_and_said(outputs, case):
    first, second, classes, positive, start, end = DIFFERENCES[case]
    (labels, one), (_, two) = _scores(classes, first), _scores(classes, second, seed=1)
    for run, scores in (("r1", one), ("r2", two)):
        write_run(outputs, run, labels, scores, classes, positive)
    (*_, said), _, measured = compare_runs(outputs, ["r1", "r2"])
    truth = labels[:, None] == np.array([positive] if positive else classes, object)
    columns = [classes.index(positive)] if positive else slice(None)
    found, (low, high) = paired_auc_difference(truth, one[:, columns], two[:, columns], np.arange(60) // 2)
    assert said.startswith(f"{start} minus A's is {found:.3f}, with a 95 % interval of {low:.3f} to {high:.3f}, which")
    assert said.endswith(end) and measured.B["auc"] - measured.A["auc"] == pytest.approx(found)


def test_the_same_scores_show_no_difference_and_the_settings_that_differ(outputs):
    write_run(outputs, "r1", LABELS, SCORES)
    write_run(outputs, "r2", LABELS, SCORES, SVM_C=[1.0], RUN_NAME="two", GROUP_BY="")
    sentences, differing, _ = compare_runs(outputs, ["r1", "r2"])
    said = "B's AUC minus A's is 0.000; too few groups of images differ for an interval."
    assert sentences == ["A: r1", "B: r2", said]
    assert differing.A.to_dict() == {"SVM_C": "[0.1]", "GROUP_BY": "not known"}
    assert differing.B.to_dict() == {"SVM_C": "[1.0]", "GROUP_BY": ""}


def _head(classes=TWO, positive="malignant") -> dict:
    return {"dataset": "tiny", "classes": classes, "positive_class": positive}


def _splits(labels, **changes) -> pd.DataFrame:
    table = pd.DataFrame({"path": [f"{k:03}.jpg" for k in range(len(labels))], "label": labels})
    return table.assign(split="test", sha256="same", group=0).assign(**changes)


LABELS, SCORES = _scores(TWO, 1.0)


def test_the_previous_run_is_the_newest_with_the_same_test(outputs):
    for run in ("20260101-a", "20260102-b"):
        write_run(outputs, run, LABELS, SCORES)
    write_run(outputs, "20260103-other-test", LABELS[:40], SCORES[:40])
    for compare, found in (("previous", ["20260102-b"]), ("20260101-a", ["20260101-a"]), ("none", [])):
        assert runs_to_compare(outputs, compare, _head(), _splits(LABELS)) == found
    assert runs_to_compare(outputs, "previous", _head(["other"]), _splits(LABELS)) == []
    with pytest.raises(ValueError, match="20260103-other-test, which cannot be compared with this run: of its 40"):
        runs_to_compare(outputs, "20260103-other-test", _head(), _splits(LABELS))
    assert "no earlier run" in compare_runs(outputs, ["20260101-a"])[0][0]
