"""The walkthrough, headless: data -> model (svm) -> model (dnn) -> deploy, each a notebook that papermill runs.

Values are typed and checked against `parameters.LIMITS` before anything starts, those of later stages as well. Every
executed notebook, a failed one too, lies in `outputs/<dataset>/notebooks/<date-time>/<step>.ipynb` and is written cell
by cell. A notebook tells what it made by displaying `RUN_MIME` data, so nobody has to guess from files that another
run may have written meanwhile. papermill is imported only to run a notebook: it costs a second.
"""

import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.parameters import CLASSIFIERS, LIMITS, check_parameters, defaults, nearest

RUN_MIME = "application/x.tdsp-run+json"
_TITLES = {"data": "data acquisition", "model": "modeling", "deploy": "deployment"}
# Where things lie is the runner's business too, so these may be set whichever stages are selected.
_PLACES = ("DATASET_NAME", "DATA_DIR", "OUTPUT_DIR")
# What the kernel needs whatever it inherits: figures inside the notebook, and no start-up messages of libraries.
_KERNEL = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    "TDSP_HEADLESS": "1",
}


class Step(NamedTuple):
    """One notebook to run: `name` is the executed file's stem, `values` are the parameters that are injected."""

    name: str
    title: str
    stage: str
    values: dict[str, object]


def plan(settings: Mapping[str, object], stages: Iterable[str] = (), notebooks: Mapping[str, Path] = paths.NOTEBOOKS):
    """Steps of a walkthrough, in order, and where its results go.

    Args:
        settings: parameter name -> text, or value of a YAML file.
        stages: which of data, model, deploy to run; none named means all. With CLASSIFIER among the settings the
            model stage runs once, else for svm and for dnn.
        notebooks: stage -> notebook, whose defaults count for what is not set.

    Returns:
        (list of `Step`, `paths.DatasetPaths`, `paths.OutputPaths`)

    Raises:
        ParameterError: a name that no stage or only one of an unselected stage has, or a wrong value of any stage.
    """
    selected = [stage for stage in notebooks if stage in stages or not stages]
    values: dict[str, dict[str, object]] = {stage: {} for stage in notebooks}
    for name, value in settings.items():
        owners = [stage for stage in notebooks if name in LIMITS[stage]]
        if not owners:
            every = {known for stage in notebooks for known in LIMITS[stage]}
            raise ParameterError(
                f"{name} is a parameter of no notebook; the nearest is {nearest(name, every)} "
                "(`python -m tdsp_vision params` lists all)."
            )
        if name not in _PLACES and not set(owners) & set(selected):
            raise ParameterError(
                f"{name} is a parameter of stage {' and '.join(owners)}, which is not among the stages selected "
                f"({', '.join(selected)}); add --stage {owners[0]} or leave {name} out."
            )
        for stage in owners:
            values[stage][name] = LIMITS[stage][name].read(name, value)
    whole = {stage: defaults(notebooks[stage]) | values[stage] for stage in notebooks}
    for stage in selected:
        check_parameters(stage, whole[stage])
    steps = []
    for stage in selected:
        kinds = [values[stage].get("CLASSIFIER")] if "CLASSIFIER" in settings else CLASSIFIERS
        for kind in kinds if stage == "model" else [None]:
            chosen = {"CLASSIFIER": kind} if kind else {}
            name, title = (f"model-{kind}", f"modeling ({kind})") if kind else (stage, _TITLES[stage])
            steps.append(Step(name, title, stage, values[stage] | chosen))
    everything = {name: value for stage in notebooks for name, value in whole[stage].items() if name in _PLACES}
    name = everything["DATASET_NAME"]
    return steps, paths.DatasetPaths(everything["DATA_DIR"], name), paths.OutputPaths(everything["OUTPUT_DIR"], name)


def run_walkthrough(
    settings: Mapping[str, object],
    stages: Iterable[str] = (),
    notebooks: Mapping[str, Path] = paths.NOTEBOOKS,
    watched: bool = False,
) -> None:
    """Run the steps of `plan` in order and print progress and a table of results.

    Args:
        watched: progress as lines of JSON for a program, see `Progress`.

    Raises:
        ParameterError: as `plan`, before anything runs, and where a notebook itself refuses a value.
        RunFailed: names the stage and the cell, why, and where the partly executed notebook lies.
        KeyboardInterrupt: names the stage; its kernel is gone.
    """
    steps, dataset, outputs = plan(settings, list(stages), notebooks)
    folder = outputs.notebooks / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
    runs: list[str] = []
    for number, step in enumerate(steps, 1):
        executed = folder / f"{step.name}.ipynb"
        values = step.values
        if step.stage == "deploy" and runs:  # its own run, whatever another process has finished meanwhile
            values = {"RUN": runs[-1]} | values
        label = f"{number}/{len(steps)} {step.title}"
        says = {"step": number, "steps": len(steps), "title": step.title, "notebook": str(executed)}
        usual = _usual_seconds(outputs, step.name, notebooks[step.stage])
        try:
            with Progress(label, says if watched else None, usual) as progress:
                run_notebook(notebooks[step.stage], values, executed, progress.cell)
        except (ParameterError, RunFailed) as error:
            raise type(error)(f"{step.title} stopped in {error}") from None
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"interrupted in stage {step.title}; run again to go on") from None
        if step.stage == "model":
            runs.append(displayed_run(executed))
            attach_to_history(outputs, runs[-1], executed)
    print(f"\n{summary(dataset, outputs, {step.stage for step in steps}, runs, folder)}")


