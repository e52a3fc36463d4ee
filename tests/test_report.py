"""The report: progress lines, and a table that says which result is missing or damaged."""

import io
import json
import time
from pathlib import Path

import pytest

from tdsp_vision.execution import RunFailed
from tdsp_vision.files import write_json, write_text
from tdsp_vision.paths import DatasetPaths, OutputPaths
from tdsp_vision.progress import Progress, ProgressLines
from tdsp_vision.report import latest_run, summary

TEST = {"accuracy": 0.75, "balanced_accuracy": 0.5, "auc": 0.625, "auc_ci": [0.5, 0.75]}
FILES = {
    "data/d/dataset.json": {"counts": {"cat": 3, "dog": 4}},
    "outputs/d/runs/r/metrics.json": {"classifier": "svm", "test": TEST},
    "outputs/d/deployment/request.json": {"instances": [{}, {}]},
    "outputs/d/deployment/service.json": {"files": ["a/b/c.jpg", "d.jpg"], "classes": ["cat", "dog"]},
    "outputs/d/deployment/response.json": {"predictions": [{"scores": [0.25, 0.75], "label": "cat"}, [1, 0]]},
}


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Workspace with the results of one finished walkthrough."""
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    for name, content in FILES.items():
        write_json(tmp_path / name, content)
    return tmp_path


def table(results, *stages):
    runs = ["r"] if "model" in stages else []
    return summary(DatasetPaths("data", "d"), OutputPaths("outputs", "d"), stages, runs, results / "outputs/n")


def test_the_table_shows_the_stages_that_ran(results):
    assert table(results, "data").split() == ["images", "7:", "cat", "3,", "dog", "4", "notebooks", "outputs/n"]
    assert "svm             0.750      0.500               0.625 (0.500-0.750)   r" in table(results, "model")
    deployed = table(results, "deploy").splitlines()
    assert deployed == [
        "notebooks       outputs/n",
        "",
        "scored request  outputs/d/deployment/request.json, 2 images",
        "                b/c.jpg                              cat 0.250",
        "                d.jpg                                [1, 0]",
    ]


def test_a_measure_that_does_not_exist_is_a_dash(results):
    test = {"accuracy": 0.75, "balanced_accuracy": None, "auc": None, "auc_ci": None}
    write_json(results / "outputs/d/runs/r/metrics.json", {"classifier": "dnn", "test": test})
    assert "dnn             0.750      -                   -                     r" in table(results, "model")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        *[(name, None, f"{name} is missing") for name in FILES],
        *[(name, "{", f"{name} is not valid JSON") for name in FILES],
        ("data/d/dataset.json", "{}", "dataset.json has no 'counts'"),
        ("outputs/d/runs/r/metrics.json", "[1]", "metrics.json has no 'test'"),
        ("outputs/d/deployment/response.json", '{"error": "gone"}', "no 'predictions': .*gone"),
        ("outputs/d/deployment/response.json", '{"predictions": []}', "0 predictions for 2 files"),
    ],
)
def test_a_missing_or_damaged_result_is_said(results, name, content, message):
    (results / name).unlink()
    if content is not None:
        write_text(results / name, content)
    with pytest.raises(RunFailed, match=message):
        table(results, "data", "model", "deploy")


@pytest.mark.parametrize("content", [None, "", "\n"])
def test_a_modeling_run_without_an_id_is_said(results, content):
    outputs = OutputPaths("outputs", "d")
    if content is not None:
        write_text(outputs.latest, content)
    with pytest.raises(RunFailed, match="latest.txt names no run"):
        latest_run(outputs)
    write_text(outputs.latest, "r\n")
    assert latest_run(outputs) == "r"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("error", "end"),
    [(None, "0 s\n"), (RunFailed, "failed after 0 s\n"), (KeyboardInterrupt, "interrupted after 0 s\n")],
)
def test_progress_is_one_quiet_line_where_nobody_watches(error, end):
    out = io.StringIO()
    try:
        with Progress(2, 4, "modeling (svm)", out) as progress:
            progress.cell(1, 3)
            assert out.getvalue() == "2/4 modeling (svm) ........... "
            if error:
                raise error
    except (RunFailed, KeyboardInterrupt) as raised:
        assert type(raised) is error
    assert out.getvalue() == f"2/4 modeling (svm) ........... {end}"


def test_progress_on_a_terminal_shows_the_cell_and_ends_in_the_same_line():
    out = Terminal()
    with Progress(1, 1, "data", out, interval=0.01) as progress:
        progress.cell(5, 9)
        for _ in range(1000):
            if "cell 5/9" in out.getvalue():
                break
            time.sleep(0.01)
    assert "0 s, cell 5/9" in out.getvalue()
    assert out.getvalue().startswith("1/1 data ..................... ")
    assert out.getvalue().endswith("\r\x1b[K1/1 data ..................... 0 s\n")
    assert out.getvalue().count("\n") == 1


def test_progress_for_a_program_is_one_line_of_json_at_a_time():
    out = io.StringIO()
    with ProgressLines(2, 4, "modeling (svm)", Path("/o/model-svm.ipynb"), out) as progress:
        first = {"step": 2, "steps": 4, "title": "modeling (svm)", "notebook": "/o/model-svm.ipynb"}
        assert json.loads(out.getvalue()) == first | {"cell": 0, "cells": 0, "seconds": 0}
        progress.cell(5, 9)
    last = json.loads(out.getvalue().splitlines()[-1])
    assert last == first | {"cell": 5, "cells": 9, "seconds": last["seconds"]}
