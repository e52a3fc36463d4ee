"""The embedded server: TensorFlow Serving's protocol, what strangers send, versions that come and go, its end."""

import io
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from PIL import Image
from starlette.testclient import TestClient
from tiny_run import CLASSES, IMAGE_SIZE, MODEL, PREDICT, b64, json_body, png, send, serve, write_run
from toys import wait_until_ended

from tdsp_vision.deployment import server
from tdsp_vision.deployment.backends import LocalBackend
from tdsp_vision.deployment.client import ServingClient, ServingError
from tdsp_vision.deployment.deployment import wait_until_served
from tdsp_vision.deployment.export import export_model
from tdsp_vision.deployment.versions import CONFIG, write_config

KEY = "a key that nobody guesses"
MEMORY_LIMIT = 1.5e9  # bytes
FLOATS = b'{"signature_name": "float_images", "inputs": %s}'
INVALID = rb'{"predictions":[{"familiar":0.0,"label":"","scores":[0.0,0.0],"valid":false}]}'


def encoded(kind: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def patched(content: bytes, position: int, layout: str, *values: int) -> bytes:
    """`content` with other numbers in its header."""
    changed = bytearray(content)
    struct.pack_into(layout, changed, position, *values)
    return bytes(changed)


def huge_jpeg() -> bytes:
    content = encoded("JPEG")
    return patched(content, content.index(b"\xff\xc0") + 5, ">HH", 65_500, 65_500)


BOMB = png(16_000, 16_000)
IMAGES = {  # all of them are answered with valid = false
    "a bomb of 16,000 x 16,000 pixels": BOMB,
    "a PNG of half as many pixels as a JPEG may have": png(7_100, 7_100),
    "a PNG cut in its header": png(8, 8)[:20],
    "a PNG with a wrong checksum": png(64, 64)[:-20] + b"\0\0\0\0" + png(64, 64)[-16:],
    "a PNG without pixels": png(0, 0),
    "a JPEG that says 4 billion pixels": huge_jpeg(),
    "a JPEG without a frame": b"\xff\xd8\xff\xe0\x00\x04ab\xff\xd9",
    "a WebP, a format that the client converts": encoded("WEBP"),
}
# name: (path, body, status, pattern that the body must contain)
REQUESTS = {
    "no Example": (PREDICT, json_body({"signature_name": "classify", "instances": [b64(BOMB)]}), 400, "parse"),
    "five million values": (PREDICT, FLOATS % (b"[" + b"0," * 5_000_000 + b"0]"), 413, "3,000,000 values"),
    "40 MB": (PREDICT, b'{"instances": ["' + b"a" * 40_000_000 + b'"]}', 413, "33,554,432 bytes"),
    "lists 50,000 levels deep": (PREDICT, FLOATS % (b"[" * 50_000 + b"]" * 50_000), 400, "JSONDecodeError"),
    "NaN": (PREDICT, FLOATS % b"[[[[NaN]]]]", 400, "JSONDecodeError"),
    "pictures of another size": (PREDICT, FLOATS % b"[[[[1, 2, 3]]]]", 400, r"shape \\?\(1, 1, 1, 3\\?\)"),
    "no images": (PREDICT, b'{"instances": []}', 400, r"shape \(0,\)"),
    "an object for a list": (PREDICT, b'{"instances": {"image_bytes": "a"}}', 400, "is no list"),
    "a row with a second name": (PREDICT, json_body({"instances": [{"image_bytes": b64(BOMB), "x": 1}]}), 400, "b64"),
    "rows of two forms": (PREDICT, json_body({"instances": [b64(BOMB), {"image_bytes": b64(BOMB)}]}), 400, "b64"),
    "base64 with a letter too many": (PREDICT, b'{"instances": [{"b64": "AAAAA"}]}', 400, "Malformed request"),
    "a signature named by a list": (PREDICT, b'{"signature_name": [1], "inputs": []}', 400, "TypeError"),
    "another model": ("/v1/models/other:predict", b"{}", 404, "Servable not found"),
    "a negative version": (f"{MODEL}/versions/-1:predict", b"{}", 400, "Malformed request"),
    "a version of 5,000 digits": (f"{MODEL}/versions/{'1' * 5000}:predict", b"{}", 400, "Malformed request"),
    "classify, which the real one has": (f"{MODEL}:classify", b"{}", 400, "Malformed request"),
}


@pytest.fixture
def still_serves(service, photos, two_classes):
    """After the test: the next good request gets its answer, and the server's memory has stayed under the limit."""
    yield
    rows = send(service, "POST", PREDICT, json_body({"instances": [b64(photos[0])]})).json()["predictions"]
    np.testing.assert_allclose(rows[0]["scores"], two_classes.scores(photos[:1])[0], atol=1e-6)
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024 < MEMORY_LIMIT  # its peak


def test_what_is_no_image_is_invalid_and_does_not_touch_a_good_one(service, still_serves, photos, two_classes):
    for name, content in IMAGES.items():
        answer = send(service, "POST", PREDICT, json_body({"instances": [b64(content)]}))
        assert (answer.status_code, answer.content) == (200, INVALID), name
    batch = [*IMAGES.values(), photos[1]]
    rows = send(service, "POST", PREDICT, json_body({"instances": [b64(data) for data in batch]})).json()["predictions"]
    assert [row["valid"] for row in rows] == [False] * len(IMAGES) + [True]
    np.testing.assert_allclose(rows[-1]["scores"], two_classes.scores(photos[1:2])[0], atol=1e-6)


@pytest.mark.parametrize("name", REQUESTS)
def test_bad_request(service, still_serves, name):
    path, body, status, pattern = REQUESTS[name]
    answer = send(service, "POST", path, body)
    assert answer.status_code == status, answer.text[:500]
    assert re.search(pattern, answer.text), answer.text[:500]
    assert answer.headers["content-type"] == "application/json"
    assert status == 200 or list(answer.json()) == ["error"]


def test_many_large_images_at_once_take_the_memory_of_one(service, still_serves):
    large = json_body({"instances": [b64(png(7_000, 7_000))] * 2})
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: send(service, "POST", PREDICT, large).status_code, range(8)))
    assert answers == [200] * 8


