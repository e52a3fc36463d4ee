"""PrecisionRecallUI: ROC and precision-recall curves of the validation side, and a threshold that can be moved.

Arrays as in `operating_points`, which holds the state. The static twin is `modeling.plots.roc_and_precision_recall`.
Whatever a click on a curve does can be done by keyboard, too: with slider, number and presets.
"""

import bqplot
import ipywidgets as widgets
import numpy as np
import traitlets
from sklearn import metrics as sk

from tdsp_vision.data.plots import BLUE, GRAY, ORANGE
from tdsp_vision.widgets.operating_points import (
    Look,
    checked_threshold,
    numbers_in_words,
    places_to_click,
    precision_recall_path,
    roc_path,
    thinned,
)

WRAP = {"flex_flow": "row wrap", "align_items": "center"}
DIGITS = 3  # of the slider
TICKS = [0, 0.2, 0.4, 0.6, 0.8, 1]
SIGNS = "Solid: the model. Dotted: guessing. Diamond: the threshold. Gray ring: its start. Click on a curve to move."
NO_THRESHOLD = "No positive class: the highest score decides. This threshold is for looking only; none is kept."


class PrecisionRecallUI(widgets.VBox):
    """Move the threshold by slider, number, preset or a click on a curve, and see what it finds, misses and alarms.

    `threshold` is the one chosen. It starts at the given one, so a run without a person is unchanged. Without a
    positive class it stays None: each class can then be looked at against the rest, and nothing of that is kept.

    Args:
        labels: class names [n] of **validation**; by the test nothing may be chosen.
        scores: float [n, K], columns in the order of `classes`.
        classes: names.
        positive_class: one of them, or "".
        threshold: from `choose_threshold`: 0 to 1 with a positive class, None without; the attribute likewise.

    Raises:
        ValueError: if the threshold does not go with the positive class, or all images are of one class.
    """

    threshold = traitlets.Float(None, allow_none=True).tag(sync=True)

    def __init__(
        self, labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str, threshold: float | None
    ):
        self.positive_class = positive_class
        checked_threshold(threshold, positive_class)
        present = [name for name in classes if (np.asarray(labels, object) == name).any()] or classes
        self.look = Look(labels, scores, classes, positive_class or present[0])
        if positive_class:
            self.look.at = threshold
        self.others = {name: classes[1 - k] if len(classes) == 2 else f"not {name}" for k, name in enumerate(classes)}
        self.of_class, self.slider, self.number = _controls(present, self.look.of_class)
        self.presets, self.numbers = widgets.HBox(layout=widgets.Layout(**WRAP)), widgets.HTML()
        self.roc, self.recall = Curve("1 - specificity", "sensitivity"), Curve("recall (sensitivity)", "precision")
        super().__init__(_rows(self), threshold=threshold)
        self._listen()
        self._take_class()

    def _listen(self) -> None:
        """Keep state and controls the same, whichever moves first."""
        traitlets.link((self.look, "at"), (self.number, "value"))
        if self.positive_class:
            traitlets.link((self.look, "at"), (self, "threshold"))
        self.slider.observe(self._slide, "value")
        traitlets.link((self.look, "of_class"), (self.of_class, "value"))
        self.look.observe(self._take_class, "of_class")
        self.look.observe(self._move, "at")
        for curve in (self.roc, self.recall):
            curve.places.on_element_click(lambda _, event, curve=curve: self.go_to(curve.rows[event["data"]["index"]]))

    def go_to(self, row: int) -> None:
        """Move the threshold to a row of `look.points`."""
        self.look.at = float(self.look.points.threshold[row])

    def _slide(self, change) -> None:
        """Follow the slider, except where the browser has only rounded the threshold to the slider's steps."""
        if round(change.new, DIGITS) != round(self.look.at, DIGITS):
            self.look.at = round(change.new, DIGITS)

    def _take_class(self, _=None) -> None:
        """Draw what belongs to the class: curves, presets, and the ring where its threshold starts."""
        self.rules = ({"as given": self.look.at} if self.positive_class else {}) | self.look.presets
        self.presets.children = [_preset(self.look, words, threshold) for words, threshold in self.rules.items()]
        _draw(self.look, self.roc, self.recall)
        self._move()
        for curve in (self.roc, self.recall):
            curve.start.x, curve.start.y = curve.chosen.x, curve.chosen.y

    def _move(self, _=None) -> None:
        """Show the threshold: on both curves, in numbers, and the preset that it is."""
        self.slider.value = round(self.look.at, DIGITS)
        point, name = self.look.point, self.look.of_class
        self.roc.move(1 - point.specificity, point.sensitivity)
        self.recall.move(point.sensitivity, point.precision)
        self.numbers.value = numbers_in_words(point, self.look.at, name, self.others[name])
        for button, threshold in zip(self.presets.children, self.rules.values(), strict=True):
            button.icon = "check" if threshold == self.look.at else ""

    @traitlets.validate("threshold")
    def _belongs(self, proposal) -> float | None:
        return checked_threshold(proposal.value, self.positive_class)


