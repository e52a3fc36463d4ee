"""The walkthrough, headless: data -> model (svm) -> model (dnn) -> deploy, each a notebook that papermill runs.

Values are typed and checked against `parameters.LIMITS` before anything starts, those of later stages as well. Every
executed notebook, a failed one too, lies in `outputs/<dataset>/notebooks/<date-time>/<step>.ipynb` and is written cell
by cell. A notebook tells what it made by displaying `RUN_MIME` data, so nobody has to guess from files that another
run may have written meanwhile. papermill is imported only to run a notebook: it costs a second.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.parameters import CLASSIFIERS, LIMITS, check_parameters, defaults, nearest, read

RUN_MIME = "application/x.tdsp-run+json"
# Where things lie is the runner's business too, so these may be set whichever stages are selected.
_PLACES = ("DATASET_NAME", "DATA_DIR", "OUTPUT_DIR")
# What the kernel needs whatever it inherits: figures inside the notebook. The history is written here, while the next
# notebook runs: to import MLflow takes a kernel five seconds.
_KERNEL = {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "TDSP_HISTORY_WRITER": "the program that runs it"}


def plan(settings: Mapping[str, object], stages: Collection[str] = ()):
    """Steps of a walkthrough, in order, and where its results go.

    Args:
        settings: parameter name -> text, or value of a YAML file.
        stages: which of data, model, deploy to run; none named means all. With CLASSIFIER among the settings the
            model stage runs once, else for svm and for dnn.

    Returns:
        (name of the step -> parameters that its notebook gets, `paths.DatasetPaths`, `paths.OutputPaths`). A name is
        the executed file's stem; it begins with the stage, as in `model-svm`.

    Raises:
        ParameterError: a name that no selected stage has, or a wrong value of any stage.
    """
    selected = [stage for stage in LIMITS if stage in stages or not stages]
    homes = {name: stage for stage, limits in LIMITS.items() for name in limits}
    for name in settings:
        if name not in _PLACES and not any(name in LIMITS[stage] for stage in selected):
            near, runs = nearest(name, homes), ", ".join(selected)
            raise ParameterError(f"{name} is no parameter of {runs}; the nearest is {near} of {homes[near]}.")
    steps, whole = {}, {}
    for stage, limits in LIMITS.items():
        given = {name: read(stage, name, value) for name, value in settings.items() if name in limits}
        whole = defaults(paths.NOTEBOOKS[stage]) | given
        if stage in selected:
            check_parameters(stage, whole)
            kinds = [given["CLASSIFIER"]] if "CLASSIFIER" in given else CLASSIFIERS
            trained = {f"model-{kind}": given | {"CLASSIFIER": kind} for kind in kinds}
            steps |= trained if stage == "model" else {stage: given}
    name, data_dir, output_dir = (whole[place] for place in _PLACES)  # the last stage has all three
    return steps, paths.DatasetPaths(data_dir, name), paths.OutputPaths(output_dir, name)


def run_walkthrough(settings: Mapping[str, object], stages: Collection[str] = (), watched: bool = False) -> None:
    """Run the steps of `plan` in order and print progress and a table of results.

    Args:
        watched: for a program: progress as lines of JSON, see `progress`; the end of standard input is an interrupt.

    Raises:
        ParameterError: as `plan`, before anything runs, and where a notebook itself refuses a value.
        RunFailed: names the cell, why, and where the partly executed notebook lies.
    """
    if watched:
        threading.Thread(target=end_with_starter, daemon=True).start()
    steps, dataset, outputs = plan(settings, stages)
    folder = outputs.notebooks / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
    runs: list[str] = []
    with ThreadPoolExecutor(1) as history:
        if any(name.startswith("model") for name in steps):
            history.submit(write_history, outputs)
        for number, (name, values) in enumerate(steps.items(), 1):
            stage, executed = name.partition("-")[0], folder / f"{name}.ipynb"
            if stage == "deploy" and runs:  # its own run, whatever another process has finished meanwhile
                values = {"RUN": runs[-1]} | values
            about = {"step": number, "steps": len(steps), "title": name, "notebook": str(executed)}
            with progress(about, _usual(outputs, name), watched) as on_cell:
                run_notebook(paths.NOTEBOOKS[stage], values, executed, on_cell)
            if stage == "model":
                runs.append(displayed_run(executed))
                history.submit(write_history, outputs, runs[-1], executed)
    print(f"\n{summary(dataset, outputs, 'deploy' in steps, runs, folder)}")


def run_notebook(notebook: Path, values: Mapping, output: Path, on_cell=lambda *_: None, environment=None) -> None:
    """Execute `notebook` with `values` in a kernel of this interpreter, in its own folder, cell by cell to `output`.

    Args:
        values: parameter name -> value.
        on_cell: called with (number, how many) as each code cell starts; all cells count, from 1.
        environment: name -> value, variables for the kernel on top of this process's own; None: no others.

    Raises:
        ParameterError: the notebook refused a value.
        RunFailed: a cell raised another error, or the kernel died or did not start; `output` holds what ran.
    """
    from papermill import PapermillExecutionError, execute_notebook

    output.parent.mkdir(parents=True, exist_ok=True)
    total = len(_read(notebook)["cells"]) + bool(values)
    end, log = f"\npartly executed notebook: {paths.shown(output)}", output.with_suffix(".log")
    try:  # the folder of sockets needs a short path
        with log.open("wb") as words, tempfile.TemporaryDirectory(prefix="kernel-", dir="/tmp") as sockets:
            execute_notebook(
                *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, output)),  # it formats paths
                dict(values),
                progress_bar=False,
                on_cell_execute=lambda cell, cell_index: on_cell(cell_index + 1, total),
                kernel_manager_class=_own_kernel(environment or {}, sockets, words),
                resources={"metadata": {"path": str(notebook.parent)}},
            )
    except PapermillExecutionError as error:
        kind = ParameterError if error.ename == "ParameterError" else RunFailed
        words = " ".join(f"{error.ename}: {error.evalue}".split())[:1000]
        raise kind(f"cell In [{error.exec_count}]: {words}{end}") from None
    except RuntimeError as error:  # how nbclient reports a kernel that died or never started
        why = f"{error}, often for lack of memory or of disk space; its own words are in {paths.shown(log)}"
        raise RunFailed(f"a cell: {why}{end}") from None
    log.unlink()


def _own_kernel(environment: Mapping[str, str], sockets: str, words) -> type:
    """Kernel manager class that starts `sys.executable`, whatever kernels are registered on the machine.

    The kernel is spoken to through files in the empty folder `sockets`: of many kernels that start at once, two may
    want the same network port. What its process itself prints goes to the open file `words`.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager

    class KernelOfThisInterpreter(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict(), env=_KERNEL | dict(environment))

        def __init__(self, **options):
            super().__init__(**options, transport="ipc", ip=f"{sockets}/k")

        async def start_kernel(self, **options):
            return await super().start_kernel(**options, stdout=words, stderr=words)

    return KernelOfThisInterpreter


