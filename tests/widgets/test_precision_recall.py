"""The threshold of `PrecisionRecallUI`: where it starts, what moves it, what is shown there; without a browser."""

import json

import numpy as np
import pytest
import traitlets

from tdsp_vision.modeling.metrics import evaluate
from tdsp_vision.modeling.metrics import choose_threshold, decide
from tdsp_vision.widgets.operating_points import BEST, COUNTS
from tdsp_vision.widgets.precision_recall import Curve, PrecisionRecallUI

TWO, THREE = ["benign", "malignant"], ["ant", "bee", "wasp"]


def drawn(n: int = 160) -> tuple:
    """Arguments of `choose_threshold`: a quarter malignant, scores float32."""
    rng = np.random.default_rng(0)
    truth = np.arange(n) % 4 == 0
    score = (1 / (1 + np.exp(-rng.normal(size=n) - 1.5 * truth))).astype(np.float32)
    return np.array(TWO, object)[truth.astype(int)], np.column_stack([1 - score, score]), TWO, "malignant"


def three() -> tuple:
    """Labels, scores and classes of 60 images."""
    rng = np.random.default_rng(0)
    return np.array(THREE, object)[rng.integers(0, 3, 60)], rng.dirichlet(np.ones(3), 60), THREE


@pytest.fixture
def ui() -> PrecisionRecallUI:
    """At the best threshold."""
    return PrecisionRecallUI(*drawn(), choose_threshold(*drawn()))


def click(curve: Curve, place: int) -> None:
    """The message that the browser sends."""
    curve.places._handle_custom_msgs(curve.places, {"event": "element_click", "data": {"index": place}})


def press(ui: PrecisionRecallUI, words: str) -> None:
    """Press a preset."""
    next(button for button in ui.presets.children if button.description == words).click()


def diamonds(ui: PrecisionRecallUI) -> list[float]:
    """1 - specificity, sensitivity; recall, precision."""
    return [float(v[0]) for curve in (ui.roc, ui.recall) for v in (curve.chosen.x, curve.chosen.y)]


def expected(threshold: float, known: tuple) -> tuple[list[float], list[list[int]]]:
    """The same four numbers and the confusion matrix by `evaluate`."""
    block = evaluate(*known, threshold)
    places = [1 - block["specificity"], block["sensitivity"], block["recall"], block["precision"]]
    return places, block["confusion_matrix"]


def test_it_starts_at_the_given_threshold_and_a_run_without_a_person_is_unchanged(ui):
    threshold = choose_threshold(*drawn())
    assert ui.threshold == ui.number.value == ui.look.at == threshold
    assert ui.slider.value == round(threshold, 3) != threshold
    np.testing.assert_array_equal(
        decide(drawn()[1], TWO, "malignant", ui.threshold), decide(drawn()[1], TWO, "malignant", threshold)
    )
    assert [button.description for button in ui.presets.children if button.icon == "check"] == ["as given", BEST]


def test_a_slider_that_only_rounds_does_not_move_the_threshold(ui):
    given = ui.threshold
    ui.slider.value = round(given, 3) + 1e-17 + 5e-5  # as a browser answers, which knows steps of 0.001 only
    assert ui.threshold == given
    ui.slider.value = 0.30000000000000004
    assert ui.threshold == ui.number.value == 0.3


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.35, 0.5, 0.9, 1.0])
def test_all_numbers_are_those_of_evaluate(ui, threshold):
    ui.number.value = threshold
    places, ((spared, alarms), (missed, found)) = expected(threshold, drawn())
    assert ui.threshold == threshold
    assert diamonds(ui) == pytest.approx(places)
    shown = ui.numbers.value
    assert f"of 40 malignant images <b>{found} are found, {missed} missed</b>" in shown
    assert f"<b>{alarms} false alarms</b> among 120 benign" in shown and f"{spared} left alone" in shown
    assert f"specificity <b>{1 - places[0]:.3f}</b>" in shown and f"(recall) <b>{places[1]:.3f}</b>" in shown
    assert f"precision <b>{places[3]:.3f}</b>" in shown or (threshold == 1.0 and "nothing is called" in shown)


@pytest.mark.parametrize("which", ["roc", "recall"])
def test_a_click_moves_the_threshold_to_that_point_of_the_curve(ui, which):
    curve = getattr(ui, which)
    for place in (0, 60, 150, 239):
        click(curve, place)
        x, y = diamonds(ui)[:2] if which == "roc" else diamonds(ui)[2:]
        assert np.hypot(curve.places.x[place] - x, curve.places.y[place] - y) < 0.13  # half the longest step
        assert ui.threshold in ui.look.points.threshold.to_numpy()


