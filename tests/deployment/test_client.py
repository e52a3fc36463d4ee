"""The client's table of scores, and the parity check between a run and its service."""

import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import orjson
import pandas as pd
import pytest
from PIL import Image
from tiny_run import CLASSES, decide, png

from tdsp_vision.data.images import as_stored
from tdsp_vision.deployment.client import MAX_FILE_BYTES, ServingClient, ServingError, check_parity
from tdsp_vision.errors import RunFailed

SCORES = [f"score_{name}" for name in CLASSES]
COLUMNS = ["source", "label", *SCORES, "familiar", "valid", "error", "ms", "version"]


@pytest.fixture
def client(service) -> ServingClient:
    return ServingClient(service.url, "tiny")


@pytest.fixture
def files(tmp_path, photos):
    (tmp_path / "photos").mkdir()
    for number, photo in enumerate(photos):
        (tmp_path / f"photos/{number:02}.jpg").write_bytes(photo)
    return sorted((tmp_path / "photos").glob("*.jpg"))


class Web:
    """A web server on loopback: files of a folder, and an API that is full for a while."""

    def __init__(self, folder=None, full: int = 0):
        web = self
        web.folder, web.full, web.seen = folder, full, []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                web.seen.append(self.path)
                web.full -= self.path.startswith("/v1/")
                if self.path.startswith("/v1/"):
                    body = orjson.dumps({"authorization": self.headers["Authorization"]})
                    return self.answer(429 if web.full >= 0 else 200, body)
                file = web.folder / self.path[1:]
                return self.answer(200, file.read_bytes()) if file.is_file() else self.answer(404, b"")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Web":
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def __exit__(self, *exception) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_one_call_for_files_folders_and_addresses(client, files, photos, two_classes):
    expected = two_classes.scores(photos)
    table = client.score(files, batch_size=7)
    assert list(table) == COLUMNS
    assert table.source.tolist() == [str(file) for file in files]
    np.testing.assert_allclose(table[SCORES], expected, atol=1e-6)
    assert table.label.tolist() == decide(expected, two_classes.info)
    assert table.valid.all() and (table.error == "").all() and (table.version == 1).all()
    assert table.ms.nunique() == 4  # requests of 7, 7, 7 and 3 files
    pd.testing.assert_frame_equal(client.score(files[0].parent).drop(columns="ms"), table.drop(columns="ms"))
    assert client.score(files * 3, batch_size=72).ms.nunique() == 1  # one request of more than 64
    for one in (files[3], str(files[3])):
        np.testing.assert_allclose(client.score(one)[SCORES], expected[3:4], atol=1e-6)
    assert client.score([]).columns.isin(COLUMNS).all() and client.score([]).empty
    with Web(files[0].parent) as web:
        mixed = client.score([files[0], f"{web.url}/01.jpg", f"{web.url}/99.jpg"], private=True)
        np.testing.assert_allclose(mixed[SCORES][:2], expected[:2], atol=1e-6)
        assert "HTTP 404" in mixed.error[2]
        assert "not public" in client.score(f"{web.url}/01.jpg").error[0]


