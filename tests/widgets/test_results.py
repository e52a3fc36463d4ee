"""Going through results: what is shown, in which order, and what is computed for the image in view only."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tdsp_vision.data.plots import BLUE, GRAY, ORANGE
from tdsp_vision.widgets.results import SIDE, ResultsUI
from tdsp_vision.widgets.results_state import ORDERS, heat_picture, judged, nearest_training_images, select

CLASSES = ["a", "b", "c <i>"]
SCORES = [(0.9, 0.1, 0.0), (0.2, 0.7, 0.1), (0.0, 0.05, 0.95), (0.3, 0.3, 0.4), (0.5, 0.2, 0.3)]
LABELS, CALLED = list("aab") + [CLASSES[2], "b"], ["a", "b", CLASSES[2], CLASSES[2], "a"]


@pytest.fixture
def table() -> pd.DataFrame:
    """Five predictions; rows 20, 40 and 100 are wrong, from least to most sure: 100, 20, 40."""
    table = pd.DataFrame({"path": [f"{n}.png" for n in range(5)], "label": LABELS, "predicted": CALLED})
    scores = {f"score_{name}": column for name, column in zip(CLASSES, zip(*SCORES, strict=True), strict=True)}
    return table.assign(split="test", **scores).set_index(pd.Index([10, 20, 40, 70, 100]))


@pytest.fixture
def root(tmp_path):
    for number in range(5):
        Image.new("RGB", (20, 10), (0, 50 * number, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def test_loss_and_confidence(table):
    found = judged(table, CLASSES)
    assert found.correct.tolist() == [True, False, False, True, False]
    assert found.confidence.tolist() == [0.9, 0.7, 0.95, 0.4, 0.5]
    np.testing.assert_allclose(found.loss, -np.log([0.9, 0.2, 0.05, 0.4, 0.2]))
    certain = table.assign(score_b=0.0)
    assert np.isfinite(judged(certain, CLASSES).loss).all()


def test_filters_and_orders(table):
    found = judged(table, CLASSES)
    assert select(found) == (40, 20, 100, 70, 10)  # 20 and 100 have the same loss
    assert select(found, order="confidence") == (40, 10, 20, 100, 70)
    assert select(found, order="") == (10, 20, 40, 70, 100)
    assert select(found, "wrong", order="") == (20, 40, 100)
    assert select(found, "correct", CLASSES[2]) == (70,)
    assert select(found, label="b", order="confidence") == (40, 100)
    assert select(found, confidence=(0.5, 0.9), order="") == (10, 20, 100)
    assert select(found, "wrong", "c <i>") == ()
    with pytest.raises(ValueError, match="shown is 'bad'.*allowed"):
        select(found, "bad")


def test_predictions_that_do_not_fit(table):
    with pytest.raises(ValueError, match="lack score_d; they need"):
        judged(table, [*CLASSES, "d"])
    with pytest.raises(ValueError, match="label holds 'c <i>'; allowed are a, b"):
        judged(table, CLASSES[:2])
    with pytest.raises(ValueError, match="row number twice"):
        judged(pd.concat([table, table]), CLASSES)


def test_a_heat_map_is_red_for_and_blue_against_in_the_shape_of_the_picture():
    file = io.BytesIO()
    Image.new("RGB", (40, 20), (128, 128, 128)).save(file, "PNG")
    drawn = Image.open(io.BytesIO(heat_picture(file.getvalue(), np.array([[2.0, -2.0], [2.0, -2.0]]))))
    (left_red, _, left_blue), (right_red, _, right_blue) = drawn.getpixel((3, 10)), drawn.getpixel((36, 10))
    assert drawn.size == (40, 20) and left_red > left_blue + 40 and right_blue > right_red + 40
    flat = np.asarray(Image.open(io.BytesIO(heat_picture(file.getvalue(), np.zeros([4, 4])))))
    assert np.ptp(flat.reshape(-1, 3), axis=0).max() == 0


def test_neighbours_come_from_training_nearest_first_and_never_the_image_itself():
    features = np.random.default_rng(0).normal(size=[40, 50]) * np.linspace(1, 1000, 50)
    features[30] = features[3] + 0.01
    features[30, 0] = 1e6  # one wild feature does not hide what is alike
    manifest = pd.DataFrame({"path": [f"{n}.jpg" for n in range(40)], "label": "a"})
    train = np.arange(40) < 25
    nearest = nearest_training_images(features, manifest, train, k=4)
    found = nearest(30)
    assert found.path.iloc[0] == "3.jpg" and found.distance.is_monotonic_increasing and len(found) == 4
    assert found.distance.iloc[0] < 1 < found.distance.iloc[1] < 2 and (found.index < 25).all()
    assert "3.jpg" not in nearest(3).path.tolist() and len(nearest(3)) == 4
    assert len(nearest_training_images(features, manifest, np.arange(40) < 2)(30)) == 2
    with pytest.raises(ValueError, match="40 rows of features, 40 of the manifest and 40 marks, 0 of them training"):
        nearest_training_images(features, manifest, np.zeros(40, bool))


def test_stepping_and_filtering_show_image_words_and_scores(table, root):
    results = ResultsUI(root, table, CLASSES)
    one = results.one
    assert results.pages.rows == (40, 20, 100, 70, 10) and "2.png" in one.picture.value
    assert "true class <b>b</b>, called <b>c &lt;i&gt;</b>: wrong" in one.about.value
    assert one.chart.bars.y.tolist() == [0.0, 0.05, 0.95] and one.chart.bars.colors == [GRAY, BLUE, ORANGE]
    assert one.chart.words.text.tolist() == ["0.00", "0.05 true", "0.95 called"]
    results.pages.page = 4
    assert "0.png" in one.picture.value and one.chart.bars.colors == [BLUE, GRAY, GRAY]
    assert one.chart.words.text.tolist() == ["0.90 true, called", "0.10", "0.00"]
    results.shown.value = "wrong"
    assert results.pages.rows == (40, 20, 100) and results.pages.page == 0 and "2.png" in one.picture.value
    results.order.value = ORDERS["surest first"]
    results.confidence.value = (0.45, 0.8)
    assert results.pages.rows == (20, 100) and "1.png" in one.picture.value
    results.label.value = CLASSES[2]
    assert results.pages.rows == () and "No image fits" in one.about.value and one.beside.layout.display == "none"
    results.label.value = ""
    assert "1.png" in one.picture.value and one.beside.layout.display is None


def test_heat_map_and_neighbours_are_computed_for_the_image_in_view_when_asked_for(table, root):
    explained, sought = [], []

    def explain(row, class_number):
        explained.append((row, class_number))
        return np.eye(4)

    def neighbours(row):
        sought.append(row)
        return pd.DataFrame({"path": ["0.png", "4.png"], "label": ["b", "a"], "distance": [0.5, 1.25]})

    results = ResultsUI(root, table, CLASSES, explain, neighbours)
    assert (explained, sought) == ([], [40]) and results.one.map.layout.display == "none"
    assert "1 of 2 have the label b" in results.one.alike.value and "distance 1.25" in results.one.alike.value
    results.heat.value = 2
    assert explained == [(40, 2)] and results.one.map.layout.display is None
    assert "red speaks for c &lt;i&gt;" in results.one.map.value and "<img" in results.one.map.value
    results.pages.page = 1
    results.pages.page = 0
    assert explained == [(40, 2), (20, 2)]  # the first is remembered
    results.heat.value = -1
    results.pages.page = 2
    assert len(explained) == 2 and results.one.map.layout.display == "none"


def test_only_the_image_in_view_is_read_and_a_missing_one_is_named(table, root):
    for number in (0, 1, 3, 4):
        (root / f"{number}.png").unlink()
    results = ResultsUI(root, table, CLASSES)
    assert f"height:{SIDE}px" in results.one.picture.value
    with pytest.raises(ValueError, match="1.png cannot be shown"):
        results.pages.page = 1


def test_every_control_has_a_name_and_is_reached_by_the_keyboard(table, root):
    results = ResultsUI(root, table, CLASSES, explain=lambda row, k: np.eye(4))
    controls = [results.shown, results.label, results.confidence, results.order, results.heat]
    assert [control.description for control in controls] == ["Show", "True class", "Confidence", "Order", "Heat map"]
    assert [control.tabbable for control in controls] == [True, True, None, True, True]  # a slider's handles are stops
    assert results.heat not in ResultsUI(root, table, CLASSES).children[1].children  # nothing to explain with
