"""Learning-rate finder: it leaves no trace, and reads the rate where one would."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tdsp_vision.modeling.curves import learning_rate_curve
from tdsp_vision.modeling.optimizer import LayerwiseAdamW, depth_rates
from tdsp_vision.modeling.precision import with_precision
from tdsp_vision.modeling.rate_finder import DIVERGED, learning_rate_range_test, suggest_rate
from tdsp_vision.modeling.schedules import learning_rate_schedule


def _model() -> keras.Model:
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, "relu", name="body")(inputs)
    x = keras.layers.Dropout(0.3)(keras.layers.BatchNormalization(momentum=0.5)(x))
    model = keras.Model(inputs, keras.layers.Dense(2, "softmax", dtype="float32", name="scores")(x))
    schedule = learning_rate_schedule("cosine", 0.01, 3, 4)
    optimizer = LayerwiseAdamW(schedule, 0.1, depth_rates(model, ["body"], 0.5))
    model.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["accuracy"])
    return model


def _batches() -> tf.data.Dataset:
    """Two batches a pass, learnable, one-hot."""
    x = np.random.default_rng(0).normal(size=[24, 6]).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, np.eye(2, dtype="float32")[(x[:, 0] > 0).astype(int)])).batch(16)


def _state(model: keras.Model) -> list[np.ndarray]:
    return [variable.numpy() for variable in [*model.variables, *model.optimizer.variables, *model.metrics_variables]]


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_it_leaves_no_trace(policy):
    with with_precision(policy):
        model, other = _model(), _model()
    for each in (model, other):
        each.fit(_batches(), epochs=1, verbose=0, shuffle=False)
    before = _state(model)
    table = learning_rate_range_test(model, _batches(), 1e-4, 1, 12, class_weight={0: 1.0, 1: 2.0})
    assert len(table) > 5
    for one, two in zip(_state(model), before, strict=True):
        np.testing.assert_array_equal(one, two)
    for each in (model, other):
        each.fit(_batches(), epochs=1, verbose=0, shuffle=False)
    for one, two in zip(_state(model), _state(other), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_table_holds_the_loss_of_each_step():
    table = learning_rate_range_test(_model(), _batches(), 1e-5, 1e-3, 11)
    assert table.columns.tolist() == ["rate", "loss"]
    np.testing.assert_allclose(table.rate, np.geomspace(1e-5, 1e-3, 11))
    first = _model().train_on_batch(*next(iter(_batches())))[0]  # the loss before an update: no rate is in it
    assert table.loss[0] == pytest.approx(first)
    weighted = learning_rate_range_test(_model(), _batches(), 1e-5, 1e-3, 10, class_weight={0: 2.0, 1: 2.0})
    assert weighted.loss[0] == pytest.approx(2 * first)


def test_it_stops_where_the_loss_breaks():
    table = learning_rate_range_test(_model(), _batches(), 1e-3, 1e4, 40)
    assert 2 < len(table) < 40 and np.isfinite(table.loss).all()
    assert table.loss.iloc[-1] <= DIVERGED * table.loss.min()


def test_a_failing_trial_is_taken_back_too():
    model = _model()
    before = _state(model)

    def broken():
        yield next(iter(_batches()))
        raise OSError("disk gone")

    spec = (tf.TensorSpec([None, 6]), tf.TensorSpec([None, 2]))
    with pytest.raises(tf.errors.OpError):
        learning_rate_range_test(model, tf.data.Dataset.from_generator(broken, output_signature=spec), steps=10)
    for one, two in zip(_state(model), before, strict=True):
        np.testing.assert_array_equal(one, two)


def test_trials_that_make_no_sense_are_refused():
    inputs = keras.Input((6,))
    with pytest.raises(ValueError, match="not compiled"):
        learning_rate_range_test(keras.Model(inputs, keras.layers.Dense(2)(inputs)), _batches())
    for low, high, steps in ((0, 1, 20), (1e-3, 1e-3, 20), (1e-3, 1e-1, 9)):
        with pytest.raises(ValueError, match="needs 0 < low < high and 10 steps"):
            learning_rate_range_test(_model(), _batches(), low, high, steps)


def _valley(lowest: float, noise: float = 0.0) -> pd.DataFrame:
    """Loss that falls to `lowest` and then rises steeply."""
    rates = np.geomspace(1e-6, 1, 61)
    way = np.log10(rates / lowest)
    loss = 0.7 + np.where(way < 0, -0.2 * way.clip(-2), way) + noise * np.random.default_rng(0).normal(size=61)
    return pd.DataFrame({"rate": rates, "loss": loss})


@pytest.mark.parametrize("lowest", [1e-4, 1e-2])
@pytest.mark.parametrize("noise", [0, 0.02])
def test_a_tenth_of_the_rate_of_lowest_loss(lowest, noise):
    assert lowest / 30 < suggest_rate(_valley(lowest, noise)) < lowest / 5


def test_one_lucky_batch_does_not_decide():
    table = _valley(1e-2)
    table.loc[3, "loss"] = 0.3
    assert suggest_rate(table) == suggest_rate(_valley(1e-2))


def test_no_rate_where_none_can_be_read():
    with pytest.raises(ValueError, match="has 9 steps"):
        suggest_rate(_valley(1e-2)[:9])
    with pytest.raises(ValueError, match="only rose from rate 1.0e-02"):
        suggest_rate(_valley(1e-2)[40:].reset_index(drop=True))


def test_the_figure_shows_trial_and_choice():
    table = _valley(1e-2, 0.02)
    axis = learning_rate_curve(table, 1e-3).axes[0]
    assert axis.get_xscale() == "log"
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), table.loss)
    assert axis.lines[2].get_xdata()[0] == 1e-3
    labels = [text.get_text() for text in axis.get_legend().get_texts()]
    assert labels == ["loss of one batch", "smoothed", "suggested: 1.0e-03"]
