"""The test side decides nothing: with its labels shuffled, a run differs in the metrics of the test and nowhere else.

The modeling notebook itself is run, its own cells in this process, from the parameters to the saved run folder. Right
after the cell that splits, the labels of one side are dealt out anew; the split stays, since it follows from labels.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from notebook_cells import drawn_dataset, run_cells

pytestmark = pytest.mark.slow
SPLITTING = "model-14"  # id of the cell that splits
SETTINGS = {
    "svm": {"IMAGE_SIZE": 64},
    "dnn": {"IMAGE_SIZE": 32, "EPOCHS": 1, "BATCH_SIZE": 16},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Callable[[str, str | None], Path]:
    """Run folder by classifier and by the side whose labels are shuffled (None: no side), on 40 drawings of lesions."""
    folder = tmp_path_factory.mktemp("untouched")
    drawn_dataset(folder, 20)
    places = {"DATASET_NAME": "drawn", "DATA_DIR": str(folder / "data"), "RUN_NAME": "run"}

    @cache
    def run_once(classifier: str, shuffled: str | None) -> Path:
        output_dir = folder / f"{classifier}-{shuffled}"  # of its own: no cache and no checkpoint is shared
        settings = {"CLASSIFIER": classifier, "OUTPUT_DIR": str(output_dir)} | SETTINGS[classifier]
        names = {}
        run_cells("model", names, places | settings, last=SPLITTING)
        if shuffled:
            _deal_out_anew(names["manifest"], names["split"], shuffled)
        run_cells("model", names, {}, "model-16")
        return next((output_dir / "drawn" / "runs").iterdir())

    policy = keras.config.dtype_policy()
    yield run_once
    keras.config.set_dtype_policy(policy)


def _deal_out_anew(manifest: pd.DataFrame, split: pd.Series, side: str) -> None:
    """Move the labels of one side by half its length in the order of the classes: as many of each, most elsewhere."""
    rows = manifest.index[split == side]
    ordered = manifest.label[rows].sort_values(kind="stable")
    manifest.loc[ordered.index, "label"] = np.roll(ordered.to_numpy(), len(rows) // 2)


def _weights(folder: Path) -> list[np.ndarray]:
    return keras.models.load_model(folder / "model.keras", compile=False).get_weights()


def _outside_the_test(folder: Path) -> dict:
    metrics = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in metrics.items() if name not in ("test", "seconds")}


def _predictions(folder: Path) -> tuple[pd.DataFrame, pd.Series]:
    """What was predicted, with the labels of training and validation; and the labels of the test."""
    table = pd.read_csv(folder / "predictions.csv")
    test = table.split == "test"
    return table.assign(label=table.label.mask(test)), table.label[test]


@pytest.mark.parametrize("classifier", SETTINGS)
def test_shuffled_test_labels_change_the_test_metrics_and_nothing_else(run, classifier):
    true, shuffled = run(classifier, None), run(classifier, "test")
    (predictions, labels), (predictions_again, labels_again) = _predictions(true), _predictions(shuffled)
    assert (labels != labels_again).mean() > 0.3
    assert labels.value_counts().to_dict() == labels_again.value_counts().to_dict()
    pd.testing.assert_frame_equal(predictions, predictions_again, check_exact=True)
    for one, other in zip(_weights(true), _weights(shuffled), strict=True):
        np.testing.assert_array_equal(one, other)
    histories = [pd.read_csv(folder / "history.csv") for folder in (true, shuffled)]
    histories = [history.drop(columns="seconds", errors="ignore") for history in histories]  # of the clock
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    assert _outside_the_test(true) == _outside_the_test(shuffled)
    tests = [json.loads((folder / "metrics.json").read_text())["test"] for folder in (true, shuffled)]
    assert tests[0]["auc"] != tests[1]["auc"]
    assert tests[0]["threshold"] == tests[1]["threshold"]


def test_shuffled_validation_labels_do_show(run):
    """The comparison above is able to fail: a side that does decide leaves its traces in weights and metrics."""
    true, shuffled = run("svm", None), run("svm", "validation")
    pairs = zip(_weights(true), _weights(shuffled), strict=True)
    assert not all(np.array_equal(one, other) for one, other in pairs)
    assert _outside_the_test(true) != _outside_the_test(shuffled)
