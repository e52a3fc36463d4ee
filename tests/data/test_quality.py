"""Measures see what they say they see, and tables count what is there."""

import draw_lesions as artefacts
import numpy as np
import pandas as pd
import pytest
import zoo
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.quality import (
    MEASURES,
    TOGETHER,
    class_by,
    columns_to_compare,
    dark_corners,
    ink,
    look_at,
    predict_label_alone,
    shown_classes,
    thin_lines,
    warnings_in_words,
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
    (found,) = look_at([file])
    assert found["file_kb"] == file.stat().st_size / 1000
    assert (found["megapixels"], found["aspect_ratio"]) == (0.02, 2)
    assert (found["brightness"], found["contrast"]) == (100, 100)


def manifest(**columns) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    base = {"path": map(str, range(count)), "label": ["a", "b"] * (count // 2), "license": "", "attribution": ""}
    return pd.DataFrame(base | columns)


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
    assert shown_classes(many.label[:12]).nunique() == 12


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


def example(count: int = 200, classes: str = "ab", seed: int = 0):
    """Measures, labels and groups: `clear` grows with the class, `inverse` falls, `noise` does neither."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % len(classes)
    labels = pd.Series([classes[code] for code in codes], index=rng.permutation(count))
    shift = 1.5 * codes
    values = {"clear": shift + rng.normal(size=count), "inverse": rng.normal(size=count) - shift}
    measures = pd.DataFrame(values | {"noise": rng.normal(size=count), "constant": 1.0})
    return measures, labels, pd.Series(np.arange(count))


def test_auc_is_that_of_scikit_learn_and_best_comes_first():
    measures, labels, groups = example()
    found = predict_label_alone(measures, labels, groups).set_index("measure")
    truth = labels.to_numpy() == "b"
    for name in measures:
        auc = roc_auc_score(truth, measures[name])
        assert found.auc[name] == pytest.approx(max(auc, 1 - auc))
    assert found.auc.is_monotonic_decreasing
    assert found.direction[["clear", "inverse", "constant"]].tolist() == [
        "larger in b", "larger in a", "no difference"
    ]  # fmt: skip
    assert ((found.low <= found.auc) & (found.auc <= found.high)).all()
    assert found.low["clear"] > 0.7 and found.low["noise"] < 0.5
    assert found.loc["constant", ["auc", "low", "high"]].tolist() == [0.5, 0.5, 0.5]
    assert found.auc[TOGETHER] > 0.85


def test_more_classes_are_averaged_one_against_the_rest():
    measures, labels, groups = example(300, "abc")
    found = predict_label_alone(measures, labels, groups).set_index("measure")
    aucs = [roc_auc_score(labels.to_numpy() == name, measures.clear) for name in "abc"]
    assert found.auc["clear"] == pytest.approx(np.mean([max(auc, 1 - auc) for auc in aucs]))
    assert found.direction["clear"] in ("larger in c", "smaller in a")
    assert found.low["clear"] > 0.6 and found.low["noise"] < 0.55


def test_images_of_one_patient_are_not_counted_as_independent():
    measures, labels, _ = example(20)
    measures, labels = pd.concat([measures[["noise"]]] * 10), pd.concat([labels] * 10)
    together = pd.Series(np.tile(np.arange(20), 10))
    width = {}
    for name, groups in (("together", together), ("apart", pd.Series(np.arange(200)))):
        row = predict_label_alone(measures, labels, groups).set_index("measure").loc["noise"]
        width[name] = row.high - row.low
    assert width["together"] > 2 * width["apart"]


def test_the_same_seed_gives_the_same_table_and_few_groups_no_model():
    measures, labels, groups = example()
    once, again = (predict_label_alone(measures, labels, groups, seed=3) for _ in range(2))
    assert once.equals(again)
    few = predict_label_alone(measures, labels, groups % 4)
    assert TOGETHER not in set(few.measure) and few.auc.notna().all()
    # A model that is worse than guessing is not turned round.
    assert predict_label_alone(measures[["constant"]][:37], labels[:37], groups[:37]).auc.min() < 0.5


def test_sentences_only_for_what_is_clear():
    measures, labels, groups = example()
    sentences = warnings_in_words(predict_label_alone(measures, labels, groups), labels)
    assert len(sentences) == 3
    clear = next(line for line in sentences if line.startswith("`clear`"))
    assert "(larger in b) predicts the label, blind to shapes: AUC 0." in clear
    assert not any("noise" in line or "constant" in line for line in sentences)
    few = slice(0, 30)
    found = predict_label_alone(measures[few], labels[few], groups[few])
    assert found.low.max() > 0.55 and warnings_in_words(found, labels[few]) == []


@pytest.mark.slow
def test_real_photos_show_their_known_confounders(real_photos):
    images, _ = scan_folder(real_photos / "isic2019_256")
    found = predict_label_alone(images[list(MEASURES)], images.label, images.index.to_series())
    found = found.set_index("measure")
    for name in ("file_kb", "dark_corners", "thin_lines", "sharpness"):
        assert found.low[name] > 0.55 and found.direction[name] == "larger in malignant"
    assert 0.65 < found.auc["all together"] < 0.8
    assert found.direction["megapixels"] == "no difference"
