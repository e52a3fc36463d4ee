"""Going through results: what is shown, in which order, and what is computed for the image in view only."""

import numpy as np
import pandas as pd
from PIL import Image

from tdsp_vision.modeling.explain import nearest_training_images
from tdsp_vision.widgets.confusion import MOST, ConfusionMatrixUI
from tdsp_vision.widgets.results import ResultsUI, heat_picture, judged, score_chart

CLASSES = ["robin", "wren <i>"]


def explain(row, class_number):
    return np.eye(4) if row != 102 else 1 / 0


def neighbours(row):
    return pd.DataFrame({"path": ["00.png", "04.png"], "label": CLASSES, "distance": [0.5, 1.25]})


def test_filters_and_orders(root, predictions):
    ui = ResultsUI(root, predictions, CLASSES, explain, neighbours, {"": None})
    assert len(ui.pages.rows) == 30
    ui.shown.value = "wrong"
    assert ui.pages.rows == (103, 102, 115, 101, 100), "most confidently wrong first; equal ones as listed"
    ui.label.value = CLASSES[1]
    assert ui.pages.rows == (115,) and ui.pages.page == 1
    ui.shown.value, ui.label.value = "correct", ""
    assert ui.pages.rows[:1] == (114,), "the least sure"
    assert np.isfinite(judged(predictions.assign(score_robin=0.0), CLASSES).loss).all()
    ui.shown.value, ui.order.value = "all", "least familiar"
    assert ui.pages.visible == (107,) and "familiar 0.000" in ui.about.value


def test_a_damaged_image_is_a_placeholder_and_the_next_one_is_shown(root, predictions):
    ui = ResultsUI(root, predictions, CLASSES, explain, neighbours, {CLASSES[1]: 0.25})
    assert ui.pages.visible == (103,) and "03.png cannot be shown" in ui.view.value
    assert "true class <b>robin</b>, called <b>wren &lt;i&gt;</b>: wrong" in ui.about.value
    assert "1 of 2 have the label robin" in ui.view.value and "04.png cannot be shown" in ui.view.value
    assert "0.900 called from 0.250" in ui.view.value and "0.100 true" in ui.view.value
    ui.heat.value = 1
    assert "cannot identify image file" in ui.view.value
    ui.pages.turn(2)
    assert "ZeroDivisionError" in ui.view.value and ui.view.value.count("<img") == 2
    ui.pages.turn(3)
    assert "red speaks for wren &lt;i&gt;" in ui.view.value and ui.static_html().count("<img") == 3


def test_nothing_is_computed_that_is_not_asked_for_and_no_rows_say_so(root, predictions):
    asked = []
    robins = predictions[predictions.label == "robin"]
    ui = ResultsUI(root, robins, CLASSES, lambda *what: asked.append(what), neighbours, {})
    ui.label.value = CLASSES[1]
    assert asked == [] and ui.about.value == "No image fits these filters." and ui.view.value == ""


def test_of_two_hundred_classes_the_highest_scores_are_drawn_and_those_with_a_name():
    scores = pd.Series(np.arange(200) / 1000, [f"class {number}" for number in range(200)])
    html = score_chart(scores, "class 0", "class 199", {"class 7": 0.5})
    assert html.count("<div style") - 1 == 12 and "188 classes with lower scores" in html
    assert "0.000 true" in html and "0.007 from 0.500" in html


def test_a_heat_map_is_red_for_and_blue_against_in_the_shape_of_the_photo():
    drawn = heat_picture(Image.new("RGB", (40, 20), (128, 128, 128)), np.array([[2.0, -2.0], [2.0, -2.0]]))
    (red, _, blue), (other_red, _, other_blue) = drawn.getpixel((3, 10)), drawn.getpixel((36, 10))
    assert drawn.size == (40, 20) and red > blue + 40 and other_blue > other_red + 40
    assert np.ptp(np.asarray(heat_picture(Image.new("RGB", (8, 8)), np.zeros([4, 4])))) < 160


def test_neighbours_come_from_training_nearest_first_and_never_the_image_itself():
    features = np.random.default_rng(0).normal(size=[40, 50]) * np.linspace(1, 1000, 50)
    features[:, 49] = 7  # one that does not vary
    features[30] = features[3] + 0.01
    features[30, 0] = 1e6  # one wild feature does not hide what is alike
    manifest = pd.DataFrame({"path": [f"{n}.jpg" for n in range(40)], "label": "a"})
    nearest = nearest_training_images(features, manifest, np.arange(40) < 25, k=4)
    found = nearest(30)
    assert found.path.iloc[0] == "3.jpg" and found.distance.is_monotonic_increasing and len(found) == 4
    assert found.distance.iloc[0] < 1 < found.distance.iloc[1] < 2 and (found.index < 25).all()
    assert "3.jpg" not in nearest(3).path.tolist() and len(nearest(3)) == 4


def test_a_cell_of_the_matrix_opens_its_images(root, predictions, press):
    ui = ConfusionMatrixUI(root, predictions, CLASSES, page_size=3)
    assert ui.counts.tolist() == [[11, 4], [1, 14]]
    assert ui.cell == ("robin", CLASSES[1]) and ui.pages.rows == (103, 102, 101, 100), "the most frequent mistake"
    assert "03.png cannot be shown" in ui.gallery.value and "02.png\nconfidence 0.800" in ui.gallery.value
    press(ui.buttons[1, 1])
    assert "True wren &lt;i&gt;, called wren &lt;i&gt;: 14 of 15 images, 93%</b>; least sure first" in ui.about.value
    borders = [ui.buttons[cell].layout.border_top for cell in ((0, 1), (1, 1))]
    assert ui.pages.visible == (116, 117, 118) and borders[0] != borders[1]
    assert "<td>11</td>" in ui.static_html()
    right = ConfusionMatrixUI(root, predictions[predictions.label == predictions.predicted], CLASSES)
    assert right.cell == (CLASSES[1], CLASSES[1]) and right.buttons[0, 1].disabled


def test_of_two_hundred_classes_a_cell_is_searched(root):
    classes = [f"class {number:03}" for number in range(200)]
    scores = np.random.default_rng(0).dirichlet(np.ones(200), 10_000)
    names = np.array(classes)
    table = pd.DataFrame(scores, columns=[f"score_{name}" for name in classes])
    table = table.assign(path="00.png", label=names[np.arange(10_000) % 200], predicted=names[scores.argmax(axis=1)])
    ui = ConfusionMatrixUI(root, table, classes)
    search = ui.children[1]
    assert ui.buttons == {} and len(classes) > MOST
    wanted = next(words for words in search.options if words.startswith("True class 007, called class 007"))
    search.value = wanted
    assert ui.cell == ("class 007", "class 007") and search.value == "" and "least sure first" in ui.about.value
    search.value = "class"  # half typed
    assert ui.cell == ("class 007", "class 007")
