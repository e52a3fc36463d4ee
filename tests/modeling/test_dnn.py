"""Refinement: batch normalization stays as it was, rare classes count, the learning rate takes its course."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tdsp_vision.modeling.dnn import class_weights, freeze_batch_normalization
from tdsp_vision.modeling.optimizer import LayerwiseAdamW
from tdsp_vision.modeling.schedules import learning_rate_schedule


def _block(channels: int) -> keras.Sequential:
    layers = [keras.layers.Conv2D(channels, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    return keras.Sequential(layers)


def _nested() -> keras.Model:
    """Batch normalization at three depths: in the model, in a block, and in a block of a block."""
    inputs = keras.Input((12, 12, 3))
    x = keras.layers.BatchNormalization()(inputs)
    x = keras.Sequential([_block(4), _block(5)])(_block(3)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))


def _normalizations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    found = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(found) == 4
    return found


def _train_on_weird_data(model: keras.Model) -> None:
    rng = np.random.default_rng(0)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(rng.normal(50, 30, [16, 12, 12, 3]), np.arange(16) % 2, epochs=2, verbose=0)


def test_frozen_layers_keep_everything_and_others_learn():
    model = _nested()
    assert freeze_batch_normalization(model) == 4
    before = [[w.numpy() for w in layer.weights] for layer in _normalizations(model)]
    dense = model.layers[-1].kernel.numpy()
    _train_on_weird_data(model)
    for layer, values in zip(_normalizations(model), before, strict=True):
        for weight, value in zip(layer.weights, values, strict=True):
            np.testing.assert_array_equal(weight.numpy(), value)
    assert np.abs(model.layers[-1].kernel.numpy() - dense).max() > 1e-4


def test_without_freezing_the_same_data_moves_the_statistics():
    model = _nested()
    _train_on_weird_data(model)
    assert all(np.abs(layer.moving_variance.numpy() - 1).max() > 1e-3 for layer in _normalizations(model))


def test_frozen_layers_normalize_the_same_in_training_and_evaluation():
    model = _nested()
    freeze_batch_normalization(model)
    x = np.random.default_rng(0).normal(20, 9, [4, 12, 12, 3])
    np.testing.assert_array_equal(model(x, training=True), model(x, training=False))


def test_all_of_lite0_is_frozen(small_backbone):
    head = keras.Sequential([keras.Input((1280,)), keras.layers.Dense(2)])
    model = keras.Model(small_backbone.input, head(small_backbone.output))
    assert freeze_batch_normalization(model) == 49
    names = {weight.name for weight in model.trainable_weights}
    assert names == {"kernel", "bias"}
    assert len(model.trainable_weights) == 49 + 2


def test_class_weights_are_balanced():
    targets = np.array([0] * 6 + [1] * 3 + [2] * 1)
    weights = class_weights(targets)
    assert weights == pytest.approx({0: 10 / 18, 1: 10 / 9, 2: 10 / 3})
    assert list(weights.values()) == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=targets))
    assert sum(weights[t] for t in targets) == pytest.approx(len(targets))
    assert all(type(k) is int and type(v) is float for k, v in weights.items())


@pytest.mark.parametrize("as_dataset", [False, True])
def test_class_weights_and_label_smoothing_work_together(as_dataset):
    """Sparse targets cannot be smoothed in Keras, one-hot ones can; class weights know them by their argmax."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=[6, 3]).astype("float32"), np.array([0, 0, 1, 2, 2, 2])
    one_hot, weights = np.eye(3, dtype="float32")[y], class_weights(y)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(3, "softmax")])
    loss = keras.losses.CategoricalCrossentropy(label_smoothing=0.1)
    model.compile(keras.optimizers.SGD(0.0), loss, metrics=["accuracy"])
    scores = model.predict(x, verbose=0)
    losses = -((0.9 * one_hot + 0.1 / 3) * np.log(scores)).sum(axis=1)
    data = (tf.data.Dataset.from_tensor_slices((x, one_hot)).batch(6),) if as_dataset else (x, one_hot, 6)
    log = model.fit(*data, class_weight=weights, verbose=0, shuffle=False).history
    assert log["loss"] == pytest.approx([np.mean([weights[t] * each for t, each in zip(y, losses, strict=True)])])
    assert log["accuracy"] == pytest.approx([(scores.argmax(axis=1) == y).mean()])


def test_tensorboard_writes_under_its_folder(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")])
    optimizer = LayerwiseAdamW(learning_rate_schedule("cosine", 1e-3, 1, 2))
    model.compile(optimizer, "sparse_categorical_crossentropy")
    data = np.zeros([4, 3]), np.arange(4) % 2
    board = keras.callbacks.TensorBoard(tmp_path / "board")
    model.fit(*data, batch_size=2, validation_data=data, callbacks=[board], verbose=0)
    for side, tags in {"train": {"epoch_loss", "epoch_learning_rate"}, "validation": {"epoch_loss"}}.items():
        (file,) = (tmp_path / "board" / side).iterdir()
        assert set(EventAccumulator(str(file)).Reload().Tags()["tensors"]) >= tags


def test_a_trained_model_keeps_its_schedule_when_saved(tmp_path):
    model = _nested()
    freeze_batch_normalization(model)
    steps = -(-np.int64(16) // 8)  # as the notebook counts them
    model.compile(
        keras.optimizers.AdamW(learning_rate_schedule("cosine", 1e-3, 2, steps)), "sparse_categorical_crossentropy"
    )
    x = np.random.default_rng(0).normal(size=[16, 12, 12, 3])
    model.fit(x, np.arange(16) % 2, epochs=2, batch_size=8, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(x, verbose=0), again.predict(x, verbose=0))
