"""Rules of the house that a reader relies on: who imports whom, sizes, pinned versions, notebooks as agreed."""

import ast
import code as standard_library_code
import json
import re
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from nbformat import NotebookNode
from packaging.markers import Marker
from packaging.requirements import Requirement

from tdsp_vision.committed import StaticOutputs
from tdsp_vision.paths import NOTEBOOKS, ROOT

PACKAGE = ROOT / "code" / "tdsp_vision"
MODULES = sorted(PACKAGE.rglob("*.py"))
STAGES = ("data", "modeling", "deployment")
BELOW = {"errors", "paths", "files", "parameters"}


def imports(path: Path) -> set[str]:
    """Dotted names below `tdsp_vision` that a module imports, without the first part; those within functions count."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "tdsp_vision":
            names |= {f"tdsp_vision.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name.removeprefix("tdsp_vision.") for name in names if name.startswith("tdsp_vision.")}


def test_a_stage_imports_only_itself_and_earlier_ones():
    for path in MODULES:
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        rooms = {name.split(".")[0] for name in imports(path)}
        if room in STAGES:
            assert rooms <= BELOW | set(STAGES[: STAGES.index(room) + 1]), path
        if room in BELOW:
            assert rooms <= BELOW, path


def test_code_is_still_the_standard_library_module():
    assert Path(standard_library_code.__file__).resolve().parent == Path(sysconfig.get_paths()["stdlib"]).resolve()
    assert not (ROOT / "code" / "__init__.py").exists()


def locked_versions(lock: str = "requirements-test.lock") -> dict[str, str]:
    """Package to version in a lock, as it holds for the Python that environment.yml names."""
    versions = {}
    lines = re.findall(r"^([\w.-]+)==([^ ;\\]+)(?: *; *([^\\\n]+))?", (ROOT / lock).read_text(), re.M)
    here = {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux"}
    for name, version, marker in lines:
        if not marker or Marker(marker.strip()).evaluate(here):
            versions[name.lower()] = version
    return versions


def test_environment_and_lock_name_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in environment if isinstance(entry, dict))
    pinned = dict(line.split("==") for line in pip)
    pinned |= dict(line.split("=") for line in environment if isinstance(line, str) and line.startswith("imgaug"))
    locked = locked_versions()
    assert {name: locked.get(name) for name in pinned} == pinned


def test_environment_and_pyproject_name_the_same_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {Requirement(line).name for line in project["dependencies"] + project["optional-dependencies"]["test"]}
    lines = re.findall(r"^ *- (\S.*)$", (ROOT / "environment.yml").read_text().split("dependencies:")[1], re.M)
    named = {re.split(r"[=\s]", line)[0] for line in lines} - {"python", "pip", "pip:", "py-opencv"}
    assert named == asked - {"opencv-python-headless"}


def test_locks_satisfy_pyproject_agree_and_have_hashes_but_no_addresses():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    run, test = locked_versions("requirements.lock"), locked_versions()
    assert run.items() <= test.items() and "opencv-python" not in test  # it would need a display
    for lines, locked in ((project["dependencies"], run), (project["optional-dependencies"]["test"], test)):
        for line in lines:
            requirement = Requirement(line)
            assert requirement.specifier.contains(locked[requirement.name.lower()]), line
    for name in ("requirements.lock", "requirements-test.lock"):
        text = (ROOT / name).read_text()
        assert "://" not in text and "index" not in text
        for block in re.split(r"\n(?=\S)", text):
            assert "==" not in block.splitlines()[0] or "--hash=sha256:" in block, block


@pytest.mark.parametrize("notebook", NOTEBOOKS.values(), ids=NOTEBOOKS)
def test_notebooks_are_lessons_and_were_run(notebook):
    content = json.loads(notebook.read_text())
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert [bool(cell["execution_count"]) for cell in code] == [True] * len(code)
    lines = [sum(bool(line.strip()) for line in cell["source"]) for cell in code]
    is_lesson = ["parameters" not in cell["metadata"].get("tags", []) for cell in code]
    assert max(n for n, lesson in zip(lines, is_lesson, strict=True) if lesson) <= 25
    assert len(content["cells"]) <= 90 and sum(lines) <= 330
    assert len(content["cells"]) >= 2 * len(code)  # all others are text
    assert "widgets" not in content["metadata"]
    assert [output for cell in code for output in cell["outputs"] if output.get("name") == "stderr"] == []  # red boxes
    # Pictures are no text.
    shown = re.sub(r'"image/[^"]*": "[^"]*"', "", json.dumps([cell["outputs"] for cell in code]))
    assert not re.search(r"widget-view|/(tmp|home|root|Users)/\w", shown)
    assert any("nbval-check-output" in cell["metadata"].get("tags", []) for cell in code)


def test_a_stored_widget_is_its_static_twin():
    view = {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "x"}
    shown = [{"data": view | {"text/html": "a twin"}}, {"text": "printed"}, {"data": view}]
    cell = NotebookNode(cell_type="code", outputs=[NotebookNode(output) for output in shown])
    assert StaticOutputs().preprocess_cell(cell, {}, 0)[0].outputs == [{"data": {"text/html": "a twin"}}, shown[1]]
