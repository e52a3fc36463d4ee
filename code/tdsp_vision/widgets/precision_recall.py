"""PrecisionRecallUI: ROC and precision-recall curves of the validation side, and a threshold that can be moved.

Arrays: labels are class names [n]; scores are float [n, K] probabilities, columns in the order of `classes`. An image
is called where score >= threshold. Pass the validation side: a threshold chosen on the test would spoil it. `Look`
holds what is known of the positive class and needs no front end.
"""

import io
from html import escape

import ipywidgets as widgets
import numpy as np
from PIL import Image

from tdsp_vision.modeling.metrics import choose_threshold
from tdsp_vision.modeling.plots import roc_and_precision_recall
from tdsp_vision.widgets import pictures


class Look:
    """The positive class against the rest: truth (bool) and score (float), [n], and `presets`, rules to thresholds.

    Raises:
        ValueError: if all images are of the class, or none is.
    """

    def __init__(self, labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str):
        self.truth, rest = np.asarray(labels) == positive_class, f"not {positive_class}"
        self.score = np.asarray(scores, np.float64)[:, classes.index(positive_class)]
        names = np.where(self.truth, positive_class, rest).astype(object)
        self.known = names, np.column_stack([1 - self.score, self.score]), [rest, positive_class], positive_class
        inside, outside = self.truth.sum(), (~self.truth).sum()
        if not inside or not outside:
            words = f"There are {inside} images of the class {positive_class} and {outside} of others"
            raise ValueError(f"{words}; a curve needs at least one of each, so take more for validation.")
        shares = {"highest balanced accuracy": None, "sensitivity ≥ 0.95": 0.95, "sensitivity ≥ 0.90": 0.90}
        self.presets = {rule: choose_threshold(*self.known, share) for rule, share in shares.items()}

    def counts(self, threshold: float) -> list[int]:
        """How many images are found, missed, false alarms and left alone."""
        called = self.score >= threshold
        return [int((side & call).sum()) for side in (self.truth, ~self.truth) for call in (called, ~called)]

    def in_words(self, threshold: float) -> str:
        """What a threshold does, as HTML."""
        (found, missed, alarms, spared), name = self.counts(threshold), escape(self.known[3])
        sensitivity, specificity = found / (found + missed), spared / (alarms + spared)
        precision = f"{found / (found + alarms):.3f}" if found + alarms else "none, nothing is called"
        return (
            f"<b>At {threshold:.3f}</b> of {found + missed} {name} images <b>{found} are found, {missed} missed</b>; "
            f"<b>{alarms} false alarm{'s' * (alarms != 1)}</b> among {alarms + spared} others. "
            "Counted on the validation images; the test stays closed.<br>"
            f"sensitivity (recall) <b>{sensitivity:.3f}</b> · specificity <b>{specificity:.3f}</b> · "
            f"precision <b>{precision}</b> · balanced accuracy <b>{(sensitivity + specificity) / 2:.3f}</b>"
        )


def drawn(*known) -> str:
    """The figure `roc_and_precision_recall` of these arguments, as HTML."""
    file = io.BytesIO()
    roc_and_precision_recall(*known).savefig(file)
    return pictures.picture(Image.open(file).convert("RGB"), "ROC and precision-recall curves", 380)


class PrecisionRecallUI(pictures.Panel):
    """Move the threshold by slider, number or preset, and see what it finds, misses and alarms.

    `threshold` is the one chosen. It starts at the given one, so a run without a person is unchanged. Without a
    positive class there is none to choose, and it stays None.

    Args:
        labels: class names [n] of **validation**; by the test nothing may be chosen.
        scores: float [n, K], columns in the order of `classes`.
        classes: names.
        positive_class: one of them, or "".
        threshold: 0 to 1 with a positive class, None without.

    Raises:
        ValueError: if the threshold does not go with the positive class, or all images are of one class.
    """

    def __init__(
        self, labels: np.ndarray, scores: np.ndarray, classes: list[str], positive_class: str, threshold: float | None
    ):
        if (threshold is None) == bool(positive_class) or not 0 <= (threshold or 0) <= 1:
            given = f"The threshold is {threshold} and the positive class {positive_class!r}"
            raise ValueError(f"{given}; allowed is a number from 0 to 1 with a positive class, and None with ''.")
        scale = {"min": 0, "max": 1, "step": 0.001, "readout": False}
        self.slider = pictures.control(widgets.FloatSlider, "Threshold", "420px", **scale)
        self.number = pictures.control(widgets.Text, "exactly", "140px", continuous_update=False)
        self.refusal, self.numbers, self.curves = widgets.HTML(), widgets.HTML(), widgets.HTML()
        self.threshold, self.presets = threshold, pictures.wrapping([])
        moving = pictures.wrapping([self.slider, self.number, self.refusal, self.presets])
        super().__init__([*([moving] if positive_class else []), self.numbers, self.curves])
        if not positive_class:
            self.numbers.value = "No positive class: the highest score decides, and there is no threshold to choose."
            self.curves.value = drawn(labels, scores, classes, "", None)
        else:
            self.look = Look(labels, scores, classes, positive_class)
            rules = {"as given": threshold} | self.look.presets
            self.presets.children = [self._preset(rule, at) for rule, at in rules.items()]
            self._move(threshold)
            self.slider.observe(self._slide, "value")
            self.number.observe(self._type, "value")

    def static_html(self) -> str:
        """The threshold in numbers and on the curves."""
        return self.numbers.value + self.curves.value

    def _preset(self, rule: str, threshold: float) -> widgets.Button:
        preset = pictures.button(rule, tooltip=f"{threshold:.3f}")
        preset.on_click(lambda _: self._move(threshold))
        return preset

    def _slide(self, change) -> None:
        """Follow the slider, except where it was set here to the three digits that it has."""
        if f"{change['new']:.3f}" != f"{self.threshold:.3f}":
            self._move(round(change["new"], 3))

    def _type(self, change) -> None:
        """Take the number that was typed, and refuse what is none from 0 to 1."""
        try:
            typed = float(change["new"])
        except ValueError:
            typed = -1.0
        if not 0 <= typed <= 1:
            self.refusal.value = pictures.alert(f"{change['new']!r} is refused; a threshold is a number from 0 to 1.")
            self.number.value = f"{self.threshold:.3f}"
        elif change["new"] != f"{self.threshold:.3f}":  # it was not set here
            self._move(typed)

    def _move(self, threshold: float) -> None:
        """Take a threshold and show it, in numbers and on the curves."""
        self.threshold, self.refusal.value = threshold, ""
        self.slider.value, self.number.value = round(threshold, 3), f"{threshold:.3f}"
        self.numbers.value = self.look.in_words(threshold)
        self.curves.value = drawn(*self.look.known, threshold)
