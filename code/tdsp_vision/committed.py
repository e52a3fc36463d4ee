"""Notebooks made for committing: `python -m tdsp_vision notebooks` runs the three of the walkthrough anew.

The notebooks run in order in an empty temporary workspace, so what lies in `data/` or `outputs/` cannot leak into
them. Sources, cell ids and metadata stay as committed; outputs, execution counts and the seconds that it took are
taken over. The modeling notebook ends with a comparison, so another run goes before its own (`EARLIER`).

`python -m tdsp_vision exercises` derives docs/exercises/<name>.ipynb from docs/exercises/solutions/<name>.ipynb, which
alone is edited: the same cells with the same ids, without answers and outputs. In a code cell of a solution, the lines
from `# solution: <placeholder>` to `# end` become the placeholder, with the indentation of the marker:
`# solution: share = ...`. A cell tagged `solution` is left out.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import click

from tdsp_vision import paths
from tdsp_vision.documents.commands import fill
from tdsp_vision.errors import RunFailed
from tdsp_vision.files import write_text
from tdsp_vision.parameters import defaults
from tdsp_vision.runner import progress, run_notebook

EARLIER = {"model": {"SVM_FEATURES": "last", "RUN_NAME": "svm-last-layer"}}
FOLDER = paths.ROOT / "docs" / "exercises"
MARKED = re.compile(r"^([ \t]*)# solution: *(\S.*)\n(?:(?![ \t]*# solution).*\n)*?[ \t]*# end *$", re.M)
_WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


@click.command()
def notebooks() -> None:
    """Execute the notebooks with their defaults and write the outputs into them, for committing."""
    refresh(paths.NOTEBOOKS, documents=paths.ROOT / "docs" / "deliverable_docs")


def refresh(notebooks: Mapping[str, Path], documents: Path | None = None) -> None:
    """Execute every notebook with its defaults and write its outputs into it, each whole or not at all.

    With `documents` the TDSP documents of this run are written into that folder as well.

    Raises:
        RunFailed: a notebook failed, or an output holds a path of this machine. That notebook is left as it was
            and the temporary workspace with the executed one is kept.
    """
    workspace = Path(tempfile.mkdtemp(prefix="tdsp-notebooks-")).resolve()
    place = {"TDSP_WORKSPACE": str(workspace)}
    for stage, notebook in notebooks.items():
        with progress(notebook.stem) as on_cell:
            if stage in EARLIER:
                run_notebook(notebook, EARLIER[stage], workspace / "earlier.ipynb", on_cell, place)
            executed = run_notebook(notebook, {}, workspace / f"{stage}.ipynb", on_cell, place)
        content = with_outputs(*(json.loads(file.read_text(encoding="utf-8")) for file in (notebook, executed)))
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
        for path in (workspace, paths.ROOT, Path.home(), Path(tempfile.gettempdir(), "ipykernel_")):
            if path != Path("/") and str(path) in re.sub(r'"image/[^"]*": "[^"]*"', "", text):  # pictures are no text
                raise RunFailed(f"{executed} prints {path}, a path of this machine; print it with paths.shown.")
        write_text(notebook, f"{text}\n")
    if documents:
        name = defaults(notebooks["data"])["DATASET_NAME"]
        places = paths.DatasetPaths(workspace / "data", name), paths.OutputPaths(workspace / "outputs", name)
        fill(*places, "latest", documents, documents / "answers.yml")
    shutil.rmtree(workspace)


def with_outputs(committed: dict, executed: dict) -> dict:
    """`committed` (notebook JSON) with outputs and execution counts of `executed`, without widgets and timestamps."""
    for old, new in zip(committed["cells"], executed["cells"], strict=True):
        old["metadata"] = {k: v for k, v in old["metadata"].items() if k not in ("papermill", "execution")}
        if old["cell_type"] == "code":
            for output in new["outputs"]:  # a widget needs its kernel; what stays is its static twin, if it has one
                twin = {kind: value for kind, value in output.get("data", {}).items() if kind == "text/html"}
                output |= {"data": twin} if _WIDGET_VIEW in output.get("data", {}) else {}
            shown = [output for output in new["outputs"] if output.get("data", True)]
            old |= {"outputs": shown, "execution_count": new["execution_count"]}
    committed["metadata"].pop("widgets", None)
    committed["metadata"]["papermill"] = {"duration": round(executed["metadata"]["papermill"]["duration"])}
    return committed


@click.command()
def exercises() -> None:
    """Derive the exercise notebooks in docs/exercises from their solutions."""
    for solution in solutions():
        target = FOLDER / solution.name
        write_text(target, derived(solution))
        click.echo(f"{paths.shown(solution)} -> {paths.shown(target)}")


def solutions() -> list[Path]:
    """The solution notebooks, in order."""
    return sorted((FOLDER / "solutions").glob("*.ipynb"))


def derived(solution: Path) -> str:
    """The exercise of a solution notebook, as the text of an .ipynb file."""
    notebook = json.loads(solution.read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if "solution" not in cell["metadata"].get("tags", [])]
    for cell in cells:
        if cell["cell_type"] == "code":
            source = MARKED.sub(r"\1\2", "".join(cell["source"]))
            cell |= {"source": source.splitlines(keepends=True), "outputs": [], "execution_count": None}
    return json.dumps(notebook | {"cells": cells}, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
