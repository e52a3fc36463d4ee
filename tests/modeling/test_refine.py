"""Refinement: a killed training goes on and ends equally well; each layer learns at its own rate; a rate is found."""

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tdsp_vision.modeling import refine
from tdsp_vision.modeling.refine import Checkpoint
from tdsp_vision.modeling.splits import fine_targets

EPOCHS = 4


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax")(keras.layers.Dense(8, "relu")(inputs)))
    optimizer = refine.LayerwiseAdamW(0.01, 0.01, [0.5, 0.5, 1, 1], averaged=4)
    model.compile(optimizer, "categorical_crossentropy", metrics=["accuracy"])
    return model


def _fit(model: keras.Model, checkpoint: Checkpoint, *more) -> None:
    x = np.random.default_rng(0).normal(size=[64, 4]).astype(np.float32)
    y = np.eye(2, dtype=np.float32)[(x[:, 0] > 0).astype(int)]
    first, fit = checkpoint.restore(model), {"validation_data": (x, y), "verbose": 0, "shuffle": False}
    model.fit(x, y, epochs=EPOCHS, initial_epoch=first, callbacks=[checkpoint, *more], **fit)


class _Killed(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_a_killed_training_goes_on_and_a_damaged_file_starts_anew(tmp_path, capsys):
    whole, checkpoint, seen = _model(), Checkpoint(tmp_path / "undisturbed", {"seed": 0}, EPOCHS), []
    _fit(whole, checkpoint, keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(whole.get_weights())))
    assert not np.allclose(whole.get_weights()[0], seen[checkpoint.best_epoch - 1][0])  # kept is the average
    with pytest.raises(KeyboardInterrupt):
        _fit(_model(), Checkpoint(tmp_path, {"seed": 0}, EPOCHS), _Killed())
    model, later = _model(), Checkpoint(tmp_path, {"seed": 0}, EPOCHS)
    _fit(model, later)
    assert "continues after epoch 2 of 4" in capsys.readouterr().out
    assert [row["epoch"] for row in later.rows] == [1, 2, 3, 4] and later.best_epoch == checkpoint.best_epoch
    for one, other in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    later.path.write_bytes(later.path.read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"\.npz is damaged .*training starts anew"):
        assert later.restore(_model()) == 0
    assert Checkpoint(tmp_path, {"seed": 1}, EPOCHS).restore(_model()) == 0


def test_the_range_test_changes_nothing_and_suggests_a_rate():
    model, x = _model(), np.random.default_rng(0).normal(size=[64, 4]).astype(np.float32)
    y = np.eye(2, dtype=np.float32)[(x[:, 0] > 0).astype(int)]
    before = model.get_weights()
    trial = refine.learning_rate_range_test(model, tf.data.Dataset.from_tensor_slices((x, y)).batch(16), high=10)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    rate, reason = refine.suggest_rate(trial)
    assert 1e-6 < rate < 1 and "a tenth of that is taken" in reason


@pytest.mark.parametrize(("labels", "reason"), [([0, 1], "only rose"), ([0, np.nan], "broke after 0 steps")])
def test_without_a_place_for_a_rate_a_small_set_takes_the_default_one_and_says_why(labels, reason):
    x = np.ones([2, 4], np.float32)  # the same picture twice under two labels: nothing can be learned from it
    y = np.array([[1 - label, label] for label in labels], np.float32)
    model = _model()
    model.layers[-1].set_weights([np.zeros([8, 2]), np.zeros(2)])
    trial = refine.learning_rate_range_test(model, tf.data.Dataset.from_tensor_slices((x, y)).batch(2))
    found = refine.suggest_rate(trial)
    assert found == (refine.DEFAULT_RATE, f"The loss of the trial {reason}; the default rate 0.0005 is taken.")


def test_finer_labels_are_a_second_question_and_unknown_ones_cost_nothing():
    manifest = pd.DataFrame({"kind": ["mole", None, "", "wart"]})
    names, fine = fine_targets(manifest, "kind")
    assert names == ["mole", "wart"] and fine.tolist() == [[1, 0], [0, 0], [0, 0], [0, 1]]
    answers = refine.smoothed_answers(np.array([0, 0, 0, 1]), 2, fine, 0.25, np.array([0, 1, 3]))
    # A rare class counts no more: with eight classes such weights wrecked the network.
    assert answers["scores"].tolist() == [[0.875, 0.125], [0.875, 0.125], [0.125, 0.875]]
    assert answers["fine"].tolist() == [[0.875, 0.125], [0, 0], [0.125, 0.875]]
    with pytest.raises(ValueError, match="FINE_LABELS is 'kind', and that column holds 1 value"):
        fine_targets(manifest[:2], "kind")


@pytest.mark.parametrize(("whole", "first"), [(False, [0, 1, 2, 3]), (True, [0, 0, 1, 1, 2, 2, 3, 3])])
def test_devices_get_equal_shares_of_a_last_batch(whole, first):
    batches = tf.data.Dataset.from_tensor_slices((np.arange(7), np.arange(7))).batch(4)
    two = SimpleNamespace(num_replicas_in_sync=2)
    shares = [images.numpy().tolist() for images, _ in refine.equal_shares(batches, two, whole)]
    assert shares == [first, [4, 4, 5, 5, 6, 6]]
