"""The confusion matrix of buttons: counts, colours that can be read, and the images behind each cell."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tdsp_vision.widgets.confusion import MOST, ConfusionMatrixUI, shade


def predictions(labels: str, predicted: str, sure: list[float] | None = None) -> pd.DataFrame:
    """A row for each letter, a class each; the predicted class has the score `sure`, else 0.8."""
    classes, sure = sorted(set(labels + predicted)), np.array(sure or [0.8] * len(labels))
    table = pd.DataFrame({"path": [f"{n}.png" for n in range(len(labels))], "label": list(labels)})
    called = np.array(list(predicted))
    rest = (1 - sure) / max(1, len(classes) - 1)
    return table.assign(predicted=called, **{f"score_{name}": np.where(called == name, sure, rest) for name in classes})


@pytest.fixture
def root(tmp_path):
    for number in range(8):
        Image.new("RGB", (8, 8), (0, 30 * number, 0)).save(tmp_path / f"{number}.png")
    return tmp_path


def test_counts_shares_and_totals(root):
    matrix = ConfusionMatrixUI(root, predictions("aaaabbb", "aaabbab"), ["a", "b"])
    assert matrix.matrix.counts.tolist() == [[3, 1], [1, 2]]
    assert [button.description for button in matrix.matrix.buttons.values()] == [
        "3 (75%)",
        "1 (25%)",
        "1 (33%)",
        "2 (67%)",
    ]
    assert matrix.matrix.buttons[0, 1].tooltip == "True a, called b: 1 of 4 images, 25%"
    grid = matrix.children[0].children[0]
    assert [">4<" in grid.children[7].value, ">3<" in grid.children[-5].value, ">7<" in grid.children[-1].value] == [
        1
    ] * 3


def test_a_cell_opens_its_images_most_confidently_wrong_first(root):
    table = predictions("aaaabbb", "abbbbbb", [0.9, 0.6, 0.9, 0.7, 0.9, 0.8, 0.7])
    matrix = ConfusionMatrixUI(root, table, ["a", "b"], page_size=2)
    assert matrix.cell == ("a", "b") and matrix.pages.rows == (2, 3, 1)  # the most frequent mistake
    assert matrix.gallery.value.count("<img") == 2 and "2.png\nconfidence 0.90" in matrix.gallery.value
    matrix.pages.page = 1
    assert matrix.gallery.value.count("<img") == 1 and "1.png" in matrix.gallery.value
    before = matrix.matrix.buttons[1, 1].style
    matrix.matrix.buttons[1, 1].click()
    assert matrix.cell == ("b", "b") and matrix.pages.rows == (6, 5, 4) and matrix.pages.page == 0
    assert "True b, called b: 3 of 3 images, 100%" in matrix.about.value
    assert (
        matrix.matrix.buttons[1, 1].style is not before
        and matrix.matrix.buttons[1, 1].style is matrix.matrix.styles[-1]
    )
    assert matrix.matrix.buttons[0, 1].style is matrix.matrix.styles[8]  # 75 %
    assert matrix.matrix.buttons[1, 0].disabled and matrix.matrix.buttons[1, 0].description == "0 (0%)"


def test_no_mistakes_and_no_images(root):
    assert ConfusionMatrixUI(root, predictions("abb", "abb"), ["a", "b"]).cell == ("b", "b")
    none = ConfusionMatrixUI(root, predictions("ab", "ab").iloc[:0], ["a", "b"])
    assert (
        none.matrix.counts.sum() == 0
        and none.pages.rows == ()
        and all(button.disabled for button in none.matrix.buttons.values())
    )


def test_only_the_visible_page_is_read(root):
    (root / "3.png").unlink()
    matrix = ConfusionMatrixUI(root, predictions("aaaa", "bbbb"), ["a", "b"], page_size=3)
    with pytest.raises(ValueError, match="3.png cannot be shown"):
        matrix.pages.page = 1


def test_of_very_many_classes_the_most_mistaken_are_shown(tmp_path):
    classes = [f"class {k:02}" for k in range(MOST + 5)]
    mistaken = classes[3:8] + classes[12:]
    frame = pd.DataFrame({"path": "x.png", "label": classes, "predicted": classes})
    frame = frame.assign(**{f"score_{name}": 0.5 for name in classes})
    frame.loc[frame.label.isin(mistaken), "predicted"] = np.roll(mistaken, 1)
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    matrix = ConfusionMatrixUI(tmp_path, frame, classes)
    assert len(matrix.matrix.shown) == MOST and set(matrix.matrix.shown) >= {classes.index(name) for name in mistaken}
    assert (
        matrix.matrix.counts.shape == (MOST + 5, MOST + 5)
        and "the 25 of 30 classes" in matrix.children[0].children[1].value
    )


@pytest.mark.parametrize("share", np.linspace(0, 1, 11))
def test_text_on_every_shade_can_be_read(share):
    def luminance(color):
        values = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return np.dot(linear, [0.2126, 0.7152, 0.0722]) + 0.05

    light, dark = sorted(map(luminance, shade(share)), reverse=True)
    assert light / dark >= 4.5  # WCAG 2.2, level AA