def test_files_that_cannot_be_scored_keep_their_row_and_say_why(client, files, photos, tmp_path):
    huge = tmp_path / "huge.jpg"
    with huge.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    contents = {"half": photos[0][:700], "text": b"not an image", "empty": b"", "bomb": png(16_000, 16_000)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    bad = [tmp_path / "missing.jpg", huge, *(tmp_path / name for name in contents)]
    table = client.score([files[0], *bad, files[1]])
    assert table.valid.tolist() == [True, *[False] * 6, True]
    reasons = ["No such file", "at most|1 to 20971520", "could not decode", "could not decode", "0 bytes", "not decode"]
    for row, reason in enumerate(reasons, start=1):
        assert pd.Series(table.error[row]).str.contains(reason)[0], table.error[row]
        assert table.label[row] == "" and table.loc[row, SCORES].isna().all()
    assert table.ms.notna().tolist() == [True, False, False, True, True, False, True, True]


def test_addresses_that_are_not_fetched(client):
    table = client.score(["file:///etc/passwd", "http://169.254.169.254/a", "http://[::ffff:127.0.0.1]/a.jpg"])
    for error, says in zip(table.error, ["not a valid URL of http or https", "not public", "not public"], strict=True):
        assert says in error
    assert not table.valid.any() and table.ms.isna().all()


def test_no_proxy_is_asked_for_the_service_nor_for_what_no_proxy_names(client, files, monkeypatch):
    with Web(files[0].parent) as proxy, Web(files[0].parent) as web:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert client.score(files[0]).valid.all() and proxy.seen == []
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert client.score(f"{web.url}/01.jpg", private=True).valid.all() and web.seen == ["/01.jpg"]


def test_errors_of_the_service_are_told(service, files):
    with pytest.raises(ServingError, match="404.*Servable not found"):
        ServingClient(service.url, "other").score(files[0])
    with pytest.raises(ServingError, match="got no answer"):
        ServingClient("http://127.0.0.1:1", "tiny").score(files[0])


def test_a_full_server_is_asked_once_more_and_a_key_is_sent():
    with Web(full=1) as server:
        client = ServingClient(server.url, "tiny", key="secret")
        assert client.call("GET", "") == {"authorization": "Bearer secret"}
        server.full = 9
        with pytest.raises(ServingError, match="answered with 429") as caught:
            client.call("GET", "")
        assert (caught.value.status, server.full) == (429, 7)


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGB"), ("WEBP", "RGB")])
def test_a_photo_that_asks_to_be_turned_is_scored_upright(client, two_classes, photos, tmp_path, kind, mode):
    """The scores are those of the copy that data acquisition would have made of it."""
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(io.BytesIO(photos[4])) as photo:
        photo.convert(mode).resize((69, 60)).save(tmp_path / "lying", kind, exif=exif)
    (tmp_path / "upright").write_bytes(as_stored((tmp_path / "lying").read_bytes()).content)
    lying, upright = (two_classes.scores([(tmp_path / name).read_bytes()])[0] for name in ("lying", "upright"))
    assert np.abs(lying - upright).max() > 1e-5
    np.testing.assert_allclose(client.score(tmp_path / "lying")[SCORES].iloc[0], upright, atol=1e-6)


def test_benchmark(client, files):
    table = client.benchmark(files[:3], seconds=0.2, clients=(1, 3))
    assert list(table) == ["clients", "requests", "errors", "p50_ms", "p95_ms", "requests_per_s"]
    assert table.clients.tolist() == [1, 3]
    assert (table.requests > 0).all() and (table.errors == 0).all() and (table.p50_ms <= table.p95_ms).all()


@pytest.fixture
def predictions(files, photos, two_classes):
    """A run's predictions; a label is called "None", which is no missing value."""
    scores = two_classes.scores(photos).astype(np.float64)
    table = pd.DataFrame(scores, columns=SCORES).assign(familiar=two_classes.says(photos)["familiar"][:, 0])
    table = table.assign(path=[f"photos/{file.name}" for file in files])
    table = table.assign(split="test", label="None", predicted=decide(scores, two_classes.info))
    return table.assign(file=files)


def test_parity_holds_and_shows_its_progress(client, predictions, two_classes, capsys):
    report = check_parity(client, predictions, two_classes.info)
    apart = {name: report.pop(name) for name in ("max_abs_diff", "familiar_max_abs_diff")}
    assert report == {"n": 24, "tolerance": 1e-5, "borderline": 0} and max(apart.values()) <= 1e-6
    assert "/24 [" in capsys.readouterr().err


@pytest.mark.parametrize(("column", "shift"), [("score_benign", 1e-4), ("score_benign", np.nan), ("familiar", 2e-4)])
def test_parity_fails_for_another_score(client, predictions, two_classes, column, shift):
    predictions.loc[5, column] += shift
    with pytest.raises(RunFailed, match=r"1 of 24 files do not get the run's scores.*05\.jpg"):
        check_parity(client, predictions, two_classes.info)


def test_parity_fails_for_another_label_but_for_rounding(client, predictions, two_classes):
    predictions.loc[8, "predicted"] = ({*CLASSES} - {predictions.loc[8, "predicted"]}).pop()
    with pytest.raises(RunFailed, match=r"1 of 24 files do not get the run's scores and labels; the first: .*08\.jpg"):
        check_parity(client, predictions, two_classes.info)
    benign = predictions.drop(index=8)[predictions.predicted == "benign"].iloc[:1]
    border = two_classes.info | {"threshold": float(benign.score_malignant.iloc[0]) + 2e-6}
    tipped = benign.assign(score_malignant=benign.score_malignant + 4e-6, predicted="malignant")
    assert check_parity(client, tipped, border)["borderline"] == 1


def test_parity_fails_for_a_file_that_has_no_score(client, predictions, files, two_classes):
    files[2].write_bytes(b"damaged")
    with pytest.raises(RunFailed, match=r"1 of 24 files .*02\.jpg, the server could not decode"):
        check_parity(client, predictions, two_classes.info)