def test_both_forms_and_all_signatures(service, two_classes, photos):
    expected = two_classes.scores(photos[:2])
    named, plain = [{"image_bytes": b64(photo)} for photo in photos[:2]], [b64(photo) for photo in photos[:2]]
    for instances in (named, plain):
        answer = send(service, "POST", PREDICT, json_body({"instances": instances})).json()
        np.testing.assert_allclose([row["scores"] for row in answer["predictions"]], expected, atol=1e-6)
    for inputs in (plain, {"image_bytes": plain}):
        answer = send(service, "POST", f"{MODEL}/versions/1:predict", json_body({"inputs": inputs})).json()
        np.testing.assert_allclose(answer["outputs"]["scores"], expected, atol=1e-6)
    blank = {"signature_name": "float_images", "instances": np.zeros([2, IMAGE_SIZE, IMAGE_SIZE, 3]).tolist()}
    rows = send(service, "POST", PREDICT, json_body(blank)).json()["predictions"]
    np.testing.assert_allclose(rows[0]["scores"], two_classes.model(np.zeros([1, 32, 32, 3]))["scores"][0], atol=1e-6)
    answer = send(service, "POST", PREDICT, json_body({"signature_name": "classify", "instances": [b64(b"")]})).json()
    assert answer == {"predictions": [{"classes": CLASSES, "scores": [0.0, 0.0]}]}


