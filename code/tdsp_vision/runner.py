"""The walkthrough, headless: data -> model (svm) -> model (dnn) -> deploy, each a notebook run by papermill.

Settings are parameter names with values (see `settings`). They are checked and typed before anything starts, and
papermill is imported only to run a notebook, so a wrong setting is answered at once. Every executed notebook,
a failed one as well, lies in `outputs/<dataset>/notebooks/<date-time>/<step>.ipynb` and is written cell by cell.
"""

import contextlib
import itertools
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TextIO

from tdsp_vision import paths
from tdsp_vision.execution import RunFailed, run_notebook
from tdsp_vision.parameters import (
    DeclarationError,
    Parameter,
    ParameterError,
    declared_parameters,
    nearest,
    require_one_of,
)
from tdsp_vision.progress import Progress, ProgressLines
from tdsp_vision.report import latest_run, summary
from tdsp_vision.settings import CLASSIFIERS, typed

TITLES = {"data": "data acquisition", "model": "modeling", "deploy": "deployment"}
# Where results go is the runner's business too, so these two may be set whichever stages are selected.
PLACES = ("DATASET_NAME", "OUTPUT_DIR")


@dataclass(frozen=True)
class Step:
    """One notebook run: `name` is the executed file's stem, `title` what the progress line shows."""

    name: str
    title: str
    stage: str
    notebook: Path
    parameters: dict[str, object]


def plan(
    settings: Mapping[str, object],
    stages: Iterable[str] = (),
    notebooks: Mapping[str, Path] = paths.NOTEBOOKS,
) -> list[Step]:
    """Steps of a walkthrough in order, each with the typed settings that its notebook declares.

    Args:
        settings: parameter name -> text or YAML value.
        stages: which of data, model, deploy to run; none named means all. Their order does not matter.
        notebooks: stage -> notebook. With CLASSIFIER among the settings the model stage runs once, else for
            svm and for dnn.

    Raises:
        ParameterError: for an unknown stage, a name that no notebook declares or only one of an unselected
            stage, a value of the wrong type, an unknown classifier.
        DeclarationError: if a notebook's parameters cell is not as `declared_parameters` asks.
    """
    stages = list(stages) or list(notebooks)
    for stage in stages:
        require_one_of("--stage", stage, notebooks)
    declared = {stage: declared_parameters(path) for stage, path in notebooks.items()}
    values = _typed_settings(settings, stages, declared)
    if "CLASSIFIER" in settings and "model" in stages:
        require_one_of("CLASSIFIER", values["model"]["CLASSIFIER"], CLASSIFIERS)
    steps = []
    for stage in notebooks:
        if stage == "model" and stage in stages:
            chosen = [values[stage]["CLASSIFIER"]] if "CLASSIFIER" in settings else CLASSIFIERS
            for name in chosen:
                given = values[stage] | {"CLASSIFIER": name}
                steps.append(Step(f"model-{name}", f"{TITLES[stage]} ({name})", stage, notebooks[stage], given))
        elif stage in stages:
            steps.append(Step(stage, TITLES[stage], stage, notebooks[stage], values[stage]))
    return steps


def _typed_settings(
    settings: Mapping[str, object], stages: list[str], declared: Mapping[str, Mapping[str, Parameter]]
) -> dict[str, dict[str, object]]:
    """Typed settings by stage; what DATASET_NAME, say, becomes is decided by each notebook's own default."""
    values: dict[str, dict[str, object]] = {stage: {} for stage in declared}
    for name, value in settings.items():
        owners = [stage for stage in declared if name in declared[stage]]
        if not owners:
            near = nearest(name, {known for names in declared.values() for known in names})
            raise ParameterError(
                f"{name} is a parameter of no notebook; the nearest is {near} "
                "(`python -m tdsp_vision params` lists all)."
            )
        if name not in PLACES and not set(owners) & set(stages):
            raise ParameterError(
                f"{name} is a parameter of stage {' and '.join(owners)}, which is not among the stages selected "
                f"({', '.join(stages)}); add --stage {owners[0]} or leave {name} out."
            )
        for stage in owners:
            values[stage][name] = typed(declared[stage][name], value)
    return values


def places(
    settings: Mapping[str, object], notebooks: Mapping[str, Path] = paths.NOTEBOOKS
) -> tuple[paths.DatasetPaths, paths.OutputPaths]:
    """Where data and results of a walkthrough lie: from the settings, else from the notebooks' defaults.

    Raises:
        ParameterError: where DATASET_NAME cannot be a folder name, or a value has the wrong type.
        DeclarationError: where no notebook declares DATASET_NAME, DATA_DIR or OUTPUT_DIR.
    """
    declared: dict[str, Parameter] = {}
    for notebook in notebooks.values():
        declared = declared_parameters(notebook) | declared
    for name in (*PLACES, "DATA_DIR"):
        if name not in declared:
            raise DeclarationError(f"No notebook declares {name}; without it the results have no place.")

    def value(name: str) -> str:
        return typed(declared[name], settings[name]) if name in settings else declared[name].default

    try:
        name = paths.checked_name("DATASET_NAME", value("DATASET_NAME"))
    except ParameterError:
        raise
    except ValueError as error:
        raise ParameterError(str(error)) from None
    return paths.DatasetPaths(value("DATA_DIR"), name), paths.OutputPaths(value("OUTPUT_DIR"), name)


def run_walkthrough(
    settings: Mapping[str, object],
    stages: Iterable[str] = (),
    notebooks: Mapping[str, Path] = paths.NOTEBOOKS,
    out: TextIO | None = None,
    watched: bool = False,
) -> None:
    """Run the steps of `plan` in order and print progress and the table of results to `out` (standard output).

    Args:
        watched: progress is for a program, as `progress.ProgressLines`.

    Raises:
        ParameterError, DeclarationError: as `plan` and `places`, before anything runs.
        RunFailed: names the stage and the cell, why, and where the partly executed notebook lies.
        KeyboardInterrupt: names the stage; its kernel is gone.
    """
    out = out or sys.stdout
    steps = plan(settings, stages, notebooks)
    dataset, outputs = places(settings, notebooks)
    folder = _new_folder(outputs.notebooks)
    runs = []
    for number, step in enumerate(steps, 1):
        executed, at = folder / f"{step.name}.ipynb", (number, len(steps), step.title)
        try:
            with ProgressLines(*at, executed, out) if watched else Progress(*at, out) as progress:
                run_notebook(step.notebook, step.parameters, executed, progress.cell)
        except RunFailed as error:
            raise RunFailed(f"{step.title} failed in {error}") from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted in stage {step.title}; run again to go on") from None
        if step.stage == "model":
            runs.append(latest_run(outputs))
            _keep_in_history(outputs, runs[-1], executed)
    print(f"\n{summary(dataset, outputs, [step.stage for step in steps], runs, folder)}", file=out)


def _keep_in_history(outputs: paths.OutputPaths, run: str, executed: Path) -> None:
    """Add the executed notebook, which is whole only now, to the run that it logged itself."""
    if (outputs.runs / run / "parameters.json").is_file():  # another notebook may keep no history
        from tdsp_vision.modeling.history import log_run

        said = log_run(outputs, outputs.runs / run, executed)
        if said.startswith("WARNING"):
            print(said, file=sys.stderr)


def _new_folder(parent: Path) -> Path:
    """`parent`/<YYYYmmdd-HHMMSS>, made here; two walkthroughs in one second get different ones."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for attempt in itertools.count(1):
        folder = parent / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
