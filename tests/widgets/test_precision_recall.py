"""The threshold of `PrecisionRecallUI`: where it starts, what moves it, what is shown there; without a browser."""

import numpy as np
import pytest

from tdsp_vision.modeling.metrics import choose_threshold, decide
from tdsp_vision.widgets.precision_recall import PrecisionRecallUI, counts

CLASSES = ["benign", "<b>bad"]


def drawn(n: int = 160) -> tuple:
    """Arguments of `choose_threshold`: a quarter of the positive class, scores float32."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 4 == 0
    score = (1 / (1 + np.exp(-rng.normal(size=n) - 1.5 * truth))).astype(np.float32)
    return np.array(CLASSES, object)[truth.astype(int)], np.column_stack([1 - score, score]), CLASSES, CLASSES[1]


@pytest.fixture
def ui():
    """At the best threshold."""
    return PrecisionRecallUI(*drawn(), choose_threshold(*drawn()))


def test_it_starts_at_the_given_threshold_and_a_slider_that_rounds_does_not_move_it(ui):
    given = choose_threshold(*drawn())
    assert ui.threshold == given != round(given, 3) == ui.slider.value and ui.number.value == round(given, 3)
    ui.slider.value = round(given, 3) + 1e-17
    assert ui.threshold == given
    ui.slider.value = 0.30000000000000004
    assert ui.threshold == 0.3 and ui.number.value == 0.3


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.5, 0.8, 1.0])
def test_the_numbers_are_those_of_the_decision(ui, threshold):
    ui.slider.value = threshold
    called, truth = decide(*drawn()[1:], threshold) == CLASSES[1], drawn()[0] == CLASSES[1]
    found, missed, alarms, spared = ((side & call).sum() for side in (truth, ~truth) for call in (called, ~called))
    assert f"<b>{found} are found, {missed} missed</b>" in ui.numbers.value and "40 &lt;b&gt;bad" in ui.numbers.value
    assert f"{alarms} false alarm" in ui.numbers.value and f"specificity <b>{spared / 120:.3f}" in ui.numbers.value
    precision = found / max(found + alarms, 1)
    assert places(ui) == pytest.approx(np.array([[alarms / 120, found / 40], [found / 40, precision]]))


def places(ui):
    """Where the threshold lies on either curve: [2, 2], x and y."""
    return np.array([[curve.marks[-1].x[0], curve.marks[-1].y[0]] for curve in ui.curves])


def test_presets_keep_their_promise_and_lead_back(ui, press):
    given, before = ui.threshold, places(ui)
    buttons = {button.description: button for button in ui.children[1].children[3:]}
    for share in (0.95, 0.90):
        press(buttons[f"sensitivity ≥ {share:.2f}"])
        assert ui.threshold == choose_threshold(*drawn(), share) and counts(*drawn(), ui.threshold)[0] >= share * 40
    assert (places(ui) != before).all()
    press(buttons["as given"])
    assert ui.threshold == given and (places(ui) == before).all()


@pytest.mark.parametrize("typed", [1.5, -0.1, float("nan")])
def test_a_typed_number_is_taken_or_refused(ui, typed):
    ui.number.value = 0.25125
    assert (ui.threshold, ui.slider.value, ui.number.value) == (0.25125, 0.251, 0.251)
    ui.number.value = typed
    assert f"{typed} is refused; a threshold is a number from 0 to 1" in ui.refusal.value
    assert (ui.threshold, ui.number.value) == (0.25125, 0.251)
    ui.number.value = 1
    assert ui.threshold == 1.0 and ui.refusal.value == "" and "none, nothing is called" in ui.numbers.value


def test_the_static_twin_has_numbers_and_curves_and_without_a_positive_class_there_is_nothing_to_choose(ui):
    none = PrecisionRecallUI(*drawn()[:3], "", [0.75, 0.25])
    for one, words in ((ui, "are found"), (none, "No positive class")):
        html = one._repr_mimebundle_()["text/html"]
        assert words in html and html.count("<img") == 1
    assert none.threshold == [0.75, 0.25]
