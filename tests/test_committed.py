"""Refreshing committed notebooks: outputs of the default run go in, everything of this machine stays out."""

import io
import json
import re
import shutil
import tempfile
from pathlib import Path

import nbformat
import pytest

from tdsp_vision import paths
from tdsp_vision.committed import refresh
from tdsp_vision.execution import RunFailed


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Copies of the toy notebooks, by stage; what a failure leaves behind goes to `tmp_path` as well."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shutil.copytree(Path(__file__).parent / "notebooks", tmp_path / "toys")
    names = {"data": "data", "model": "modeling", "deploy": "deployment"}
    return {stage: tmp_path / f"toys/{name}.ipynb" for stage, name in names.items()}


def changed(notebook, old, new):
    text = notebook.read_text()
    assert text.count(old) == 1
    notebook.write_text(text.replace(old, new))
    return notebook.read_bytes()


def test_outputs_are_taken_over_and_nothing_else(toys, tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path / "mine"))
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)  # what a person has set is kept; here nobody has
    before = {stage: json.loads(path.read_text()) for stage, path in toys.items()}
    out = io.StringIO()
    refresh(toys, out)
    assert re.sub(r"\.+ \d+ s", "T", out.getvalue()) == "1/3 data T\n2/3 modeling T\n3/3 deployment T\n"
    assert not (tmp_path / "mine").exists()
    for stage, path in toys.items():
        nbformat.validate(nbformat.read(path, as_version=4))
        after = json.loads(path.read_text())
        code = [cell for cell in after["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
        texts = ["".join(output["text"]) for cell in code for output in cell["outputs"]]
        assert (
            texts
            == {
                "data": ["data/toys/dataset.json\n"],
                "model": ["0.5 outputs/toys/runs/run-svm\n"],  # the widget's output is gone, its state as well
                "deploy": ["2 \n"],
            }[stage]
        )
        for cell in code:
            cell |= {"outputs": [], "execution_count": None}
        assert after == before[stage]
    first = {stage: path.read_bytes() for stage, path in toys.items()}
    refresh(toys, out)
    assert {stage: path.read_bytes() for stage, path in toys.items()} == first


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('LEAK = \\"\\"', 'LEAK = \\"~/x\\"', f"prints {Path.home()}, a path of this machine"),
        ('LEAK = \\"\\"', f'LEAK = \\"{paths.ROOT}/x\\"', f"prints {paths.ROOT}, a path of this machine"),
        ("for name, content in", "1 / 0\\nfor name, content in", "cell In .3.: ZeroDivisionError"),
    ],
)
def test_a_notebook_that_fails_or_prints_a_machine_path_stays_as_it_was(toys, old, new, message):
    content = changed(toys["deploy"], old, new)
    with pytest.raises(RunFailed, match=message):
        refresh({"deploy": toys["deploy"]}, io.StringIO())
    assert toys["deploy"].read_bytes() == content
    assert list(toys["deploy"].parent.glob(".*")) == []
