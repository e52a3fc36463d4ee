"""Measures see what they say they see, and tables count what is there."""

import draw_lesions as artefacts
import numpy as np
import pandas as pd
import pytest
import zoo
from PIL import Image, ImageDraw, ImageFilter

from tdsp_vision.data.quality import (
    MEASURES,
    class_by,
    columns_to_compare,
    dark_corners,
    ink,
    measure_images,
    share_known,
    shown_classes,
    thin_lines,
)

SKIN = (224, 180, 160)


def skin(seed: int = 0, side: int = artefacts.SIZE) -> np.ndarray:
    """float32 [side, side, 3]: slightly noisy skin."""
    noise = np.random.default_rng(seed).normal(0, 2, (side, side, 1)).astype(np.float32)
    return np.float32(SKIN) + noise


def as_pixels(picture: np.ndarray) -> np.ndarray:
    return picture.clip(0, 255).astype(np.uint8)


def gray(picture: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(as_pixels(picture)).convert("L"))


def with_lesion(picture: np.ndarray, radius: int) -> np.ndarray:
    image = Image.fromarray(as_pixels(picture))
    middle = artefacts.SIZE / 2
    box = (middle - radius, middle - radius, middle + radius, middle + radius)
    ImageDraw.Draw(image).ellipse(box, (96, 60, 45))
    return np.asarray(image)


@pytest.mark.parametrize("seed", range(2))
def test_a_dark_rim_is_seen_and_a_dark_lesion_is_not_taken_for_one(seed):
    rimmed = artefacts.add_dark_corners(np.random.default_rng(seed), skin(seed))
    assert dark_corners(gray(rimmed)) > 0.3
    assert abs(dark_corners(gray(skin(seed)))) < 0.02
    assert abs(dark_corners(gray(with_lesion(skin(seed), 60)))) < 0.02
    assert dark_corners(gray(with_lesion(rimmed, 60))) > 0.3
    assert dark_corners(255 - gray(rimmed)) < 0
    black_corners = np.where(np.hypot(*np.mgrid[-1:1:200j, -1:1:300j]) > 1.1, 0, 200).astype(np.uint8)
    assert dark_corners(black_corners) == 1
    assert dark_corners(np.zeros((40, 40), np.uint8)) == 1  # a black picture has black corners, and no division by 0


def test_ink_and_stickers_are_seen_and_skin_blood_and_hair_are_not():
    pixels = with_lesion(skin(), 50).copy()
    assert ink(pixels) == 0
    for color, seen in (((70, 40, 150), True), ((60, 190, 190), True), ((20, 140, 60), True), ((160, 20, 30), False)):
        marked = pixels.copy()
        marked[:64, :128] = color
        assert ink(marked) == pytest.approx(1 / 8 if seen else 0)


@pytest.mark.parametrize("seed", range(2))
def test_hair_and_rulers_are_thin_lines_and_a_lesion_is_not(seed):
    plain = thin_lines(gray(with_lesion(skin(seed), 60)))
    assert plain < 0.001
    for add in (artefacts.add_hair, artefacts.add_ruler):
        assert thin_lines(gray(add(np.random.default_rng(seed), with_lesion(skin(seed), 60)))) > plain + 0.0005


def test_values_that_can_be_said_beforehand(put):
    half = np.zeros((100, 200, 3), np.uint8)
    half[:, 100:] = 200
    file = put("x/1.png", zoo.encode(Image.fromarray(half), "PNG"))
    found = measure_images([file], quiet=True).iloc[0]
    assert list(found.index) == list(MEASURES)
    assert found["file_kb"] == file.stat().st_size / 1000
    assert (found["megapixels"], found["aspect_ratio"]) == (0.02, 2)
    assert (found["brightness"], found["contrast"]) == (100, 100)


def test_blur_lowers_sharpness_and_size_hardly_matters(put):
    large = Image.fromarray(as_pixels(skin(side=1024))).filter(ImageFilter.GaussianBlur(1))
    ImageDraw.Draw(large).rectangle((300, 300, 600, 700), (90, 60, 50))
    sharp, blurred = (
        measure_images([put(f"x/{number}.jpg", zoo.encode(one, "JPEG", quality=95))], quiet=True).iloc[0]
        for number, one in enumerate((large, large.filter(ImageFilter.GaussianBlur(12))))
    )
    assert blurred["sharpness"] < sharp["sharpness"] / 5
    small = large.resize((256, 256), Image.Resampling.BOX)
    shrunk = measure_images([put("x/small.jpg", zoo.encode(small, "JPEG", quality=95))], quiet=True).iloc[0]
    for name in ("brightness", "contrast", "sharpness", "dark_corners"):
        assert shrunk[name] == pytest.approx(sharp[name], rel=0.1, abs=0.02)


def manifest(**columns) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    base = {"path": map(str, range(count)), "label": ["a", "b"] * (count // 2), "license": "", "attribution": ""}
    return pd.DataFrame(base | {"turned": "0"} | columns)


def test_class_by_age_is_in_decades_and_what_is_missing_has_its_row():
    table = class_by(manifest(age_approx=[5.0, 45, 47, np.nan, 50, 45]), "age_approx")
    assert table.index.tolist() == ["0 to 9", "40 to 49", "50 to 59", "(missing)"]
    assert table.to_numpy().tolist() == [[1, 0], [1, 2], [1, 0], [0, 1]]


def test_class_by_text_and_by_other_numbers():
    text = class_by(manifest(sex=["m", "f", "m", "", None, "f"]), "sex")
    assert text.to_dict("index") == {"f": {"a": 0, "b": 2}, "m": {"a": 2, "b": 0}, "(missing)": {"a": 1, "b": 1}}
    fifths = class_by(manifest(size=np.arange(100.0)), "size")
    assert len(fifths) == 5 and fifths.sum(axis=1).tolist() == [20] * 5
    for large in (10**15 + np.arange(100) * 3, 1.7e18 + np.arange(100) * 1e9, np.r_[np.zeros(90), np.arange(1, 11)]):
        assert class_by(manifest(serial=large), "serial").to_numpy().sum() == 100  # serial numbers, timestamps
    assert class_by(manifest(grade=[3, 1, 10, 2]), "grade").index.tolist() == ["1", "2", "3", "10"]
    assert class_by(manifest(mole=[True, False, None, True]), "mole").index.tolist() == ["False", "True", "(missing)"]


def test_of_many_classes_a_dozen_is_shown():
    many = manifest(sex=["m", "f"] * 200, label=[f"species {n % 40:02d}" for n in range(400)])
    assert class_by(many, "sex").shape == (2, 12) and "(29 others)" in class_by(many, "sex")
    assert share_known(many).shape == (3, 14) and shown_classes(many.label[:12]).nunique() == 12


def test_only_columns_that_can_say_something_are_compared():
    table = manifest(
        patient_id=list("ppqq"),
        isic_id=list("wxyz"),
        diagnosis_1=list("abab"),
        sex=list("mfmf"),
        age=[20, 30, 40, 50],
        constant=["x"] * 4,
        empty=[None] * 4,
    )
    assert columns_to_compare(table) == ["sex", "age"]
    assert "name" not in columns_to_compare(manifest(name=[f"n{number}" for number in range(40)]))
