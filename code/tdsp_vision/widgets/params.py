"""ParamsUI: a form for the parameters of a notebook, and a headless run with what it holds.

What may be given is said by `parameters.LIMITS`, the defaults by the notebook as it is saved. A run is a process of
its own, `python -m tdsp_vision run --watched …`, so the kernel stays usable. A kernel has one run per stage: where the
cell with the form is executed again, the new form shows the run that is going.
"""

import functools
import json
import os
import shlex
import subprocess
import sys
import threading
from html import escape
from pathlib import Path
from urllib.parse import quote

import ipywidgets as widgets
import traitlets

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError
from tdsp_vision.parameters import LIMITS, check_parameters, choices, defaults, read
from tdsp_vision.widgets import pictures

ENDS = {0: "done", 1: "failed", 130: "stopped"}
LIFE = "A run goes on when this page is closed, and ends when the kernel is restarted or shut down."


class BackgroundRun(traitlets.HasTraits):
    """Starts, follows and stops one run at a time. Observers of the traits are called in the reading thread.

    The process prints lines of JSON (`runner.Progress`) and then plain text: the table of results, or what went wrong.
    Its standard input is a pipe that carries nothing. Closing it ends the run as Ctrl-C does, and the system closes it
    when this kernel ends, however that happens: no run outlives the kernel that started it.
    """

    status = traitlets.Unicode("idle", help="idle, running, done, failed or stopped")
    progress = traitlets.Dict(help="the last line of JSON; {} before the first")
    printed = traitlets.Unicode(help="everything else that the process printed")

    def start(self, command: list[str]) -> None:
        """Start a command; returns at once. Does nothing while a run is going."""
        if self.status != "running":
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            # A session of its own: to interrupt the kernel does not interrupt the run.
            self.process = subprocess.Popen(command, cwd=paths.ROOT, text=True, start_new_session=True, **pipes)
            self.progress, self.printed, self.status = {}, "", "running"
            self.thread = threading.Thread(target=self._follow, daemon=True)
            self.thread.start()

    def stop(self) -> None:
        """End the run and its kernel as Ctrl-C does; returns at once. It changes no trait: how it ended is read."""
        if self.status == "running":
            self.process.stdin.close()

    def _follow(self) -> None:
        with self.process as process:
            for line in process.stdout:
                if line.startswith('{"step":'):
                    self.progress = json.loads(line)
                else:
                    self.printed += line
        self.status = ENDS.get(process.returncode, "failed")


@functools.cache
def run_of(stage: str) -> BackgroundRun:
    """The run of a stage that this kernel has started last, or will start."""
    return BackgroundRun()


