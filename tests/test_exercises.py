"""The exercises: derived from their solutions, checked by cells that fail with a helpful sentence, all runnable."""

import json
import re
from functools import partial

import nbformat
import psutil
import pytest
from click.testing import CliRunner
from nbclient import NotebookClient
from wrong_answers import WRONG

from tdsp_vision import exercises
from tdsp_vision.__main__ import main
from tdsp_vision.checks import NotYet, answered, require

STAGES = [path.stem for path in exercises.solutions()]


def cells(notebook):
    return json.loads(notebook.read_text())["cells"]


@pytest.mark.parametrize("stage", STAGES)
def test_solution_and_exercise_belong_together(stage):
    solution, exercise = exercises.FOLDER / "solutions" / f"{stage}.ipynb", exercises.FOLDER / f"{stage}.ipynb"
    assert exercise.read_text() == exercises.derived(solution), "run `make exercises`"
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells(solution)), "clear all outputs"
    answers = [cell["source"] for cell in cells(exercise) if cell["id"].endswith("-task")]
    assert all("..." in "".join(source) for source in answers)
    assert "# solution" not in exercise.read_text() and "These are the solutions" not in exercise.read_text()


@pytest.mark.parametrize("stage", STAGES)
def test_each_task_has_a_hint_and_a_folded_check(stage):
    ids = [cell["id"] for cell in cells(exercises.FOLDER / f"{stage}.ipynb")]
    tasks = [name.removesuffix("-task") for name in ids if name.endswith("-task")]
    checks = [cell for cell in cells(exercises.FOLDER / f"{stage}.ipynb") if cell["id"].endswith("-check")]
    assert len(tasks) >= 4
    assert [cell["id"] for cell in checks] == [f"{task}-check" for task in tasks]
    assert {f"{task}-hint" for task in tasks} <= set(ids)
    assert all(cell["metadata"] == {"jupyter": {"source_hidden": True}, "tags": ["check"]} for cell in checks)
    code = [cell for cell in cells(exercises.FOLDER / f"{stage}.ipynb") if cell["cell_type"] == "code"]
    assert max(sum(bool(line.strip()) for line in cell["source"]) for cell in code) <= 20


@pytest.fixture(scope="module", params=STAGES)
def executed(request, tmp_path_factory):
    """(stage, cells that ran) of one kernel: the unfilled exercise, the solution, then wrong answers with checks.

    The exercise goes first, so that nothing of the solution is there yet.
    """
    stage, folder = request.param, tmp_path_factory.mktemp(request.param)
    solution = cells(exercises.FOLDER / "solutions" / f"{stage}.ipynb")
    checks = {cell["id"]: "".join(cell["source"]) for cell in solution}
    parts = [("unfilled", cell["id"], cell) for cell in cells(exercises.FOLDER / f"{stage}.ipynb")]
    parts += [("solved", cell["id"], cell) for cell in solution]
    made = [(kind, name, "".join(cell["source"])) for kind, name, cell in parts if cell["cell_type"] == "code"]
    for number, (check, wrong, _) in enumerate(WRONG[stage]):
        made += [("wrong", f"{number}-answer", wrong), ("wrong", f"{number}", checks[check])]
    content = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for _, _, source in made])
    workspace = folder / "workspace"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDSP_WORKSPACE", str(workspace))
        patch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
        patch.setenv("TMPDIR", str(folder))
        where = {"metadata": {"path": str(folder)}}
        NotebookClient(content, timeout=300, allow_errors=True, kernel_name="python3", resources=where).execute()
    assert not workspace.exists(), "an exercise writes to the workspace"
    servers = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]
    assert servers == []
    return stage, [(kind, name, cell.outputs) for (kind, name, _), cell in zip(made, content.cells, strict=True)]


def error_of(outputs):
    """(name of the error, its text, what Jupyter shows of it), or None."""
    found = [output for output in outputs if output.output_type == "error"]
    return (found[0].ename, found[0].evalue, found[0].traceback) if found else None


