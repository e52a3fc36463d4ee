"""The walkthrough, headless: data -> model (svm) -> model (dnn) -> deploy, each a notebook that papermill runs.

Values are typed and checked against `parameters.LIMITS` before anything starts, those of later stages as well. Every
executed notebook, a failed one too, lies in `outputs/<dataset>/notebooks/<date-time>/<step>.ipynb` and is written cell
by cell. A notebook tells what it made by displaying `RUN_MIME` data, so nobody has to guess from files that another
run may have written meanwhile. papermill is imported only to run a notebook: it costs a second.
"""

import contextlib
import itertools
import json
import logging
import os
import re
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
    folder = _new_folder(outputs.notebooks)
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
    started = []

    def count(cell, cell_index) -> None:
        started.append(cell_index)
        on_cell(len(started), total)

    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory(prefix="kernel-") as sockets:
        try:
            execute_notebook(
                *(str(path).replace("{", "{{").replace("}", "}}") for path in (notebook, output)),  # it formats paths
                dict(values),
                kernel_name="python3",
                language="python",
                progress_bar=False,
                on_cell_execute=count,
                kernel_manager_class=_own_kernel(notebook.parent, environment or {}, log, Path(sockets)),
            )
        except PapermillExecutionError as error:
            words = " ".join(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", error.evalue).split())[:1000] or "(no message)"
            end = f"\npartly executed notebook: {paths.shown(output)}"
            if error.ename == "ParameterError":
                raise ParameterError(f"cell In [{error.exec_count}]: {words}{end}") from None
            raise RunFailed(f"cell In [{error.exec_count}]: {error.ename}: {words}{end}") from None
        except RuntimeError as error:  # how nbclient reports a kernel that died or never started
            place = f"code cell {len(started)} of {total}" if started else "the start of its kernel"
            raise RunFailed(
                f"{place}: {error}; its last words: {_last_words(log)}\npartly executed notebook: {paths.shown(output)}"
            ) from None
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

    class KernelOfThisInterpreter(AsyncKernelManager):
        kernel_spec = KernelSpec(**get_kernel_dict(), env=own)

        def __init__(self, **options):
            # A socket's path may have 104 characters on macOS, 108 on Linux; Windows has no such sockets.
            files = {"transport": "ipc", "ip": str(sockets / "k")} if os.name == "posix" else {}
            super().__init__(**options, **files if len(str(sockets)) < 90 else {})

        async def start_kernel(self, **options):
            own = {"cwd": str(folder), "stdout": log, "stderr": log}
            return await super().start_kernel(**options | own)

    return KernelOfThisInterpreter


def _last_words(log) -> str:
    """The last line that the kernel's process printed before it died, without harmless messages of libraries."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines()]
    words = [
        line for line in lines if line and not re.match(r"\[IPKernelApp\] WARNING|.*\b(cuInit|TF-TRT|oneDNN)", line)
    ]
    return words[-1] if words else "none (often it is a lack of memory or of space on the disk)"


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
        from tdsp_vision.modeling.tracking import attach_notebook

        attach_notebook(outputs, run, executed)


def _new_folder(parent: Path) -> Path:
    """`parent`/<YYYYmmdd-HHMMSS>, made here; two walkthroughs in one second get different ones."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    for name in itertools.chain([stamp], (f"{stamp}-{n}" for n in itertools.count(2))):
        with contextlib.suppress(FileExistsError):
            (parent / name).mkdir(parents=True)
            return parent / name


def summary(dataset, outputs, stages: set[str], runs: list[str], notebooks: Path) -> str:
    """Table of a finished walkthrough: images, a line for each run, where things lie, and the scored request.

    Args:
        stages: which of data, model, deploy were run; only their results are shown.
        runs: ids of the modeling runs, in order.
        notebooks: folder of the executed notebooks.
    """
    lines = []
    if stages & {"data", "model"}:
        counts = _read(dataset.info)["counts"]
        each = ", ".join(f"{label} {count}" for label, count in list(counts.items())[:12])
        more = f" and {len(counts) - 12} classes more" if len(counts) > 12 else ""
        lines += [f"{'images':<16}{sum(counts.values())}: {each}{more}", ""]
    if runs:
        lines.append(f"{'classifier':<16}accuracy   balanced accuracy   AUC (95 % interval)    run")
    for run in runs:
        metrics = _read(outputs.runs / run / "metrics.json")
        test = metrics["test"]
        accuracy, balanced, auc = (_number(test.get(name)) for name in ("accuracy", "balanced_accuracy", "auc"))
        interval = "-".join(map(_number, test.get("auc_ci") or []))
        auc += f" ({interval})" if interval else ""
        lines.append(f"{metrics['classifier']:<16}{accuracy:<11}{balanced:<20}{auc:<22} {run}")
    lines += ["", *(f"{'model':<16}{paths.shown(outputs.runs / run / 'model.keras')}" for run in runs)] if runs else []
    lines.append(f"{'notebooks':<16}{paths.shown(notebooks)}")
    if "deploy" in stages:
        lines += ["", *_scored_request(outputs.deployment)]
    return "\n".join(lines)


def _scored_request(folder: Path) -> list[str]:
    """The request that the deployment notebook sent, and what was answered: under a threshold the label that is
    named need not have the highest score."""
    service, response = _read(folder / "service.json"), _read(folder / "response.json")
    classes = service["classes"]
    lines = [f"{'scored request':<16}{paths.shown(folder / 'request.json')}", f"{'':<16}{service['what']}"]
    for file, answer in zip(service["files"], response["predictions"], strict=True):
        score = (
            f"{answer['label']} {answer['scores'][classes.index(answer['label'])]:.3f}"
            if answer["valid"]
            else "no image"
        )
        lines.append(f"{'':<16}{'/'.join(Path(file).parts[-2:]):<36} {score}")
    return lines


def _read(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFailed(f"{paths.shown(file)} is missing; the notebook ran to its end without writing it.") from None


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def end_with_starter() -> None:
    """Interrupt this process, as Ctrl-C does, when its standard input closes.

    It has to be a pipe that carries nothing: whoever started this process closes it to stop it, and the system does
    when the starter ends, however that happens. What has not ended 30 seconds later is killed, with its children.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a child of a Jupyter kernel is born deaf to it
    threading.Thread(target=_interrupt_at_end_of_input, daemon=True).start()


def _interrupt_at_end_of_input() -> None:
    import psutil

    os.read(0, 1)  # not through sys.stdin, whose lock would disturb this process's end
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(30)  # a clean end takes the process, and so this thread, away long before
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(130)