def run_notebook(
    notebook: Path,
    values: Mapping[str, object],
    output: Path,
    on_cell: Callable[[int, int], None] = lambda number, total: None,
    environment: Mapping[str, str] | None = None,
) -> Path:
    """Execute `notebook` with `values` in a kernel of this interpreter, in its own folder; returns `output`, absolute.

    Args:
        on_cell: called with (number, how many) as each code cell starts, counted from 1.
        environment: variables for the kernel, on top of this process's own.

    Raises:
        ParameterError: the notebook refused a value.
        RunFailed: a cell raised another error, or the kernel died or did not start; `output` holds what ran.
    """
    from papermill import PapermillExecutionError, execute_notebook

    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # its errors are raised as well, and told from here
    output = output.resolve()
    output.parent.mkdir(parents=True, exist_ok=True)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    total = sum(cell["cell_type"] == "code" and bool("".join(cell["source"]).strip()) for cell in cells) + bool(values)
    started, log = [], output.with_suffix(".log")  # what the kernel's process prints itself

    def count(cell, cell_index) -> None:
        started.append(cell_index)
        on_cell(len(started), total)

    try:
        with log.open("wb") as file, tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
            execute_notebook(
                *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, output)),  # it formats paths
                dict(values),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                on_cell_execute=count,
                kernel_manager_class=_own_kernel(notebook.parent, environment or {}, file, Path(sockets)),
            )
    except PapermillExecutionError as error:
        words = " ".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", error.evalue).split())[:1000] or "(no message)"
        end = f"\npartly executed notebook: {paths.shown(output)}"
        if error.ename == "ParameterError":
            raise ParameterError(f"cell In [{error.exec_count}]: {words}{end}") from None
        raise RunFailed(f"cell In [{error.exec_count}]: {error.ename}: {words}{end}") from None
    except RuntimeError as error:  # how nbclient reports a kernel that died or never started
        place = f"code cell {len(started)} of {total}" if started else "the start of its kernel"
        free = shutil.disk_usage(output.parent).free / 1e9
        raise RunFailed(
            f"{place}: {error}, often for lack of memory or of disk space ({free:.1f} GB are free where results go); "
            f"its own words are in {paths.shown(log)}\npartly executed notebook: {paths.shown(output)}"
        ) from None
    log.unlink()
    return output


