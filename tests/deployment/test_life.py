"""The life of a deployment on both backends, with the same calls: nothing is lost under load, nothing is left after."""

import os
import signal
import socket
import threading
from contextlib import contextmanager

import keras
import numpy as np
import psutil
import pytest
from click.testing import CliRunner
from stand_in import docker_engine, labelled, stand_in_image
from tiny_run import write_run

from tdsp_vision import deploy_commands
from tdsp_vision.deployment import servers
from tdsp_vision.deployment.container import DockerBackend
from tdsp_vision.deployment.deployments import (
    build_deployment,
    create_deployment,
    delete_if_exists,
    list_deployments,
    open_deployment,
)
from tdsp_vision.deployment.export import export_model
from tdsp_vision.deployment.local import LocalBackend
from tdsp_vision.deployment.record import changing
from tdsp_vision.paths import OutputPaths

pytestmark = pytest.mark.slow  # about thirty servers start here


@pytest.fixture(scope="module")
def exported(tmp_path_factory, photos):
    """Outputs with three versions: the second scores differently, the third does not load."""
    outputs = OutputPaths(str(tmp_path_factory.mktemp("outputs")), "ds")
    for run, factor in (("r1", 1.0), ("r2", 2.0)):
        model = write_run(outputs.runs / run, ["benign", "malignant"], "malignant", 0.5)
        model.set_weights([weights * factor for weights in model.get_weights()])
        model.save(outputs.runs / run / "model.keras")
        export_model(outputs.runs / run, outputs.serving("tiny"))
    broken = outputs.serving("tiny") / "3"
    broken.mkdir()
    (broken / "saved_model.pb").write_bytes(b"not a model")
    (outputs.root / "photo.jpg").write_bytes(photos[0])
    return outputs


@pytest.fixture(scope="module", params=["local", "docker"])
def backend(request):
    return LocalBackend() if request.param == "local" else DockerBackend(stand_in_image())


@pytest.fixture(scope="module")
def life(exported, backend):
    """A deployment of version 1, left as it is found by each test; deleted by the last."""
    with create_deployment(
        exported, "tiny", exported.serving("tiny") / "1", backend, warmup=[exported.root / "photo.jpg"]
    ) as deployment:
        yield deployment


def photo_score(deployment) -> float:
    return deployment.score([deployment.folder.parents[2] / "photo.jpg"])["score_malignant"][0]


def expected(exported, run: str) -> float:
    import tensorflow as tf

    from tdsp_vision.modeling.batches import preprocess

    photo = tf.constant((exported.root / "photo.jpg").read_bytes())
    model = keras.saving.load_model(exported.runs / run / "model.keras")
    return float(np.asarray(model(preprocess(photo, 32)[tf.newaxis]))[0, 1])


@contextmanager
def steady_load(deployment):
    """Score a photo again and again in two threads; the list of scores, which must hold no error at the end."""
    scores, errors, stop = [], [], threading.Event()

    def load():
        client = deployment.client()
        while not stop.wait(0.02):
            try:
                scores.append(client.score_path(deployment.folder.parents[2] / "photo.jpg")["score_malignant"])
            except Exception as error:  # each one is a lost request
                errors.append(error)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield scores
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(scores) > 20


def kill_server(service) -> None:
    """End one server as a crash would."""
    if "pid" in service.record:
        os.kill(service.record["pid"], signal.SIGKILL)
        psutil.wait_procs([psutil.Process(service.record["pid"])], timeout=20)
    else:
        docker_engine().containers.get(service.record["container"]).kill()


def prepared(deployment) -> set[str]:
    return {path.name for path in deployment.folder.glob("*v*") if path.is_dir()}


def command(exported, *arguments: str):
    options = ["--dataset", "ds", "--model", "tiny", "--output-dir", str(exported.root.parent)]
    return CliRunner().invoke(deploy_commands.deploy, [*options, *arguments])


def test_no_request_is_lost_while_versions_change(life, exported):
    first, second = expected(exported, "r1"), expected(exported, "r2")
    assert abs(first - second) > 0.001
    assert photo_score(life) == pytest.approx(first, abs=1e-6)
    with steady_load(life) as scores:
        life.update(exported.serving("tiny") / "2")
        assert photo_score(life) == pytest.approx(second, abs=1e-6)
        assert (life.record["version"], life.record["previous"]) == (2, 1)
        with pytest.raises(RuntimeError, match="(?s)stopped before it was ready.*saved_model"):
            life.update(exported.serving("tiny") / "3")
        assert photo_score(life) == pytest.approx(second, abs=1e-6)
        assert prepared(life) == {"v1", "v2"}
        life.rollback()
        assert photo_score(life) == pytest.approx(first, abs=1e-6)
    assert {round(score, 5) for score in scores} == {round(first, 5), round(second, 5)}
    assert "version 1 (before: 2), 1 of 1 replicas run" in life.summary()


