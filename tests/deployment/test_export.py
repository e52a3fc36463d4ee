"""The exported SavedModel on the path that TensorFlow Serving takes: v1 loader, Session."""

import json

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import decide, write_run

from tdsp_vision.deployment.export import export_model, read_model_info, verify_export
from tdsp_vision.deployment.graph import Decision
from tdsp_vision.deployment.protocol import RequestError
from tdsp_vision.deployment.session import ServedVersion
from tdsp_vision.deployment.versions import versions_in


@pytest.fixture(scope="module")
def served(two_classes):
    with ServedVersion(two_classes.version_folder) as version:
        yield version


@pytest.fixture(scope="module")
def served_three(three_classes):
    with ServedVersion(three_classes.version_folder) as version:
        yield version


def as_feed(encoded) -> np.ndarray:
    return np.array(list(encoded), dtype=object)


def text(values: np.ndarray) -> list[str]:
    return [value.decode() for value in values]


def example(features: dict[str, bytes]) -> bytes:
    lists = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v])) for name, v in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=lists)).SerializeToString()


def test_serving_default_scores_and_labels_equal_the_keras_model(served, two_classes, photos):
    answer = served.run("serving_default", {"image_bytes": as_feed(photos)})
    expected = two_classes.scores(photos)
    assert answer["scores"].dtype == np.float32
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)
    assert answer["valid"].all()
    assert text(answer["label"]) == decide(expected, two_classes.info)
    assert set(text(answer["label"])) == {"benign", "malignant"}


def test_a_task_without_positive_class_takes_the_highest_score(served_three, three_classes, photos):
    answer = served_three.run("serving_default", {"image_bytes": as_feed(photos)})
    expected = three_classes.scores(photos)
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)
    assert text(answer["label"]) == [three_classes.info["classes"][i] for i in expected.argmax(axis=1)]
    assert len(set(text(answer["label"]))) > 1


def test_every_format_equals_preprocess_and_keras_model(served, two_classes, every_format):
    answer = served.run("serving_default", {"image_bytes": as_feed(every_format.values())})
    expected = two_classes.scores(list(every_format.values()))
    wrong = [name for name, ok in zip(every_format, answer["valid"], strict=True) if not ok]
    assert not wrong
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)


def test_damaged_images_do_not_touch_the_good_ones_of_their_batch(served, two_classes, photos, damaged):
    batch = [item for pair in zip(photos, damaged.values(), strict=False) for item in pair]
    answer = served.run("serving_default", {"image_bytes": as_feed(batch)})
    assert answer["valid"].tolist() == [True, False] * len(damaged)
    np.testing.assert_array_equal(answer["scores"][1::2], 0.0)
    assert text(answer["label"][1::2]) == [""] * len(damaged)
    good = two_classes.scores(photos[: len(damaged)])
    np.testing.assert_allclose(answer["scores"][::2], good, atol=1e-6)
    assert text(answer["label"][::2]) == decide(good, two_classes.info)


def test_a_large_batch_keeps_its_order(served, two_classes, photos):
    order = np.random.default_rng(0).integers(0, len(photos), 100)
    answer = served.run("serving_default", {"image_bytes": as_feed(photos[i] for i in order)})
    np.testing.assert_allclose(answer["scores"], two_classes.scores(photos)[order], atol=1e-6)


def test_an_empty_batch_gives_empty_answers(served):
    answer = served.run("serving_default", {"image_bytes": as_feed([])})
    assert {name: values.shape for name, values in answer.items()} == {
        "label": (0,),
        "scores": (0, 2),
        "valid": (0,),
    }
    assert served.run("classify", {"inputs": as_feed([])})["scores"].shape == (0, 2)


def test_float_images(served, two_classes):
    pictures = np.random.default_rng(1).uniform(0, 255, [5, 32, 32, 3]).astype(np.float32)
    answer = served.run("float_images", {"images": pictures})
    expected = np.asarray(two_classes.model(pictures, training=False))
    np.testing.assert_allclose(answer["scores"], expected, atol=1e-6)
    assert text(answer["label"]) == decide(expected, two_classes.info)


