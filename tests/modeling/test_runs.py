"""Run folders: whole or not there, never overwritten, and found again."""

import json

import pandas as pd
import pytest
from IPython.display import Image

from tdsp_vision.data.manifest import read_csv
from tdsp_vision.files import write_json
from tdsp_vision.modeling.runs import find_run, model_card, read_json, save_run
from tdsp_vision.modeling.splits import leakage
from tdsp_vision.paths import DatasetPaths, OutputPaths


@pytest.fixture
def outputs(tmp_path) -> OutputPaths:
    return OutputPaths(str(tmp_path / "outputs"), "tiny")


@pytest.fixture
def run(tiny_network) -> dict:
    """What `save_run` needs, small."""
    return {
        "model": tiny_network,
        "tables": {"splits": pd.DataFrame({"path": ["a.jpg", "NA"], "split": ["train", "test"]})},
        "documents": {"metrics": {"auc": 0.5}, "model_card": {"limits": "ö"}},
        "figures": {"roc": Image(b"\x89PNG of a picture")},
    }


def test_a_run_leaves_all_its_files_and_becomes_the_latest(outputs, run):
    folder = save_run(outputs, "r1", **run)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    assert names == {"splits.csv", "metrics.json", "model_card.json", "model.keras", "figures", "figures/roc.png"}
    assert folder == outputs.runs / "r1" == find_run(outputs, "latest") == find_run(outputs, "r1")
    assert outputs.latest.read_text() == "r1\n"
    assert read_json(folder / "model_card.json") == {"run_id": "r1", "limits": "ö"}
    assert (folder / "figures/roc.png").read_bytes().startswith(b"\x89PNG")
    pd.testing.assert_frame_equal(read_csv(folder / "splits.csv"), run["tables"]["splits"], check_dtype=False)
    save_run(outputs, "r2", **run)
    assert find_run(outputs, "latest").name == "r2" and find_run(outputs, "r1") == folder


def test_a_run_that_fails_half_way_leaves_nothing(outputs, run):
    save_run(outputs, "r1", **run)
    run["documents"]["metrics"]["auc"] = float("nan")
    with pytest.raises(ValueError, match="JSON compliant"):
        save_run(outputs, "r2", **run)
    assert [path.name for path in outputs.runs.iterdir()] == ["r1"]
    assert outputs.latest.read_text() == "r1\n"


def test_a_run_is_never_overwritten_and_never_lost(outputs, run):
    first = save_run(outputs, "r1", **run)
    run["documents"]["metrics"] = {"auc": 0.9}
    second, third = (save_run(outputs, "r1", **run) for _ in range(2))
    assert [path.name for path in (first, second, third)] == ["r1", "r1-2", "r1-3"]
    assert [read_json(path / "metrics.json")["auc"] for path in (first, second, third)] == [0.5, 0.9, 0.9]
    assert read_json(second / "model_card.json")["run_id"] == "r1-2"
    assert find_run(outputs, "latest") == third


@pytest.mark.parametrize("threshold", [0.25, [0.75, 0.25]])
def test_the_card_says_what_the_metrics_cannot(tmp_path, threshold):
    dataset = DatasetPaths(str(tmp_path), "tiny")
    write_json(dataset.info, {"name": "tiny", "source": "drawn"})
    leaks = leakage(pd.DataFrame({"patient_id": ["p", "p", "q"]}), pd.Series(["train", "test", "train"]))
    about, trust = {"classes": ["a", "b"]}, {"test AUC": "0.8"}
    card = model_card(about, dataset, leaks, threshold, trust, {"seed": 0}, "by a person on validation")
    assert json.loads(json.dumps(card, allow_nan=False)) == card
    assert card["torn_groups"] == [{"kept_together": "patient_id", "groups": 2, "torn_groups": 1, "torn_images": 2}]
    assert card["data"]["source"] == "drawn" and card["model"] == about
    assert card["settings"] == {"seed": 0} and card["trust"] == trust and "not tested on patients" in card["limits"]
    origin = "by a person on validation; the test was not used"
    assert card["decision"] == {"threshold": threshold, "origin": origin}
    birds = model_card(about, dataset, leaks.assign(kept_together="cluster"), threshold, trust, {}, "")
    assert "patient" not in birds["limits"] and "images like those in the dataset" in birds["limits"]


def _judged_run(outputs, name: str, auc: float, balanced: float, split: str = "test", positive: str = "b") -> None:
    folder = outputs.runs / name
    write_json(
        folder / "metrics.json", {"positive_class": positive, "validation": {"auc": auc, "balanced_accuracy": balanced}}
    )
    splits = pd.DataFrame({"path": ["1", "2"], "label": ["a", "b"], "split": ["train", split]})
    splits.sample(frac=1, random_state=len(name)).to_csv(folder / "splits.csv", index=False)


def test_the_best_run_is_one_of_those_with_the_newest_ones_images_and_sides(outputs, capsys):
    for name, auc, balanced in (("1", 0.8, 0.9), ("2", 0.9, 0.5), ("33", 0.9, 0.6), ("4", 0.9, 0.6)):
        _judged_run(outputs, name, auc, balanced)
    _judged_run(outputs, "0-another-split", 0.99, 0.99, split="validation")
    _judged_run(outputs, "0-another-positive", 0.99, 0.99, positive="a")
    write_json(outputs.runs / "0-of-old" / "metrics.json", {"positive_class": "b", "validation": {}})
    assert find_run(outputs, "best").name == "4"
    assert "4 is the best of the 4 runs (of 7) with the images and sides of the newest one" in capsys.readouterr().out
    _judged_run(outputs, "5-another-split", 0.1, 0.1, split="validation")
    assert find_run(outputs, "best").name == "0-another-split"
