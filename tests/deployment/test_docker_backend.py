"""The container for real, on a Docker engine: what it may do, whether it is healthy, and what failures leave behind.

tensorflow/serving itself needs a registry; `stand_in` takes its place, under the same Dockerfile and options.
"""

import json
import re
import socket
import time

import docker
import numpy as np
import pytest
import requests
from stand_in import docker_engine, labelled, stand_in_image

from tdsp_vision.deployment.backends import Release, choose_backend
from tdsp_vision.deployment.build_context import prepare
from tdsp_vision.deployment.client import ServingClient, ServingError
from tdsp_vision.deployment.container import DockerBackend


@pytest.fixture(scope="module")
def engine():
    return docker_engine()


@pytest.fixture(scope="module")
def backend(engine) -> DockerBackend:
    return DockerBackend(stand_in_image())


@pytest.fixture(scope="module")
def release(backend, two_classes, photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("services") / "tiny"
    (folder.parent / "photo.jpg").write_bytes(photos[0])
    made = Release(folder, "tiny", 1)
    prepare(backend, made, two_classes.version_folder, [folder.parent / "photo.jpg"])
    yield made
    backend.discard(made)


@pytest.fixture(scope="module")
def service(backend, release):
    running = backend.run(release)
    yield running
    running.stop()


@pytest.fixture
def container(engine, service):
    return engine.containers.get(service.record["container"])


def bash(container, script: str) -> tuple[int, str]:
    result = container.exec_run(["bash", "-c", script])
    return result.exit_code, result.output.decode()


def test_it_scores_like_the_keras_model(service, two_classes, photos, tmp_path):
    (tmp_path / "photo.jpg").write_bytes(photos[3])
    client = ServingClient(service.url, "tiny", ["benign", "malignant"])
    row = client.score_path(tmp_path / "photo.jpg")
    expected = two_classes.scores(photos[3:4])[0]
    np.testing.assert_allclose([row["score_benign"], row["score_malignant"]], expected, atol=1e-6)
    assert client.metadata()["model_spec"]["version"] == "1"


def test_the_served_name_is_the_models_and_not_the_base_images(container, service):
    assert "MODEL_NAME=model" in container.attrs["Config"]["Env"]  # as in the real image
    with pytest.raises(ServingError, match="404"):
        ServingClient(service.url, "model", []).status()


def test_it_may_do_little(container):
    assert bash(container, "echo $UID")[1].strip() == "10001"
    for file in ("/new", "/models/new", "/config/new"):
        code, said = bash(container, f"echo > {file}")
        assert code != 0 and "Read-only file system" in said
    assert bash(container, "echo > /tmp/new")[0] == 0
    _, mounts = bash(container, "grep ' /tmp ' /proc/mounts")
    assert {"noexec", "nosuid", "size=65536k"} <= set(re.split("[ ,]", mounts))
    _, status = bash(container, "grep -E 'Cap(Prm|Eff|Bnd)|NoNewPrivs' /proc/self/status")
    assert set(re.findall(r"Cap\w+:\t(\w+)", status)) == {"0" * 16}
    assert "NoNewPrivs:\t1" in status


def test_it_has_limits_and_an_init(container):
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (2 * 2**30, 2 * 2**30, 256)
    assert 0 < host["NanoCpus"] <= 2 * 10**9
    assert host["Init"] is True
    assert not host["Privileged"] and not host["Binds"]
    assert "init" in bash(container, "echo $(</proc/1/comm)")[1]


def test_only_this_machine_reaches_it(container, service):
    assert container.ports["8501/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": service.url.rpartition(":")[2]}]
    assert not container.ports["8500/tcp"]
    with pytest.raises(requests.ConnectionError):
        requests.get(service.url.replace("127.0.0.1", "127.0.0.2"), timeout=5)


def test_docker_finds_it_healthy_and_a_server_of_another_model_not(container):
    deadline = time.monotonic() + 60
    while container.attrs["State"]["Health"]["Status"] == "starting" and time.monotonic() < deadline:
        time.sleep(0.5)
        container.reload()
    assert container.attrs["State"]["Health"]["Status"] == "healthy"
    kind, shell, option, script = container.attrs["Config"]["Healthcheck"]["Test"]
    assert (kind, shell, option) == ("CMD", "bash", "-c")
    assert bash(container, script)[0] == 0
    assert bash(container, script.replace("/tiny ", "/other "))[0] != 0
    assert bash(container, script.replace("8501", "8599"))[0] != 0


def test_everything_carries_the_label_and_is_found_by_it(engine, backend, service, release):
    assert len(labelled(engine, release.folder)) == 2  # container and image
    assert [found.record["container"] for found in backend.services(release.folder)] == [service.record["container"]]


def test_another_process_finds_it_by_its_record(backend, release, service):
    found = DockerBackend(backend.serving_image).attach(release, json.loads(json.dumps(service.record)))
    assert found.alive()
    assert found.url == service.url
    assert '"port":8501' in found.logs()


def test_stop_is_quick_and_leaves_no_container(backend, release, engine):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    running = backend.run(release, port)
    assert running.url == f"http://127.0.0.1:{port}"
    running.stop()
    assert (running.alive(), running.logs()) == (False, "")
    running.stop()
    with pytest.raises(docker.errors.NotFound):
        engine.containers.get(running.record["container"])


def test_a_taken_port_leaves_no_container(backend, release, engine, service):
    before = labelled(engine, release.folder)
    with pytest.raises(RuntimeError, match="The container did not start: .*(already|in use)"):
        backend.run(release, int(service.url.rpartition(":")[2]))
    assert labelled(engine, release.folder) == before


def test_a_model_that_does_not_load_shows_the_log_and_leaves_nothing(backend, engine, tmp_path, two_classes):
    broken = Release(tmp_path / "tiny", "tiny", 5)
    prepare(backend, broken, two_classes.version_folder)
    (broken.models / "5/saved_model.pb").write_bytes(b"not a model")
    backend.build(broken)
    with pytest.raises(RuntimeError, match=r"(?s)stopped before it was ready.*saved_model.*exit code 1"):
        backend.run(broken)
    assert backend.services(broken.folder) == []
    backend.discard(broken)
    backend.discard(broken)  # a second time nothing happens
    assert labelled(engine, broken.folder) == []


def test_an_image_that_cannot_be_built_says_why_and_leaves_nothing(engine, tmp_path, two_classes):
    images = {image.id for image in engine.images.list(all=True)}
    release = Release(tmp_path / "tiny", "tiny", 1)
    with pytest.raises(RuntimeError, match="was not built"):
        prepare(DockerBackend("tdsp-vision-nowhere:1"), release, two_classes.version_folder)
    assert {image.id for image in engine.images.list(all=True)} == images
    assert labelled(engine, release.folder) == []


def test_choose_backend_takes_docker_where_the_image_can_be_had(backend):
    for name, reason in (("docker", "BACKEND asks for it"), ("auto", "an engine answers and the image can be had")):
        chosen, sentence = choose_backend(name, backend.serving_image)
        assert (chosen.name, chosen.serving_image) == ("docker", backend.serving_image)
        assert sentence.startswith(f"Backend docker, because {reason}: {backend.serving_image}, which stands in for")
    chosen, sentence = choose_backend("auto", "localhost:1/nowhere:1")
    assert chosen.name == "local"
    assert "neither has nor can pull the image localhost:1/nowhere:1" in sentence
    with pytest.raises(RuntimeError, match="BACKEND is 'docker', but the engine neither has nor can pull"):
        choose_backend("docker", "localhost:1/nowhere:1")
