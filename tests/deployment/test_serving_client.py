"""The client's table of scores, and the parity check between a run and its service."""

import io
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from file_server import FileServer
from PIL import Image
from tiny_run import decide, png

from tdsp_vision.data.containers import RejectedImage
from tdsp_vision.data.images import upright_copy
from tdsp_vision.deployment.client import ServingClient, ServingError, _batches
from tdsp_vision.deployment.outgoing import MAX_FILE_BYTES, read_url
from tdsp_vision.deployment.parity import check_parity
from tdsp_vision.deployment.replicas import Replicas

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


def test_files_that_cannot_be_scored_keep_their_row_and_say_why(client, files, photos, tmp_path):
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    contents = {"half": photos[0][:700], "text": b"not an image", "empty": b"", "bomb": png(16_000, 16_000)}
    bad = [tmp_path / "missing.jpg", huge, *(tmp_path / name for name in contents), tmp_path]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    table = client.score_paths([files[0], *bad, files[1]])
    assert table["valid"].tolist() == [True, *[False] * 7, True]
    reasons = [
        "no such file",
        "at most 20971520",
        "could not decode",
        "send JPEG, PNG",
        "is empty",
        "256,000,000 pixels",
    ]
    for row, reason in enumerate([*reasons, "no such file"], start=1):
        assert reason in table["error"][row]
        assert table["label"][row] == ""
        assert table.loc[row, SCORES].isna().all()
    assert table["ms"].notna().tolist() == [True, False, False, True, False, False, False, False, True]


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
    with pytest.raises(ValueError, match="urls is empty"):
        ServingClient([], "tiny", ["a", "b"])
    with pytest.raises(ServingError, match="There is no server to ask"):
        ServingClient(lambda: [], "tiny", ["a", "b"]).status()


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("WEBP", "RGB")])
def test_a_photo_that_asks_to_be_turned_is_scored_upright(client, two_classes, photos, tmp_path, kind, mode):
    """The scores are those of the copy that data acquisition would have made of it."""
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(io.BytesIO(photos[4])) as photo:
        photo.convert(mode).save(tmp_path / "lying", kind, exif=exif)
    upright_copy(tmp_path / "lying", tmp_path / "upright")
    lying, upright = (two_classes.scores([(tmp_path / name).read_bytes()])[0] for name in ("lying", "upright"))
    assert np.abs(lying - upright).max() > 1e-4
    np.testing.assert_allclose([client.score_path(tmp_path / "lying")[name] for name in SCORES], upright, atol=1e-6)


def test_files_and_web_addresses_in_one_table(client, files, photos, two_classes):
    with FileServer(files[0].parent) as web:
        address = f"http://127.0.0.1:{web.port}/01.jpg"
        row = client.score_url(address, private=True)
        np.testing.assert_allclose([row[name] for name in SCORES], two_classes.scores(photos[1:2])[0], atol=1e-6)
        assert (row["source"], row["valid"]) == (address, True)
        missing = client.score_url(f"http://127.0.0.1:{web.port}/99.jpg", private=True)
        assert "cannot be fetched: HTTP 404" in missing["error"]
        table = client.score_batch([files[0], address, str(files[2])])
    assert table["valid"].tolist() == [True, False, True]
    assert "127.0.0.1, which is not public" in table["error"][1]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://example.org/a.jpg", "neither http nor https"),
        ("http://127.0.0.1/a.jpg", "not public"),
        ("http://localhost/a.jpg", "not public"),
        ("http://[::1]/a.jpg", "not public"),
        ("http://10.1.2.3/a.jpg", "not public"),
        ("http://192.168.0.1/a.jpg", "not public"),
        ("http://169.254.169.254/latest/meta-data", "not public"),
        ("http://0x7f000001/a.jpg", "not public"),
        ("http://2130706433/a.jpg", "not public"),
        ("http://[::ffff:127.0.0.1]/a.jpg", "not public"),
        ("no address", "neither http nor https"),
    ],
)
def test_addresses_that_are_not_fetched(client, url, says):
    row = client.score_url(url)
    assert says in row["error"]
    assert not row["valid"]
    assert np.isnan(row["ms"])


def test_every_redirect_is_held_to_the_same_rules(files):
    refused = pytest.raises(RejectedImage, match="neither http nor https")
    with FileServer(files[0].parent, moved_to="file:///etc/passwd") as web, refused:
        read_url(f"http://127.0.0.1:{web.port}/moved", private=True)


def test_replicas_take_turns_and_one_that_is_gone_costs_no_request(service, files, two_classes):
    asked = Counter()

    class Counting(Replicas):
        def _next_url(self, turn, tries):
            url = super()._next_url(turn, tries)
            asked[url] += 1
            return url

    gone = "http://127.0.0.1:1"
    client = ServingClient([service.url, gone, f"{service.url}/"], "tiny", two_classes.info["classes"])
    client.replicas = Counting(client.replicas.urls())
    assert client.score_paths(files, batch_size=1)["valid"].all()
    assert asked[gone] == 1  # then it rests
    assert abs(asked[service.url] - asked[f"{service.url}/"]) <= 12


def test_a_full_server_is_asked_again_and_a_key_is_sent(monkeypatch):
    monkeypatch.setattr("tdsp_vision.deployment.replicas.FULL_WAITS", (0.01, 0.01))
    with FileServer(full=2) as server:
        client = ServingClient(f"http://127.0.0.1:{server.port}", "tiny", [], key="secret")
        assert client.status() == {"authorization": "Bearer secret"}
        server.full = 9
        with pytest.raises(ServingError, match="answered with 429: busy"):
            client.status()


def test_benchmark(client, files):
    table = client.benchmark(files[:3], seconds=0.2, clients=(1, 3))
    assert list(table) == ["clients", "requests", "errors", "p50_ms", "p95_ms", "requests_per_s"]
    assert table["clients"].tolist() == [1, 3]
    assert (table["requests"] > 0).all() and (table["errors"] == 0).all()
    assert (table["p50_ms"] > 0).all() and (table["p50_ms"] <= table["p95_ms"]).all()
    with pytest.raises(ValueError, match="0 bodies"):
        client.benchmark([])
    with pytest.raises(RejectedImage, match="no such file"):
        client.benchmark([files[0].parent / "missing.jpg"])


def test_requests_stay_below_the_servers_limits():
    many = [(number, bytes(megabytes * 1024**2), 1000) for number, megabytes in enumerate([15, 15, 15, 1, 1])]
    assert [[number for number, _ in batch] for batch in _batches(many, 16)] == [[0, 1], [2, 3, 4]]
    assert [len(batch) for batch in _batches(many, 1)] == [1] * 5
    large = [(number, b"", pixels * 1_000_000) for number, pixels in enumerate([60, 40, 1, 100, 99])]
    assert [[number for number, _ in batch] for batch in _batches(large, 16)] == [[0, 1], [2], [3], [4]]


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