def as_text(value: object) -> str:
    """`value` as `parameters.read` reads it back: text as it is, lists and mappings as JSON."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


class ParamsUI(pictures.Panel):
    """A form with one field per parameter, and buttons that run the notebook headless with what changed.

    Args:
        stage: "data", "model" or "deploy".
        run: what starts and follows the process; `run_of` the stage where nothing is given.
    """

    def __init__(self, stage: str, run: BackgroundRun | None = None):
        self.stage, self.run, self.limits = stage, run or run_of(stage), LIMITS[stage]
        self.defaults = defaults(paths.NOTEBOOKS[stage])
        self.controls = {name: self._control(name) for name in self.defaults}
        self.notes = {name: widgets.HTML() for name in self.controls}
        self.fields = {name: widgets.VBox([self.controls[name], self.notes[name]]) for name in self.controls}
        columns = "repeat(auto-fill, minmax(min(300px, 100%), 1fr))"
        # Links of an Output, unlike those of an HTML widget, open in JupyterLab itself.
        self.terminal, self.words, self.link = widgets.HTML(), widgets.HTML(), widgets.Output()
        self.start = pictures.button("Run", self._start, icon="play")  # never off: it would lose the keyboard
        self.stop = pictures.button("Stop", self.run.stop, icon="stop")
        grid = widgets.GridBox([*self.fields.values()], layout={"grid_template_columns": columns, "max_height": "17em"})
        super().__init__([grid, self.terminal, pictures.wrapping([self.start, self.stop]), self.words, self.link])
        self.run.observe(self._follow)
        self._check()
        self._follow()

    def static_html(self) -> str:
        """The fields and what they mean, folded: the parameters cell says the same."""
        lines = [f"{name} = {escape(self.controls[name].value)}: {note.value}" for name, note in self.notes.items()]
        return f"<details><summary>All parameters</summary>{'<br>'.join(lines)}</details>"

    def is_used(self, name: str) -> bool:
        """Whether the parameter has an effect: one whose meaning begins with `dnn:` has none where `svm` is chosen."""
        words = {*self.limits[name].description.partition(":")[0].split(", ")}
        chosen = [self.controls[other].value for other, field in self.limits.items() if words <= {*choices(field)}]
        return not chosen or chosen[0] in {*words, "auto"}

    def command(self) -> list[str]:
        """The run: with the classifier where there is one, and what is used and changed.

        Raises:
            ParameterError: the sentence with which a run would refuse the first wrong text.
        """
        texts = {name: control.value.removeprefix('""') for name, control in self.controls.items()}
        values = {name: read(self.stage, name, text) for name, text in texts.items()}
        check_parameters(self.stage, values)
        command = ["python", "-m", "tdsp_vision", "run", "--stage", self.stage]
        for name, value in values.items():
            if name == "CLASSIFIER" or (value != self.defaults[name] and self.is_used(name)):
                command += ["-p", name, as_text(value)]
        return command

    def _control(self, name: str) -> widgets.DOMWidget:
        """A list to choose from, or a field to type in; the value of either is a text."""
        words = choices(self.limits[name])
        kind = functools.partial(widgets.Dropdown, options=words) if words else widgets.Text
        return pictures.control(kind, name, self._check, "98%", value=as_text(self.defaults[name]))

    def _check(self, _=None) -> None:
        """Say beside each field what it means or what is wrong with it, and below what the run would be."""
        try:
            self.terminal.value = f"The same in a terminal: <code>{escape(shlex.join(self.command()))}</code>"
            self.error = ""
        except ParameterError as error:
            self.error, self.terminal.value = str(error), pictures.alert(str(error))
        for name, note in self.notes.items():
            wrong = self.error.startswith((f"{name} ", f"{name}["))
            note.value = pictures.alert(self.error) if wrong else escape(self.limits[name].description)
            self.fields[name].layout.display = None if wrong or self.is_used(name) else "none"

    def _start(self) -> None:
        if not self.error:
            self.run.start([sys.executable, *self.command()[1:], "--watched"])

    def _follow(self, _=None) -> None:
        """Show where the run is, or how it ended, and the notebook that it has executed, if only in part."""
        self.words.value = in_words(self.run)
        notebook = Path(self.run.progress.get("notebook", ""))
        ended = self.run.status in ENDS.values() and notebook.is_file()
        self.link.outputs = (link(notebook),) if ended else ()


def in_words(run: BackgroundRun) -> str:
    """Where a run is, or how it ended, as HTML; nothing before there is one."""
    at = {"title": "The run", "cell": 0, "cells": 0, "seconds": 0} | run.progress
    bar = f'<progress value="{at["cell"]}" max="{at["cells"] or 1}"></progress> cell {at["cell"]} of {at["cells"]}'
    words = f'<b role="status">{escape(at["title"])}: {run.status}</b> {bar}, {at["seconds"]} s. {LIFE}'
    return f"{words}<pre style='color:inherit'>{escape(run.printed.strip())}</pre>" * (run.status != "idle")


def link(notebook: Path) -> dict:
    """Cell output with a link to an executed notebook, as seen from the folder of the notebook that shows it."""
    target, shown = quote(os.path.relpath(notebook)), escape(paths.shown(notebook))
    html = f'<a href="{target}">Open the executed notebook</a>: <code>{shown}</code>'
    return {"output_type": "display_data", "data": {"text/html": html, "text/plain": shown}, "metadata": {}}