@pytest.mark.slow
def test_unfilled_each_check_says_so_and_nothing_else_fails(executed):
    for kind, name, outputs in executed[1]:
        if kind == "unfilled" and name.endswith("-check"):
            ename, text, shown = error_of(outputs)
            assert ename == "NotYet" and "..." in text and shown == [f"Not yet: {text}"], name
        elif kind == "unfilled":
            assert error_of(outputs) is None, (name, error_of(outputs))


@pytest.mark.slow
def test_each_solution_passes_its_checks(executed):
    for kind, name, outputs in executed[1]:
        if kind == "solved":
            assert error_of(outputs) is None, (name, error_of(outputs))
            if name.endswith("-check"):
                assert "Right" in json.dumps(outputs) or "image/png" in json.dumps(outputs), name


@pytest.mark.slow
def test_wrong_answers_are_told_what_is_wrong(executed):
    stage, ran = executed
    assert {check for check, _, _ in WRONG[stage]} == {name for _, name, _ in ran if name.endswith("-check")}
    said = {name: outputs for kind, name, outputs in ran if kind == "wrong"}
    for number, (check, answer, message) in enumerate(WRONG[stage]):
        assert error_of(said[f"{number}-answer"]) is None, (answer, error_of(said[f"{number}-answer"]))
        error = error_of(said[str(number)])
        assert error is not None, (check, answer)
        assert error[0] == "NotYet" and re.search(message, error[1]), (check, answer, error[:2])


def written(folder, *sources):
    """A notebook of code cells."""
    code = [{"cell_type": "code", "id": f"c{n}", "metadata": {}, "source": [s]} for n, s in enumerate(sources)]
    path = folder / "toy.ipynb"
    path.write_text(json.dumps({"cells": code, "metadata": {}}))
    return path


def test_the_placeholder_takes_the_place_of_the_answer(tmp_path):
    source = "def f():\n    # solution: return ...\n    a = 1\n\n    return a\n    # end\n\n\n"
    notebook = written(tmp_path, source + "# solution: b = ...\nb = 2\n# end\nc = 3")
    cell = json.loads(exercises.derived(notebook))["cells"][0]
    assert "".join(cell["source"]) == "def f():\n    return ...\n\n\nb = ...\nc = 3"
    assert cell["id"] == "c0" and cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("# solution: a = ...\na = 1", "cell c0: a marker has no partner"),
        ("# solution: a = ...\n# solution: b = ...\nb = 1\n# end", "cell c0: a marker has no partner"),
        ("a = 1\n# end", "cell c0: a marker has no partner"),
        ("# solution\na = 1\n# end", "cell c0: a marker has no partner"),
        ("a = 1", "marks no answer"),
    ],
)
def test_a_marker_without_its_partner_is_refused(tmp_path, source, message):
    with pytest.raises(ValueError, match=message):
        exercises.derived(written(tmp_path, source))


def test_the_command_writes_all_exercises(tmp_path, monkeypatch):
    monkeypatch.setattr(exercises, "FOLDER", tmp_path)
    (tmp_path / "solutions").mkdir()
    written(tmp_path / "solutions", "# solution: a = ...\na = 1\n# end")
    result = CliRunner().invoke(main, ["exercises"])
    assert result.exit_code == 0 and "toy.ipynb" in result.output
    assert "".join(cells(tmp_path / "toy.ipynb")[0]["source"]) == "a = ..."
    written(tmp_path / "solutions", "a = 1")
    assert CliRunner().invoke(main, ["exercises"]).exit_code == 2


def test_checks_speak_of_the_answer_by_name():
    number = partial(answered, float)
    number(share=0.5)
    for value, message in ((..., "`share` is still `...`"), ("x", "`share` is 'x' (str); a float is expected")):
        with pytest.raises(NotYet, match=re.escape(message)):
            number(share=value)
    with pytest.raises(NotYet, match="^try again$"):
        require(float("nan") <= 1, "try again")
