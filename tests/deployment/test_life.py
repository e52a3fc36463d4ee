"""The life of a deployment on both backends, with the same calls: nothing is lost under load, nothing is left after."""

import json
import re
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
from click.testing import CliRunner
from stand_in import labelled, stand_in_image
from tiny_run import CLASSES, IMAGE_SIZE, write_run

from tdsp_vision.__main__ import main
from tdsp_vision.deployment import deployment as life_module
from tdsp_vision.deployment.backends import ContainerService, DockerBackend, LocalBackend, docker, image_tag, obstacle
from tdsp_vision.deployment.client import ServingClient, ServingError
from tdsp_vision.deployment.deployment import Deployment, choose_backend, find_services, list_deployments
from tdsp_vision.deployment.export import export_model
from tdsp_vision.deployment.versions import new_version, version_folder
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.modeling.batches import preprocess
from tdsp_vision.paths import OutputPaths

NAME = "Tiny_2"  # as an image's and a cluster's name: tiny-2


@pytest.fixture(scope="module", params=["local", pytest.param("docker", marks=pytest.mark.engine)])
def backend(request):
    return LocalBackend() if request.param == "local" else DockerBackend(stand_in_image())


@pytest.fixture(scope="module")
def outputs(backend, tmp_path_factory, photos):
    """Two runs of which the first is exported, and a photo."""
    outputs = OutputPaths(str(tmp_path_factory.mktemp("outputs")), "ds")
    for number in (1, 2):
        write_run(outputs.runs / f"r{number}", CLASSES, "malignant", 0.5, seed=number)
    export_model(outputs.runs / "r1", outputs.serving(NAME))
    (outputs.root / "photo.jpg").write_bytes(photos[0])
    yield outputs
    Deployment(outputs, NAME).delete()


@pytest.fixture(scope="module")
def life(outputs, backend):
    """A deployment of version 1, left as it is found by each test; deleted by the last."""
    deployment, version = Deployment(outputs, NAME), outputs.serving(NAME) / "1"
    deployment.build(version, backend)
    return deployment.create(version, backend)


def photo_score(deployment: Deployment) -> float:
    return deployment.client().score(deployment.outputs.root / "photo.jpg").score_malignant[0]


def expected(outputs, run: str) -> float:
    import keras
    import tensorflow as tf

    photo = preprocess(tf.constant((outputs.root / "photo.jpg").read_bytes()), IMAGE_SIZE)
    model = keras.saving.load_model(outputs.runs / run / "model.keras")
    return float(model(photo[tf.newaxis])["scores"][0, 1])


@contextmanager
def steady_load(deployment):
    """Score a photo again and again in two threads; the list of scores, which must hold no error at the end."""
    scores, errors, stop = [], [], threading.Event()

    def load():
        client = deployment.client()
        while not stop.wait(0.02):
            try:
                scores.extend(client.score(deployment.outputs.root / "photo.jpg").score_malignant)
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


def command(outputs, *arguments: str):
    options = ["--dataset", "ds", "--model", NAME, "--output-dir", str(outputs.root.parent)]
    return CliRunner().invoke(main, ["deploy", *options, *arguments])


def broken_version(outputs):
    """A version that does not load, as the highest one."""
    with new_version(outputs.serving(NAME)) as draft:
        shutil.copytree(version_folder(outputs.serving(NAME)), draft, dirs_exist_ok=True)
        (draft / "saved_model.pb").write_bytes(b"not a model")
    return version_folder(outputs.serving(NAME))


def test_no_request_is_lost_while_versions_change_on_one_server_and_port(life, outputs):
    first, second = expected(outputs, "r1"), expected(outputs, "r2")
    assert abs(first - second) > 0.001
    (service,) = life.services()
    with steady_load(life) as scores:
        newer = export_model(outputs.runs / "r2", life.folder)
        life.update(newer)
        assert photo_score(life) == pytest.approx(second, abs=1e-6)
        life.update(export_model(outputs.runs / "r2", life.folder))  # a second time nothing happens
        broken = broken_version(outputs)
        with pytest.raises(RunFailed, match="(?s)Version 3 is not served: END: .*log"):
            life.update(broken)
        assert photo_score(life) == pytest.approx(second, abs=1e-6)
        life.rollback()
        assert photo_score(life) == pytest.approx(first, abs=1e-6)
    assert {round(score, 5) for score in scores} == {round(first, 5), round(second, 5)}
    assert life.summary() == f"ds/{NAME} on {service.backend}: version 1 answers at {service.url}"
    assert life.services() == [service]
    with pytest.raises(ParameterError, match="no version below 1"):
        life.rollback()
    shutil.rmtree(broken)


