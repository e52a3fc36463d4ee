"""The life of the embedded server: start, failure to start, stop, and what happens when its parent dies."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tdsp_vision.deployment.backends import choose_backend
from tdsp_vision.deployment.client import ServingClient, ServingError
from tdsp_vision.deployment.local import LocalBackend, LocalService

PARENT = """
import json, sys, time
from pathlib import Path
from tdsp_vision.deployment.local import LocalBackend
service = LocalBackend().start("tiny", Path(sys.argv[1]), keep_running=sys.argv[2] == "keep")
print(json.dumps(service.record), flush=True)
if sys.argv[2] != "keep":
    time.sleep(600)
"""


@pytest.fixture
def logs(tmp_path, monkeypatch) -> Path:
    """The folder for temporary files, empty at first, so that what is left in it shows."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


def ended(pid: int) -> bool:
    """Whether a process ends in the next 20 seconds; one that waits for its parent to notice counts as ended."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.1)
    return False


def kill(pid: int) -> None:
    """Whatever a failed test left behind must not outlive it."""
    if psutil.pid_exists(pid):
        os.kill(pid, signal.SIGKILL)


def started_by_another_process(serving_folder: Path, mode: str) -> tuple[subprocess.Popen, LocalService]:
    """A parent process, and the server that it started, found again by its record."""
    command = [sys.executable, "-c", PARENT, str(serving_folder), mode]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return parent, LocalService("tiny", json.loads(parent.stdout.readline()))


def test_choose_backend(monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    for name, reason in (("local", "BACKEND asks for it"), ("auto", "no Docker engine answers")):
        backend, sentence = choose_backend(name)
        assert isinstance(backend, LocalBackend)
        assert sentence.startswith(f"Backend local, because {reason}")
        assert sentence.endswith("stands in for TensorFlow Serving itself.")
    with pytest.raises(ValueError, match=r"BACKEND is 'cloud'; allowed are auto, docker, local"):
        choose_backend("cloud")
    with pytest.raises(RuntimeError, match=r"BACKEND is 'docker', but no Docker engine answers; start one .*'local'\."):
        choose_backend("docker")


def test_start_and_stop_leave_nothing(two_classes, logs):
    with LocalBackend().start("tiny", two_classes.version_folder.parent) as service:
        assert service.alive()
        assert [path.name.startswith("tiny-") for path in logs.iterdir()] == [True]
        state = ServingClient(service.url, "tiny", []).status()["model_version_status"][0]["state"]
        assert state == "AVAILABLE"
        assert '"port"' in service.logs()
    assert not service.alive()
    assert service.logs() == ""
    assert list(logs.iterdir()) == []
    with pytest.raises(ServingError, match="got no answer"):
        ServingClient(service.url, "tiny", []).status()
    service.stop()


def test_a_taken_port_is_named(two_classes, logs):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"PORT {port} on 127.0.0.1 cannot be used"):
            LocalBackend().start("tiny", two_classes.version_folder.parent, port=port)
    assert list(logs.iterdir()) == []


def test_a_model_that_does_not_load_shows_the_log(tmp_path, logs):
    (tmp_path / "serving/1").mkdir(parents=True)
    (tmp_path / "serving/1/saved_model.pb").write_bytes(b"not a model")
    with pytest.raises(RuntimeError, match=r"(?s)stopped before it was ready.*saved_model\.pb"):
        LocalBackend().start("tiny", tmp_path / "serving")
    assert list(logs.iterdir()) == []


def test_wrong_arguments_start_nothing(tmp_path, logs):
    with pytest.raises(FileNotFoundError, match="holds no version"):
        LocalBackend().start("tiny", tmp_path)
    with pytest.raises(ValueError, match="MODEL_NAME is 'a/b'"):
        LocalBackend().start("a/b", tmp_path)
    assert list(logs.iterdir()) == []


def test_a_killed_parent_leaves_no_orphan(two_classes, logs):
    parent, service = started_by_another_process(two_classes.version_folder.parent, "stop")
    try:
        assert ServingClient(service.url, "tiny", []).status()["model_version_status"]
        parent.kill()
        parent.wait()
        parent.stdout.close()
        assert ended(service.record["pid"])
        assert not service.alive()
    finally:
        kill(service.record["pid"])


def test_a_service_kept_running_outlives_its_parent_until_it_is_told_to_stop(two_classes, logs):
    parent, service = started_by_another_process(two_classes.version_folder.parent, "keep")
    try:
        assert parent.wait(60) == 0
        parent.stdout.close()
        time.sleep(1)  # two rounds of the watch that would stop it
        assert ServingClient(service.url, "tiny", []).status()["model_version_status"]
        service.stop()
        assert ended(service.record["pid"])
        assert list(logs.iterdir()) == []
    finally:
        kill(service.record["pid"])


def test_another_process_with_the_same_number_is_not_taken_for_the_server(two_classes):
    record = {"pid": os.getpid(), "folder": "/nowhere/tiny", "log": "", "url": "http://127.0.0.1:1"}
    service = LocalService("tiny", record)
    assert not service.alive()
    service.stop()  # and it is not stopped, or this test would be
