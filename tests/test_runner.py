"""The runner and its command: what is run with which values, what is printed, what a failure leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from click.testing import CliRunner
from toys import toy_command, toy_notebooks, wait_until_ended

from tdsp_vision import paths
from tdsp_vision.__main__ import main, tell
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.runner import plan, run_walkthrough


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """A workspace in which the command line runs toys; papermill formats paths, so braces need care."""
    folder = tmp_path / "a {workspace}"
    monkeypatch.setenv("TDSP_WORKSPACE", str(folder))
    monkeypatch.setattr("tdsp_vision.runner.write_history", lambda *_: None)  # toys leave nothing for it
    for stage, notebook in toy_notebooks(tmp_path).items():
        monkeypatch.setitem(paths.NOTEBOOKS, stage, notebook)
    return folder


def command(*arguments: str):
    return CliRunner().invoke(main, ["run", *arguments])


@pytest.mark.parametrize(
    ("settings", "stages", "expected"),
    [
        ({}, [], ["data", "model-svm", "model-dnn", "deploy"]),
        ({"CLASSIFIER": "dnn", "EPOCHS": "3"}, ["model", "data"], ["data", "model-dnn"]),
    ],
)
def test_the_plan_runs_stages_in_order_with_typed_values(workspace, settings, stages, expected):
    steps, dataset, outputs = plan(settings | {"DATA_DIR": "d"}, stages)
    assert list(steps) == expected
    assert (dataset.root, outputs.root) == (workspace / "d/lesions", workspace / "outputs/lesions")
    trained = {"EPOCHS": 3} if settings else {}
    for name, values in steps.items():
        assert values.pop("DATA_DIR") == "d"
        assert values == ({"CLASSIFIER": name[6:]} | trained if name.startswith("model") else {})


WRONG = {
    "-p EPOCS 3": "EPOCS is no parameter of data, model, deploy; the nearest is EPOCHS of model",
    "-p REPLICAS 99": "REPLICAS is '99'; input should be less than or equal to 32.",
    "-p EPOCHS 3 -p EPOCHS 4": "EPOCHS is given more than once in -p",
    "-p SOURCE folder -p SOURCE_PATH birds": "SOURCE_PATH is 'birds'; allowed is a folder",
    "--stage data -p EPOCHS 3": "EPOCHS is no parameter of data; the nearest is EPOCHS of model",
    "-f missing.yaml": "missing.yaml is no YAML that maps names to values, as in `EPOCHS: 3` ([Errno 2] No such file",
    "-f twice.yaml": "EPOCHS is given more than once in twice.yaml",
    "-f list.yaml": "list.yaml is no YAML that maps names to values",
    "-f word.yaml": "word.yaml is no YAML that maps names to values",
    "-f broken.yaml": "broken.yaml is no YAML that maps names to values",
    "-f clock.yaml": "IMAGE_SIZE is '1:30'; input should be a valid integer",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_whatever_is_wrong_is_refused_before_anything_starts(workspace, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    texts = {"list": "- EPOCHS", "word": "EPOCHS", "broken": "EPOCHS: [", "twice": "EPOCHS: 3\nEPOCHS: 4"}
    for name, text in (texts | {"clock": "IMAGE_SIZE: 1:30"}).items():
        Path(f"{name}.yaml").write_text(text)
    result = command(*arguments.split())
    assert (result.exit_code, WRONG[arguments] in result.stderr) == (2, True), result.output
    assert len(result.stderr.strip().splitlines()) == 1 and not workspace.exists()


def test_a_wrong_value_is_answered_without_heavy_imports():
    script = """
import sys
from tdsp_vision.__main__ import main
try:
    main(["run", "-p", "REPLICAS", "99"])
