"""The form for a notebook's parameters in JupyterLab: a wrong value, then a run with another one, to its end."""

import re

import pandas as pd

FORM = 'ParamsUI("data")'


def test_a_run_is_started_from_the_form_and_ends(lab):
    from playwright.sync_api import expect  # here, since the fixture leaves the test out where it is missing

    expect.set_options(timeout=60_000)  # ms
    lab.write("form.ipynb", f"from tdsp_vision.widgets.params import ParamsUI\n\n{FORM}")
    notebook = lab.open("form.ipynb")
    notebook.run_cells()
    form = notebook.output(FORM)
    bits = form.get_by_label("IMAGES_PER_CLASS")
    bits.fill("0")
    expect(form.get_by_role("alert")).to_contain_text(
        "IMAGES_PER_CLASS is 0; allowed are whole numbers from 1 to 1000000"
    )
    expect(form.get_by_role("button", name="Fix IMAGES_PER_CLASS")).to_be_disabled()
    bits.fill("9")
    form.get_by_label("DATASET_NAME").fill("formed")
    expect(form.get_by_text("-p DATASET_NAME formed")).to_be_visible()
    notebook.picture("filled", FORM)
    form.get_by_role("button", name=re.compile("Run$")).press("Enter")  # before it stands the icon
    expect(form.get_by_text(re.compile(r"cell [1-9]\d* of \d+"))).to_be_visible()
    expect(form.get_by_role("status")).to_contain_text("is done", timeout=300_000)
    notebook.picture("done", FORM)
    assert len(pd.read_csv(lab.workspace / "data/formed/manifest.csv")) > 100
    form.get_by_role("link", name="Open the executed notebook").click()
    expect(notebook.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")).to_contain_text("formed")
    assert notebook.errors == []
