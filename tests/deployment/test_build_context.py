"""The build context: what a container is made from, readable, whole, and the same model inside."""

import re
import stat

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from tdsp_vision.deployment.backends import Release
from tdsp_vision.deployment.build_context import WARMUP, prepare, version_number, write_build_context
from tdsp_vision.deployment.local import LocalBackend
from tdsp_vision.deployment.session import ServedVersion


@pytest.fixture
def pictures(tmp_path, photos):
    for number, photo in enumerate(photos):
        (tmp_path / f"{number:02}.jpg").write_bytes(photo)
    return sorted(tmp_path.glob("*.jpg"))


@pytest.fixture
def release(tmp_path):
    return Release(tmp_path / "services/tiny", "tiny", 1)


def warmup_requests(file):
    records = tf.data.TFRecordDataset(str(file)).as_numpy_iterator()
    return [prediction_log_pb2.PredictionLog.FromString(record).predict_log.request for record in records]


def test_the_context_is_whole_and_readable_by_any_user(release, two_classes, pictures):
    write_build_context(release, two_classes.version_folder, pictures)
    assert {path.name for path in release.context.iterdir()} == {
        "Dockerfile",
        "batching.config",
        "monitoring.config",
        "model",
    }
    for path in release.context.rglob("*"):
        wanted = 0o755 if path.is_dir() else 0o644
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path
    for source in two_classes.version_folder.rglob("*"):
        if source.is_file():
            copy = release.models / "1" / source.relative_to(two_classes.version_folder)
            assert copy.read_bytes() == source.read_bytes()


def test_the_dockerfile_names_image_user_model_and_every_file_it_copies(release, two_classes):
    write_build_context(release, two_classes.version_folder)
    text = (release.context / "Dockerfile").read_text()
    assert "ARG SERVING_IMAGE=tensorflow/serving:2.20.0\nFROM $SERVING_IMAGE\n" in text
    assert "USER 10001:10001" in text
    assert not re.search(r"(ARG|ENV) MODEL_NAME", text)  # the base image's own value would win
    flags = dict(re.findall(r'"--(\w+)=([^"]*)"', text))
    assert flags["model_name"] == "tiny"
    assert flags["model_base_path"] == "/models/tiny"
    assert flags["max_num_load_retries"] == flags["file_system_poll_wait_seconds"] == "0"
    for flag in ("batching_parameters_file", "monitoring_config_file"):
        assert (release.context / flags[flag].removeprefix("/config/")).is_file()
    assert "curl" not in text.split("HEALTHCHECK")[1].splitlines()[0]


def test_batching_never_delays_a_lone_request_and_bounds_the_queue(release, two_classes):
    write_build_context(release, two_classes.version_folder)
    settings = dict(re.findall(r"^(\w+) \{ value: (\d+) \}$", (release.context / "batching.config").read_text(), re.M))
    assert settings.pop("batch_timeout_micros") == "0"
    assert settings.keys() == {"max_batch_size", "num_batch_threads", "max_enqueued_batches"}
    assert all(int(value) > 0 for value in settings.values())


def test_warmup_requests_are_real_images_that_the_model_scores(release, two_classes, pictures, photos):
    write_build_context(release, two_classes.version_folder, pictures)
    requests = warmup_requests(release.models / "1" / WARMUP)
    assert len(requests) == 16
    with ServedVersion(two_classes.version_folder) as served:
        for request, photo in zip(requests, photos, strict=False):
            assert (request.model_spec.name, request.model_spec.signature_name) == ("tiny", "serving_default")
            assert not request.model_spec.HasField("version")  # a later version takes the same requests
            images = tf.make_ndarray(request.inputs["image_bytes"])
            assert images.tolist() == [photo]
            answer = served.run("serving_default", {"image_bytes": np.array(images.tolist(), dtype=object)})
            assert answer["valid"].all()


def test_a_later_version_can_take_over_the_warmup_requests(release, two_classes, pictures):
    write_build_context(release, two_classes.version_folder, pictures[:2])
    file = release.models / "1" / WARMUP
    later = Release(release.folder, "tiny", 2)
    write_build_context(later, two_classes.version_folder, file)
    assert (later.models / "2" / WARMUP).read_bytes() == file.read_bytes()


def test_a_missing_warmup_image_leaves_no_context(release, two_classes, tmp_path):
    with pytest.raises(FileNotFoundError, match="missing.jpg"):
        write_build_context(release, two_classes.version_folder, [tmp_path / "missing.jpg"])
    assert list(release.folder.iterdir()) == []


def test_prepare_leaves_a_context_that_is_there(release, two_classes):
    prepare(LocalBackend(), release, two_classes.version_folder)
    before = (release.context / "Dockerfile").stat().st_mtime_ns
    assert prepare(LocalBackend(), release, two_classes.version_folder).endswith("services/tiny/v1")
    assert (release.context / "Dockerfile").stat().st_mtime_ns == before


def test_only_exported_versions_have_a_number(two_classes, tmp_path):
    assert version_number(two_classes.version_folder) == 1
    (tmp_path / "7").mkdir()
    for folder in (tmp_path / "7", tmp_path, tmp_path / "missing"):
        with pytest.raises(FileNotFoundError, match="no exported version"):
            version_number(folder)


def test_the_same_model_in_another_folder_gets_another_tag(tmp_path):
    tags = {Release(tmp_path / name, "tiny", version).tag for name in ("a", "b") for version in (1, 2)}
    assert len(tags) == 4
    assert all(re.fullmatch(r"tiny-[0-9a-f]{8}-v\d", tag) for tag in tags)
