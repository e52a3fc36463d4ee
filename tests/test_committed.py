"""Refreshing committed notebooks: outputs of the default run go in, everything of this machine stays out."""

import json
import tempfile
from pathlib import Path

import nbformat
import pytest
from toys import toy_notebooks

from tdsp_vision import paths
from tdsp_vision.committed import refresh
from tdsp_vision.errors import RunFailed


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Toy notebooks by stage; what a failure leaves behind goes to `tmp_path` as well."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "toys").mkdir()
    return toy_notebooks(tmp_path / "toys")


def append(notebook: Path, source: str) -> None:
    content = nbformat.read(notebook, as_version=4)
    content.cells.append(nbformat.v4.new_code_cell(source))
    nbformat.write(content, notebook)


def test_outputs_are_taken_over_and_nothing_else(toys, tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path / "mine"))
    append(
        toys["model"],
        "import ipywidgets\n\ndisplay(ipywidgets.IntSlider())\n"
        "twin = {'application/vnd.jupyter.widget-view+json': {}, 'text/html': 'a twin', 'text/plain': 'x'}\n"
        "display(twin, raw=True)\nprint(run.name.split('-')[-1])",
    )
    before = {stage: json.loads(path.read_text()) for stage, path in toys.items()}
    for content in before.values():  # the seconds of the real notebook, from which the toy's metadata are
        content["metadata"].pop("papermill", None)
    refresh(toys)
    assert not (tmp_path / "mine").exists() and list(tmp_path.iterdir()) == [tmp_path / "toys"]
    for stage, path in toys.items():
        nbformat.validate(nbformat.read(path, as_version=4))
        after = json.loads(path.read_text())
        assert after["metadata"].pop("papermill").keys() == {"duration"}
        code = [cell for cell in after["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
        if stage == "model":  # a widget's output is gone, or its static twin stays; its state is gone
            assert [output.get("data") for output in code[-1]["outputs"]] == [{"text/html": ["a twin"]}, None]
        for cell in code:
            cell |= {"outputs": [], "execution_count": None}
        assert after == before[stage]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("from pathlib import Path\n\nprint(Path.home() / 'x')", "a path of this machine; print it with paths.shown"),
        (f"print({str(paths.ROOT)[:4]!r} + {str(paths.ROOT)[4:]!r})", "a path of this machine"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_notebook_that_fails_or_prints_a_machine_path_stays_as_it_was(toys, source, message):
    append(toys["deploy"], source)
    content = toys["deploy"].read_bytes()
    with pytest.raises(RunFailed, match=message):
        refresh({"deploy": toys["deploy"]})
    assert toys["deploy"].read_bytes() == content
