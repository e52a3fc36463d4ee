"""What the embedded server admits, how it takes up and drops versions under load, and how it stops."""

import asyncio
import shutil
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from tiny_run import KEY, MODEL, PREDICT, b64, embedded_server, json_body, png, send

from tdsp_vision.deployment import app
from tdsp_vision.deployment.protocol import is_allowed
from tdsp_vision.deployment.server import main


class Caller:
    """Calls an `App` without a network; its routes answer `done` when they are told to."""

    def __init__(self, **limits):
        self.go = threading.Event()
        routes = SimpleNamespace(answer=self._answer, versions=SimpleNamespace(available=lambda: [1]))
        options = {"key": "", "max_request_bytes": 100, "max_waiting": 2} | limits
        self.workers = ThreadPoolExecutor(1)
        self.app = app.App(routes, self.workers, **options)

    def _answer(self, method, path, body) -> bytes:
        if method == "GET":
            return b"state"
        assert self.go.wait(20)
        if b"fail" in body:
            raise KeyError("a bug")
        return b"done"

    async def call(self, *chunks: bytes, method="POST", path="/v1/models/tiny:predict") -> tuple[int, bytes, dict]:
        """Status, body and headers; None as a chunk never comes."""
        sent, left = [], list(chunks) or [b""]

        async def receive():
            chunk = left.pop(0)
            if chunk is None:
                await asyncio.sleep(60)
            return {"type": "http.request", "body": chunk, "more_body": bool(left)}

        async def send_back(message):
            sent.append(message)

        scope = {"method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "headers": []}
        await self.app(scope, receive, send_back)
        return sent[0]["status"], sent[1]["body"], dict(sent[0]["headers"])


def test_more_than_may_wait_is_refused_at_once_and_the_others_are_answered():
    caller = Caller()

    async def scene():
        first, second = (asyncio.create_task(caller.call(b"a" * 60, b"b" * 40)) for _ in range(2))
        await asyncio.sleep(0.05)
        status, body, headers = await caller.call(b"c")
        assert (status, headers[b"retry-after"]) == (429, b"1")
        assert b"2 requests are waiting already" in body
        assert (await caller.call(method="GET"))[:2] == (200, b"state")
        caller.go.set()
        assert [(await task)[:2] for task in (first, second)] == [(200, b"done")] * 2
        assert (await caller.call(b"d"))[0] == 200
        assert b"http_requests_waiting 0" in (await caller.call(method="GET", path="/monitoring/prometheus/metrics"))[1]

    asyncio.run(scene())


def test_long_slow_and_failing_requests_leave_nothing_behind(monkeypatch, caplog):
    monkeypatch.setattr(app, "BODY_SECONDS", 0.05)
    monkeypatch.setattr(app, "MAX_BUFFERED_BYTES", 150)
    caller = Caller(max_waiting=9)

    async def scene():
        assert (await caller.call(b"a" * 60, b"b" * 41, b"c"))[0] == 413
        status, body, headers = await caller.call(b"a", None)
        assert (status, headers[b"connection"]) == (408, b"close")
        waiting = asyncio.create_task(caller.call(b"a" * 90))
        await asyncio.sleep(0.01)
        status, body, _ = await caller.call(b"b" * 40, b"b" * 40)
        assert (status, b"fill the memory" in body) == (429, True)
        caller.go.set()
        assert (await waiting)[0] == 200
        assert (await caller.call(b"fail"))[:2] == (
            500,
            b'{"error":"Internal error; the server\'s log has the details."}',
        )
        assert (await caller.call(b"b" * 100))[0] == 200

    asyncio.run(scene())
    assert "a bug" in caplog.text


def test_the_key():
    assert is_allowed("", "")
    assert is_allowed("ä key", "Bearer ä key")
    for wrong in ("", "ä key", "Bearer", "Bearer ä ke", "Bearer ä keyy", "bearer ä key", "Basic ä key"):
        assert not is_allowed("ä key", wrong)


def test_a_service_with_a_key_says_nothing_without_it(strict, photos):
    body = json_body({"instances": [b64(photos[0])]})
    for method, path in (("GET", MODEL), ("GET", f"{MODEL}/metadata"), ("POST", PREDICT), ("GET", "/")):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = send(strict, method, path, body, **headers)
            assert (answer.status_code, list(answer.json())) == (401, ["error"])
            assert answer.headers["www-authenticate"] == "Bearer"
    assert send(strict, "GET", "/health").json() == {"serving": True}
    assert send(strict, "POST", PREDICT, body, Authorization=f"Bearer {KEY}").json()["predictions"][0]["valid"]


def test_versions_and_labels(strict, photos):
    body = json_body({"instances": [b64(photos[0])]})
    allowed = {"Authorization": f"Bearer {KEY}"}
    for place, classes in (("", 3), ("/versions/2", 3), ("/versions/1", 2), ("/labels/stable", 2)):
        answer = send(strict, "POST", f"{MODEL}{place}:predict", body, **allowed).json()
        assert len(answer["predictions"][0]["scores"]) == classes
        states = send(strict, "GET", f"{MODEL}{place}", **allowed).json()["model_version_status"]
        assert {entry["state"] for entry in states} == {"AVAILABLE"}
    assert [entry["version"] for entry in send(strict, "GET", MODEL, **allowed).json()["model_version_status"]] == [
        "2",
        "1",
    ]
    assert send(strict, "GET", f"{MODEL}/labels/stable/metadata", **allowed).json()["model_spec"]["version"] == "1"
    unknown = send(strict, "POST", f"{MODEL}/labels/nope:predict", body, **allowed)
    assert (unknown.status_code, "label: nope" in unknown.text) == (400, True)
    assert "Specific(tiny, 7)" in send(strict, "POST", f"{MODEL}/labels/lost:predict", body, **allowed).text
    assert send(strict, "POST", PREDICT, bytes(100_001), **allowed).status_code == 413


def states(server) -> dict[str, str]:
    return {entry["version"]: entry["state"] for entry in send(server, "GET", MODEL).json()["model_version_status"]}


def wait_for(server, wanted: dict[str, str]) -> None:
    deadline = time.monotonic() + 60
    while states(server) != wanted:
        assert time.monotonic() < deadline, states(server)
        time.sleep(0.05)


def test_versions_come_and_go_under_load_without_a_lost_request(two_classes, three_classes, photos, tmp_path):
    models, answers, stop = tmp_path / "models", Counter(), threading.Event()
    shutil.copytree(two_classes.version_folder, models / "1")

    def client(server, body: bytes) -> None:
        while not stop.is_set():
            answer = send(server, "POST", PREDICT, body)
            answers[answer.status_code, len(answer.json()["predictions"][0]["scores"])] += 1

    with embedded_server(models, "--poll-seconds", "0.1", log=tmp_path / "log") as server:
        with ThreadPoolExecutor(3) as clients:
            running = [clients.submit(client, server, json_body({"instances": [b64(photo)]})) for photo in photos[:3]]
            try:
                (models / "2").mkdir()
                (models / "2/saved_model.pb").write_bytes(b"damaged")
                wait_for(server, {"2": "END", "1": "AVAILABLE"})
                entry = send(server, "GET", f"{MODEL}/versions/2").json()["model_version_status"][0]
                assert "saved_model.pb" in entry["status"]["error_message"]
                shutil.copytree(three_classes.version_folder, models / ".3.draft")
                (models / ".3.draft").rename(models / "3")
                wait_for(server, {"3": "AVAILABLE", "2": "END", "1": "END"})
                shutil.rmtree(models / "2")
                (models / "3").rename(models / ".3.gone")
                wait_for(server, {"3": "END", "2": "END", "1": "AVAILABLE"})
            finally:
                stop.set()
        for done in running:
            done.result()
    assert set(answers) == {(200, 2), (200, 3)}


def test_a_server_that_stops_ends_what_runs_and_takes_nothing_new(two_classes, tmp_path):
    with embedded_server(two_classes.version_folder.parent, log=tmp_path / "log") as server:
        slow = json_body({"instances": [b64(png(7_000, 7_000))]})
        with ThreadPoolExecutor(1) as client:
            running = client.submit(send, server, "POST", PREDICT, slow)
            while "http_requests_waiting 1" not in send(server, "GET", "/monitoring/prometheus/metrics").text:
                assert not running.done()
            server.process.terminate()
            assert running.result().json()["predictions"][0]["valid"]
        server.process.wait(20)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.ready["port"]), timeout=5)
    assert "Traceback" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--label", "stable"], "'stable' is not of the form NAME=VERSION"),
        (["--label", "=3"], "'=3' is not of the form NAME=VERSION"),
        (["--port", "70000"], "70000 is not in the range"),
        (["--key-file", "empty"], "empty is empty; write a key into it"),
        ([], "There is no version in"),
    ],
)
def test_wrong_options_are_named(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").write_text("\n")
    result = CliRunner().invoke(main, ["--model-name", "tiny", "--model-base-path", ".", *options])
    assert result.exit_code != 0
    assert says in result.output