def test_status_and_metadata_and_who_answers(service):
    answer = send(service, "GET", MODEL)
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert answer.json() == {"model_version_status": [available]}
    assert "stands in for TensorFlow Serving" in answer.headers["server"]
    metadata = send(service, "GET", f"{MODEL}/versions/1/metadata").json()
    assert metadata["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["float_images"]
    assert [dim["size"] for dim in signature["inputs"]["images"]["tensor_shape"]["dim"]] == ["-1", "32", "32", "3"]
    assert send(service, "GET", f"{MODEL}/versions/9").status_code == 404
    assert send(service, "GET", PREDICT).status_code == 400


def test_an_offer_of_http2_is_ignored(service, photos):
    body = json_body({"instances": [b64(photos[0])]})
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAAQAoAAAAAIAAAAA"}
    answer = send(service, "POST", PREDICT, body, **upgrade)
    assert answer.status_code == 200 and answer.json()["predictions"][0]["valid"]


def test_only_the_loopback_address_answers(service):
    (listening,) = [item for item in service.process.net_connections("tcp") if item.status == "LISTEN"]
    assert listening.laddr.ip == "127.0.0.1"


def test_two_servers_cannot_have_one_port(service, two_classes):
    command = LocalBackend().command(two_classes.version_folder.parent, service.port)
    second = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert f"PORT {service.port} cannot be used (Address already in use)." in second.stderr


def test_it_ends_the_request_that_runs_and_then_itself(two_classes, photos):
    running = serve(two_classes.version_folder)
    body = json_body({"instances": [b64(photos[n % 24]) for n in range(1500)]})
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(send, running, "POST", PREDICT, body)
        time.sleep(0.3)
        running.process.send_signal(signal.SIGTERM)
        assert len(answer.result().json()["predictions"]) == 1500, answer.result().text[:500]
    psutil.wait_procs([running.process], timeout=20)
    assert not running.alive()


def test_it_ends_with_the_process_that_started_it(two_classes, tmp_path):
    script = tmp_path / "starter.py"
    folder = shutil.copytree(two_classes.version_folder, tmp_path / "ds/serving/tiny/1").parent
    script.write_text(
        "import os, pathlib\nfrom tiny_run import serve\n"
        f"print(serve(pathlib.Path({str(folder / '1')!r})).process.pid, flush=True)\nos.kill(os.getpid(), 9)"
    )
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    starter = subprocess.run([sys.executable, str(script)], env=here, capture_output=True, text=True)
    wait_until_ended(int(starter.stdout))
    assert LocalBackend().find(folder) == []
    assert json.loads((folder / "1/assets.extra/model_info.json").read_text())["classes"] == CLASSES


@pytest.fixture(scope="module")
def changing(tmp_path_factory):
    """A server of its own with a key, its folder, and three runs: of two classes, of three, and a broken version."""
    root = tmp_path_factory.mktemp("changing")
    for number, classes in enumerate([CLASSES, ["None", "007", "striped"]], 1):
        write_run(root / f"r{number}", classes, "", [1 / len(classes)] * len(classes), seed=number)
    first = export_model(root / "r1", root / "ds/serving/tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TDSP_SERVING_KEY", KEY)
        service = serve(first)
        yield root, service
        service.stop()


def test_a_key_is_asked_for(changing):
    _, service = changing
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
        for method, path in (("GET", MODEL), ("GET", f"{MODEL}/metadata"), ("POST", PREDICT)):
            answer = send(service, method, path, b"{}" if method == "POST" else None, **header)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert ServingClient(service.url, "tiny").version() == 1
    with pytest.raises(ServingError, match="answered with 401: .*asks for its key"):
        ServingClient(service.url, "tiny", key="wrong").status()


def test_versions_come_and_go_and_no_live_client_notices(changing, photos, tmp_path):
    root, service = changing
    (tmp_path / "photo.jpg").write_bytes(photos[0])
    client = ServingClient(service.url, "tiny")
    assert client.score(tmp_path / "photo.jpg").filter(like="score_").columns.tolist() == [
        f"score_{c}" for c in CLASSES
    ]
    second = export_model(root / "r2", root / "ds/serving/tiny")
    wait_until_served(service, second)  # nobody told the server: it watches the folder
    table = client.score([tmp_path / "photo.jpg"] * 2)
    assert table.filter(like="score_").columns.tolist() == ["score_None", "score_007", "score_striped"]
    assert table.version.tolist() == [2, 2] and set(table.label) <= {"None", "007", "striped"}
    write_config(second.parent, 1)
    wait_until_served(service, second.with_name("1"))
    assert client.score(tmp_path / "photo.jpg").version.tolist() == [1]
    broken = second.with_name("3")
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"not a model")
    (second.parent / CONFIG).write_text((second.parent / CONFIG).read_text().replace("versions: 1", "versions: 3"))
    deadline = time.monotonic() + 60
    while 3 not in client.status() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert client.status()[3].startswith("END: ") and client.version() == 1
    shutil.rmtree(broken)
    (second.parent / CONFIG).write_text("no protocol buffer {")
    time.sleep(2)  # the server looks at it at least once
    assert client.score(tmp_path / "photo.jpg").valid.all()
    assert "cannot be read; what is loaded stays" in service.logs()


def test_while_too_many_requests_wait_the_next_is_sent_away_and_not_computed(monkeypatch):
    tiny = SimpleNamespace(name="tiny", loaded={1: SimpleNamespace(signatures={})}, errors={})
    client = TestClient(server.application(tiny, ""))
    assert client.post(PREDICT, content=b"{}").status_code == 400  # it is read and found wanting
    monkeypatch.setattr(server, "MAX_REQUESTS", 0)
    answer = client.post(PREDICT, content=b"{}")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1") and "busy" in answer.json()["error"]