@contextmanager
def progress(about: dict, usual: str, watched: bool) -> Iterator[Callable[[int, int], None]]:
    """Show while the block runs that a notebook lives, and which cell it is in; yields `on_cell` of `run_notebook`.

    `2/4 model-svm ............... 21 s, cell 12 of 58 (usually 30 s)`: the same line anew every second on a terminal,
    else a line every minute, and one at the end.

    Args:
        about: `step` of how many `steps`, its `title`, and its `notebook`.
        usual: how long it took before, as in ` (usually 30 s)`.
        watched: for a program: every second a line of JSON, `about` with `cell`, `cells` and `seconds`.
    """
    start, at, ended = time.monotonic(), about | {"cell": 0, "cells": 0}, threading.Event()
    terminal = sys.stdout.isatty() and not watched

    def show_until_ended() -> None:
        """Print the line anew each second or minute, and a last time at the end."""
        over = False
        while not over:
            over = ended.wait(1 if terminal or watched else 60)
            at["seconds"] = round(time.monotonic() - start)
            label = f"{at['step']}/{at['steps']} {at['title']} ".ljust(30, ".")
            text = f"{label} {at['seconds']} s, cell {at['cell']} of {at['cells']}{usual}"
            print(json.dumps(at) if watched else text, end="\r" if terminal and not over else "\n", flush=True)

    with ThreadPoolExecutor(1) as clock:
        clock.submit(show_until_ended)
        try:
            yield lambda number, total: at.update(cell=number, cells=total)
        finally:
            ended.set()


