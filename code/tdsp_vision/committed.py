"""Refresh the committed notebooks: the default run's outputs, and nothing that differs between machines.

The notebooks run in order in an empty temporary workspace, so what lies in `data/` or `outputs/` cannot leak into
them. Source, cell ids and metadata stay as committed; only outputs and execution counts are taken over. The modeling
notebook ends with a comparison, so another run goes before its own (`EARLIER`).
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from tdsp_vision import paths
from tdsp_vision.documents.commands import fill
from tdsp_vision.execution import RunFailed, run_notebook
from tdsp_vision.files import write_text
from tdsp_vision.parameters import declared_parameters
from tdsp_vision.progress import Progress

EARLIER = {"SVM_FEATURES": "last", "RUN_NAME": "svm-last-layer"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def refresh(
    notebooks: Mapping[str, Path] = paths.NOTEBOOKS, out: TextIO | None = None, documents: Path | None = None
) -> None:
    """Execute every notebook with its defaults and write its outputs into it, each whole or not at all.

    With `documents` the TDSP documents of this run are written into that folder as well.

    Raises:
        RunFailed: a notebook failed, or an output holds a path of this machine. That notebook is left as it was
            and the temporary workspace with the executed one is kept.
    """
    workspace = Path(tempfile.mkdtemp(prefix="tdsp-notebooks-")).resolve()
    for number, (stage, notebook) in enumerate(notebooks.items(), 1):
        try:
            with Progress(number, len(notebooks), notebook.stem, out or sys.stdout) as progress:
                place = {"TDSP_WORKSPACE": str(workspace)}
                if EARLIER.keys() <= declared_parameters(notebook).keys():
                    run_notebook(notebook, EARLIER, workspace / "earlier.ipynb", progress.cell, place)
                executed = run_notebook(notebook, {}, workspace / f"{stage}.ipynb", progress.cell, place)
                content = with_outputs(_load(notebook), _load(executed))
                refuse_machine_paths(
                    content, (workspace, paths.ROOT, Path.home(), Path(tempfile.gettempdir(), "ipykernel_"))
                )
        except RunFailed as error:
            raise RunFailed(f"{paths.shown(notebook)}: {error}\nwhat was executed: {workspace}") from None
        text = json.dumps(content, indent=1, ensure_ascii=False, sort_keys=True, allow_nan=False)
        write_text(notebook, f"{text}\n")
    if documents:
        dataset = declared_parameters(notebooks["data"])["DATASET_NAME"].default
        data, made = (str(workspace / part) for part in ("data", "outputs"))
        places = paths.DatasetPaths(data, dataset), paths.OutputPaths(made, dataset)
        fill(*places, "latest", documents, documents / "answers.yml")
    shutil.rmtree(workspace)


def with_outputs(committed: dict, executed: dict) -> dict:
    """`committed` (notebook JSON) with outputs and execution counts of `executed`, widgets and timestamps left out.

    Raises:
        RunFailed: the two do not hold the same cells.
    """
    pairs = list(zip(committed["cells"], executed["cells"], strict=False))
    if len(committed["cells"]) != len(executed["cells"]) or any(
        "".join(old["source"]) != "".join(new["source"]) for old, new in pairs
    ):
        raise RunFailed("the notebook was edited while it was running; start again.")
    for old, new in pairs:
        old["metadata"] = {k: v for k, v in old["metadata"].items() if k not in ("papermill", "execution")}
        if old["cell_type"] == "code":
            shown = [output for output in new["outputs"] if WIDGET_VIEW not in output.get("data", {})]
            old |= {"outputs": shown, "execution_count": new["execution_count"]}
    for key in ("widgets", "papermill"):
        committed["metadata"].pop(key, None)
    return committed


def refuse_machine_paths(content: dict, machine_paths: tuple[Path, ...]) -> None:
    """Raise RunFailed where a text output of `content` holds one of `machine_paths`; pictures are not searched."""
    for cell in content["cells"]:
        for output in cell.get("outputs", []):
            data = {kind: value for kind, value in output.get("data", {}).items() if "image/" not in kind}
            text = json.dumps([output.get("text"), data], ensure_ascii=False)
            for path in machine_paths:
                if path != Path("/") and str(path) in text:
                    raise RunFailed(
                        f"cell In [{cell['execution_count']}] prints {path}, a path of this machine; "
                        "print it with paths.shown, or quiet the warning that holds it."
                    )


def _load(notebook: Path) -> dict:
    return json.loads(notebook.read_text(encoding="utf-8"))