except SystemExit as stop:
    heavy = {"papermill", "tensorflow", "keras", "nbformat", "pandas", "numpy", "mlflow", "optuna"}
    print(stop.code, sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"


def test_a_walkthrough_ends_in_a_table_of_its_own_runs(workspace, tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    file = tmp_path / "settings.yaml"
    file.write_text("IMAGES_PER_CLASS: 003\nRUN_NAME: 0013\n")
    result = command("-f", str(file), "-p", "SVM_C", "[1e-4, 1]")
    assert result.exit_code == 0, result.output
    outputs = workspace / "outputs/lesions"
    (executed,) = (outputs / "notebooks").iterdir()
    svm, dnn = sorted(outputs.glob("runs/*-0013*"), key=lambda run: run.stat().st_mtime_ns)
    progress, table = result.stdout.split("\n\n", 1)
    ended = [f"{number}/4 {name} T" for number, name in enumerate(("data", "model-svm", "model-dnn", "deploy"), 1)]
    assert re.sub(r"\.+ \d+ s, cell (\d) of \1", "T", progress).splitlines() == ended
    assert "images by class: {'cat': 3, 'dog': 2}" in table
    assert re.search(rf"{svm.name} +0.500 +0.000 +0.800 +\[0.4, 0.75\]", table)
    assert re.search(r"cat/a.jpg +cat +\[0.375, 0.625\] +True\nb/x.jpg +\[0, 0\] +False", table)
    assert f"a toy serves {dnn.name}" in table  # its own, whatever another process may have finished meanwhile
    cells = nbformat.read(executed / "model-svm.ipynb", as_version=4).cells
    assert any('RUN_NAME = "0013"' in cell.source for cell in cells)


@pytest.mark.parametrize(
    ("batch_size", "reason"),
    [(13, "cell In [4]: KeyError: 'missing image'"), (14, "a cell: Kernel died, often for lack of memory")],
)
def test_a_failure_names_step_cell_reason_and_notebook(workspace, capsys, batch_size, reason):
    with pytest.raises(RunFailed) as failure:
        run_walkthrough({"CLASSIFIER": "dnn", "BATCH_SIZE": batch_size}, ["data", "model"])
    assert re.search(r"2/2 model-dnn \.+ \d+ s, cell 4 of 4\n", capsys.readouterr().out)
    first, second = str(failure.value).splitlines()
    assert first.startswith(reason) and second.endswith("model-dnn.ipynb")
    partly = nbformat.read(workspace / second.removeprefix("partly executed notebook: "), as_version=4)
    counts = [cell.execution_count for cell in partly.cells if cell.cell_type == "code"]
    assert counts[:3] == [1, 2, 3]


def test_a_value_that_only_the_notebook_can_refuse_is_a_sentence_too(workspace):
    notebook = nbformat.read(paths.NOTEBOOKS["data"], as_version=4)
    refusal = "from tdsp_vision.errors import ParameterError\n\nraise ParameterError('SEED is 0; allowed is another.')"
    notebook.cells[2].source = refusal
    nbformat.write(notebook, paths.NOTEBOOKS["data"])
    with pytest.raises(ParameterError, match=r"^cell In \[3\]: ParameterError: SEED is 0; allowed is"):
        run_walkthrough({}, ["data"])


def test_a_fault_of_the_program_keeps_its_traceback_in_a_file_that_is_named(workspace, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise ValueError("a fault of the program")

    monkeypatch.setattr("tdsp_vision.runner.run_walkthrough", broken)
    error = command().exception
    tell(type(error), error, error.__traceback__)
    said = capsys.readouterr().err
    assert "ValueError: a fault of the program" in said and said.count("\n") == 1
    log = Path(re.search(r"traceback is in (\S+\.log)", said)[1])
    assert "in broken" in log.read_text()
    log.unlink()


def test_an_interrupt_leaves_one_sentence_and_no_kernel(tmp_path):
    command = toy_command(tmp_path, "run", "--stage", "model", "-p", "BATCH_SIZE", "15", "--watched")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"TDSP_WORKSPACE": str(tmp_path)}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        note = tmp_path / "outputs/lesions/kernel.pid"
        while not note.is_file():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        printed, errors = process.communicate(timeout=240)  # closes standard input: a second interrupt
    assert (process.returncode, errors) == (130, "interrupted; the same command starts it again\n")
    line = json.loads(printed.splitlines()[-1])
    assert {"step": 1, "steps": 2, "title": "model-svm", "cell": 4, "cells": 4}.items() <= line.items()
    wait_until_ended(int(note.read_text()))


def test_plain_papermill_runs_a_notebook_from_any_folder(workspace, tmp_path):
    def papermill(value):
        command = [sys.executable, "-m", "papermill", str(paths.NOTEBOOKS["data"]), str(tmp_path / "out.ipynb")]
        return subprocess.run([*command, "-p", "IMAGES_PER_CLASS", value], cwd="/", capture_output=True, text=True)

    assert papermill("7").returncode == 0
    assert json.loads((workspace / "data/lesions/dataset.json").read_text())["counts"]["cat"] == 7
    refused = papermill("seven")
    assert refused.returncode == 1
    assert "IMAGES_PER_CLASS is 'seven'; input should be a valid integer" in refused.stderr