def _own_kernel(folder: Path, environment: Mapping[str, str], log, sockets: Path) -> type:
    """Kernel manager class that starts `sys.executable`, whatever kernels are registered on the machine.

    It works in `folder`; papermill would change the folder of this whole process, and a sweep runs several at once.
    What the process itself prints goes to `log`. It is spoken to through files in the empty folder `sockets`: of many
    kernels that start at once, two may want the same network port.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    own = _KERNEL | {"TDSP_WORKSPACE": str(paths.workspace())} | dict(environment)
    # A socket's path may have 104 characters on macOS, 108 on Linux; Windows has no such sockets.
    short = os.name == "posix" and len(str(sockets)) < 90
    files = {"transport": "ipc", "ip": str(sockets / "k")} if short else {}

    class KernelOfThisInterpreter(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict(), env=own)

        def __init__(self, **options):
            super().__init__(**options, **files)

        async def start_kernel(self, **options):
            return await super().start_kernel(**options | {"cwd": str(folder), "stdout": log, "stderr": log})

    return KernelOfThisInterpreter


class Progress:
    """Shows while its block runs that a stage lives, and which cell it is in; `cell` is `on_cell` of `run_notebook`.

    `2/4 modeling (svm) ........ 21 s, cell 12 of 58 (usually 30 s)`: redrawn every second on a terminal, else a line
    every minute; at the end a line with the time.

    Args:
        label: such as `2/4 modeling (svm)`.
        says: for a program: entries of a line of JSON, printed every second with `cell`, `cells` and `seconds`.
        usual: seconds that it took before.
    """

    def __init__(self, label: str, says: dict | None = None, usual: float | None = None):
        self._label, self._says, self._cell, self._cells = f"{label} ".ljust(30, "."), says, 0, 0
        self._usual = "" if usual is None else f" (usually {usual:.0f} s)"
        self._terminal, self._ended = sys.stdout.isatty(), threading.Event()
        self._clock = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> "Progress":
        self._start = time.monotonic()
        if self._terminal or self._says is not None:
            self._show()
        self._clock.start()
        return self

    def cell(self, number: int, total: int) -> None:
        """Code cell `number` of `total`, counted from 1, has started."""
        self._cell, self._cells = number, total

    def __exit__(self, kind, error, trace) -> None:
        self._ended.set()
        self._clock.join()
        how = "" if kind is None else "interrupted after " if kind is KeyboardInterrupt else "stopped after "
        self._show(f"{how}{self._seconds()} s\n")

    def _tick(self) -> None:
        while not self._ended.wait(1 if self._terminal or self._says is not None else 60):
            self._show()

    def _seconds(self) -> int:
        return round(time.monotonic() - self._start)

    def _show(self, end: str = "") -> None:
        if self._says is not None:
            says = self._says | {"cell": self._cell, "cells": self._cells, "seconds": self._seconds()}
            text = f"{json.dumps(says)}\n"
        else:
            where = f"{self._seconds()} s, cell {self._cell} of {self._cells}{self._usual}"
            clear, line_end = ("\r\x1b[K", "") if self._terminal else ("", "\n")
            text = f"{clear}{self._label} {end or where + line_end}"
        sys.stdout.write(text)
        sys.stdout.flush()


def displayed_run(executed: Path) -> str:
    """Id of the run that an executed modeling notebook made, as it displayed it; RunFailed if it displayed none."""
    for cell in json.loads(executed.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if RUN_MIME in output.get("data", {}):
                return output["data"][RUN_MIME]["run"]
    raise RunFailed(f"{paths.shown(executed)} ran to its end and told of no run.")


def _usual_seconds(outputs: paths.OutputPaths, name: str, notebook: Path) -> float | None:
    """Seconds that a step took when it last ran for this data set, else when the notebook was committed."""
    earlier = sorted(outputs.notebooks.glob(f"*/{name}.ipynb"))
    for file in [*reversed(earlier), notebook]:
        seconds = json.loads(file.read_text(encoding="utf-8"))["metadata"].get("papermill", {}).get("duration")
        if seconds:
            return seconds
    return None


def attach_to_history(outputs: paths.OutputPaths, run: str, executed: Path) -> None:
    """Add the executed notebook, which is whole only now, to the run that it logged itself."""
    if (outputs.runs / run / "parameters.json").is_file():  # another notebook may keep no history
        from tdsp_vision.modeling.history import log_run

        said = log_run(outputs, outputs.runs / run, executed)
        if said.startswith("WARNING"):
            print(said, file=sys.stderr)


def summary(dataset, outputs, stages: set[str], runs: list[str], notebooks: Path) -> str:
    """Tables of a finished walkthrough: images, a line for each run, where things lie, and the scored request.

    Args:
        stages: which of data, model, deploy were run; only their results are shown.
        runs: ids of the modeling runs, in order.
        notebooks: folder of the executed notebooks.
    """
    import pandas as pd

    def table(rows: list[dict]) -> str:
        return pd.DataFrame(rows).to_string(index=False, na_rep="-", float_format="{:.3f}".format)

    lines = []
    if stages & {"data", "model"}:
        counts = _read(dataset.info)["counts"]
        each = ", ".join(f"{label} {count}" for label, count in list(counts.items())[:12])
        lines.append(f"{sum(counts.values())} images of {len(counts)} classes: {each}")
    if runs:
        results = [(run, _read(outputs.runs / run / "metrics.json")) for run in runs]
        names = ("accuracy", "balanced_accuracy", "auc", "auc_ci")
        kinds = [{"run": run, "classifier": metrics["classifier"]} for run, metrics in results]
        tests = [{name: metrics["test"].get(name) for name in names} for _, metrics in results]
        lines += ["", table([kind | test for kind, test in zip(kinds, tests, strict=True)])]
        lines.append(f"\nmodels and figures in {paths.shown(outputs.runs)}")
    lines.append(f"executed notebooks in {paths.shown(notebooks)}")
    if "deploy" in stages:
        folder = outputs.deployment
        service, answers = _read(folder / "service.json"), _read(folder / "response.json")["predictions"]
        # Under a threshold the label that is named need not have the highest score, so all scores are shown.
        rows = [
            {"image": "/".join(Path(file).parts[-2:]), "label": answer["label"] if answer["valid"] else "no image"}
            | dict(zip(service["classes"][:12], answer["scores"], strict=False))
            for file, answer in zip(service["files"], answers, strict=True)
        ]
        lines += [f"\nscored request {paths.shown(folder / 'request.json')}: {service['what']}", table(rows)]
    return "\n".join(lines)


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFailed(f"{paths.shown(file)} is missing; the notebook ran to its end without writing it.") from None


def end_with_starter() -> None:
    """Interrupt this process, as Ctrl-C does, when its standard input closes.

    It has to be a pipe that carries nothing: whoever started this process closes it to stop it, and the system does
    when the starter ends, however that happens.
    """

    def wait_for_end() -> None:
        os.read(0, 1)  # not through sys.stdin, whose lock would disturb this process's end
        os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a Jupyter kernel is born deaf to it
    threading.Thread(target=wait_for_end, daemon=True).start()
