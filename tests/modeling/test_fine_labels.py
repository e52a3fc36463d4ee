"""Finer labels: what is asked beside the classes, and that nothing else changes."""

import keras
import numpy as np
import pandas as pd
import pytest

from tdsp_vision.modeling.fine_labels import TwoQuestions, class_accuracy, fine_targets, with_fine_head

MANIFEST = pd.DataFrame(
    {
        "path": ["a", "b", "c", "d"],
        "label": ["benign", "benign", "malignant", "malignant"],
        "diagnosis": ["nevus", None, "melanoma", "nevus"],
        "site": ["arm"] * 4,
    }
)


def test_each_value_is_a_column_and_a_missing_one_is_nowhere():
    names, targets = fine_targets(MANIFEST, "diagnosis")
    assert names == ["melanoma", "nevus"]
    assert targets.tolist() == [[0, 1], [0, 0], [1, 0], [0, 1]]


def test_without_a_column_there_is_nothing_to_ask():
    names, targets = fine_targets(MANIFEST, "")
    assert names == [] and targets.shape == (4, 0)


def test_a_column_that_asks_nothing_is_refused():
    with pytest.raises(ValueError, match="FINE_LABELS is 'site', and .* 1 value.* two or more are needed"):
        fine_targets(MANIFEST, "site")


def head_of(features: int) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((features,)), keras.layers.Dense(2, "softmax", name="scores")], name="head")


def test_two_heads_read_the_same_features_and_the_first_is_the_classifier():
    head = head_of(5)
    both = with_fine_head(head, 3, 0.5)
    features = np.random.default_rng(0).normal(size=(4, 5)).astype(np.float32)
    scores = both.predict(features, verbose=0)
    assert scores.shape == (4, 5)
    np.testing.assert_allclose(scores[:, :2], head.predict(features, verbose=0), rtol=1e-6)
    np.testing.assert_allclose(scores[:, 2:].sum(axis=1), 1, rtol=1e-6)
    assert both.get_layer("head") is head


def test_without_fine_labels_only_the_classifier_is_left():
    alone = with_fine_head(head_of(5), 0, 0.5)
    assert alone.output_shape == (None, 2) and len(alone.trainable_weights) == 2


def test_the_loss_is_the_sum_of_two_cross_entropies_where_the_fine_label_is_known():
    rng = np.random.default_rng(1)
    scores = np.concatenate([rng.dirichlet([1, 1], 3), rng.dirichlet([1, 1, 1], 3)], axis=1)
    targets = np.array([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 1, 1, 0, 0]], dtype=float)

    def entropy(t, p):
        smooth = t * 0.9 + 0.1 / t.shape[1]
        return -(smooth * np.log(p)).sum(axis=1)

    expected = entropy(targets[:, :2], scores[:, :2]) + [1, 0, 1] * entropy(targets[:, 2:], scores[:, 2:])
    found = TwoQuestions(2, 0.1).call(keras.ops.convert_to_tensor(targets), keras.ops.convert_to_tensor(scores))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_fine_labels_the_loss_is_keras_own():
    rng = np.random.default_rng(2)
    targets, scores = np.eye(3)[[0, 2, 1]], rng.dirichlet([1, 1, 1], 3)
    ours, theirs = TwoQuestions(3, 0.1), keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    np.testing.assert_allclose(ours(targets, scores), theirs(targets, scores), rtol=1e-6)


def test_accuracy_looks_at_the_classes_only():
    accuracy = class_accuracy(2)
    targets, scores = [[1, 0, 0, 1], [0, 1, 1, 0]], [[0.6, 0.4, 0.9, 0.1], [0.7, 0.3, 0.1, 0.9]]
    accuracy.update_state(np.array(targets), np.array(scores))
    assert accuracy.name == "accuracy" and float(accuracy.result()) == 0.5


def test_fit_with_class_weights_learns_both_questions():
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    fine = rng.integers(0, 3, 300)
    features = np.eye(3)[fine] + rng.normal(scale=0.2, size=(300, 3))
    targets = np.concatenate([np.eye(2)[(fine == 2).astype(int)], np.eye(3)[fine]], axis=1)
    both = with_fine_head(head_of(3), 3, 0.0)
    both.compile(keras.optimizers.Adam(0.05), TwoQuestions(2), metrics=[class_accuracy(2)])
    log = both.fit(features, targets, epochs=20, class_weight={0: 1.0, 1: 2.0}, verbose=0)
    scores = both.predict(features, verbose=0)
    assert log.history["accuracy"][-1] > 0.95
    assert (scores[:, 2:].argmax(axis=1) == fine).mean() > 0.95