class Curve:
    """One figure: a curve, the line of guessing, the threshold as a diamond, and where it started as a ring."""

    def __init__(self, x_label: str, y_label: str):
        scales = {"x": bqplot.LinearScale(min=0, max=1), "y": bqplot.LinearScale(min=0, max=1)}
        self.rows = np.zeros(0, int)
        self.line = bqplot.Lines(x=[0], y=[0], scales=scales, colors=[BLUE], stroke_width=2.5)
        ends = {"scales": scales, "colors": [GRAY], "line_style": "dotted", "stroke_width": 2}
        self.guessing = bqplot.Lines(x=[0, 1], y=[0, 1], **ends)
        self.start = bqplot.Scatter(x=[0], y=[0], scales=scales, colors=[GRAY], fill=False, default_size=200)
        self.chosen = bqplot.Scatter(x=[0], y=[0], scales=scales, colors=[ORANGE], marker="diamond", default_size=140)
        self.chosen.stroke = "black"
        self.places = bqplot.Scatter(x=[0], y=[0], scales=scales, opacities=[0.0], default_size=250)
        axes = [
            bqplot.Axis(scale=scales["x"], label=x_label, label_offset="2.4em", tick_values=TICKS, grid_lines="none"),
            bqplot.Axis(
                scale=scales["y"],
                label=y_label,
                label_offset="3.7em",
                tick_values=TICKS,
                grid_lines="none",
                side="left",
            ),
        ]
        self.figure = bqplot.Figure(
            marks=[self.guessing, self.line, self.start, self.chosen, self.places],
            axes=axes,
            fig_margin={"top": 40, "bottom": 45, "left": 62, "right": 15},
            padding_x=0.025,
            display_toolbar=False,
            layout=widgets.Layout(width="380px", max_width="100%", height="360px"),
        )

    def draw(self, path: np.ndarray, guessing: tuple[float, float], title: str) -> None:
        """Take another path [m, 3] of x, y and row; `guessing` is y at x 0 and 1."""
        places = places_to_click(path)
        self.rows = places[:, 2].astype(int)
        self.guessing.y = np.asarray(guessing, float)
        for mark, found in ((self.line, thinned(path)), (self.places, places)):
            with mark.hold_sync():
                mark.x, mark.y = found[:, 0], found[:, 1]
        self.figure.title = title

    def move(self, x: float, y: float) -> None:
        """Set the diamond."""
        with self.chosen.hold_sync():
            self.chosen.x, self.chosen.y = np.array([x]), np.array([y])


def _rows(ui: PrecisionRecallUI) -> list[widgets.Widget]:
    """What stands below each other, in the order of use."""
    side_by_side = [ui.slider, ui.number], [ui.roc.figure, ui.recall.figure]
    moving, drawn = (widgets.HBox(row, layout=widgets.Layout(**WRAP)) for row in side_by_side)
    above = [] if ui.positive_class else [widgets.HTML(f"<b>{NO_THRESHOLD}</b>"), ui.of_class]
    return [*above, moving, ui.presets, ui.numbers, drawn, widgets.HTML(SIGNS)]


def _draw(look: Look, roc: Curve, recall: Curve) -> None:
    """The curves of the class that is looked at; the area under each is its title."""
    auc, average = sk.roc_auc_score(look.truth, look.score), sk.average_precision_score(look.truth, look.score)
    share = look.truth.mean()
    roc.draw(roc_path(look.points), (0, 1), f"ROC: AUC {auc:.3f}")
    recall.draw(precision_recall_path(look.points), (share, share), f"Average precision {average:.3f}")


def _preset(look: Look, words: str, threshold: float | None) -> widgets.Button:
    layout = widgets.Layout(width=f"{len(words) + 4}ch")  # room for the check mark, so that nothing jumps
    button = widgets.Button(description=words, tabbable=True, layout=layout)
    button.disabled = threshold is None
    button.tooltip = "no threshold that finds any image obeys this" if threshold is None else f"{threshold:.3f}"
    button.on_click(lambda _: setattr(look, "at", threshold))
    return button


def _controls(
    names: list[str], of_class: str
) -> tuple[widgets.Dropdown, widgets.FloatSlider, widgets.BoundedFloatText]:
    ends = {"min": 0, "max": 1, "step": 10**-DIGITS}
    layouts = [widgets.Layout(width=width, max_width="100%") for width in ("auto", "420px", "260px")]
    controls = (
        widgets.Dropdown(options=names, value=of_class, description="Class to look at, against the rest"),
        widgets.FloatSlider(
            **ends, description="Threshold", readout=False, tooltip="Threshold, by mouse or arrow keys"
        ),
        widgets.BoundedFloatText(**ends, description="exactly", tooltip="Threshold, typed"),
    )
    for control, layout in zip(controls, layouts, strict=True):
        control.layout, control.style.description_width = layout, "initial"  # `tabbable` would be a second stop here
    return controls