def test_versions_that_were_deleted_are_never_served_from_memory(life, outputs):
    shutil.rmtree(life.folder)
    again = export_model(outputs.runs / "r2", life.folder)
    life.update(again)
    assert photo_score(life) == pytest.approx(expected(outputs, "r2"), abs=1e-6)
    life.update(export_model(outputs.runs / "r1", life.folder))
    assert photo_score(life) == pytest.approx(expected(outputs, "r1"), abs=1e-6)


def test_a_second_run_goes_on_with_what_runs(life, outputs, backend):
    (service,) = life.services()
    newest = version_folder(life.folder)
    life.build(newest, backend)
    for port in (0, service.port):
        life.check_port(backend, port)
        again = Deployment(outputs, NAME).create(newest, backend, port)
        assert (again.was_running, again.services()) == (True, [service])
    with pytest.raises(ParameterError, match=f"PORT is {service.port}, which another program uses"):
        Deployment(outputs, "other").check_port(backend, service.port)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        with pytest.raises(RunFailed, match=f"PORT {taken} cannot be used|already (allocated|in use)"):
            Deployment(outputs, NAME).create(newest, backend, taken)
    assert life.services() == [service] and service.alive()


def test_another_port_takes_over_when_it_answers(life, outputs, backend, monkeypatch):
    (service,) = life.services()
    newest = version_folder(life.folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    life.build(newest, backend)

    def never(*arguments):
        raise RunFailed("it does not come up")

    with monkeypatch.context() as patch:
        patch.setattr(life_module, "wait_until_served", never)
        with pytest.raises(RunFailed, match="does not come up"):
            Deployment(outputs, NAME).create(newest, backend, port)
    assert life.services() == [service] and service.alive()
    Deployment(outputs, NAME).create(newest, backend, port, keep_running=True)
    assert [found.url for found in life.services()] == [f"http://127.0.0.1:{port}"]


def never_answers(*arguments):
    raise ServingError("no answer")


def test_the_command_line_finds_it(life, outputs, tmp_path, monkeypatch):
    assert command(outputs, "list").output.strip() == life.summary()
    scored = command(outputs, "score", str(outputs.root / "photo.jpg"))
    assert (scored.exit_code, "score_malignant" in scored.output) == (0, True)
    assert "== http://127.0.0.1:" in command(outputs, "logs").output
    for arguments, code, says in [
        (["update", "--version", "99"], 2, "There is no version 99"),
        (["create", "--backend", "cloud"], 2, "'cloud' is not one of"),
        (["delete", "--port", "9"], 2, "--port is for create, not for delete"),
    ]:
        answer = command(outputs, *arguments)
        assert (answer.exit_code, says in answer.output) == (code, True), answer.output
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = str(listener.getsockname()[1])
        assert "which another program uses" in command(outputs, "create", "--port", taken).output
    with monkeypatch.context() as patch:
        patch.setattr(ServingClient, "call", never_answers)
        assert "does not answer yet" in command(outputs, "list").output
    (outputs.root / "request.json").write_text('{"instances": [{"b64": ""}]}')
    monkeypatch.setenv("TDSP_SERVING_KEY", "secret")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # nobody is there
    line = life.curl(outputs.root / "request.json")
    answer = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert '"valid":false' in answer.stdout and "secret" not in line


def test_delete_leaves_nothing_but_the_exported_versions(life, outputs, backend):
    urls, versions = [service.url for service in life.services()], sorted(life.folder.glob("[0-9]*"))
    stray = backend.run(life.folder, 0, int(version_folder(life.folder).name), True)  # as a crash may leave one
    while backend.name == "local" and stray.alive() and not stray.process.cmdline():
        time.sleep(0.01)  # a process that is being started has no command line for a moment
    assert len(life.services()) == 2
    assert [each.name for each in list_deployments(outputs.root.parent)] == [NAME]
    assert command(outputs, "delete").output == f"{NAME}: deleted\n"
    assert command(outputs, "delete").exit_code == 2
    assert "nothing is deployed" in command(outputs, "list").output
    assert life.services() == [] and find_services(outputs.root) == []
    for url in urls:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)
    assert backend.name == "local" or labelled(life.folder) == []
    assert sorted(life.folder.glob("[0-9]*")) == versions
    left = {path.name for path in outputs.deployment.rglob("*") if NAME in str(path)}
    assert left == set()


@pytest.mark.parametrize("arguments", [["delete"], ["logs"], ["score", __file__], ["rollback"], ["update"]])
def test_what_is_not_deployed_is_named(outputs, arguments):
    answer = command(outputs, *arguments)
    assert (answer.exit_code, f"{NAME} is not deployed" in answer.output) == (2, True)