def displayed_run(executed: Path) -> str:
    """Id of the run that an executed modeling notebook made, as it displayed it; RunFailed if it displayed none."""
    for cell in _read(executed)["cells"]:
        for output in cell.get("outputs", []):
            if RUN_MIME in output.get("data", {}):
                return output["data"][RUN_MIME]["run"]
    raise RunFailed(f"{paths.shown(executed)} ran to its end and told of no run.")


def _usual(outputs: paths.OutputPaths, step: str) -> str:
    """How long a step took when it was last run to its end for this data set; "" where it never was."""
    for file in sorted(outputs.notebooks.glob(f"*/{step}.ipynb"), reverse=True):
        ran = _read(file)["metadata"]["papermill"]
        if not ran.get("exception") and ran.get("duration"):
            return f" (usually {ran['duration']:.0f} s)"
    return ""


def write_history(outputs: paths.OutputPaths, run: str = "", executed: Path | None = None) -> None:
    """Add a run and its executed notebook to the history; without a run, only look whether it can be written."""
    from tdsp_vision.modeling.history import log_run

    said = log_run(outputs, outputs.runs / run if run else None, executed)
    if said.startswith("WARNING"):
        print(said, file=sys.stderr)


def summary(dataset, outputs, deployed: bool, runs: list[str], notebooks: Path) -> str:
    """Tables of a finished walkthrough: images, a line for each run, where things lie, and the scored request.

    Args:
        deployed: whether the last stage was run.
        runs: ids of the modeling runs, in order.
        notebooks: folder of the executed notebooks.
    """
    from pandas import DataFrame

    lines = [f"images by class: {_read(dataset.info)['counts']}"]
    if runs:
        tests = {run: _read(outputs.runs / run / "metrics.json")["test"] for run in runs}
        table = DataFrame(tests, ["accuracy", "balanced_accuracy", "auc", "auc_ci"]).T
        lines.append(f"\n{table.to_string(na_rep='-', float_format='{:.3f}'.format)}\n")
        lines.append(f"models and figures in {paths.shown(outputs.runs)}")
    lines.append(f"executed notebooks in {paths.shown(notebooks)}")
    if deployed:
        service, response = (_read(outputs.deployment / f"{name}.json") for name in ("service", "response"))
        table = DataFrame(response["predictions"], service["files"]).to_string(max_colwidth=60)
        lines.append(f"\nscored request: {service['what']} Scores of {', '.join(service['classes'])}:\n{table}")
    return "\n".join(lines)


def _read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def interrupt_once(*_) -> None:
    """Handle an interrupt; a second one would leave the kernel while it is being shut down, and is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable()  # papermill and asyncio would tell at length that the kernel ended
    print("interrupted; the same command starts it again", file=sys.stderr)
    sys.exit(130)


def end_with_starter() -> None:
    """Wait for the end of standard input, a pipe that carries nothing, and interrupt this process as Ctrl-C does.

    Whoever started this process closes the pipe to stop it; the system does when the starter ends, however it ends.
    """
    os.read(0, 1)  # not through sys.stdin, whose lock would disturb this process's end
    os.kill(os.getpid(), signal.SIGINT)
