"""A finished run on another folder: its own rule, copies of its training images left out, labels matched by name."""

from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tdsp_vision.data.tables import file_sha256, read_csv, read_json, write_csv
from tdsp_vision.errors import ParameterError
from tdsp_vision.files import write_json
from tdsp_vision.modeling.evaluate_elsewhere import evaluate_elsewhere, side_by_side
from tdsp_vision.modeling.familiarity import build_familiarity
from tdsp_vision.modeling.metadata_alone import metadata_alone
from tdsp_vision.modeling.metrics import decide, evaluate
from tdsp_vision.paths import DatasetPaths

SIZE, CLASSES = 32, ["benign", "malignant", "nevus"]
TINTS = {"benign": (30, 0, 0), "malignant": (0, 30, 0), "nevus": (0, 0, 30)}


def _picture(label: str, seed: int) -> np.ndarray:
    """A texture of its own, more red, green or blue by its label, and now and then by another one."""
    rng = np.random.default_rng(seed)
    texture = cv2.resize(rng.uniform(40, 200, (9, 12)), (96, 72), interpolation=cv2.INTER_CUBIC)[..., None]
    tint = np.array(TINTS[label]) + rng.normal(0, 15, 3)
    return np.clip(texture + tint + rng.normal(0, 4, (72, 96, 1)), 0, 255).astype(np.uint8)


def _fill(folder: Path, labels: list[str], count: int, first: int) -> list[Path]:
    files = [folder / label / f"{first + 1000 * k + i}.png" for k, label in enumerate(labels) for i in range(count)]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_picture(file.parent.name, first + number)).save(file)
    return files


@pytest.fixture
def run(tmp_path) -> tuple[Path, DatasetPaths]:
    """A finished run of three classes, with a model that looks at the mean colour, and its images."""
    dataset = DatasetPaths(str(tmp_path / "data"), "colours")
    files = _fill(dataset.images, CLASSES, 16, 0)
    table = pd.DataFrame({"path": [file.relative_to(dataset.root).as_posix() for file in files]})
    table["label"] = [file.parent.name for file in files]
    table["split"] = [
        "test" if row % 4 == 0 else "validation" if row % 4 == 1 else "train" for row in range(len(files))
    ]
    pixels = np.stack([cv2.resize(np.asarray(Image.open(file)), (SIZE, SIZE)) for file in files]).astype(np.float32)
    images = keras.Input((SIZE, SIZE, 3), name="images")
    features = keras.layers.GlobalAveragePooling2D()(images)
    scores = keras.layers.Dense(3, activation="softmax", name="scores")
    sides = [np.flatnonzero(table.split == side) for side in ("train", "validation")]
    familiar = build_familiarity(pixels.mean(axis=(1, 2)), [tuple(sides)])
    model = keras.Model(images, {"scores": scores(features), "familiar": familiar(features)})
    scores.set_weights([np.eye(3) * 0.1, np.zeros(3)])
    found = model.predict(pixels, verbose=0)["scores"]
    table["predicted"] = decide(found, CLASSES, "malignant", 0.4)
    predictions = table.join(pd.DataFrame(found, columns=[f"score_{name}" for name in CLASSES]))
    test = (table.split == "test").to_numpy()
    block = evaluate(table.label[test].to_numpy(object), found[test], CLASSES, "malignant", 0.4)
    folder = tmp_path / "runs" / "one"
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    write_csv(folder / "splits.csv", table.assign(sha256=[file_sha256(file) for file in files]))
    write_csv(folder / "predictions.csv", predictions)
    head = {"classes": CLASSES, "positive_class": "malignant", "image_size": SIZE}
    write_json(folder / "metrics.json", head | {"test": block})
    write_json(folder / "model_card.json", {"run_id": "one"})
    return folder, dataset


