"""What a person sees of a `BackgroundRun`: where it is, a way to stop it, how it ended, the executed notebook."""

import os
import threading
from html import escape
from pathlib import Path
from urllib.parse import quote

import ipywidgets as widgets

from tdsp_vision import paths
from tdsp_vision.data.plots import BLUE, GRAY, GREEN, ORANGE
from tdsp_vision.widgets.background_run import BackgroundRun

COLORS = {"running": BLUE, "done": GREEN, "failed": ORANGE}
LIFE = "It goes on when this page is closed, and ends when the kernel is restarted or shut down."


class RunView(widgets.VBox):
    """Follows `run`. `stop` is a button that is placed by whoever makes the view, beside the one that starts."""

    def __init__(self, run: BackgroundRun):
        self.run, self.lock = run, threading.RLock()  # a click and the reading thread may come at once
        self.stop = widgets.Button(description="Stop", icon="stop", tooltip="End the run", tabbable=True)
        self.words, self.bar = widgets.HTML(), widgets.IntProgress(layout=widgets.Layout(width="100%"))
        self.bar.tooltip = "Cells of the notebook that have been run"
        # The links of an Output, unlike those of an HTML widget, open in JupyterLab itself.
        self.link, self.rest = widgets.Output(), widgets.HTML()
        super().__init__([self.bar, self.words, self.link, self.rest])
        self.stop.on_click(lambda _: run.stop())
        run.observe(self._follow)
        self._follow()

    def _follow(self, _=None) -> None:
        with self.lock:
            self._show(self.run)

    def _show(self, run: BackgroundRun) -> None:
        self.stop.disabled = run.status != "running"
        self.layout.display = "none" if run.status == "idle" else ""
        self.bar.max = run.progress.get("cells") or 1
        self.bar.value = run.progress.get("cell", 0)
        self.bar.style.bar_color = COLORS.get(run.status, GRAY)
        self.words.value = in_words(run)
        notebook = Path(run.progress.get("notebook", ""))
        shown = not run.going and notebook.is_file()  # a run that is stopped early has written none
        self.link.outputs = (link(notebook, run.status == "done"),) if shown else ()
        self.rest.value = _printed(run)


def in_words(run: BackgroundRun) -> str:
    """Where a run is, or how it ended: a sentence or two, as HTML."""
    at, title = run.progress, escape(run.progress.get("title", "The run"))
    after = f"after {at['seconds']} s" if at else "before its first cell"
    match run.status:
        case "idle":
            return ""
        case "running" if not at:
            return f"Starting. {LIFE}"
        case "running" if not at["cells"]:
            return f"<b>{title}</b>: its kernel is starting, {at['seconds']} s. {LIFE}"
        case "running":
            return f"<b>{title}</b>: cell {at['cell']} of {at['cells']}, {at['seconds']} s. {LIFE}"
        case "stopping":
            return f"<b>{title}</b> is being stopped; its kernel is shut down."
        case "failed":
            return f'<b role="alert">{escape(reason(run.said))}</b>'
        case ended:
            return f'<span role="status"><b>{title}</b> is {ended}, {after}.</span>'


def reason(said: str) -> str:
    """The sentence with which a failed run ends, out of everything it printed."""
    lines = [line for line in said.splitlines() if line.strip() and not line.startswith("partly executed notebook:")]
    return lines[-1].strip() if lines else "The run failed and said nothing."


def link(notebook: Path, whole: bool) -> dict:
    """Cell output with a link to an executed notebook, as seen from the folder of the notebook that shows it."""
    target, where = quote(os.path.relpath(notebook)), escape(paths.shown(notebook))
    html = f'<a href="{target}">Open the {"" if whole else "partly "}executed notebook</a>: <code>{where}</code>'
    return {"output_type": "display_data", "data": {"text/html": html, "text/plain": where}, "metadata": {}}


def _printed(run: BackgroundRun) -> str:
    text = f"<pre>{escape(run.said.strip())}</pre>"
    if run.status == "failed":
        return f"<details><summary>All that the run printed</summary>{text}</details>"
    return text if run.status == "done" else ""
