"""The exported SavedModel on the path that TensorFlow Serving takes: v1 loader, Session."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from starlette.exceptions import HTTPException
from tiny_run import CLASSES, decide, write_run

from tdsp_vision.deployment.export import _without_fused_sums, export_model, verify_export
from tdsp_vision.deployment.server import ServedVersion
from tdsp_vision.deployment.versions import read_model_info, version_folder, versions_in, write_config
from tdsp_vision.errors import ParameterError


@pytest.fixture(scope="module")
def served(two_classes):
    return ServedVersion(two_classes.version_folder)


def as_feed(encoded) -> np.ndarray:
    return np.array(list(encoded), dtype=object)


def text(values: np.ndarray) -> list[str]:
    return [value.decode() for value in values]


def example(**features: bytes) -> bytes:
    lists = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for name, v in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()


def test_scores_and_labels_equal_the_keras_model(served, two_classes, photos):
    answer = served.run("serving_default", {"image_bytes": as_feed(photos)})
    expected, familiar = two_classes.scores(photos), two_classes.says(photos)["familiar"][:, 0]
    assert answer["scores"].dtype == answer["familiar"].dtype == np.float32 and answer["valid"].all()
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)
    np.testing.assert_allclose(answer["familiar"], familiar, atol=1e-6)
    assert text(answer["label"]) == decide(expected, two_classes.info)
    assert set(text(answer["label"])) == set(CLASSES)
    damaged = [*photos[:3], photos[0][:500], b"no image", b""]
    assert verify_export(two_classes.version_folder, two_classes.model, damaged) <= 1e-6


def test_a_task_without_positive_class_weighs_scores_by_the_shares_as_the_run_did(three_classes, photos):
    answer = ServedVersion(three_classes.version_folder).run("serving_default", {"image_bytes": as_feed(photos)})
    expected = three_classes.scores(photos)
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)
    rule = three_classes.info
    assert text(answer["label"]) == decide(expected, rule)
    assert text(answer["label"]) != [rule["classes"][k] for k in expected.argmax(axis=1)]


def test_every_format_equals_preprocess_and_keras_model(served, two_classes, every_format):
    answer = served.run("serving_default", {"image_bytes": as_feed(every_format.values())})
    assert [name for name, ok in zip(every_format, answer["valid"], strict=True) if not ok] == []
    np.testing.assert_allclose(answer["scores"], two_classes.scores(list(every_format.values())), atol=1e-6)


def test_examples_are_classified(served, two_classes, photos):
    examples = [example(image_bytes=photos[0]), example(image_bytes=b"no image"), example(other=b"x")]
    answer = served.run("classify", {"inputs": as_feed(examples)})
    assert [text(row) for row in answer["classes"]] == [CLASSES] * 3
    np.testing.assert_allclose(answer["scores"][0], two_classes.scores(photos[:1])[0], atol=1e-6)
    np.testing.assert_array_equal(answer["scores"][1:], 0.0)
    with pytest.raises(HTTPException, match="parse") as caught:
        served.run("classify", {"inputs": as_feed([b"\x81 no Example"])})
    assert caught.value.status_code == 400


def test_the_same_run_is_exported_once_and_no_number_is_given_twice(tmp_path):
    serving = tmp_path / "serving/tiny"
    for number in (1, 2):
        write_run(tmp_path / f"r{number}", CLASSES, "malignant", 0.5, seed=number)
        assert export_model(tmp_path / f"r{number}", serving) == serving / str(number)
        assert export_model(tmp_path / f"r{number}", serving) == serving / str(number)
    assert export_model(tmp_path / "r1", serving) == serving / "1"
    shutil.rmtree(serving)
    assert export_model(tmp_path / "r1", serving) == serving / "3"
    assert read_model_info(serving / "3")["run_id"] == "r1"
    assert [path.name for path in serving.iterdir()] == ["3"]  # no draft is left
    for path in serving.rglob("*"):
        assert path.stat().st_mode & 0o044, path  # the server in a container is another user


def test_a_run_that_was_trained_again_is_another_version(tmp_path):
    write_run(tmp_path / "r", CLASSES, "malignant", 0.5)
    first = export_model(tmp_path / "r", tmp_path / "serving/tiny")
    metrics = json.loads((tmp_path / "r/metrics.json").read_text())
    (tmp_path / "r/metrics.json").write_text(json.dumps(metrics | {"validation": {"threshold": 0.25}}))
    second = export_model(tmp_path / "r", tmp_path / "serving/tiny")
    assert (first.name, second.name, read_model_info(second)["threshold"]) == ("1", "2", 0.25)


def test_the_config_names_a_version_that_is_not_the_highest(tmp_path):
    for name in ("1", "2", ".3.draft", "x"):
        (tmp_path / "tiny" / name).mkdir(parents=True)
    assert versions_in(tmp_path / "tiny") == [1, 2]
    write_config(tmp_path / "tiny", 1)
    assert "versions: 1" in (tmp_path / "tiny/models.config").read_text()
    write_config(tmp_path / "tiny", 2)
    assert "num_versions: 1" in (tmp_path / "tiny/models.config").read_text()
    with pytest.raises(ParameterError, match="There is no version 9 in .*; there is 1, 2"):
        version_folder(tmp_path / "tiny", 9)


def test_an_export_that_fails_its_check_is_never_published(tmp_path, monkeypatch):
    write_run(tmp_path / "run", ["a", "b"], "b", 0.5)
    other = write_run(tmp_path / "other", ["a", "b"], "b", 0.5, seed=8)
    monkeypatch.setattr("tdsp_vision.deployment.export._without_fused_sums", lambda model: other)
    with pytest.raises(ValueError, match="differs from the Keras model"):
        export_model(tmp_path / "run", tmp_path / "serving/tiny")
    assert list((tmp_path / "serving/tiny").iterdir()) == []


def test_no_sum_can_be_fused_into_a_convolution():
    """TensorFlow's fused sums crash a server that answers two requests at once; also where blocks are models inside."""
    inner = keras.Input([8, 8, 4])
    block = keras.Model(inner, keras.layers.Add()([inner, keras.layers.Conv2D(4, 3, padding="same")(inner)]))
    images = keras.Input([8, 8, 4])
    model = keras.Model(images, block(images))
    guarded = _without_fused_sums(model)

    def summands(network):
        traced = tf.function(lambda x: network(x, training=False)).get_concrete_function(tf.TensorSpec([None, 8, 8, 4]))
        additions = [operation for operation in traced.graph.get_operations() if operation.type == "AddV2"]
        return {tensor.op.type for addition in additions for tensor in addition.inputs}

    assert "BiasAdd" in summands(model)
    assert summands(guarded) == {"EnsureShape"}
    pictures = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    np.testing.assert_array_equal(guarded(pictures), model(pictures))
