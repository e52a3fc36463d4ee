"""ParamsUI: a form for the parameters of a notebook, and a headless run with what it holds.

The fields and their checks come from the notebook as it is saved (`params_fields`), the run is a process of its own
(`background_run`), what is seen of it is a `RunView`. A kernel has one run per stage: where the cell with the form is
executed again, the new form shows the run that is going. `parameter_table` is the static twin.
"""

import functools
import shlex
from html import escape
from pathlib import Path

import ipywidgets as widgets

from tdsp_vision import paths
from tdsp_vision.data.plots import BLUE, ORANGE
from tdsp_vision.parameters import Parameter, require_one_of
from tdsp_vision.widgets.background_run import BackgroundRun
from tdsp_vision.widgets.params_fields import ParameterForm, as_text
from tdsp_vision.widgets.run_view import RunView

LONG = 40  # letters; a longer default gets a field of several lines
WRAP = widgets.Layout(flex_flow="row wrap")
COLUMNS = widgets.Layout(grid_template_columns="repeat(auto-fill, minmax(min(270px, 100%), 1fr))", width="100%")
STYLE = f"""<style>
.tdsp-field {{ padding: 4px 8px 8px; border-left: 3px solid transparent; overflow: hidden }}
.tdsp-field.tdsp-changed {{ border-left-color: {BLUE} }}
.tdsp-field.tdsp-wrong {{ border-left-color: {ORANGE} }}
.tdsp-field > * {{ margin: 0; width: auto }}
.tdsp-field > .widget-inline-hbox {{ flex-direction: column; align-items: stretch; height: auto }}
.tdsp-field > .widget-inline-hbox > * {{ flex: none; width: auto; box-sizing: border-box }}
.tdsp-field .widget-label, .tdsp-field .widget-label-basic {{ font: 600 13px/1.6 var(--jp-code-font-family);
  height: auto; text-align: left }}
.tdsp-field select {{ height: var(--jp-widgets-inline-height) }}
.tdsp-form .widget-html-content {{ line-height: 1.35; white-space: normal; overflow-wrap: anywhere }}
.tdsp-form .widget-html, .tdsp-form .widget-html-content {{ height: auto; width: 100% }}
.tdsp-form pre {{ overflow-x: auto; line-height: 1.35 }}
.tdsp-form small {{ color: var(--jp-ui-font-color2) }}
</style>"""


@functools.cache
def run_of(stage: str) -> BackgroundRun:
    """The run of a stage that this kernel has started last, or will start."""
    return BackgroundRun()


class Field(widgets.VBox):
    """One parameter: its control, and below it what it means, or the sentence that says what is wrong with `text`."""

    def __init__(self, parameter: Parameter, choices: list[str], allowed: str):
        self.default, self._note = as_text(parameter.default), widgets.HTML()
        self.control = _control(parameter, self.default, choices)
        said = choices or isinstance(parameter.default, bool | str)  # by the control itself, or there is no limit
        self._help = escape(parameter.comment) + ("" if said else f" <small>({escape(allowed)})</small>")
        super().__init__([self.control, self._note])
        self.add_class("tdsp-field")

    @property
    def text(self) -> str:
        return as_text(self.control.value)

    @text.setter
    def text(self, text: str) -> None:
        self.control.value = text == "True" if isinstance(self.control, widgets.Checkbox) else text

    def mark(self, changed: bool, error: str) -> None:
        """Show `error`, or else the help; a bar at the left says changed (blue) or wrong (orange)."""
        self._note.value = f'<b role="alert">{escape(error)}</b>' if error else self._help
        for name, on in (("tdsp-changed", changed), ("tdsp-wrong", bool(error))):
            (self.add_class if on else self.remove_class)(name)


def _control(parameter: Parameter, text: str, choices: list[str]) -> widgets.DOMWidget:
    about = {"description": parameter.name, "tooltip": parameter.comment, "tabbable": True}
    if isinstance(parameter.default, bool):
        return widgets.Checkbox(parameter.default, indent=False, **about)
    if choices:
        return widgets.Dropdown(options=choices, value=text, **about)
    return widgets.Textarea(text, rows=4, **about) if len(text) > LONG else widgets.Text(text, **about)


class ParamsUI(widgets.VBox):
    """A form with one field per parameter, and buttons that run its notebook headless with what changed.

    Args:
        notebook: "data", "model", "deploy", or the path of that notebook.
        run: what starts and follows the process; `run_of` the stage where nothing is given.

    Raises:
        ParameterError: for anything but one of the three notebooks.
        DeclarationError: if the notebook's parameters or checks cannot be read.
    """

    def __init__(self, notebook: Path | str, run: BackgroundRun | None = None):
        stages = {path.resolve(): stage for stage, path in paths.NOTEBOOKS.items()}
        self.stage = stages.get(Path(notebook).resolve(), str(notebook))
        require_one_of("notebook", self.stage, paths.NOTEBOOKS)
        self.form, self.run = ParameterForm(paths.NOTEBOOKS[self.stage]), run or run_of(self.stage)
        self.fields = {
            name: Field(parameter, self.form.choices(name), self.form.allowed(name))
            for name, parameter in self.form.parameters.items()
        }
        wide = widgets.Layout(width="auto", min_width="148px", max_width="100%")  # it may name many fields
        self.start = widgets.Button(icon="play", tooltip="Run the notebook headless", tabbable=True, layout=wide)
        self.reset = widgets.Button(description="Defaults", tooltip="Set all parameters back", tabbable=True)
        self.told, self.view = widgets.HTML(), RunView(self.run)
        buttons = widgets.HBox([self.start, self.view.stop, self.reset], layout=WRAP)
        style = widgets.HTML(STYLE, layout=widgets.Layout(display="none"))
        grid = widgets.GridBox([*self.fields.values()], layout=COLUMNS)
        super().__init__([style, grid, self.told, buttons, self.view])
        self.add_class("tdsp-form")
        for field in self.fields.values():
            field.control.observe(self._check, "value")
        self.start.on_click(self._start)
        self.reset.on_click(self._reset)
        self.run.observe(self._check, "status")
        self._check()

    def arguments(self) -> list[str]:
        """Arguments of `python -m tdsp_vision`: what changed, and always the classifier where there is one."""
        given = self.form.changed()
        if "CLASSIFIER" in self.form.parameters:  # a run that names none takes svm and then dnn
            given = {"CLASSIFIER": self.form.texts["CLASSIFIER"]} | given
        return ["run", "--stage", self.stage, *(part for pair in given.items() for part in ("-p", *pair))]

    def _check(self, _=None) -> None:
        """Read the fields, and say what is wrong, or what a run would be."""
        with self.view.lock:
            self.form.texts = {name: field.text for name, field in self.fields.items()}
            errors, changed = self.form.errors(), self.form.changed()
            for name, field in self.fields.items():
                field.mark(name in changed, errors.get(name, ""))
            self.start.disabled = bool(errors) or self.run.going
            self.start.description = "Fix " + ", ".join(errors) if errors else "Run"
            command = escape(shlex.join(["python", "-m", "tdsp_vision", *self.arguments()]))
            self.told.value = "" if errors else f"The same in a terminal: <code>{command}</code>"

    def _start(self, _) -> None:
        if not self.start.disabled:
            self.run.start([*self.arguments(), "--watched"])

    def _reset(self, _) -> None:
        for field in self.fields.values():
            field.text = field.default
