"""What the documents may say: exactly what the files of the run, the data set and the deployment say."""

import json

import pandas as pd
import pytest
from documented_run import RUN, N, change_json, documented_run

from tdsp_vision.documents.facts import read_facts


@pytest.fixture
def made(tmp_path):
    return documented_run(tmp_path)


def test_facts_are_those_of_the_files(made):
    dataset, outputs, run = made
    facts = read_facts(dataset, outputs, run)
    metrics = json.loads((run / "metrics.json").read_text())
    assert (facts["run"], facts["dataset"], facts["metrics"]) == (RUN, "tiny", metrics)
    for row in facts["measures"]:
        for side in ("validation", "test"):
            assert row[side] == [metrics[side][row["key"]], *metrics[side]["intervals"][row["key"]]]
    splits = pd.read_csv(run / "splits.csv")
    for side, found in facts["splits"]["sides"].items():
        rows = splits[splits.split == side]
        assert found["counts"] == rows.label.value_counts().to_dict()
        assert (found["images"], found["groups"]) == (len(rows), rows.group.nunique())
    assert facts["splits"]["torn"] == 0
    matrix = metrics["test"]["confusion_matrix"]
    assert facts["wrong"]["n"] == matrix[0][1] + matrix[1][0]
    assert facts["wrong"]["of"] == metrics["test"]["n"]
    scores = [row["score"] for row in facts["wrong"]["first"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == min(10, facts["wrong"]["n"])
    assert facts["figures"] == ["confusion_matrix", "something_new"]


def test_facts_of_the_data_set(made):
    facts = read_facts(*made)
    images = facts["images"]
    assert (images["n"], images["groups"], images["largest_group"], images["drawn"]) == (N, N // 4, 4, 0)
    assert images["licenses"] == {"CC-BY": 90, "unknown": 6}
    assert (images["without_license"], images["named"], images["different_named"]) == (6, {"A. Person": 90}, 1)
    assert images["about"] == {"patient_id": 1.0, "sex": 1.0}
    assert (images["width"], images["height"]) == ([64, 65], [48, 48])
    assert facts["rejected"] == {"n": 2, "duplicates": 1, "conflicts": 0}
    assert facts["changed"] == {"gone": 0, "new": 0}
    assert facts["corrections"] == {"n": 0, "excluded": 0}


def test_a_data_set_that_changed_since_the_run_is_noticed(made):
    dataset, outputs, run = made
    lines = ["path,label", "images/benign/0.jpg,malignant", "images/malignant/1.jpg,EXCLUDE", ""]
    dataset.corrections.write_text("\n".join(lines))
    facts = read_facts(dataset, outputs, run)
    assert facts["changed"] == {"gone": 2, "new": 1}
    assert facts["corrections"] == {"n": 2, "excluded": 1}


def test_drawn_images_are_counted(made):
    dataset, outputs, run = made
    manifest = dataset.manifest.read_text().replace("A. Person", "drawn by tdsp_vision.data.sample")
    dataset.manifest.write_text(manifest)
    assert read_facts(dataset, outputs, run)["images"]["drawn"] == 90


def test_a_deployment_of_another_run_is_not_this_runs(made):
    dataset, outputs, run = made
    change_json(outputs.deployment / "service.json", run="another")
    facts = read_facts(dataset, outputs, run)
    assert (facts["service"], facts["parity"], facts["latency"], facts["other_run"]) == (None, None, None, "another")
    (outputs.deployment / "service.json").unlink()  # a notebook that was stopped leaves parity.json alone
    assert read_facts(dataset, outputs, run)["parity"] is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "metrics.json is not valid JSON"),
        ("[1]", "metrics.json holds no JSON object"),
        ('{"classes": ["a"], "validation": {}}', "metrics.json has no 'test'"),
    ],
)
def test_a_file_that_is_wrong_is_named(made, content, message):
    dataset, outputs, run = made
    (run / "metrics.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_facts(dataset, outputs, run)
