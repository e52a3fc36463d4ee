"""PrecisionRecallUI: ROC and precision-recall curves of the validation side, and a threshold that can be moved.

Arrays: labels are class names [n]; scores are float [n, K] probabilities, columns in the order of `classes`. An image
is called where score >= threshold. Pass the validation side: a threshold chosen on the test would spoil it. `Look`
holds what is known of the positive class and needs no front end. The curves are bqplot figures, of which a move of the
threshold sends two points to the browser; an exported notebook shows `plots.roc_and_precision_recall` instead.
"""

import io
from html import escape

import ipywidgets as widgets
import numpy as np
from bqplot import Axis, Figure, LinearScale, Lines, Scatter
from PIL import Image
from sklearn import metrics as sk

from tdsp_vision.modeling.metrics import choose_threshold
from tdsp_vision.modeling.plots import roc_and_precision_recall
from tdsp_vision.widgets import pictures


class Look:
    """The positive class against the rest: truth (bool) and score (float), [n], and `presets`, rules to thresholds."""

    def __init__(self, labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str):
        self.truth, self.name = labels == positive_class, positive_class
        self.score = np.asarray(scores, np.float64)[:, classes.index(positive_class)]
        shares = {"highest balanced accuracy": None, "sensitivity ≥ 0.95": 0.95, "sensitivity ≥ 0.90": 0.90}
        known = labels, scores, classes, positive_class
        self.presets = {rule: choose_threshold(*known, share) for rule, share in shares.items()}

    def counts(self, threshold: float) -> list[int]:
        """How many images are found, missed, false alarms and left alone."""
        called = self.score >= threshold
        return [int((side & call).sum()) for side in (self.truth, ~self.truth) for call in (called, ~called)]

    def places(self, threshold: float) -> list[tuple[float, float]]:
        """Where a threshold lies on either of the `charts`, as x and y; precision is 0 where nothing is called."""
        found, missed, alarms, spared = self.counts(threshold)
        sensitivity = found / (found + missed)
        return [(alarms / (alarms + spared), sensitivity), (sensitivity, found / max(found + alarms, 1))]

    def charts(self) -> list[Figure]:
        """ROC and precision-recall, the latter in steps; the area under each is its title."""
        known = self.truth, self.score
        false_alarms, sensitivity, _ = sk.roc_curve(*known)
        precision, recall, _ = sk.precision_recall_curve(*known, drop_intermediate=True)
        area, average = f"{sk.roc_auc_score(*known):.3f}", f"{sk.average_precision_score(*known):.3f}"
        roc = {"1 - specificity": false_alarms, "sensitivity (recall)": sensitivity}
        steps = {"recall (sensitivity)": recall, "precision": precision}
        level = [self.truth.mean()] * 2
        return [
            chart(f"ROC: AUC {area}", roc, [0, 1]),
            chart(f"Average precision {average}", steps, level, interpolation="step-after"),
        ]

    def in_words(self, threshold: float) -> str:
        """What a threshold does, as HTML."""
        (found, missed, alarms, spared), name = self.counts(threshold), escape(self.name)
        sensitivity, specificity = found / (found + missed), spared / (alarms + spared)
        precision = f"{found / (found + alarms):.3f}" if found + alarms else "none, nothing is called"
        return (
            f"<b>At {threshold:.3f}</b> of {found + missed} {name} images <b>{found} are found, {missed} missed</b>; "
            f"<b>{alarms} false alarm{'s' * (alarms != 1)}</b> among {alarms + spared} others. "
            "Counted on the validation images; the test stays closed.<br>"
            f"sensitivity (recall) <b>{sensitivity:.3f}</b> · specificity <b>{specificity:.3f}</b> · "
            f"precision <b>{precision}</b> · balanced accuracy <b>{(sensitivity + specificity) / 2:.3f}</b>"
        )


