"""The exercises: derived from their solutions, checked by cells that say in a sentence what is wrong, all runnable."""

import json
import re

import nbformat
import psutil
import pytest
from nbclient import NotebookClient
from wrong_answers import ALSO_RIGHT, WRONG

from tdsp_vision.paths import ROOT

FOLDER = ROOT / "docs" / "exercises"
STAGES = [path.stem for path in sorted((FOLDER / "solutions").glob("*.ipynb"))]


def cells(stage, folder=FOLDER) -> dict[str, dict]:
    """Cells of a notebook by id, each with its source as one text."""
    content = json.loads((folder / f"{stage}.ipynb").read_text())["cells"]
    return {cell["id"]: cell | {"source": "".join(cell["source"])} for cell in content}


@pytest.mark.parametrize("stage", STAGES)
def test_the_exercise_is_derived_and_each_task_has_a_time_a_hint_and_a_folded_check(stage):
    solution, exercise = cells(stage, FOLDER / "solutions"), cells(stage)
    given = {name: cell for name, cell in solution.items() if "solution" not in cell["metadata"].get("tags", [])}
    assert exercise == given, "run `make exercises`"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in solution.values())
    assert "These are the solutions" not in "".join(cell["source"] for cell in exercise.values())
    tasks = [name.removesuffix("-task") for name in exercise if name.endswith("-task")]
    assert list(dict.fromkeys(task for task, *_ in WRONG[stage])) == tasks
    for task in tasks:
        assert "..." in exercise[f"{task}-task"]["source"] and f"{task}-hint" in exercise
        assert f"{task}-solution" in solution
        assert exercise[f"{task}-check"]["metadata"] == {"jupyter": {"source_hidden": True}, "tags": ["check"]}
    sections = [cell["source"] for cell in exercise.values() if re.match(r"## \d\.", cell["source"])]
    assert len(sections) >= 6 and all(re.match(r"## .+\n\n\*About \d+ minutes\.\*", part) for part in sections)


def answers_and_checks(stage):
    """(what has to be printed, code): each cell that is given once, each check after all the answers of its task."""
    solution = cells(stage, FOLDER / "solutions")
    for name, cell in solution.items():
        task, _, role = name.rpartition("-")
        if cell["cell_type"] == "code" and role not in ("task", "solution", "check"):
            yield "", cell["source"]
        elif role == "task":
            right = solution[f"{task}-solution"]["source"]
            told = [(f"Not yet: .*({hint})", f"{right}\n{wrong}") for of, wrong, hint in WRONG[stage] if of == task]
            passed = [("Right", f"{right}\n{other}") for of, other in ALSO_RIGHT if of == task]
            for expected, answer in [(r"Not yet: .*\.\.\.", cell["source"]), *told, *passed, ("Right", right)]:
                yield "", answer
                yield expected, solution[f"{task}-check"]["source"]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_each_check_tells_the_unfilled_the_right_and_the_wrong_answers_apart(stage, tmp_path, monkeypatch):
    parts = list(answers_and_checks(stage))
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for _, source in parts])
    for name, value in (("TDSP_WORKSPACE", "workspace"), ("TMPDIR", ""), ("HTTP_PROXY", "no/proxy")):
        monkeypatch.setenv(name, str(tmp_path / value))
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    for (expected, source), cell in zip(parts, book.cells, strict=True):
        printed = "".join(output.get("text", "") for output in cell.outputs if output.get("name") == "stdout")
        assert re.search(expected, printed, re.S), (expected, printed, source)
    assert not (tmp_path / "workspace").exists(), "an exercise writes to the workspace"
    assert [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])] == []
