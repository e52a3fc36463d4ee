"""The fields of a form: what a notebook declares in its parameters cell, and what its own cells then check.

The cells are read, not run. Of the checks (`parameters.require_…`) those count whose arguments are literals, sums of
literals, or names that the same cell gives such a value; a loop over a literal list of names is followed. A check
that needs more, such as the classes of the data, is left to the run. So the notebook stays the only place that says
what is allowed, and a form refuses a value with the sentence that the run would.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from tdsp_vision import paths
from tdsp_vision.parameters import (
    WORDS,
    DeclarationError,
    ParameterError,
    declared_parameters,
    require_between,
    require_each,
    require_one_of,
    require_type,
)
from tdsp_vision.settings import typed

Check = tuple  # (one of the checks, *its arguments after name and value)
CHECKS = {check.__name__: check for check in (require_type, require_one_of, require_between, require_each)}
_NAMES = CHECKS | {kind.__name__: kind for kind in WORDS}
_LITERAL = (ast.Constant, ast.List, ast.Tuple, ast.Dict, ast.Starred, ast.BinOp, ast.UnaryOp)
_PARTS = (ast.Load, ast.operator, ast.unaryop)


class ParameterForm:
    """Texts of all fields, and what they mean. Checkboxes and lists of words are texts too: `True`, `svm`.

    Args:
        notebook: path of an .ipynb.

    Raises:
        DeclarationError: if its parameters cannot be read.
    """

    def __init__(self, notebook: Path):
        self.parameters, self.checks = declared_parameters(notebook), declared_checks(notebook)
        self.texts = {name: as_text(parameter.default) for name, parameter in self.parameters.items()}

    def value(self, name: str) -> bool | int | float | str | list | dict:
        """What the text of `name` means.

        Raises:
            ParameterError: one sentence, the one with which a run would refuse it.
        """
        value = typed(self.parameters[name], self.texts[name])
        for check, *allowed in self.checks.get(name, ()):
            check(name, value, *allowed)
        return value

    def errors(self) -> dict[str, str]:
        """Name -> sentence, for every text that a run would refuse."""
        wrong = {}
        for name in self.parameters:
            try:
                self.value(name)
            except ParameterError as error:
                wrong[name] = str(error)
        return wrong

    def changed(self) -> dict[str, str]:
        """Name -> text of the value, where it is not the default; wrong texts are left out."""
        wrong = self.errors()
        values = {name: self.value(name) for name in self.parameters if name not in wrong}
        return {name: as_text(value) for name, value in values.items() if value != self.parameters[name].default}

    def choices(self, name: str) -> list[str]:
        """The words allowed; none where a field is free."""
        words = [allowed[0] for check, *allowed in self.checks.get(name, ()) if check is require_one_of]
        return [as_text(word) for word in words[0]] if words else []

    def allowed(self, name: str) -> str:
        """What may be given, in a few words: `svm | dnn`, `1 to 100`, `a list, each 0.1 to 1`, `text`."""
        said = [_words(check) for check in self.checks.get(name, ()) if check[0] is not require_type]
        kind = WORDS[type(self.parameters[name].default)]
        return ", ".join([kind, *said]) if kind in (WORDS[list], WORDS[dict]) else ", ".join(said or [kind])


def parameter_table(notebook: Path | str) -> pd.DataFrame:
    """A row for each parameter of a notebook, or of the notebook of a stage: parameter, default, allowed, meaning."""
    form = ParameterForm(paths.NOTEBOOKS.get(notebook, notebook))
    rows = [
        (name, repr(parameter.default), form.allowed(name), parameter.comment)
        for name, parameter in form.parameters.items()
    ]
    return pd.DataFrame(rows, columns=["parameter", "default", "allowed", "meaning"]).set_index("parameter")


def as_text(value: object) -> str:
    """`value` as `settings.typed` reads it back: text as it is, lists and mappings as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _words(check: Check) -> str:
    match check:
        case (_, words) if check[0] is require_one_of:
            return " | ".join(as_text(word) or '""' for word in words)
        case (_, low, high) if check[0] is require_between:
            return f"{_number(low)} to {_number(high)}"
        case (_, low) if check[0] is require_between:
            return f"{_number(low)} or more"
        case (_, kind) if check[0] is require_type:
            return WORDS[kind]
    return f"each {_words(check[1:])}"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


def declared_checks(notebook: Path) -> dict[str, list[Check]]:
    """Name of a parameter -> the checks that the code cells of `notebook` make of it.

    Raises:
        DeclarationError: if a cell that checks something is not valid Python.
    """
    found: dict[str, list[Check]] = {}
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] != "code" or "require_" not in source:
            continue
        try:
            body = ast.parse(source).body
        except SyntaxError as error:
            where = f"{paths.shown(notebook)}: a cell that checks parameters"
            raise DeclarationError(f"{where} is not valid Python: {error}.") from None
        for name, check in _checks(body, dict(_NAMES)):
            found.setdefault(name, []).append(check)
    return found


def _checks(body: list[ast.stmt], known: dict[str, object]) -> Iterator[tuple[str, Check]]:
    """(parameter, check) of each statement `require_…(…)`; `known` are the names that have a value so far."""
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                known.pop(name, None)
                if _is_known(value, known):
                    known[name] = _value(value, known)
            case ast.For(target=ast.Name(id=name), iter=names, body=inner) if _is_known(names, known):
                for value in _value(names, known):
                    yield from _checks(inner, known | {name: value})
            case ast.Expr(value=ast.Call(func=ast.Name(id=check), args=[name, _, *allowed], keywords=[])):
                if check in CHECKS and all(_is_known(part, known) for part in (name, *allowed)):
                    yield _value(name, known), (CHECKS[check], *(_value(part, known) for part in allowed))


def _is_known(expression: ast.expr, known: dict[str, object]) -> bool:
    return all(
        isinstance(node, _LITERAL + _PARTS) or (isinstance(node, ast.Name) and node.id in known)
        for node in ast.walk(expression)
    )


def _value(expression: ast.expr, known: dict[str, object]) -> object:
    """Value of an expression that `_is_known`: it calls nothing, so evaluating it runs no code of the notebook."""
    return eval(compile(ast.Expression(expression), "notebook", "eval"), {"__builtins__": {}}, known)
