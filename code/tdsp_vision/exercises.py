"""Exercise notebooks, derived from their solutions: `python -m tdsp_vision exercises`.

docs/exercises/solutions/<name>.ipynb   written by hand; the only place to edit
docs/exercises/<name>.ipynb             derived: the same cells with the same ids, without answers and outputs

In a code cell of a solution, the lines from `# solution: <placeholder>` to `# end` become the placeholder, with the
indentation of the marker: `# solution: share = ...`. A cell tagged `solution` is left out.
"""

import json
import re
from pathlib import Path

import click

from tdsp_vision import paths
from tdsp_vision.files import write_text

FOLDER = paths.ROOT / "docs" / "exercises"
MARKED = re.compile(r"^([ \t]*)# solution: *(\S.*)\n(?:(?![ \t]*# solution).*\n)*?[ \t]*# end *$", re.M)


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
