"""The five widgets in JupyterLab on a small prepared run, by keyboard where a person may have no mouse."""

import re

import pytest

pytestmark = pytest.mark.browser

PREPARE = """
import numpy as np, pandas as pd
from pathlib import Path
from PIL import Image
from tdsp_vision.widgets.annotation import AnnotationUI
from tdsp_vision.widgets.confusion import ConfusionMatrixUI
from tdsp_vision.widgets.params import ParamsUI
from tdsp_vision.widgets.precision_recall import PrecisionRecallUI
from tdsp_vision.widgets.results import ResultsUI
root, classes = Path.cwd(), ["benign", "malignant"]
for number in range(1, 60):
    Image.new("RGB", (60, 40), (4 * number, 90, 200 - 3 * number)).save(f"{number:02}.png")
manifest = pd.DataFrame({"path": [f"{n:02}.png" for n in range(60)], "label": ["benign"] * 40 + ["malignant"] * 20})
score = np.r_[0.95, np.linspace(0.1, 0.55, 39), np.linspace(0.45, 0.9, 20)]
predictions = manifest.assign(score_benign=1 - score, score_malignant=score, familiar=0.5,
                              predicted=np.where(score >= 0.5, "malignant", "benign"))
near = lambda row: manifest[:5].assign(distance=1.0)
"""
CELLS = [
    PREPARE,
    "annotation = AnnotationUI(root, manifest)\nannotation",
    "annotation.corrections",
    "PrecisionRecallUI(manifest.label, np.column_stack([1 - score, score]), classes, 'malignant', 0.5)",
    "ConfusionMatrixUI(root, predictions, classes)",
    "ResultsUI(root, predictions, classes, lambda row, k: np.eye(9) - 0.2, near, {'malignant': 0.5})",
    "ParamsUI('data')",
]
ANNOTATION, READ, THRESHOLD, CONFUSION, RESULTS, FORM = range(1, 7)


@pytest.fixture(scope="module")
def notebook(lab):
    """All cells run."""
    notebook = lab(CELLS)
    for number in range(len(CELLS)):
        notebook.run(number)
    return notebook


def press(notebook, control, *keys):
    """Press keys, the first one with the keyboard in `control`; no key may reach JupyterLab."""
    control.focus()
    before = notebook.where()
    for key in keys:
        notebook.page.keyboard.press(key)
    assert notebook.where() == before and notebook.errors == []


@pytest.fixture
def expect():
    """Playwright's assertions, which wait."""
    from playwright.sync_api import expect

    expect.set_options(timeout=20_000)
    return expect


def test_relabel_exclude_undo_and_filter_by_keyboard(notebook, expect):
    grid = notebook.output(ANNOTATION)
    assert grid.get_by_text("00.png cannot be shown").count() == 1
    labels, undo = grid.get_by_label(re.compile("^Label of ")), grid.get_by_role("button", name="Undo")
    press(notebook, labels.nth(1), "ArrowDown")  # a closed list: its keys would be shortcuts of JupyterLab's
    expect(labels.nth(1)).to_have_value("malignant")
    press(notebook, labels.nth(1), "Tab", "Tab", "Tab", "E")
    expect(labels.nth(2)).to_have_value("EXCLUDE")
    expect(grid).to_contain_text("1 relabelled, 1 excluded; 2 decisions not written yet: run the next cell")
    press(notebook, undo, "Enter", "x", "a", "d", "d", "ArrowUp")
    expect(grid).to_contain_text("1 relabelled, 0 excluded; 1 decision not written yet")
    expect(undo).to_be_focused()
    press(notebook, grid.get_by_label("Show", exact=True), *"malig", "Enter")
    expect(grid).to_contain_text("1–12 of 21")
    press(notebook, grid.get_by_label("Show", exact=True), *["Backspace"] * 5, "Enter")
    expect(grid).to_contain_text("1–12 of 60")
    notebook.run(READ)
    expect(notebook.output(READ)).to_contain_text("{'01.png': 'malignant'}")
    expect(grid).not_to_contain_text("not written yet")


def test_the_threshold_moves_by_keys_number_and_preset_and_no_step_is_lost(notebook, expect):
    moved = notebook.output(THRESHOLD)
    number, marks = moved.get_by_label("exactly"), moved.locator(".bqplot .object_grp")
    expect(moved).to_contain_text("At 0.500")
    expect(marks).to_have_count(2)
    before = marks.first.get_attribute("transform")
    press(notebook, moved.get_by_role("slider"), *["ArrowRight"] * 30)  # faster than the curves are drawn
    expect(moved).to_contain_text("At 0.530")
    expect(number).to_have_value("0.53")
    press(notebook, number, "Control+A", *"1.5", "Enter")
    expect(moved.get_by_role("alert")).to_contain_text("is refused; a threshold is a number from 0 to 1")
    expect(number).to_have_value("0.53")
    press(notebook, moved.get_by_role("button", name="sensitivity ≥ 0.95"), "Enter")
    expect(moved).to_contain_text(re.compile(r"of 20 malignant images (19|20) are found"))
    expect(marks.first).not_to_have_attribute("transform", before)


def test_wrong_results_are_stepped_through_past_a_damaged_image(notebook, expect):
    look = notebook.output(RESULTS)
    press(notebook, look.get_by_label("Show", exact=True), "w")
    expect(look).to_contain_text("00.png cannot be shown")
    press(notebook, look.get_by_label("Heat map"), "ArrowDown", "ArrowDown")
    expect(look.get_by_role("alert")).to_contain_text("No such file")
    press(notebook, look.get_by_role("button", name="Next"), "Enter", "x", "ArrowUp")
    expect(look).to_contain_text("red speaks for malignant")


@pytest.mark.parametrize("width", [1400, 800, 700])
def test_every_widget_fits_into_the_page(notebook, width):
    notebook.page.set_viewport_size({"width": width, "height": 1000})
    for number in (ANNOTATION, THRESHOLD, CONFUSION, RESULTS, FORM):
        notebook.output(number).screenshot(path=notebook.artefacts / f"widget-{number}-{width}.png")
    sizes = notebook.page.locator(".tdsp").evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")
    notebook.page.set_viewport_size({"width": 1400, "height": 1000})
    assert sizes == [0] * 5


def test_a_run_is_started_from_the_form_and_ends(notebook, expect):
    form = notebook.output(FORM)
    seed, run = (
        form.get_by_label("SEED", exact=True),
        form.get_by_role("button", name=re.compile("Run$")),
    )  # after an icon
    press(notebook, seed, "Control+A", *"-1")
    expect(form.get_by_role("alert").first).to_contain_text(re.compile("SEED is '?-1'?; "))
    press(notebook, seed, "Control+A", "9")
    expect(form.get_by_text("-p SEED 9")).to_be_visible()
    press(notebook, run, "Enter")
    expect(form.get_by_text(re.compile(r"cell [1-9]\d* of \d+"))).to_be_visible()
    press(notebook, form.get_by_role("button", name=re.compile("Stop$")), "Enter")
    expect(form.get_by_role("status")).to_contain_text("stopped")
    press(notebook, run, "Enter")
    expect(form.get_by_role("status")).to_contain_text("done", timeout=150_000)
    form.get_by_role("link", name="Open the executed notebook").click()
    expect(notebook.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")).to_contain_text("SEED")
    assert notebook.errors == []