def chart(title: str, curve: dict[str, np.ndarray], guessing: list[float], **how) -> Figure:
    """A curve, the dotted line of guessing, and, as the last mark, a diamond that is moved to the threshold.

    Args:
        curve: names of the two axes, and the curve's x and y, float [m] from 0 to 1.
        guessing: y of the line of guessing at x = 0 and x = 1.
        how: how the points are joined (`bqplot.Lines`).
    """
    room, size = {"top": 40, "bottom": 45, "left": 62, "right": 15}, {"width": "320px", "height": "320px"}
    scales = {side: LinearScale(min=0, max=1) for side in "xy"}
    horizontal, vertical = curve
    axes = [
        Axis(scale=scales["x"], label=horizontal, grid_lines="none", label_offset="2.8em"),
        Axis(scale=scales["y"], label=vertical, grid_lines="none", side="left", label_offset="3.2em"),
    ]
    marks = [
        Lines(x=[0, 1], y=guessing, scales=scales, colors=[pictures.GRAY], line_style="dotted"),
        Lines(x=curve[horizontal], y=curve[vertical], scales=scales, colors=[pictures.BLUE], **how),
        Scatter(x=[0], y=[0], scales=scales, colors=[pictures.ORANGE], marker="diamond", default_size=140),
    ]
    return Figure(marks=marks, axes=axes, title=title, fig_margin=room, display_toolbar=False, layout=size)


def drawn(*known) -> str:
    """The figure `roc_and_precision_recall` of these arguments, as HTML."""
    file = io.BytesIO()
    roc_and_precision_recall(*known).savefig(file)
    return pictures.picture(Image.open(file).convert("RGB"), "ROC and precision-recall curves", 380)


class PrecisionRecallUI(pictures.Panel):
    """Move the threshold by slider, number or preset, and see what it finds, misses and alarms.

    `threshold` is the one chosen. It starts at the given one, so a run without a person is unchanged. Without a
    positive class there is none to choose, and it stays what was given.

    Args:
        labels: class names [n] of **validation**; by the test nothing may be chosen.
        scores: float [n, K], columns in the order of `classes`.
        classes: names.
        positive_class: one of them, or "".
        threshold: 0 to 1 with a positive class, the shares of the classes without; from `choose_threshold`.
    """

    def __init__(
        self, labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str, threshold: float | list
    ):
        scale = {"max": 1, "step": 0.001, "readout": False}
        self.slider = pictures.control(widgets.FloatSlider, "Threshold", "420px", **scale)
        self.number = pictures.control(widgets.FloatText, "exactly", "140px", step=0.001)
        self.known = labels, scores, classes, positive_class
        self.refusal, self.numbers, self.threshold = widgets.HTML(), widgets.HTML(), threshold
        if not positive_class:
            self.numbers.value = (
                "No positive class: the class is called whose score is highest relative to its share of these images; "
                "there is no threshold to choose."
            )
            super().__init__([self.numbers, widgets.HTML(drawn(*self.known, threshold))])
        else:
            self.look = Look(*self.known)
            self.curves = self.look.charts()
            rules = {"as given": threshold} | self.look.presets
            self.presets = pictures.wrapping([self._preset(rule, at) for rule, at in rules.items()])
            moving = pictures.wrapping([self.slider, self.number, self.refusal, self.presets])
            super().__init__([moving, self.numbers, pictures.wrapping(self.curves)])
            self._move(threshold)
            self.slider.observe(self._read, "value")
            self.number.observe(self._read, "value")

    def static_html(self) -> str:
        """The threshold in numbers and on the curves."""
        return self.numbers.value + drawn(*self.known, self.threshold)

    def _preset(self, rule: str, threshold: float) -> widgets.Button:
        preset = pictures.button(rule, tooltip=f"{threshold:.3f}")
        preset.on_click(lambda _: self._move(threshold))
        return preset

    def _read(self, change) -> None:
        """Take a number to which the slider was moved or that was typed, and refuse what is none from 0 to 1."""
        value = round(change["new"], 6)  # a slider's 0.30000000000000004
        if not 0 <= value <= 1:
            self._move(self.threshold)
            self.refusal.value = pictures.alert(f"{value} is refused; a threshold is a number from 0 to 1.")
        elif value != round(self.threshold, 3):  # else it was set here
            self._move(value)

    def _move(self, threshold: float) -> None:
        """Take a threshold and show it, in numbers and on the curves."""
        self.threshold, self.refusal.value = threshold, ""
        self.slider.value = self.number.value = round(threshold, 3)
        self.numbers.value = self.look.in_words(threshold)
        for figure, place in zip(self.curves, self.look.places(threshold), strict=True):
            with figure.marks[-1].hold_sync():
                figure.marks[-1].x, figure.marks[-1].y = np.array(place)[:, None]
