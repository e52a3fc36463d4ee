"""The three notebooks in JupyterLab, cell by cell, as a person steps through them: in order, in one workspace.

On the way the person corrects three images, moves the threshold, and looks at mistakes. The texts by which cells are
found stand below.
"""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from lab import Lab, Notebook

from tdsp_vision.paths import NOTEBOOKS, ROOT

ANNOTATE, WRITE, COUNT = "AnnotationUI(", "write_corrections(", "counts = manifest.groupby("
MOVE, CONFUSED, LOOK = "PrecisionRecallUI(", "ConfusionMatrixUI(", "ResultsUI("


def opened(lab: Lab, stage: str) -> Notebook:
    return lab.open(NOTEBOOKS[stage].relative_to(ROOT).as_posix())


def images_by_label(notebook: Notebook) -> dict[str, int]:
    """What the cell with the counts shows."""
    text = notebook.output(COUNT).inner_text()
    return {label: int(re.search(rf"{label}\s+(\d+)", text)[1]) for label in ("benign", "malignant")}


@pytest.fixture(scope="module")
def acquired(lab):
    """The first notebook, run to its end."""
    notebook = opened(lab, "data")
    notebook.run_cells()
    return notebook


@pytest.fixture(scope="module")
def corrected(lab, acquired):
    """Corrections made in the grid, images by label before and after; then the next cells were run again."""
    grid, before = acquired.output(ANNOTATE), images_by_label(acquired)
    labels = grid.get_by_label(re.compile("^Label of "))
    names = [labels.nth(k).evaluate("field => field.labels[0].textContent").split()[-1] for k in range(3)]
    labels.first.focus()
    acquired.press("Space", "ArrowDown", "Enter")
    acquired.tab_to(labels.nth(1))
    acquired.press("Space", "ArrowDown", "Enter")
    labels.nth(2).select_option("EXCLUDE")
    grid.get_by_text("2 relabelled, 1 excluded").wait_for()
    acquired.picture("annotation", ANNOTATE)
    acquired.run_cells(WRITE, COUNT)
    return dict(zip(names, ["malignant", "malignant", "EXCLUDE"], strict=True)), before, images_by_label(acquired)


def test_corrections_reach_the_file_and_the_counts(lab, acquired, corrected):
    made, before, after = corrected
    table = pd.read_csv(lab.workspace / "data/lesions/corrections.csv")
    assert {path.split("/")[-1]: label for path, label in zip(table.path, table.label, strict=True)} == made
    assert after == {"benign": before["benign"] - 3, "malignant": before["malignant"] + 2}
    assert acquired.errors == []


@pytest.fixture(scope="module")
def modeled(lab, corrected):
    """The second notebook, run up to the cell in which the threshold can be moved."""
    notebook = opened(lab, "model")
    notebook.run_cells(last=MOVE)
    return notebook


def at_threshold(notebook: Notebook) -> tuple[float, ...]:
    """What the threshold widget says: threshold, found, missed, false alarms."""
    words = r"At ([\d.]+) of \d+ malignant images (\d+) are found, (\d+) missed; (\d+) false alarm"
    notebook.output(MOVE).get_by_text(re.compile("^At [0-9]")).wait_for()
    return tuple(map(float, re.search(words, notebook.output(MOVE).inner_text()).groups()))


@pytest.fixture(scope="module")
def chosen(lab, modeled):
    """The threshold after it was moved in four ways, with its numbers; then the notebook was run to its end."""
    curves, seen = modeled.output(MOVE), [at_threshold(modeled)]

    def moved() -> None:
        curves.get_by_text(f"At {seen[-1][0]:.3f}").wait_for(state="detached")
        seen.append(at_threshold(modeled))

    curves.get_by_label("exactly").fill("0.95")
    modeled.press("Enter")
    moved()
    curves.get_by_role("slider").focus()
    modeled.press("ArrowLeft")
    moved()
    curves.locator(".bqplot").first.locator(".dot").nth(-100).click(force=True)  # its neighbours overlap it
    moved()
    curves.get_by_role("button", name="sensitivity ≥ 0.95").click()
    moved()
    modeled.picture("threshold", MOVE)
    modeled.run_cells(modeled.number(MOVE) + 1)
    return seen


def latest_run(lab: Lab) -> Path:
    outputs = lab.workspace / "outputs/lesions"
    return outputs / "runs" / (outputs / "latest.txt").read_text().strip()


def test_numbers_follow_the_threshold_and_the_model_card_has_it(lab, modeled, chosen):
    given, typed, by_key, by_click, preset = chosen
    assert (typed[0], by_key[0]) == (0.95, 0.949)
    assert typed[1] < given[1] and typed[1] + typed[2] == given[1] + given[2]
    assert by_click[0] not in (by_key[0], preset[0])
    assert preset[1] / (preset[1] + preset[2]) >= 0.95
    card = json.loads((latest_run(lab) / "model_card.json").read_text())
    assert round(card["decision"]["threshold"], 3) == preset[0]
    assert modeled.errors == []


def test_a_cell_of_the_confusion_matrix_shows_its_images(modeled, chosen):
    matrix = modeled.output(CONFUSED)
    button = matrix.get_by_title("True malignant, called malignant")
    count = int(button.inner_text().split()[0])
    button.click()
    matrix.get_by_text(re.compile(rf"^(1–)?{min(count, 12)} of {count}$")).wait_for()
    pictures = matrix.locator("img")
    assert pictures.count() == min(count, 12)
    assert pictures.last.evaluate("picture => picture.complete && picture.naturalWidth > 0")
    modeled.picture("confusion", CONFUSED)
    assert modeled.errors == []


def test_wrong_results_are_filtered_and_stepped_through_by_keyboard(lab, modeled, chosen):
    table = pd.read_csv(latest_run(lab) / "predictions.csv")
    wrong = table[(table.split == "test") & (table.label != table.predicted)]
    look = modeled.output(LOOK)
    look.get_by_label("Show").select_option("wrong")
    look.get_by_text(f"1 of {len(wrong)}", exact=True).wait_for()
    look.get_by_role("button", name="Next").focus()
    modeled.press("Enter")
    look.get_by_text(f"2 of {len(wrong)}", exact=True).wait_for()
    assert any(path in look.inner_text() for path in wrong.path)
    look.get_by_label("Heat map").select_option("for malignant")
    look.get_by_text("red speaks for malignant").wait_for()
    modeled.picture("results", LOOK)
    assert modeled.errors == []


def test_the_third_notebook_runs_to_its_end(lab, chosen):
    notebook = opened(lab, "deploy")
    notebook.run_cells()
    assert json.loads((lab.workspace / "outputs/lesions/deployment/parity.json").read_text())["max_abs_diff"] < 1e-5
    assert notebook.errors == []
