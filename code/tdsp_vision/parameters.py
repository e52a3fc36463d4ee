"""Notebook parameters: what a notebook declares, and the checks with which a notebook opens.

A notebook declares its parameters in the one cell tagged `parameters`: literal assignments, each with a
comment. The default's type is the parameter's type: bool, int, float, str, list or dict. Plain papermill
injects what it is given (`-p FLAG true` arrives as the text 'true'), so the cell after it checks types and
ranges with `require_…`. A wrong name or value raises `ParameterError`, a single sentence that names the
parameter, the value received and what is allowed. Light imports only: a wrong parameter is answered at once.
"""

import ast
import difflib
import io
import json
import math
import tokenize
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tdsp_vision import paths

WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "text",
    list: "a list",
    dict: "a mapping with text as keys",
}


class ParameterError(ValueError):
    """A wrong parameter name or value; its text is one sentence, fit to be shown as it is."""


class DeclarationError(ValueError):
    """A notebook whose parameters cell cannot be used; its text is one sentence."""


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell: `name = default  # comment`; `line` counts from 1 within the cell."""

    name: str
    default: bool | int | float | str | list | dict
    comment: str
    line: int


def declared_parameters(notebook: Path) -> dict[str, Parameter]:
    """Parameters that `notebook` (.ipynb) declares, by name, in the order of their lines.

    Raises:
        DeclarationError: if the file is no notebook, has no cell tagged `parameters` or more than one, or if that
            cell holds anything but assignments of literals of the six types, each name once.
    """
    where = paths.shown(notebook)
    source = _parameters_source(notebook, where)
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise DeclarationError(f"{where}: the parameters cell is not valid Python: {error}.") from None
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.strip("# ") for t in tokens if t.type == tokenize.COMMENT}
    found: dict[str, Parameter] = {}
    for statement in body:
        name, default = _literal_assignment(statement, f"{where}: parameters cell, line {statement.lineno},")
        if name in found:
            raise DeclarationError(f"{where}: the parameters cell assigns {name} twice.")
        found[name] = Parameter(name, default, comments.get(statement.end_lineno, ""), statement.lineno)
    return found


def _parameters_source(notebook: Path, where: str) -> str:
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        tagged = [cell for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    except FileNotFoundError:
        raise DeclarationError(f"{where}: there is no such notebook.") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DeclarationError(f"{where}: this file is not a Jupyter notebook (JSON with cells).") from None
    if len(tagged) != 1:
        raise DeclarationError(f"{where}: {len(tagged)} cells are tagged 'parameters'; exactly one has to be.")
    return "".join(tagged[0]["source"])


def _literal_assignment(statement: ast.stmt, where: str) -> tuple[str, object]:
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            try:
                default = ast.literal_eval(value)
            except (ValueError, TypeError):  # a call, a name, a sum: no literal, so no default
                default = None
            if type(default) in WORDS:
                return name, default
    raise DeclarationError(f"{where} is not `NAME = literal` with a bool, int, float, str, list or dict.")


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of `names` (at least one) that is spelled most like `name`; case does not count."""
    return max(names, key=lambda other: difflib.SequenceMatcher(None, name.upper(), other.upper()).ratio())


def is_a(kind: type, value: object) -> bool:
    """Whether `value` is of `kind` and usable: a bool is no int, NaN no number, keys of a dict are text."""
    if type(value) is not kind or kind not in WORDS:
        return False
    if kind is dict:
        return all(isinstance(key, str) for key in value)
    return kind is not float or math.isfinite(value)


def short(value: object) -> str:
    """`value` as it is quoted in a message: its repr, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def require_type(name: str, value: object, kind: type) -> None:
    """Refuse a `value` that is not of `kind` (bool, int, float, str, list, dict); float takes int as well.

    Raises:
        ParameterError: also for NaN, infinity, True where a number is asked for, and keys that are not text.
    """
    if not (is_a(kind, value) or (kind is float and is_a(int, value))):
        raise ParameterError(f"{name} is {short(value)}; allowed is {WORDS[kind]}.")


def require_one_of(name: str, value: object, allowed: Iterable[object]) -> None:
    """Refuse a `value` that is none of `allowed`; types count, so True is not 1.

    Raises:
        ParameterError: lists what is allowed and, for text, names the nearest.
    """
    allowed = list(allowed)
    if any(type(value) is type(choice) and value == choice for choice in allowed):
        return
    words = [choice for choice in allowed if isinstance(choice, str)]
    near = difflib.get_close_matches(value, words, 1) if isinstance(value, str) else []
    hint = f" - did you mean {near[0]!r}?" if near else "."
    raise ParameterError(f"{name} is {short(value)}; allowed are {', '.join(map(repr, allowed))}{hint}")


def require_between(name: str, value: object, low: float, high: float | None = None) -> None:
    """Refuse a `value` that is no number from `low` to `high`, both included; no `high`: no upper end.

    Where `low` (and `high`) are ints, a whole number is asked for: (1, 100) takes 3 but not 3.0; (0.0, 1.0)
    takes 0.5 and 1. True, NaN and infinity are never numbers.

    Raises:
        ParameterError: says which numbers are allowed.
    """
    whole = isinstance(low, int) and isinstance(high, int | None)
    number = is_a(int, value) or (not whole and is_a(float, value))
    if not (number and low <= value and (high is None or value <= high)):
        kind = "whole numbers" if whole else "numbers"
        end = "" if high is None else f" to {high}"
        raise ParameterError(f"{name} is {short(value)}; allowed are {kind} from {low}{end}.")


def require_each(name: str, values: object, check: Callable[..., None], *allowed: object) -> None:
    """Apply `check(element_name, element, *allowed)` to every element of a list or value of a dict.

    `require_each("SVM_C", SVM_C, require_between, 1e-9, 1e3)` names a wrong element `SVM_C[2]`.

    Raises:
        ParameterError: for an element, or where `values` is neither list nor dict, or is empty.
    """
    if not (is_a(list, values) or is_a(dict, values)) or not values:
        raise ParameterError(f"{name} is {short(values)}; allowed is a list or mapping with at least one element.")
    for key, element in values.items() if isinstance(values, dict) else enumerate(values):
        check(f"{name}[{key!r}]", element, *allowed)