def test_a_server_that_does_not_come_up_leaves_nothing(outputs, backend):
    broken = broken_version(outputs)
    Deployment(outputs, NAME).build(broken, backend)
    with pytest.raises(RunFailed, match="(?s)the server stopped.*saved_model"):
        Deployment(outputs, NAME).create(broken, backend)
    assert find_services(outputs.root) == []
    assert backend.name == "docker" or "saved_model" in command(outputs, "logs").output  # when one needs it most
    shutil.rmtree(broken)


def test_the_notebooks_server_ends_and_the_image_stays(outputs, backend):
    version = version_folder(outputs.serving(NAME))
    deployment = Deployment(outputs, NAME)
    deployment.build(version, backend)
    deployment.create(version, backend)
    deployment.stop()
    assert deployment.services() == []
    assert (outputs.deployment / "docker/Dockerfile").is_file()
    if backend.name == "docker":
        assert docker("image", "ls", "--quiet", image_tag(NAME, int(version.name)))


@pytest.mark.engine
@pytest.mark.parametrize("backend", ["docker"], indirect=True, scope="module")
def test_the_container_may_do_little_and_the_image_serves_alone(outputs, backend, tmp_path):
    version = version_folder(outputs.serving(NAME))
    deployment = Deployment(outputs, NAME)
    deployment.build(version, backend)
    deployment.create(version, backend, keep_running=True)
    (service,) = deployment.services()
    bash = ["exec", service.container, "bash", "-c"]
    seen = docker(*bash, "echo $UID; echo $(</proc/1/comm); echo > /tmp/x && echo $MODEL_NAME")
    assert seen == "10001\ndocker-init\nmodel"
    for file in ("/new", "/models/new", "/config/new"):
        with pytest.raises(RunFailed, match="Read-only file system"):
            docker(*bash, f"echo > {file}")
    assert "NoNewPrivs:\t1" in docker(*bash, "grep -E 'CapEff|NoNewPrivs' /proc/self/status")
    facts = json.loads(docker("inspect", "--format={{json .HostConfig}}", service.container))
    assert (facts["Memory"], facts["MemorySwap"], facts["PidsLimit"]) == (2 * 2**30, 2 * 2**30, 256)
    assert (facts["RestartPolicy"]["Name"], facts["CapDrop"]) == ("unless-stopped", ["ALL"])
    assert docker("port", service.container) == f"8501/tcp -> 127.0.0.1:{service.port}"
    label, tag = f"--label=tdsp-vision.serving={tmp_path}", image_tag(NAME, int(version.name))
    alone = docker("run", "--detach", "--tmpfs=/tmp", "--publish=127.0.0.1::8501", label, tag)
    other = ContainerService(deployment.folder, alone)
    life_module.wait_until_served(other, version)
    for name in (alone, service.container):
        docker("exec", name, "bash", "-c", docker("inspect", "--format={{index .Config.Healthcheck.Test 3}}", name))
    other.stop()
    deployment.delete()


@pytest.mark.engine
def test_choose_backend_takes_docker_where_the_image_can_be_had():
    image = stand_in_image()
    for name in ("docker", "auto"):
        chosen, sentence = choose_backend(name, image)
        assert (chosen.name, chosen.image) == ("docker", image)
        assert sentence == f"Backend docker, because an engine answers and has the image {image}."
    chosen, sentence = choose_backend("auto", "localhost:1/nowhere:1")
    assert chosen.name == "local" and "neither has nor can pull the image localhost:1/nowhere:1" in sentence
    with pytest.raises(RunFailed, match="BACKEND is 'docker', but the engine neither has nor can pull"):
        choose_backend("docker", "localhost:1/nowhere:1")


@pytest.mark.parametrize(
    ("version", "pull", "says"),
    [
        ("echo Cannot connect >&2; exit 1", 0, r"`docker version` failed: Cannot connect"),
        ("echo arm64", 0, "is for amd64 processors and this one is arm64"),
        ("echo amd64", 1, "neither has nor can pull the image"),
        ("echo amd64", 0, "^$"),
    ],
)
def test_what_keeps_docker_from_serving_is_said(tmp_path, monkeypatch, capfd, version, pull, says):
    """A `docker` command that says what engines of these kinds say."""
    script = f"""#!/bin/sh
case "$1" in
version) {version} ;;
info) uname -n ;;
pull) echo 'abc: Pulling fs layer'; exit {pull} ;;
esac
"""
    (tmp_path / "docker").write_text(script)
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert re.search(says, obstacle("tensorflow/serving:2.20.0"))
    assert ("abc: Pulling fs layer" in capfd.readouterr().out) == (version == "echo amd64")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert "No such file or directory: 'docker'" in obstacle("a:1")
    assert DockerBackend().find(tmp_path) == [] and not DockerBackend().remove(tmp_path)
