"""The form: a control for each parameter, a wrong value beside it, what a run is given, and how it is followed."""

import json
import subprocess
import sys
import time
from typing import Annotated, Literal

import pytest
from ipywidgets import Dropdown, Text
from pydantic import BaseModel, Field
from toys import wait_until_ended

from tdsp_vision import paths
from tdsp_vision.parameters import LIMITS, limit
from tdsp_vision.widgets.params import BackgroundRun, ParamsUI

LINE = {"step": 1, "steps": 1, "title": "toy <1>", "cell": 2, "cells": 5, "seconds": 4}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A notebook with a parameter of each kind in place of the second stage."""

    class Toy(BaseModel):
        CLASSIFIER: Literal["svm", "dnn"] = limit("svm | dnn")
        SVM_C: list[Annotated[float, Field(ge=0.001, le=10)]] = limit("svm: penalties to try")
        EPOCHS: int = limit("dnn: passes over the images", 1, 100)
        LOUD: bool = limit("says more")
        NAME: str = limit("of the run")

    source = 'CLASSIFIER = "svm"\nSVM_C = [0.1, 1.0]\nEPOCHS = 3\nLOUD = False\nNAME = "a"'
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source}
    (tmp_path / "toy.ipynb").write_text(json.dumps({"cells": [cell]}))
    monkeypatch.setitem(paths.NOTEBOOKS, "model", tmp_path / "toy.ipynb")
    monkeypatch.setitem(LIMITS, "model", Toy.model_fields)
    monkeypatch.setattr("tdsp_vision.widgets.params.check_parameters", lambda stage, values: None)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_fields_fit_the_types_and_only_those_in_use_are_shown(toy):
    ui = ParamsUI("model", BackgroundRun())
    assert [type(control) for control in ui.controls.values()] == [Dropdown, Text, Text, Dropdown, Text]
    assert [field.layout.display for field in ui.fields.values()] == [None, None, "none", None, None]
    assert "penalties to try" in ui.notes["SVM_C"].value
    ui.controls["CLASSIFIER"].value = "dnn"
    assert [field.layout.display for field in ui.fields.values()] == [None, "none", None, None, None]
    assert all(f"{name} = " in ui.static_html() for name in ui.controls)


def test_a_run_gets_the_classifier_and_what_is_used_and_changed(toy):
    ui = ParamsUI("model", BackgroundRun())
    assert ui.command()[3:] == ["run", "--stage", "model", "-p", "CLASSIFIER", "svm"]
    for name, text in {"EPOCHS": "9", "SVM_C": "[0.10, 1e-1]", "LOUD": "True", "NAME": '""'}.items():
        ui.controls[name].value = text
    given = dict(zip(ui.command()[7::3], ui.command()[8::3], strict=True))
    assert given == {"CLASSIFIER": "svm", "SVM_C": "[0.1, 0.1]", "LOUD": "True", "NAME": ""}


WRONG = [("EPOCHS", "101", "less than or equal to 100"), ("SVM_C", "[1, 99]", "less than or equal to 10")]


@pytest.mark.parametrize(("name", "text", "sentence"), WRONG)
def test_a_wrong_value_is_said_beside_its_field_and_holds_the_run_back(toy, press, name, text, sentence):
    ui = ParamsUI("model", BackgroundRun())
    ui.controls[name].value = text
    assert sentence in ui.notes[name].value and sentence in ui.terminal.value and ui.fields[name].layout.display is None
    press(ui.start)
    assert ui.run.status == "idle"
    ui.controls[name].value = "[1]" if name == "SVM_C" else "100"
    assert ui.error == "" and "python -m tdsp_vision run --stage model" in ui.terminal.value


def script(text):
    """The command of a script."""
    return [sys.executable, "-c", text]


ENDS = [("print('{1} <b>')", "done", "{1} <b>"), ("raise SystemExit('no such image')", "failed", "no such image")]
ENDS += [("raise SystemExit(130)", "stopped", ""), ("import os; os.kill(os.getpid(), 9)", "failed", "")]


@pytest.mark.parametrize(("code", "status", "printed"), ENDS)
def test_a_run_is_followed_to_its_end_and_links_its_notebook(toy, code, status, printed):
    (toy / "a b.ipynb").write_text("{}")
    ui = ParamsUI("model", BackgroundRun())
    line = json.dumps(LINE | {"notebook": str(toy / "a b.ipynb")})
    ui.run.start(script(f"print({line!r}, flush=True)\n{code}"))
    ui.run.thread.join()
    assert (ui.run.status, ui.run.progress["cell"]) == (status, 2) and printed in ui.run.printed
    assert f"toy &lt;1&gt;: {status}</b>" in ui.words.value and "cell 2 of 5, 4 s" in ui.words.value
    assert "<b>{" not in ui.words.value and 'href="a%20b.ipynb"' in ui.link.outputs[0]["data"]["text/html"]


def test_one_run_at_a_time_which_can_be_stopped_and_started_again(toy, press):
    ui = ParamsUI("model", BackgroundRun())
    press(ui.stop)
    assert ui.run.status == "idle" and ui.words.value == ""
    for _ in range(2):
        ui.run.start(script("import sys; sys.stdin.read(); sys.exit(130)"))
        process = ui.run.process
        ui.run.start(script("raise SystemExit('a second one')"))
        assert ui.run.process is process and "running" in ui.words.value
        press(ui.stop)
        ui.run.thread.join()
        assert ui.run.status == "stopped"


def test_a_run_ends_with_the_process_that_started_it_even_if_that_is_killed(tmp_path):
    note = tmp_path / "pid"
    waits = f"import os, pathlib, sys; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); sys.stdin.read()"
    starter = "import sys; from tdsp_vision.widgets.params import BackgroundRun; run = BackgroundRun(); "
    process = subprocess.Popen(script(f"{starter}run.start([sys.executable, '-c', {waits!r}]); run.thread.join()"))
    while not (note.is_file() and note.read_text()):
        time.sleep(0.05)
    process.kill()
    process.wait()
    wait_until_ended(int(note.read_text()))
