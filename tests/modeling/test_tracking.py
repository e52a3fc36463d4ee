"""Run history: a run folder is logged whole and once, whoever else logs, and found again; MLflow is the real one."""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import click
import keras
import mlflow
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient

from tdsp_vision.data.tables import file_sha256
from tdsp_vision.files import file_lock, write_json
from tdsp_vision.history_commands import history, open_page
from tdsp_vision.modeling.run_history import QUIET, open_history, tracking_uri
from tdsp_vision.modeling.runs import find_run
from tdsp_vision.modeling.tracking import attach_notebook, best_run, log_run
from tdsp_vision.paths import ROOT, OutputPaths

CLASSES = ["a*", "a+", "ü ü", "d"]
LOG = """
import os, signal, socket, sys
def refuse(*args):
    print("connects to", args, flush=True)
    os._exit(3)  # an error would be lost in a thread
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from tdsp_vision.modeling import tracking
from tdsp_vision.paths import OutputPaths
outputs = OutputPaths(sys.argv[1], "tiny")
for name in sys.argv[3:]:
    if name == "killed":
        tracking._log_values = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
    print(tracking.log_run(outputs, outputs.runs / name, {"DATA_DIR": sys.argv[2]}), flush=True)
"""


@pytest.fixture(scope="module")
def new_store(tmp_path_factory) -> Path:
    """A database as MLflow makes it, which takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    with open_history(str(folder)) as client:
        client.search_experiments()
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


@pytest.fixture
def make_run(outputs, tiny_network):
    """Writes a run folder; `validation` holds its metrics on that side."""

    def make(name: str = "r1", **validation: float | None) -> Path:
        folder = outputs.runs / name
        (folder / "figures").mkdir(parents=True)
        (folder / "figures" / "roc.png").write_bytes(b"\x89PNG")
        test = {"auc": 0.75, "auc_ci": [0.5, 1.0], "ece": None, "intervals": {"f1": [0.1, 0.2]}, "right": True}
        test["per_class"] = {name: {"f1": number / 10} for number, name in enumerate(CLASSES)}
        test["confusion_matrix"] = [[1, 2], [3, 4]]
        test["subgroups"] = [{"column": "sex", "value": "female", "n": 4, "auc": None, "note": "too few"}]
        test["sensitivity_at_specificity"] = {"0.80": 0.5}
        metrics = {"classes": CLASSES, "image_size": 32, "seconds": {"total": 2.5}}
        write_json(folder / "metrics.json", metrics | {"validation": validation or {"auc": 0.7}, "test": test})
        card = {"created": "2026-01-31T14:25:01+00:00", "versions": {"keras": "3", "python": "3.11"}}
        write_json(folder / "model_card.json", card)
        history = pd.DataFrame({"loss": [0.9, 0.5], "note": ["", "x"], "val_loss": [np.nan, 0.6], "epoch": [1, 2]})
        history.to_csv(folder / "history.csv", index=False)
        (folder / "splits.csv").write_text("path,split\n")
        (folder / "predictions.csv").write_text("path,predicted\n")
        tiny_network.save(folder / "model.keras")
        return folder

    return make


@pytest.fixture
def parameters(tmp_path) -> dict:
    return {
        "DATA_DIR": str(tmp_path / "data"),
        "CLASSIFIER": "svm",
        "SVM_C": [0.1, 1.0],
        "RUN_NAME": "",
        "LONG": "x" * 9000,
    }


def client_of(outputs: OutputPaths) -> MlflowClient:
    return MlflowClient(tracking_uri(outputs.output_dir))


def logged(outputs: OutputPaths, status: str | None = "FINISHED") -> list:
    client = client_of(outputs)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    return client.search_runs([experiment], f"attributes.status = '{status}'" if status else "")


def test_everything_of_a_run_is_in_the_history(outputs, make_run, parameters, tmp_path):
    notebook = tmp_path / "model-svm.ipynb"
    notebook.write_text("{}")
    folder = make_run()
    run_id = log_run(outputs, folder, parameters, notebook)
    run = client_of(outputs).get_run(run_id)
    assert run.info.status == "FINISHED" and run.info.run_name == "r1"
    assert run.info.end_time - run.info.start_time == 2500 and run.info.end_time == 1769869501000
    assert run.data.params == {name: str(value)[:6000] for name, value in parameters.items()}
    expected = {"image_size": 32, "seconds.total": 2.5, "validation.auc": 0.7, "test.auc": 0.75}
    expected |= {
        "test.auc_ci.low": 0.5,
        "test.auc_ci.high": 1,
        "test.intervals.f1.low": 0.1,
        "test.intervals.f1.high": 0.2,
    }
    expected |= {"test.per_class.a_2a_.f1": 0, "test.per_class.a_2b_.f1": 0.1, "test.per_class.ü ü.f1": 0.2}
    expected |= {
        "test.per_class.d.f1": 0.3,
        "test.sensitivity_at_specificity.0.80": 0.5,
        "test.subgroups.sex.female.n": 4,
    }
    expected |= {f"test.confusion_matrix.{n // 2}.{n % 2}": n + 1 for n in range(4)}
    assert run.data.metrics == expected | {"history/loss": 0.5, "history/val_loss": 0.6}
    tags = run.data.tags
    assert tags["run_folder"] == "r1" and tags["version.keras"] == "3" and tags["version.python"] == "3.11"
    assert tags["manifest_sha256"] == file_sha256(tmp_path / "data/tiny/manifest.csv")
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} - {"model.keras"}
    kept = Path(client_of(outputs).download_artifacts(run_id, ""))
    assert kept.is_relative_to(outputs.root.parent / "mlflow-artifacts")
    assert {path.relative_to(kept).as_posix() for path in kept.rglob("*.*")} == files | {"notebook/model-svm.ipynb"}
    assert not {path.name for path in tmp_path.iterdir()} & {"mlruns", "mlartifacts", "mlflow.db"}


def test_curves_have_a_step_for_each_epoch(outputs, make_run, parameters):
    run_id = log_run(outputs, make_run(), parameters)
    client = client_of(outputs)
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "history/loss")] == [(1, 0.9), (2, 0.5)]
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "history/val_loss")] == [(2, 0.6)]


def test_the_candidates_of_the_svm_are_steps_too(outputs, make_run, parameters):
    folder = make_run()
    (folder / "history.csv").write_text("c,auc_mean\n0.01,0.6\n0.1,0.8\n")
    run_id = log_run(outputs, folder, parameters)
    client = client_of(outputs)
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "history/c")] == [(1, 0.01), (2, 0.1)]
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "history/auc_mean")] == [(1, 0.6), (2, 0.8)]


def test_more_numbers_than_mlflow_takes_at_once(outputs, make_run, parameters):
    folder = make_run(**{f"n{n}": n for n in range(2100)})
    metrics = client_of(outputs).get_run(log_run(outputs, folder, parameters)).data.metrics
    assert {metrics[f"validation.n{n}"] for n in range(2100)} == set(range(2100))


def test_the_commit_is_the_repositorys(outputs, make_run, parameters, monkeypatch):
    (ROOT / ".git").stat()  # the tests belong to a checkout
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    tags = logged_tags(outputs, make_run("r1"), parameters)
    assert tags["mlflow.source.git.commit"] == head.stdout.strip() and tags["git.dirty"] in ("true", "false")
    monkeypatch.setenv("PATH", "")
    tags = logged_tags(outputs, make_run("r2"), parameters)
    assert tags["mlflow.source.git.commit"] == "unknown" and tags["git.dirty"] == "false"


def logged_tags(outputs: OutputPaths, folder: Path, parameters: dict) -> dict[str, str]:
    return client_of(outputs).get_run(log_run(outputs, folder, parameters)).data.tags


def test_the_model_is_loaded_and_registered(outputs, make_run, parameters, tiny_network, monkeypatch):
    run_id = log_run(outputs, make_run(), parameters)
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracking_uri(outputs.output_dir))
    try:
        images = np.random.default_rng(0).uniform(0, 255, [3, 32, 32, 3]).astype(np.float32)
        scores = tiny_network.predict(images, verbose=0)
        version = mlflow.register_model(f"runs:/{run_id}/model", "lesions")
        for uri in (f"runs:/{run_id}/model", f"models:/lesions/{version.version}"):
            again = mlflow.keras.load_model(uri)
            assert isinstance(again, keras.Model)
            np.testing.assert_array_equal(again.predict(images, verbose=0), scores)
        served = mlflow.pyfunc.load_model(f"runs:/{run_id}/model")
        np.testing.assert_array_equal(served.predict(images), scores)
        assert served.metadata.signature.inputs.to_dict()[0]["tensor-spec"] == {
            "dtype": "float32",
            "shape": (-1, 32, 32, 3),
        }
        assert served.metadata.signature.outputs.to_dict()[0]["tensor-spec"] == {"dtype": "float32", "shape": (-1, 4)}
    finally:
        mlflow.set_tracking_uri(before)


def test_logging_again_changes_nothing_but_adds_the_notebook(outputs, make_run, parameters, tmp_path):
    folder = make_run()
    run_id = log_run(outputs, folder, parameters)
    assert log_run(outputs, folder, parameters | {"CLASSIFIER": "dnn"}) == run_id
    notebook = tmp_path / "model.ipynb"
    for text in ("{}", '{"cells": []}'):
        notebook.write_text(text)
        attach_notebook(outputs, "r1", notebook)
        assert Path(client_of(outputs).download_artifacts(run_id, "notebook/model.ipynb")).read_text() == text
    assert [run.info.run_id for run in logged(outputs, None)] == [run_id]
    assert client_of(outputs).get_run(run_id).data.params["CLASSIFIER"] == "svm"


def test_a_notebook_needs_a_logged_run(outputs, make_run, tmp_path):
    make_run()
    with pytest.raises(ValueError, match="Run 'r1' is not in the history .*; log it first"):
        attach_notebook(outputs, "r1", tmp_path / "model.ipynb")


def test_one_folder_name_on_two_machines_is_two_runs(outputs, make_run, parameters):
    first = log_run(outputs, make_run("r1", auc=0.6), parameters)
    shutil.rmtree(outputs.runs / "r1")
    assert log_run(outputs, make_run("r1", auc=0.7), parameters) != first
    assert len(logged(outputs)) == 2


STEPS = ["create_run", "create_logged_model", "log_model_artifacts", "log_outputs", "log_batch", "set_terminated"]


@pytest.mark.parametrize("step", STEPS)
def test_what_breaks_in_the_middle_is_done_anew(outputs, make_run, parameters, step, monkeypatch):
    folder, real = make_run(), getattr(MlflowClient, step)

    def broken(self, *args, **kwargs):
        if step == "create_run":
            real(self, *args, **kwargs)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, step, broken)
        with pytest.raises(KeyboardInterrupt):
            log_run(outputs, folder, parameters)
    assert logged(outputs) == [] and len(logged(outputs, None)) == 1
    with pytest.raises(ValueError, match="has no finished run"):
        best_run(outputs)
    run_id = log_run(outputs, folder, parameters)
    assert [run.info.run_id for run in logged(outputs, None)] == [run_id]
    run = client_of(outputs).get_run(run_id)
    models = client_of(outputs).search_logged_models([run.info.experiment_id])
    assert [model.model_id for model in models] == [model.model_id for model in run.outputs.model_outputs]
    assert best_run(outputs) == "r1"


def test_two_processes_in_a_new_store_one_is_killed_and_none_connects(outputs, make_run, parameters):
    (outputs.root.parent / "mlflow.db").unlink()
    for name in ("r1", "killed"):
        make_run(name)
    # Under pytest and in continuous integration MLflow reports nothing anyway, so it must not know of them.
    hidden = ("PYTEST_CURRENT_TEST", "CI", *QUIET)
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment["TF_CPP_MIN_LOG_LEVEL"] = "3"
    command = [sys.executable, "-c", LOG, outputs.output_dir, parameters["DATA_DIR"]]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    started = [subprocess.Popen([*command, *names], **pipes) for names in (["r1"], ["r1", "killed"])]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, -signal.SIGKILL], said
    assert said[0][0] == said[1][0] == logged(outputs)[0].info.run_id + "\n"
    assert "mlflow" not in said[0][1] + said[1][1]
    assert [run.data.tags["run_folder"] for run in logged(outputs, "RUNNING")] == ["killed"]
    log_run(outputs, outputs.runs / "killed", parameters)
    assert sorted(run.data.tags["run_folder"] for run in logged(outputs, None)) == ["killed", "r1"]
    assert len(logged(outputs)) == 2


def test_the_best_run_by_validation(outputs, make_run, parameters):
    numbers = {"a": (0.8, 0.1), "b": (0.9, 0.5), "c": (0.9, 0.6), "d": (None, 0.99), "e": (None, 0.3)}
    for name, (auc, balanced) in numbers.items():
        log_run(outputs, make_run(name, auc=auc, balanced_accuracy=balanced), parameters)
    for best in ("c", "b", "a", "d", "e"):
        assert best_run(outputs) == best_run(outputs, "tiny") == best
        assert find_run(outputs, "best") == find_run(outputs, "best", "tiny") == outputs.runs / best
        shutil.rmtree(outputs.runs / best)
    with pytest.raises(
        ValueError, match="No run of experiment 'tiny' has a folder in .* best of 5, 'c'; run the model"
    ):
        best_run(outputs)


def test_a_best_run_that_cannot_be_is_explained(outputs, make_run, parameters):
    log_run(outputs, make_run(), parameters)
    client = client_of(outputs)
    client.create_run(client.create_experiment("empty"))
    with pytest.raises(ValueError, match="no experiment 'lesion' in the run history .*; there are .*'empty', 'tiny'"):
        best_run(outputs, "lesion")
    with pytest.raises(ValueError, match="Experiment 'empty' of the run history .* has no finished run"):
        best_run(outputs, "empty")
    elsewhere = OutputPaths(outputs.output_dir + "2", "tiny")
    with pytest.raises(ValueError, match="There is no run history at .*mlflow.db; run the modeling notebook first"):
        best_run(elsewhere)
    assert not elsewhere.root.parent.exists()


def test_a_deleted_experiment_comes_back(outputs, make_run, parameters):
    run_id = log_run(outputs, make_run(), parameters)
    client = client_of(outputs)
    client.delete_experiment(client.get_run(run_id).info.experiment_id)
    log_run(outputs, make_run("r2"), parameters)
    assert {run.data.tags["run_folder"] for run in logged(outputs)} == {"r1", "r2"}


def test_another_store_takes_what_belongs_to_it(outputs, make_run, parameters, tmp_path, monkeypatch, new_store):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///deep/own.db")
    own = tmp_path / "workspace" / "deep" / "own.db"
    own.parent.mkdir(parents=True)
    shutil.copy(new_store, own)
    assert tracking_uri(outputs.output_dir) == f"sqlite:///{own}"
    run = client_of(outputs).get_run(log_run(outputs, make_run(), parameters))
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(own.parent / "mlflow-artifacts" / "tiny")
    assert {path.name for path in own.parent.iterdir()} == {"own.db", "mlflow-artifacts", "mlflow.lock"}
    assert {path.name for path in outputs.root.parent.iterdir()} == {"tiny", "mlflow.db"}


def test_a_run_without_its_manifest_is_not_logged(outputs, make_run, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/tiny/manifest.csv"):
        log_run(outputs, make_run(), {"DATA_DIR": str(tmp_path / "nowhere")})
    assert logged(outputs, None) == []


def test_a_lock_is_held_by_one_only(tmp_path):
    lock = tmp_path / "folder" / "x.lock"
    with file_lock(lock), pytest.raises(BlockingIOError, match="x.lock is locked: another process works there; wait"):
        file_lock(lock, wait=False).__enter__()
    with file_lock(lock, wait=False):
        assert lock.exists()


def test_the_page_opens_once_the_server_listens(monkeypatch):
    opened = []
    monkeypatch.setattr(click, "launch", opened.append)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert open_page(port) and opened == [f"http://127.0.0.1:{port}"]
    assert not open_page(port, seconds=0.3) and len(opened) == 1


def test_the_page_is_mlflows_own_on_this_machine_only(outputs, monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(os, "execve", lambda *args: commands.append(args))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = CliRunner().invoke(history, ["--output-dir", outputs.output_dir, "--port", port])
        assert said.exit_code == 1 and f"Port {port} is in use already; name another with --port" in said.output
    said = CliRunner().invoke(history, ["--output-dir", outputs.output_dir, "--port", port])
    assert said.exit_code == 0 and f"http://127.0.0.1:{port}" in said.output
    [(program, command, environment)] = commands
    assert program == sys.executable and command[1:4] == ["-m", "mlflow", "server"]
    assert f"sqlite:///{outputs.root.parent}/mlflow.db" in command and "127.0.0.1" in command
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true" and environment["DO_NOT_TRACK"] == "true"
    none_yet = CliRunner().invoke(history, ["--output-dir", str(tmp_path / "empty")])
    assert none_yet.exit_code == 1 and "There is no run history at" in none_yet.output
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://history.example:5000")
    assert "the run history is at http://history.example:5000" in CliRunner().invoke(history).output
    assert len(commands) == 1
