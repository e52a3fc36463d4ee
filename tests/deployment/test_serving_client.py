"""The client's table of scores, and the parity check between a run and its service."""

import numpy as np
import pandas as pd
import pytest
from tiny_run import decide

from tdsp_vision.deployment.client import MAX_FILE_BYTES, ServingClient, ServingError, _batches
from tdsp_vision.deployment.parity import check_parity

COLUMNS = ["source", "label", "score_benign", "score_malignant", "valid", "error", "ms"]
SCORES = COLUMNS[2:4]


@pytest.fixture
def client(service, two_classes) -> ServingClient:
    return ServingClient(service.url, "tiny", two_classes.info["classes"])


@pytest.fixture
def files(tmp_path, photos):
    for number, photo in enumerate(photos):
        (tmp_path / f"{number:02}.jpg").write_bytes(photo)
    return sorted(tmp_path.glob("*.jpg"))


@pytest.fixture
def predictions(two_classes, photos, files) -> pd.DataFrame:
    """The run's own predictions, as they come back from a CSV file."""
    scores = two_classes.scores(photos).astype(np.float64)
    table = pd.DataFrame(scores, columns=SCORES)
    table.insert(0, "path", [file.name for file in files])
    table.insert(1, "predicted", decide(scores, two_classes.info))
    return table


def parity(client, predictions, files, two_classes, **options):
    rule = {"positive_class": "malignant", "threshold": two_classes.info["threshold"]}
    return check_parity(client, predictions, files, **rule, **options)


def test_scores_of_files_in_their_order(client, files, photos, two_classes):
    table = client.score_paths(files, batch_size=7)
    assert list(table) == COLUMNS
    assert table["source"].tolist() == [str(file) for file in files]
    expected = two_classes.scores(photos)
    np.testing.assert_allclose(table[SCORES], expected, atol=1e-6)
    assert table["label"].tolist() == decide(expected, two_classes.info)
    assert table["valid"].all()
    assert (table["error"] == "").all()
    assert (table["ms"] > 0).all()
    assert table["ms"].nunique() == 4  # requests of 7, 7, 7 and 3 files


def test_files_that_cannot_be_scored_keep_their_row_and_say_why(client, files, tmp_path):
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    broken = tmp_path / "broken.jpg"
    broken.write_text("not an image")
    table = client.score_paths([files[0], tmp_path / "missing.jpg", huge, broken, tmp_path, files[1]])
    assert table["valid"].tolist() == [True, False, False, False, False, True]
    for row, reason in [(1, "no such file"), (2, "at most 20971520"), (3, "could not decode"), (4, "no such file")]:
        assert reason in table["error"][row]
        assert table["label"][row] == ""
        assert table.loc[row, SCORES].isna().all()
    assert table["ms"].isna().tolist() == [False, True, True, False, True, False]


def test_one_file_and_none(client, files):
    row = client.score_path(files[3])
    assert list(row) == COLUMNS
    assert row["valid"]
    assert row["score_benign"] + row["score_malignant"] == pytest.approx(1.0, abs=1e-5)
    empty = client.score_paths([])
    assert (list(empty), len(empty)) == (COLUMNS, 0)


def test_status_and_metadata(client):
    assert client.status()["model_version_status"][0]["state"] == "AVAILABLE"
    metadata = client.metadata()
    assert metadata["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "float_images", "classify"} <= set(signatures)
    shape = signatures["float_images"]["inputs"]["images"]["tensor_shape"]
    assert [dim["size"] for dim in shape["dim"]] == ["-1", "32", "32", "3"]


def test_errors_of_the_service_are_told(service, files):
    with pytest.raises(ServingError, match=r"404.*Servable not found for request: Latest\(other\)"):
        ServingClient(service.url, "other", ["a", "b"]).score_path(files[0])
    with pytest.raises(ServingError, match="got no answer"):
        ServingClient("http://127.0.0.1:1", "tiny", ["a", "b"]).score_path(files[0])
    with pytest.raises(ValueError, match="batch_size is 0"):
        ServingClient(service.url, "tiny", ["a", "b"]).score_paths(files, batch_size=0)


def test_requests_stay_below_the_servers_limit(tmp_path):
    rows = []
    for number, megabytes in enumerate([15, 15, 15, 1, 1]):
        file = tmp_path / f"{number}.jpg"
        with file.open("wb") as handle:
            handle.truncate(megabytes * 1024 * 1024)
        rows.append({"source": str(file), "error": "" if number != 3 else "left out"})
    assert [[rows.index(row) for row in batch] for batch in _batches(rows, 16)] == [[0, 1], [2, 4]]


def test_parity_holds(client, predictions, files, two_classes):
    report = parity(client, predictions, files, two_classes)
    assert set(report) == {"n", "max_abs_diff", "tolerance", "borderline"}
    assert report["n"] == 24
    assert report["max_abs_diff"] <= 1e-6
    assert report["borderline"] == 0


@pytest.mark.parametrize("shift", [1e-4, float("nan")])
def test_parity_fails_for_another_score(client, predictions, files, two_classes, shift):
    predictions.loc[5, "score_benign"] += shift
    with pytest.raises(ValueError, match=r"differ from the run's by up to .*05\.jpg"):
        parity(client, predictions, files, two_classes)


def test_parity_fails_for_another_label(client, predictions, files, two_classes):
    other = {"benign": "malignant", "malignant": "benign"}
    predictions.loc[8, "predicted"] = other[predictions.loc[8, "predicted"]]
    with pytest.raises(ValueError, match=r"1 labels differ from the run's; .*08\.jpg"):
        parity(client, predictions, files, two_classes)


def test_a_label_that_rounding_alone_can_tip_is_counted_and_not_refused(client, predictions, files, two_classes):
    other = {"benign": "malignant", "malignant": "benign"}
    predictions.loc[8, "predicted"] = other[predictions.loc[8, "predicted"]]
    on_the_border = float(predictions.loc[8, "score_malignant"])
    report = check_parity(client, predictions, files, positive_class="malignant", threshold=on_the_border)
    assert report["borderline"] == 1


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_parity_fails_for_a_file_that_has_no_score(client, predictions, files, two_classes, content):
    files[2].unlink()
    if content is not None:
        files[2].write_bytes(content)
    with pytest.raises(ValueError, match=r"1 of 24 files have no score; .*02\.jpg"):
        parity(client, predictions, files, two_classes)


def test_parity_wants_arguments_that_fit(client, predictions, files, two_classes):
    with pytest.raises(ValueError, match="24 predictions and 23 paths"):
        parity(client, predictions, files[1:], two_classes)
    with pytest.raises(ValueError, match="0 predictions"):
        parity(client, predictions[:0], [], two_classes)
    with pytest.raises(ValueError, match="lack the columns score_malignant"):
        parity(client, predictions.drop(columns="score_malignant"), files, two_classes)
    with pytest.raises(ValueError, match="must be one of"):
        check_parity(client, predictions, files, positive_class="malignant")
