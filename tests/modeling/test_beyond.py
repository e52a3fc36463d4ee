"""Beyond the own test: images unlike the training images, a run judged elsewhere, what metadata say without it."""

from pathlib import Path

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from click.testing import CliRunner
from PIL import Image

from tdsp_vision.__main__ import main
from tdsp_vision.data.tables import file_sha256, read_csv, read_json, write_csv
from tdsp_vision.files import write_json
from tdsp_vision.modeling.batches import preprocess
from tdsp_vision.modeling.evaluate_elsewhere import evaluate_elsewhere
from tdsp_vision.modeling.familiarity import with_familiar
from tdsp_vision.modeling.metrics import decide, evaluate
from tdsp_vision.modeling.runs import predictions_table
from tdsp_vision.modeling.trust import metadata_alone
from tdsp_vision.paths import DatasetPaths, OutputPaths

SIZE, CLASSES = 32, ["benign", "malignant", "nevus"]
TINTS = {"benign": (30, 0, 0), "malignant": (0, 30, 0), "nevus": (0, 0, 30)}


def _source(count: int, seed: int, width: int = 60) -> np.ndarray:
    """Features as a network has them: a few common directions, noise, one feature that is nearly always 0."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(count, 5)) @ np.random.default_rng(9).normal(size=(5, width))
    features = np.maximum(common + rng.normal(size=(count, width)), 0).astype(np.float32)
    features[:, -1] = 0
    return features


def _head(width: int) -> keras.Model:
    inputs = keras.Input((width,))
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name="scores")(inputs))


def _sides(count: int, learned: int) -> tuple[np.ndarray, np.ndarray]:
    return np.arange(count) < learned, np.arange(count) >= learned


@pytest.mark.parametrize("sides", [(np.ones(600, bool),) * 2, _sides(600, 400)], ids=["cross-validated", "validation"])
def test_familiar_is_the_share_of_unseen_images_that_are_less_like_the_training_ones(sides):
    features = _source(600, 1)
    model, of_own = with_familiar(_head(60), features, np.arange(600) // 2, *sides, 0)
    away = features.mean(axis=0) + np.linspace(1, 60, 200)[:, None] * features.std(axis=0)

    def familiar(rows):
        return model.predict(rows.astype(np.float32), verbose=0)["familiar"][:, 0]

    unseen = familiar(_source(4000, 2))
    for share in (0.05, 0.2, 0.5, 0.8):
        assert np.mean(unseen < share) == pytest.approx(share, abs=0.05)
    assert familiar(np.random.default_rng(0).uniform(0, 8, (50, 60))).max() < 0.01
    assert unseen.min() >= -1e-6 and unseen.max() <= 1 + 1e-6
    far = familiar(away * (np.arange(60) % 2))
    assert np.all(np.diff(far) <= 1e-5) and far[-1] == pytest.approx(0, abs=1e-5), "keeps its order, ends at nothing"
    np.testing.assert_allclose(familiar(features), of_own, atol=1e-5)


@pytest.mark.parametrize("features", [_source(4, 1), _source(7, 1), np.ones((7, 6), np.float32)])
def test_few_images_and_images_that_are_all_alike(features):
    everything = np.ones(len(features), bool)
    found = with_familiar(_head(features.shape[1]), features, np.arange(len(features)), everything, everything, 0)[1]
    assert np.isfinite(found).all() and found.min() >= -1e-6 and found.max() <= 1 + 1e-6


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
    dataset, outputs = DatasetPaths(str(tmp_path / "data"), "colours"), OutputPaths(str(tmp_path / "out"), "colours")
    files, split = _fill(dataset.images, CLASSES, 16, 0), np.array(["test", "validation", "train", "train"] * 12)
    table = pd.DataFrame({"path": [file.relative_to(dataset.root).as_posix() for file in files]})
    table = table.assign(label=[file.parent.name for file in files], split=split)
    pixels = np.stack([preprocess(tf.io.read_file(str(file)), SIZE) for file in files])
    images = keras.Input((SIZE, SIZE, 3), name="images")
    scores = keras.layers.Dense(3, activation="softmax", name="scores")
    model = keras.Model(images, scores(keras.layers.GlobalAveragePooling2D()(images)))
    scores.set_weights([np.eye(3) * 0.1, np.zeros(3)])
    sides = split == "train", split == "validation"
    model, familiar = with_familiar(model, pixels.mean(axis=(1, 2)), np.arange(48), *sides, 0)
    found, test = model.predict(pixels, verbose=0)["scores"], split == "test"
    np.testing.assert_allclose(model.predict(pixels, verbose=0)["familiar"][:, 0], familiar, atol=1e-5)
    folder = outputs.runs / "one"
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    outputs.latest.write_text("one")
    facts = {"sha256": [file_sha256(file) for file in files], "bytes": [file.stat().st_size for file in files]}
    known = table.assign(**facts, group=np.arange(48), width=96, height=72)
    write_json(dataset.info, {})
    for file in (dataset.manifest, folder / "splits.csv"):
        write_csv(file, known)
    write_csv(folder / "predictions.csv", predictions_table(table, split, "benign", CLASSES, found, familiar))
    head = {"classes": CLASSES, "positive_class": "malignant", "image_size": SIZE}
    block = evaluate(table.label[test].to_numpy(object), found[test], CLASSES, "malignant", 0.4)
    write_json(folder / "metrics.json", head | {"test": block})
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
    seen = read_csv(folder / "splits.csv").query("label == 'malignant'").path
    for number, path in enumerate(seen):
        picture = Image.open(dataset.root / path)
        picture = picture if number % 2 else picture.resize((120, 90))
        picture.save(other / "malignant" / f"copy{number}.png")
    (other / "mole").mkdir()
    Image.fromarray(_picture("nevus", 9000)).save(other / "mole" / "1.png")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    command = ["evaluate", "--data-dir", tmp_path / "data", "--output-dir", tmp_path / "out", "--dataset", "colours"]
    told = CliRunner().invoke(main, [*map(str, command), str(other)])
    assert told.exit_code == 0 and "36 images of benign, malignant, nevus; left out: 16 (" in told.output
    assert before == {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    written = folder / "elsewhere" / "other clinic"
    found, table = read_json(written / "metrics.json"), read_csv(written / "predictions.csv")
    assert list(found["left_out"].values()) == [len(seen), 1] and found["missing"] == []
    assert len(table) == found["elsewhere"]["n"] == 36 and not table.path.str.contains("copy|mole").any()
    scores = table[[f"score_{name}" for name in CLASSES]].to_numpy()
    assert table.predicted.tolist() == decide(scores, CLASSES, "malignant", 0.4).tolist()
    assert found["elsewhere"]["accuracy"] == pytest.approx((table.predicted == table.label).mean())
    assert found["scores"]["elsewhere"]["unfamiliar"] == (table.familiar < 0.05).mean() < 0.5
    assert (written / "figure.png").stat().st_size > 1000
    assert f"{found['elsewhere']['auc']:.3f}" in told.output


def test_a_class_that_is_not_there_is_named_and_one_class_alone_is_refused(run, tmp_path):
    _fill(tmp_path / "two", ["benign", "nevus"], 10, 5000)
    said, table, _ = evaluate_elsewhere(*run, str(tmp_path / "two"))
    found = read_json(run[0] / "elsewhere" / "two" / "metrics.json")
    assert found["missing"] == ["malignant"] and "No image is of malignant" in said[1] == found["said"][1]
    assert list(found["elsewhere"]["per_class"]) == ["benign", "nevus"] and table.elsewhere["auc"] > "0.6"
    (tmp_path / "two" / "benign").rename(tmp_path / "two" / "cat")
    with pytest.raises(ValueError, match="leaves 10 images of nevus; left out: .*; 10 "):
        evaluate_elsewhere(*run, str(tmp_path / "two"))
    with pytest.raises(ValueError, match=r"leaves 0 images of no class; left out: 48 \(repeats"):
        evaluate_elsewhere(*run, str(run[1].images.parent))
    with pytest.raises(ValueError, match="SOURCE_PATH is 'gone'; allowed is a folder with images, and /.*gone is none"):
        evaluate_elsewhere(*run, "gone")


def test_metadata_that_say_all_say_so_of_few_images_as_well():
    label, split = np.tile(["benign", "malignant"], 36), pd.Series(np.repeat(["train", "validation", "test"], 24))
    table = pd.DataFrame({"label": label, "group": np.arange(72), "license": "", "attribution": ""})
    table["site"] = np.where(label == "benign", "arm", "leg")
    assert metadata_alone(table, np.full([72, 2], 0.5), split, "", 0)["auc"] == 1


@pytest.mark.parametrize("strength", [0.0, 3.0])
def test_metadata_alone_and_beside_the_picture(strength):
    rng, count = np.random.default_rng(0), 900
    malignant = rng.random(count) < 0.4
    table = pd.DataFrame({"label": np.where(malignant, "malignant", "benign"), "group": np.arange(count)})
    table = table.assign(license=np.where(malignant, "CC-0", "CC-BY"), attribution="")
    evidence = malignant + rng.normal(0, 1, count)
    scores = np.column_stack([1 - 1 / (1 + np.exp(-evidence)), 1 / (1 + np.exp(-evidence))])
    asked = scores, pd.Series(np.repeat(["train", "validation", "test"], 300))
    assert metadata_alone(table, *asked, "", 0)["columns"] == [], "a licence is nothing that one asks a patient"
    table["age_approx"] = 50 + 5 * strength * malignant + rng.normal(0, 10, count)
    table["sex"] = np.where(rng.random(count) < 0.3 + 0.1 * strength * malignant, "male", "")
    found = metadata_alone(table, *asked, "malignant", 0)
    low, high = found["difference_ci"]
    assert found["columns"] == ["age_approx", "sex"] and f"alone: AUC {found['auc']:.3f}" in found["said"]
    assert low < found["difference"] < high and found["auc_ci"][0] < found["auc"] < found["auc_ci"][1]
    assert (found["auc"] > 0.7 and low > 0) if strength else (found["auc"] < 0.6 and low < 0)
