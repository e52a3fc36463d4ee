"""PrecisionRecallUI: ROC and precision-recall curves of the validation side, and a threshold that can be moved.

Arrays: labels are class names [n]; scores are float [n, K] probabilities, columns in the order of `classes`. An image
is called where score >= threshold. Pass the validation side: a threshold chosen on the test would spoil it. The curves
are bqplot figures, of which a move of the threshold sends two points to the browser; an exported notebook, and one
without a positive class, shows the figure `plots.roc_and_precision_recall` instead.
"""

import io
from functools import partial
from html import escape

import ipywidgets as widgets
import numpy as np
from bqplot import Axis, Figure, LinearScale, Lines, Scatter
from PIL import Image
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from tdsp_vision.modeling.metrics import choose_threshold
from tdsp_vision.modeling.plots import roc_and_precision_recall
from tdsp_vision.widgets import pictures

NONE = "No positive class, so no threshold: the class whose score is highest relative to its share is called."


def counts(labels, scores, classes: list[str], positive_class: str, threshold: float) -> list[int]:
    """How many images are found, missed, false alarms and left alone."""
    truth, called = labels == positive_class, np.asarray(scores)[:, classes.index(positive_class)] >= threshold
    return [int((side & call).sum()) for side in (truth, ~truth) for call in (called, ~called)]


def in_words(labels, scores, classes: list[str], positive_class: str, threshold: float) -> str:
    """What a threshold does, as HTML."""
    found, missed, alarms, spared = counts(labels, scores, classes, positive_class, threshold)
    sensitivity, specificity = found / (found + missed), spared / (alarms + spared)
    precision = f"{found / (found + alarms):.3f}" if found + alarms else "none, nothing is called"
    return (
        f"<b>At {threshold:.3f}</b> of {found + missed} {escape(positive_class)} images <b>{found} are found, "
        f"{missed} missed</b>; <b>{alarms} false alarm{'s' * (alarms != 1)}</b> among {alarms + spared} others. "
        "Counted on the validation images; the test stays closed.<br>"
        f"sensitivity (recall) <b>{sensitivity:.3f}</b> · specificity <b>{specificity:.3f}</b> · "
        f"precision <b>{precision}</b> · balanced accuracy <b>{(sensitivity + specificity) / 2:.3f}</b>"
    )


def charts(labels, scores, classes: list[str], positive_class: str) -> list[Figure]:
    """ROC and precision-recall curve of the positive class, the latter in steps; dashed: guessing."""
    known = labels == positive_class, np.asarray(scores)[:, classes.index(positive_class)]
    alarms, found, _ = roc_curve(*known)
    precision, recall, _ = precision_recall_curve(*known, drop_intermediate=True)
    area, chance = f"average precision {average_precision_score(*known):.3f}", [known[0].mean()] * 2
    roc = chart(f"AUC {roc_auc_score(*known):.3f}", "1 - specificity", alarms, "sensitivity (recall)", found, [0, 1])
    return [roc, chart(area, "recall (sensitivity)", recall, "precision", precision, chance, "step-after")]


def chart(title: str, horizontal: str, x, vertical: str, y, guessing: list, interpolation: str = "linear") -> Figure:
    """A curve, x and y float [m] from 0 to 1, and, as the last mark, a diamond that is moved to the threshold.

    Args:
        guessing: y of a dashed line where x is 0 and 1.
        interpolation: how the points of the curve are joined (`bqplot.Lines`).
    """
    scales = {side: LinearScale(min=0, max=1) for side in "xy"}
    below = Axis(scale=scales["x"], label=horizontal, grid_lines="none", label_offset="2.8em")
    left = Axis(scale=scales["y"], label=vertical, grid_lines="none", side="left", label_offset="3.2em")
    guess = Lines(x=[0, 1], y=guessing, scales=scales, colors=[pictures.GRAY], line_style="dashed", stroke_width=1)
    curve = Lines(x=x, y=y, scales=scales, colors=[pictures.BLUE], interpolation=interpolation)
    diamond = Scatter(x=[0], y=[0], scales=scales, colors=[pictures.ORANGE], marker="diamond", default_size=140)
    room, size = {"top": 32, "bottom": 45, "left": 62, "right": 15}, {"width": "320px", "height": "275px"}
    shown = {"title": title, "fig_margin": room, "layout": size, "display_toolbar": False}
    return Figure(marks=[guess, curve, diamond], axes=[below, left], **shown)


def drawn(*known) -> str:
    """The figure `roc_and_precision_recall` of these arguments, as HTML."""
    file = io.BytesIO()
    roc_and_precision_recall(*known).savefig(file, dpi=100)
    return pictures.picture(Image.open(file).convert("RGB"), "ROC and precision-recall curves", 800)


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

    def __init__(self, labels, scores, classes: list[str], positive_class: str, threshold: float | list[float]):
        self.known, self.threshold = (labels, scores, classes, positive_class), threshold
        self.refusal, self.numbers = widgets.HTML(), widgets.HTML()
        if positive_class:
            self.curves = charts(*self.known)
            super().__init__([*self._controls(), self.numbers, pictures.wrapping(self.curves)])
            self._move(threshold)
        else:
            self.numbers.value = NONE
            super().__init__([self.numbers, widgets.HTML(drawn(*self.known, threshold))])

    def static_html(self) -> str:
        """The threshold in numbers and on the curves."""
        return self.numbers.value + drawn(*self.known, self.threshold)

    def _controls(self) -> list[widgets.Widget]:
        """What moves the threshold: a slider, a number, and a button for each rule by which it may be chosen."""
        scale = {"max": 1, "step": 0.001, "readout": False}
        self.slider = pictures.control(widgets.FloatSlider, "Threshold", self._read, "420px", **scale)
        self.number = pictures.control(widgets.FloatText, "exactly", self._read, "140px", step=0.001)
        rules = {"as given": self.threshold, "highest balanced accuracy": choose_threshold(*self.known)}
        rules |= {f"sensitivity ≥ {share:.2f}": choose_threshold(*self.known, share) for share in (0.95, 0.90)}
        presets = [pictures.button(rule, partial(self._move, at), tooltip=f"{at:.3f}") for rule, at in rules.items()]
        return [pictures.wrapping([self.slider, self.number, self.refusal, *presets])]

    def _read(self, value: float) -> None:
        """Take a number to which the slider was moved or that was typed, and refuse what is none from 0 to 1."""
        value = round(value, 6)  # a slider's 0.30000000000000004
        if not 0 <= value <= 1:
            self._move(self.threshold)
            self.refusal.value = pictures.alert(f"{value} is refused; a threshold is a number from 0 to 1.")
        elif value != round(self.threshold, 3):  # else it was set here
            self._move(value)

    def _move(self, threshold: float) -> None:
        """Take a threshold and show it, in numbers and on the curves; precision is 0 where nothing is called."""
        self.threshold, self.refusal.value = threshold, ""
        self.slider.value = self.number.value = round(threshold, 3)
        self.numbers.value = in_words(*self.known, self.threshold)
        found, missed, alarms, spared = counts(*self.known, self.threshold)
        sensitivity, precision = found / (found + missed), found / max(found + alarms, 1)
        places = (alarms / (alarms + spared), sensitivity), (sensitivity, precision)
        for curve, place in zip(self.curves, places, strict=True):
            with curve.marks[-1].hold_sync():
                curve.marks[-1].x, curve.marks[-1].y = np.array(place)[:, None]
