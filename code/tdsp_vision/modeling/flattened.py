"""The numbers of a run folder as MLflow's metrics: names of letters, digits, `_`, `-`, `.`, `/` and blanks."""

import hashlib
import math
import re
from collections.abc import Iterator

import pandas as pd

LONGEST_NAME = 250  # characters


def numbers(content: dict) -> dict[str, float]:
    """Each finite number of nested JSON by its place: `test.auc`, `test.auc_ci.low`, `test.subgroups.sex.female.auc`.

    Text, true, false, null and what is not finite are no metrics.
    """
    return {_legal(name): value for name, value in _leaves(content, "")}


def curves(history: pd.DataFrame) -> Iterator[tuple[str, int, float]]:
    """Name, step and value of each number of `history.csv`; the step is the epoch, or the line's number from 1 on."""
    for number, row in enumerate(history.select_dtypes("number").to_dict("records"), 1):
        step = int(row.pop("epoch", number))
        for name, value in _leaves(row, ""):
            yield f"history/{_legal(name)}", step, value


def _leaves(content: object, name: str) -> Iterator[tuple[str, float]]:
    if isinstance(content, list):
        content = {_place(item, index, name, len(content)): item for index, item in enumerate(content)}
    if isinstance(content, dict):
        for key, item in content.items():
            yield from _leaves(item, f"{name}.{key}" if name else key)
    elif isinstance(content, int | float) and not isinstance(content, bool) and math.isfinite(content):
        yield name, float(content)


def _place(item: object, index: int, name: str, length: int) -> str:
    """Name of a list's element: the end of an interval, a table's line by what it is about, else its number."""
    if length == 2 and (name.endswith("_ci") or ".intervals." in name):
        return ("low", "high")[index]
    if isinstance(item, dict) and {"column", "value"} <= item.keys():
        return f"{item['column']}.{item['value']}"
    return str(index)


def _legal(name: str) -> str:
    """`name` with every other character as its code, so that two classes, `a+` and `a*`, stay two metrics."""
    name = re.sub(r"[^\w.\- ]", lambda found: f"_{ord(found[0]):x}_", name)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