def test_no_request_is_lost_when_one_of_three_replicas_is_killed(life):
    life.scale(3)
    assert len(set(life.urls)) == 3
    with steady_load(life) as scores:
        kill_server(life.services()[1])
        seen = len(scores)
        while len(scores) < seen + 30:
            threading.Event().wait(0.05)
        assert "2 of 3 replicas run" in life.summary()
    life.scale(1)
    assert "1 of 1 replicas run" in life.summary()


def test_the_command_line_finds_it(life, exported, tmp_path):
    listed = command(exported, "list")
    assert listed.output.strip() == life.summary()
    scored = command(exported, "score", str(exported.root / "photo.jpg"))
    assert (scored.exit_code, "score_malignant" in scored.output) == (0, True)
    assert '"port"' in command(exported, "logs").output
    again = command(exported, "create", "--backend", "local", "--version", "1")
    assert (again.exit_code, "deployed already" in again.output) == (2, True)
    for arguments, says in [
        (["score", str(tmp_path / "missing.jpg")], "No such file"),
        (["update", "--version", "1"], "served already"),
        (["update", "--version", "9"], "There is no version 9"),
        (["scale", "0"], "REPLICAS is 0; allowed are whole numbers from 1 to 32"),
    ]:
        answer = command(exported, *arguments)
        assert (answer.exit_code, says in answer.output) == (2, True), answer.output
    with changing(life.folder):
        busy = command(exported, "rollback")
    assert (busy.exit_code, "being changed by somebody else" in busy.output) == (1, True)
    assert life.urls == open_deployment(life.folder).urls


def test_what_cannot_be_is_refused_and_changes_nothing(life, exported):
    before = life.record
    for act in (lambda: life.start(), lambda: life.scale(33), lambda: life.update(exported.serving("tiny") / "1")):
        with pytest.raises(ValueError):
            act()
    assert life.record == before


def test_delete_leaves_nothing(life, exported, backend):
    urls, records = life.urls, [service.record for service in life.services()]
    assert list_deployments(str(exported.root.parent)) == [life.folder]
    stray = backend.run(life._release(1))  # a server that the record does not know, as a crash may leave
    assert delete_if_exists(exported, "tiny")
    assert not delete_if_exists(exported, "tiny")
    assert not life.folder.exists()
    assert list_deployments(str(exported.root.parent)) == []
    assert backend.services(life.folder) == []
    for url in [*urls, stray.url]:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)
    if backend.name == "docker":
        assert labelled(docker_engine(), life.folder) == []
    else:
        assert not any(psutil.pid_exists(record["pid"]) for record in [*records, stray.record])
    assert (exported.serving("tiny") / "1").is_dir()  # what was exported stays


def test_build_without_running_then_start_at_a_fixed_port(exported, backend, monkeypatch):
    monkeypatch.setattr(servers, "DRAIN_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with build_deployment(exported, "tiny", exported.serving("tiny") / "1", backend, port=port) as deployment:
        assert "built, not started" in deployment.summary()
        assert backend.services(deployment.folder) == []
        with pytest.raises(ValueError, match="start it first"):
            deployment.scale(2)
        deployment.start()
        assert deployment.urls == [f"http://127.0.0.1:{port}"]
        deployment.update(exported.serving("tiny") / "2")
        assert deployment.urls == [f"http://127.0.0.1:{port}"]  # an update comes back to it
        assert deployment.record["previous"] == 1
    assert not deployment.folder.exists()


def test_a_deployment_that_does_not_come_up_leaves_nothing(exported, backend):
    with pytest.raises(RuntimeError, match="stopped before it was ready"):
        create_deployment(exported, "tiny", exported.serving("tiny") / "3", backend)
    folder = exported.deployment / "services/tiny"
    assert not folder.exists()
    assert backend.services(folder) == []


@pytest.mark.parametrize("arguments", [["delete"], ["logs"], ["score", __file__], ["rollback"], ["scale", "1"]])
def test_what_is_not_deployed_is_named(exported, arguments):
    answer = command(exported, *arguments)
    assert (answer.exit_code, "tiny is not deployed" in answer.output) == (2, True)


def test_the_command_line_alone(exported):
    assert "nothing is deployed" in command(exported, "list").output
    made = command(exported, "create", "--backend", "local", "--version", "1", "--replicas", "1")
    try:
        assert made.exit_code == 0, made.output
        assert "Backend local, because BACKEND asks for it" in made.output
        assert "version 1 answers at http://127.0.0.1:" in made.output
        assert "version 2 (before: 1)" in command(exported, "update", "--version", "2").output
        assert "version 1 (before: 2)" in command(exported, "rollback").output
    finally:
        assert command(exported, "delete", "--if-exists").output == "tiny: deleted\n"
    assert command(exported, "delete", "--if-exists").output == "tiny: nothing to delete\n"
    assert command(exported, "create", "--backend", "cloud").exit_code == 2
