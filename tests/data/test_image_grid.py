"""Grids of pictures, whatever the pictures and their names are like."""

import io

import numpy as np
import pandas as pd
import pytest
import zoo
from matplotlib.font_manager import fontManager

from tdsp_vision.data.plots import auc_intervals, image_grid, measures_by_class, thumbnail


def draw(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def test_a_name_is_shown_whole_and_not_as_a_formula(put):
    names = ["price_$5$.png", "$\\frac{$.png", "a_b^c.png", "100%.png", "$$.png", "x" * 40 + ".png"]
    figure = image_grid([put(f"x/{name}", 1) for name in names], names, title="$\\broken{$")
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert [title.replace("\n", "") for title in titles] == names and len(max(titles[-1].split())) <= 26
    assert draw(figure)


@pytest.mark.parametrize("width, height", [(400, 100), (40, 33)])
def test_a_thumbnail_keeps_the_shape_and_is_never_enlarged(put, width, height):
    for kind in ("JPEG", "PNG"):
        small = thumbnail(put("x/file", zoo.encode(zoo.picture(1, width, height), kind, exif=b"Exif\0\0II*\0")))
        assert small.mode == "RGB" and max(small.size) == min(160, max(width, height))
        assert small.width / small.height == pytest.approx(width / height, rel=0.05)


def test_sixteen_bits_are_shown_in_their_grays_and_not_white(put):
    ramp = zoo.gray_ramp()
    small = thumbnail(put("x/1.png", zoo.encode(zoo.Image.fromarray(ramp), "PNG")))
    assert np.array_equal(np.asarray(small)[..., 0], ramp >> 8)


def test_labels_are_literal_in_every_figure(capsys):
    labels = pd.Series(["_hidden", "$x^2$", "Zaunkönig", "50% {a}"] * 6)
    figure = measures_by_class(pd.DataFrame({"$a$": np.arange(24.0)}), labels)
    assert {text.get_text() for text in figure.axes[0].get_yticklabels()} == set(labels) and draw(figure)
    found = pd.DataFrame({"measure": "$a$", "direction": labels.unique(), "auc": 0.6, "low": 0.5, "high": 0.7})
    figure = auc_intervals(found)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == [
        f"$a$ ({name})" for name in found.direction
    ]
    assert draw(figure)
    many = measures_by_class(
        pd.DataFrame({"a": np.arange(100.0)}), pd.Series([f"species {n % 50}" for n in range(100)])
    )
    assert len(many.axes[0].get_yticklabels()) == 12
    assert capsys.readouterr().out == ""


@pytest.mark.filterwarnings("error")
def test_letters_that_no_font_has_are_said_once(put, capsys, monkeypatch):
    own = [font for font in fontManager.ttflist if "matplotlib" in font.fname]
    monkeypatch.setattr(fontManager, "ttflist", own)
    for _ in range(2):
        assert draw(image_grid([put("x/1.png", 1)], ["漢字"]))
    assert capsys.readouterr().out.count("No font of this machine has 字漢; install one") == 1