def test_the_runs_own_rule_on_new_images_and_no_copy_of_what_it_learned(run, tmp_path):
    folder, dataset = run
    other = tmp_path / "other clinic"
    files = _fill(other, CLASSES, 12, 5000)
    (other / "benign").rename(other / "Benign")  # another archive's spelling
    first = Image.open(files[12])
    first.getexif()[274] = 6
    first.save(files[12].with_suffix(".tiff"), exif=first.getexif())
    files[12].unlink()
    seen = read_csv(folder / "splits.csv").query("split != 'test' and label == 'malignant'").path
    for number, path in enumerate(seen):
        picture = Image.open(dataset.root / path)
        picture = picture if number % 2 else picture.resize((120, 90))
        picture.save(other / "malignant" / f"copy{number}.png")
    (other / "mole").mkdir()
    Image.fromarray(_picture("nevus", 9000)).save(other / "mole" / "1.png")
    before = read_json(folder / "metrics.json")
    found = evaluate_elsewhere(folder, dataset, other)
    assert list(found["left_out"].values()) == [len(seen), 1] and found["missing"] == []
    table = read_csv(folder / "elsewhere" / "other clinic" / "predictions.csv")
    assert len(table) == found["elsewhere"]["n"] == 36 and not table.path.str.contains("copy|mole").any()
    scores = table[[f"score_{name}" for name in CLASSES]].to_numpy()
    assert table.predicted.tolist() == decide(scores, CLASSES, "malignant", 0.4).tolist()
    assert found["elsewhere"]["accuracy"] == pytest.approx((table.predicted == table.label).mean())
    assert 0 <= found["scores"]["elsewhere"]["unfamiliar"] < 0.5 and table.familiar.between(0, 1).all()
    assert found == read_json(folder / "elsewhere" / "other clinic" / "metrics.json")
    card = read_json(folder / "model_card.json")
    assert card["run_id"] == "one" and card["elsewhere"]["other clinic"]["elsewhere"]["n"] == 36
    assert (folder / "elsewhere" / "other clinic" / "figure.png").stat().st_size > 1000
    assert read_json(folder / "metrics.json") == before == before | {"test": found["test"]}
    shown = side_by_side(found)
    assert shown.loc["auc", "elsewhere"] == found["elsewhere"]["auc"] and {"auc", "sensitivity", "ece"} <= set(
        shown.index
    )


def test_a_class_that_is_not_there_is_named_and_the_others_are_judged(run, tmp_path):
    other = tmp_path / "two"
    _fill(other, ["benign", "nevus"], 10, 5000)
    found = evaluate_elsewhere(*run, other)
    assert found["missing"] == ["malignant"] and list(found["elsewhere"]["per_class"]) == ["benign", "nevus"]
    assert found["elsewhere"]["sensitivity"] is None and found["elsewhere"]["auc"] > 0.6


def test_images_that_leave_one_class_only_are_refused(run, tmp_path):
    other = tmp_path / "other"
    _fill(other, ["nevus"], 5, 5000)
    (other / "cat").mkdir()
    Image.fromarray(_picture("nevus", 9000)).save(other / "cat" / "1.png")
    with pytest.raises(ParameterError, match="leaves 5 images of 1 of the run's classes"):
        evaluate_elsewhere(*run, other)
    assert not (run[0] / "elsewhere").exists()


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_metadata_alone_and_beside_the_picture(strength):
    rng, count = np.random.default_rng(0), 900
    malignant = rng.random(count) < 0.4
    age = 50 + 5 * strength * malignant + rng.normal(0, 10, count)
    sex = np.where(rng.random(count) < 0.3 + 0.1 * strength * malignant, "male", "")
    table = pd.DataFrame({"label": np.where(malignant, "malignant", "benign"), "group": np.arange(count)})
    table = table.assign(license="", attribution="")
    evidence = malignant + rng.normal(0, 1, count)
    scores = np.column_stack([1 - 1 / (1 + np.exp(-evidence)), 1 / (1 + np.exp(-evidence))])
    sides = [np.arange(count) // 300 == side for side in range(3)]
    found = metadata_alone(table.assign(age_approx=age, sex=sex), scores, *sides, CLASSES[:2], "malignant", 0)
    assert found["columns"] == ["age_approx", "sex"]
    low, high = found["difference_ci"]
    assert low < found["difference"] < high and found["auc_ci"][0] < found["auc"] < found["auc_ci"][1]
    assert (found["auc"] > 0.7 and low > 0) if strength else (found["auc"] < 0.6 and low < 0)
    assert metadata_alone(table, scores, *sides, CLASSES[:2], "", 0) is None