def test_presets_move_the_threshold_and_lead_back(ui):
    given = ui.threshold
    press(ui, "sensitivity ≥ 0.95")
    assert ui.threshold == choose_threshold(*drawn(), 0.95) != given
    assert diamonds(ui)[1] >= 0.95
    ring = ui.roc.start.x[0], ui.roc.start.y[0]
    press(ui, "specificity ≥ 0.95")
    assert diamonds(ui)[0] <= 0.05 + 1e-12
    press(ui, "as given")
    assert ui.threshold == given and tuple(diamonds(ui)[:2]) == ring


def test_a_preset_that_finds_nothing_cannot_be_pressed():
    labels = np.array(["malignant", "benign"], object)
    ui = PrecisionRecallUI(labels, np.array([[0.8, 0.2], [0.2, 0.8]]), TWO, "malignant", 0.5)
    disabled = {button.description: button.tooltip for button in ui.presets.children if button.disabled}
    assert set(disabled) == {"specificity ≥ 0.95", "specificity ≥ 0.90"}
    assert "no threshold that finds any image" in disabled["specificity ≥ 0.95"]


def test_the_notebook_can_set_the_threshold_and_only_to_one(ui):
    ui.threshold = 0.25
    assert ui.slider.value == ui.number.value == 0.25 and "At 0.250" in ui.numbers.value
    for wrong in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="allowed is a number from 0 to 1 with a positive class, and None"):
            ui.threshold = wrong
    assert ui.threshold == ui.look.at == 0.25


@pytest.mark.parametrize(("positive", "threshold"), [("malignant", None), ("malignant", 1.2), ("", 0.5)])
def test_a_threshold_that_does_not_go_with_the_positive_class_is_refused(positive, threshold):
    with pytest.raises(ValueError, match=f"The threshold is {threshold} and the positive class '{positive}'; allowed"):
        PrecisionRecallUI(*drawn()[:3], positive, threshold)


@pytest.mark.parametrize(("positive", "threshold"), [("malignant", 0.5), ("", None)])
@pytest.mark.parametrize("n", [0, 4])
def test_one_class_alone_is_refused(positive, threshold, n):
    with pytest.raises(ValueError, match="needs at least one of each"):
        PrecisionRecallUI(np.array(["benign"] * n, object), np.full((n, 2), 0.5), TWO, positive, threshold)


def test_without_a_positive_class_each_class_can_be_looked_at_and_nothing_is_kept():
    labels, scores, classes = three()
    ui = PrecisionRecallUI(labels, scores, classes, "", None)
    assert ui.of_class in ui.children and ui.of_class.options == tuple(THREE)
    ui.of_class.value = "wasp"
    assert ui.look.at == choose_threshold(labels, scores, classes, "wasp") == ui.number.value
    assert f"{(labels == 'wasp').sum()} wasp images" in ui.numbers.value and "not wasp" in ui.numbers.value
    assert diamonds(ui) == pytest.approx(expected(ui.look.at, (labels, scores, classes, "wasp"))[0])
    assert "AUC" in ui.roc.figure.title and (ui.roc.chosen.x, ui.roc.chosen.y) == (ui.roc.start.x, ui.roc.start.y)
    ui.slider.value = 0.1
    press(ui, BEST)
    assert ui.threshold is None and "as given" not in ui.rules
    assert "No positive class" in ui.children[0].value and "for looking only" in ui.children[0].value
    with pytest.raises(ValueError, match="None with ''"):
        ui.threshold = 0.5


def test_a_positive_class_among_three_is_looked_at_alone():
    ui = PrecisionRecallUI(*three(), "bee", 0.3)
    assert ui.of_class not in ui.children and ui.threshold == 0.3
    assert diamonds(ui) == pytest.approx(expected(0.3, (*three(), "bee"))[0])


def test_names_from_folders_are_text_and_not_markup():
    names = ["<b>", "a & b"]
    ui = PrecisionRecallUI(np.array(names, object), np.eye(2), names, "<b>", 0.5)
    assert "called &lt;b&gt;" in ui.numbers.value and "a &amp; b" in ui.numbers.value


def test_ten_thousand_scores_are_drawn_with_few_points_and_counted_exactly():
    labels, scores, *_ = drawn(10_000)
    ui = PrecisionRecallUI(*drawn(10_000), 0.6)
    assert max(curve.line.x.size for curve in (ui.roc, ui.recall)) < 5_000
    assert all(curve.places.x.size < 500 for curve in (ui.roc, ui.recall))
    called, truth = scores[:, 1].astype(float) >= 0.6, labels == "malignant"
    assert ui.look.point[COUNTS].tolist() == [(a & b).sum() for a in (truth, ~truth) for b in (called, ~called)]


def test_every_control_is_named_and_the_threshold_reaches_the_browser(ui):
    controls = [ui.slider, ui.number, *ui.presets.children]
    assert all(control.description and control.tooltip for control in controls)
    assert json.loads(json.dumps(ui.get_state()["threshold"])) == ui.threshold
    assert isinstance(PrecisionRecallUI.threshold, traitlets.Float)
