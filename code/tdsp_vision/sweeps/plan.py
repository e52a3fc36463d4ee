"""What a sweep is: which parameters vary over which values, which are fixed, and the folder it keeps for itself.

Names and values are text as on the command line; they are typed by the notebook's own defaults, as `runner` does for
a walkthrough, and everything wrong is refused before anything starts.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tdsp_vision import paths
from tdsp_vision.parameters import (
    DeclarationError,
    Parameter,
    ParameterError,
    declared_parameters,
    nearest,
    require_one_of,
)
from tdsp_vision.settings import CLASSIFIERS, typed
from tdsp_vision.sweeps.trial import Trial

# A sweep is about one dataset in one place, and names its runs itself.
_PLACES = ("DATASET_NAME", "DATA_DIR", "OUTPUT_DIR")


class Range(NamedTuple):
    """Numbers from low to high, both included; whole ones where both are int; even in the logarithm with `log`."""

    low: int | float
    high: int | float
    log: bool


@dataclass(frozen=True)
class Sweep:
    """A sweep; `id` names all that shapes its results: data, notebook defaults, fixed values, choices and ranges."""

    id: str
    notebook: Path
    outputs: paths.OutputPaths
    fixed: dict[str, object]
    choices: dict[str, list]
    ranges: dict[str, Range] = field(default_factory=dict)
    history: bool = True

    @property
    def folder(self) -> Path:
        return self.outputs.sweeps / self.id

    @property
    def names(self) -> list[str]:
        """Parameters that vary."""
        return [*self.choices, *self.ranges]

    def trial(self, number: int, values: Mapping[str, object]) -> Trial:
        """The trial `number`, from 1, with the values of what varies."""
        name = f"{self.id}-{number:03d}"
        given = self.fixed | dict(values) | {"RUN_NAME": name}
        root, folder = self.outputs.root, self.folder / "trials" / f"{number:03d}"
        places = {"output_dir": str(root.parent), "dataset": root.name, "folder": str(folder)}
        return Trial(number, name, dict(values), given, str(self.notebook), **places, history=self.history)

    def grid(self) -> list[Trial]:
        """A trial for each combination of the choices; the last parameter varies fastest."""
        combinations = itertools.product(*self.choices.values())
        return [self.trial(n, dict(zip(self.choices, values, strict=True))) for n, values in enumerate(combinations, 1)]


def plan_sweep(
    choices: Iterable[tuple[str, str]],
    fixed: Mapping[str, object],
    ranges: Iterable[tuple[str, str]] = (),
    notebooks: Mapping[str, Path] = paths.NOTEBOOKS,
    history: bool = True,
) -> Sweep:
    """A sweep over the model notebook of `notebooks`; the order of the names does not matter.

    Args:
        choices: name and values with commas between, as in ("IMAGE_SIZE", "224,448"); a comma within brackets
            belongs to a value, as in ("SVM_C", "[0.01],[0.001, 0.01]").
        fixed: name -> text or YAML value, the same in every trial.
        ranges: name and `LOW..HIGH` or `LOW..HIGH:log`, for a search.
        history: whether runs are logged to the run history; toys in tests are not.

    Raises:
        ParameterError: for a name that the notebook does not declare, a name given twice, a value of the wrong type,
            a parameter that cannot vary.
        DeclarationError: if the parameters cell is not as `declared_parameters` asks, or has no RUN_NAME.
    """
    choices, ranges = list(choices), list(ranges)
    declared = declared_parameters(notebooks["model"])
    if missing := [name for name in (*_PLACES, "RUN_NAME") if name not in declared]:
        raise DeclarationError(f"{paths.shown(notebooks['model'])} declares no {missing[0]}, which a sweep needs.")
    _check_names([name for name, _ in (*choices, *ranges)], list(fixed), declared, notebooks)
    given = {name: typed(declared[name], value) for name, value in sorted(fixed.items())}
    if "COMPARE" in declared:  # which run is the previous one would depend on the order in which trials end
        given.setdefault("COMPARE", "none")
    varied = {name: _values(declared[name], text) for name, text in sorted(choices)}
    if "CLASSIFIER" in given:
        require_one_of("CLASSIFIER", given["CLASSIFIER"], CLASSIFIERS)
    spans = {name: _range(declared[name], text) for name, text in sorted(ranges)}
    whole = {name: parameter.default for name, parameter in declared.items()} | given
    dataset = _checked_dataset(whole)
    content = [whole, varied, spans, [_digest(file) for file in (dataset.manifest, dataset.corrections)]]
    name = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]
    outputs = paths.OutputPaths(whole["OUTPUT_DIR"], dataset.name)
    return Sweep(name, notebooks["model"], outputs, given, varied, spans, history)


def split_values(text: str) -> list[str]:
    """Parts of `text` between commas that are outside of brackets: `[1,2],[3]` has two."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[({") - (character in "])}")
        if character == "," and depth <= 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def _check_names(varied: list[str], fixed: list[str], declared: Mapping, notebooks: Mapping[str, Path]) -> None:
    for name in (*varied, *fixed):
        if name not in declared:
            others = [stage for stage in notebooks if name in declared_parameters(notebooks[stage])]
            raise ParameterError(
                f"{name} is a parameter of stage {' and '.join(others)}; a sweep runs stage model only: leave it out."
                if others
                else f"{name} is no parameter of the modeling notebook; the nearest is {nearest(name, declared)} "
                "(`python -m tdsp_vision params model` lists all)."
            )
        if (varied + fixed).count(name) > 1:
            raise ParameterError(f"{name} is given more than once; give it once: its values, its range or its value.")
        if name == "RUN_NAME":
            raise ParameterError("RUN_NAME cannot be set in a sweep, which names its runs itself; leave it out.")
    for name in varied:
        if name in _PLACES:
            raise ParameterError(f"{name} cannot vary in a sweep, which is about one dataset; set it with -p {name}.")


def _values(parameter: Parameter, text: str) -> list:
    values = [typed(parameter, part) for part in split_values(text)]
    if parameter.name == "CLASSIFIER":
        for value in values:
            require_one_of("CLASSIFIER", value, CLASSIFIERS)
    for value in values:
        if values.count(value) > 1:
            raise ParameterError(f"{parameter.name} has the value {value!r} more than once in {text!r}; give it once.")
    return values


def _range(parameter: Parameter, text: str) -> Range:
    name, kind = parameter.name, type(parameter.default)
    if kind not in (int, float):
        raise ParameterError(f"{name} is no number, so it has no range; give its values with -g {name}.")
    found = re.fullmatch(r"\s*(.+?)\.\.(.+?)(?:[\s:,]+(log))?\s*", text)
    if not found:
        raise ParameterError(f"{name} is {text!r}; expected a range such as 0.1..0.5 or 0.0001..0.01:log.")
    low, high = typed(parameter, found[1]), typed(parameter, found[2])
    if low >= high or (found[3] and low <= 0):
        rule = "has to start above 0 where it is logarithmic" if low < high else "has to end above its start"
        raise ParameterError(f"{name} is {text!r}; a range {rule}.")
    return Range(low, high, bool(found[3]))


def _checked_dataset(values: Mapping[str, str]) -> paths.DatasetPaths:
    try:
        return paths.DatasetPaths(values["DATA_DIR"], values["DATASET_NAME"])
    except ValueError as error:
        raise ParameterError(str(error)) from None


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else ""
