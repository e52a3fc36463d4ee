"""The form: a control for each parameter, a wrong value beside it, what a run is given, and how it is followed."""

import json
import sys
from pathlib import Path

import pytest
from ipywidgets import Checkbox, Dropdown, Text, Textarea

from tdsp_vision import paths
from tdsp_vision.parameters import ParameterError
from tdsp_vision.widgets.background_run import BackgroundRun
from tdsp_vision.widgets.params import ParamsUI, run_of
from tdsp_vision.widgets.run_view import in_words, reason

TOY = Path(__file__).parents[1] / "notebooks/modeling.ipynb"


@pytest.fixture(autouse=True)
def toy(tmp_path, monkeypatch):
    """A toy as the notebook of the second stage."""
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    monkeypatch.setitem(paths.NOTEBOOKS, "model", TOY)


@pytest.mark.parametrize("wrong", ["modell", Path("elsewhere.ipynb")])
def test_another_notebook_is_refused(wrong):
    with pytest.raises(ParameterError, match="notebook is '.*'; allowed are 'data', 'model', 'deploy'"):
        ParamsUI(wrong)


def never():
    """A run that must not be started."""
    return BackgroundRun(["/bin/false"])


def test_fields_fit_the_types_and_say_what_they_mean():
    fields = ParamsUI(TOY, never()).fields
    kinds = {name: type(field.control) for name, field in fields.items()}
    assert (kinds["FAIL"], kinds["TENSORBOARD"], kinds["EPOCHS"], kinds["SVM_C"]) == (Dropdown, Checkbox, Text, Text)
    assert fields["FAIL"].control.options == ("no", "error", "die", "wait")
    about = fields["EPOCHS"].children[1].value
    assert "passes over the images" in about and "1 to 100" in about
    for name, field in fields.items():
        assert (field.control.description, field.control.tabbable) == (name, True)
    assert isinstance(ParamsUI("data", never()).fields["ISIC_QUERIES"].control, Textarea)


def test_a_wrong_value_is_said_beside_its_field_and_holds_the_run_back():
    ui = ParamsUI("model", never())
    field = ui.fields["EPOCHS"]
    field.control.value = "101"
    assert "EPOCHS is 101; allowed are whole numbers from 1 to 100." in field.children[1].value
    assert "tdsp-wrong" in field._dom_classes
    assert (ui.start.disabled, ui.start.description) == (True, "Fix EPOCHS")
    ui.start.click()  # a click may be on its way while a value turns wrong
    assert ui.run.status == "idle"
    field.control.value = "100"
    assert (ui.start.disabled, ui.start.description) == (False, "Run")
    assert "tdsp-wrong" not in field._dom_classes and "tdsp-changed" in field._dom_classes
    assert "python -m tdsp_vision run --stage model -p CLASSIFIER svm -p EPOCHS 100" in ui.told.value


def test_a_run_gets_the_classifier_and_what_changed_until_the_defaults_are_set_back():
    ui = ParamsUI("model", never())
    assert ui.arguments() == ["run", "--stage", "model", "-p", "CLASSIFIER", "svm"]
    ui.fields["TENSORBOARD"].control.value = True
    ui.fields["FAIL"].control.value = "die"
    ui.fields["RUN_NAME"].control.value = "<b>&"
    assert ui.arguments()[5:] == ["svm", "-p", "TENSORBOARD", "True", "-p", "RUN_NAME", "<b>&", "-p", "FAIL", "die"]
    assert "&lt;b&gt;&amp;" in ui.told.value
    ui.reset.click()
    assert ui.arguments() == ["run", "--stage", "model", "-p", "CLASSIFIER", "svm"]


def test_a_kernel_has_one_run_for_each_stage():
    assert run_of("data") is run_of("data") is not run_of("model")


def standing_in(folder, code, text):
    """A run whose program writes a notebook, tells of it, waits for the end of its input, prints and leaves."""
    file = folder / "outputs/a b/data.ipynb"
    line = {"step": 1, "title": "toy <1>", "notebook": str(file), "cell": 2, "cells": 5, "seconds": 7}
    script = f"""
import pathlib, sys
file = pathlib.Path({str(file)!r})
file.parent.mkdir(parents=True, exist_ok=True)
file.touch()
print({json.dumps(line)!r}, flush=True)
sys.stdin.read()
print({text!r})
sys.exit({code})
"""
    return BackgroundRun([sys.executable, "-c", script])


@pytest.mark.parametrize(
    ("code", "text", "words", "rest"),
    [
        (0, "a <table>", "<b>toy &lt;1&gt;</b> is done, after 7 s.", "<pre>a &lt;table&gt;</pre>"),
        (130, "interrupted", "<b>toy &lt;1&gt;</b> is stopped, after 7 s.", ""),
        (1, "toy failed: <x>\npartly executed notebook: n", "toy failed: &lt;x&gt;", "partly executed notebook: n"),
    ],
)
def test_a_run_is_followed_to_its_end_and_links_its_notebook(tmp_path, monkeypatch, code, text, words, rest):
    monkeypatch.chdir(tmp_path)
    ui = ParamsUI("model", standing_in(tmp_path, code, text))
    assert (ui.view.layout.display, ui.view.stop.disabled) == ("none", True)
    ui.start.click()
    assert (ui.start.disabled, ui.view.stop.disabled, ui.view.layout.display) == (True, False, "")
    while "<b>toy &lt;1&gt;</b>: cell 2 of 5, 7 s. It goes on when this page is closed" not in ui.view.words.value:
        assert ui.run.going
    ui.view.stop.click()
    ui.run.wait()
    assert words in ui.view.words.value and rest in ui.view.rest.value
    assert (ui.view.bar.value, ui.view.bar.max) == (2, 5)
    (output,) = ui.view.link.outputs
    assert 'href="outputs/a%20b/data.ipynb"' in output["data"]["text/html"]
    assert ("partly" in output["data"]["text/html"]) == (code != 0)
    assert (ui.start.disabled, ui.view.stop.disabled) == (False, True)


def test_words_before_anything_is_known():
    run = BackgroundRun()
    assert in_words(run) == ""
    run.status = "running"
    assert in_words(run).startswith("Starting.")
    run.status = "stopped"
    assert "The run</b> is stopped, before its first cell." in in_words(run)
    assert reason("\n \n") == "The run failed and said nothing."