def test_classify_reads_examples_and_zeros_what_it_cannot(served, two_classes, photos):
    examples = [example({"image_bytes": photos[0]}), example({}), example({"image_bytes": b"damaged"})]
    answer = served.run("classify", {"inputs": as_feed(examples)})
    assert [text(row) for row in answer["classes"]] == [["benign", "malignant"]] * 3
    np.testing.assert_allclose(answer["scores"][:1], two_classes.scores(photos[:1]), atol=1e-6)
    np.testing.assert_array_equal(answer["scores"][1:], 0.0)


def test_errors_of_the_graph_carry_an_http_status(served):
    with pytest.raises(RequestError, match="Could not parse example") as caught:
        served.run("classify", {"inputs": as_feed([b"no example"])})
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("classes", "positive_class", "threshold"),
    [
        (["benign", "malignant"], "malignant", 0.25),
        (["benign", "malignant"], "benign", 0.75),
        (["a", "b", "c"], "b", 0.5),
        (["a", "b", "c"], "", None),
        (["a"], "", None),
    ],
)
def test_decision_rule(classes, positive_class, threshold):
    scores = np.random.default_rng(2).dirichlet(np.ones(len(classes)), 50).astype(np.float32)
    if threshold is not None:
        scores[0, classes.index(positive_class)] = threshold  # on the threshold means positive
    labels = tf.function(Decision(classes, positive_class, threshold).labels)(tf.constant(scores))
    info = {"classes": classes, "positive_class": positive_class, "threshold": threshold}
    assert text(labels.numpy()) == decide(scores, info)


def test_versions_count_up_and_say_what_they_are(tmp_path):
    write_run(tmp_path / "run7", ["a", "b"], "b", 0.25)
    (tmp_path / "serving/9").mkdir(parents=True)
    (tmp_path / "serving/.10.draft").mkdir()
    (tmp_path / "serving/notes").mkdir()
    version = export_model(tmp_path / "run7", tmp_path / "serving")
    assert version == tmp_path / "serving/10"
    assert versions_in(tmp_path / "serving") == [9, 10]
    assert read_model_info(version) == {
        "classes": ["a", "b"],
        "positive_class": "b",
        "threshold": 0.25,
        "image_size": 32,
        "run_id": "run7",
    }


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"classes": ["a", "b", "c"]}, ValueError, "3 classes"),
        ({"image_size": 64}, ValueError, "64 x 64"),
        ({"positive_class": "z"}, ValueError, "'z'"),
        ({"validation": {"threshold": None}}, ValueError, "no threshold"),
        ({"classes": None}, ValueError, "has no classes"),
    ],
)
def test_a_run_that_does_not_fit_is_refused_and_leaves_nothing(tmp_path, change, error, says):
    write_run(tmp_path / "run", ["a", "b"], "b", 0.5)
    metrics = json.loads((tmp_path / "run/metrics.json").read_text()) | change
    kept = {name: value for name, value in metrics.items() if value is not None}
    (tmp_path / "run/metrics.json").write_text(json.dumps(kept))
    with pytest.raises(error, match=says):
        export_model(tmp_path / "run", tmp_path / "serving")
    assert not (tmp_path / "serving").exists()


@pytest.mark.parametrize("name", ["metrics.json", "model.keras"])
def test_an_unfinished_run_is_refused(tmp_path, name):
    write_run(tmp_path / "run", ["a", "b"], "b", 0.5)
    (tmp_path / "run" / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        export_model(tmp_path / "run", tmp_path / "serving")


def test_an_export_that_fails_its_check_is_never_published(tmp_path, monkeypatch):
    write_run(tmp_path / "run", ["a", "b"], "b", 0.5)

    def refuse(*arguments):
        raise ValueError("scores differ")

    monkeypatch.setattr("tdsp_vision.deployment.export.verify_export", refuse)
    with pytest.raises(ValueError, match="scores differ"):
        export_model(tmp_path / "run", tmp_path / "serving")
    assert list((tmp_path / "serving").iterdir()) == []


def test_verify_export_tells_a_different_model(two_classes, photos, damaged, tmp_path):
    encoded = [*photos[:3], *damaged.values()]
    assert verify_export(two_classes.version_folder, two_classes.model, encoded) <= 1e-6
    other = write_run(tmp_path / "other", ["benign", "malignant"], "malignant", 0.5)
    other.set_weights([weights * 1.5 for weights in other.get_weights()])
    with pytest.raises(ValueError, match="differs from the Keras model"):
        verify_export(two_classes.version_folder, other, encoded)
