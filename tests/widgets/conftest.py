"""Thirty pictures of two birds for the tests of the widgets, which need no browser."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

CLASSES = ["robin", "wren <i>"]


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """Folder of 30 pictures; 03.png is damaged and 04.png is gone."""
    root = tmp_path_factory.mktemp("birds")
    for number in range(30):
        Image.new("RGB", (40, 20), (8 * number, 0, 0)).save(root / f"{number:02}.png")
    (root / "03.png").write_text("a web page")
    (root / "04.png").unlink()
    return root


@pytest.fixture
def manifest():
    """15 robins, then 15 wrens."""
    labels = [CLASSES[number // 15] for number in range(30)]
    return pd.DataFrame(
        {"path": [f"{number:02}.png" for number in range(30)], "label": labels, "age": [50.0] + 29 * [np.nan]}
    )


@pytest.fixture
def predictions(manifest):
    """Rows 100 to 129; rows 100 to 103 (robins) and 115 (a wren) are wrong, 103 most confidently."""
    score = np.r_[0.6, 0.7, 0.8, 0.9, np.linspace(0.1, 0.4, 11), 0.2, np.linspace(0.6, 0.9, 14)]
    table = manifest.assign(score_robin=1 - score, familiar=np.roll(np.linspace(0, 1, 30), 7))
    table["score_wren <i>"] = score
    return table.assign(predicted=np.where(score >= 0.5, CLASSES[1], CLASSES[0])).set_index(pd.RangeIndex(100, 130))


@pytest.fixture
def press():
    """Click a button; `Button.click` would only log an exception."""

    def click(button):
        for callback in button._click_handlers.callbacks:
            callback(button)

    return click
