"""Layer-wise AdamW: each variable moves by its own share of the rate, and only matrices and kernels decay."""

import subprocess
import sys

import keras
import numpy as np
import pytest

from tdsp_vision.modeling.backbones import build_backbone, stage_ends
from tdsp_vision.modeling.optimizer import LayerwiseAdamW, depth_rates
from tdsp_vision.modeling.precision import with_precision
from tdsp_vision.modeling.schedules import learning_rate_schedule

RATE, DECAY = 0.01, 0.3


def _model() -> keras.Model:
    """Two stages, the second with a shortcut, and a nested head."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, name="one")(inputs)
    x = keras.layers.ReLU(name="end1")(keras.layers.BatchNormalization(name="norm")(x))
    shortcut = keras.layers.Conv2D(5, 1, name="shortcut")(x)
    x = keras.layers.Add(name="end2")([keras.layers.Conv2D(5, 3, padding="same", name="two")(x), shortcut])
    x = keras.layers.GlobalAveragePooling2D()(x)
    scores = keras.layers.Dense(2, "softmax", dtype="float32", name="scores")
    head = keras.Sequential([keras.Input((5,)), scores], name="head")
    return keras.Model(inputs, head(x), name="classifier")


def _name(variable) -> str:
    return variable.path.removeprefix("head/")


def _data():
    rng = np.random.default_rng(0)
    return rng.normal(size=[8, 8, 8, 3]).astype("float32"), np.arange(8) % 2


def _changes(optimizer, steps: int = 1) -> dict[str, np.ndarray]:
    """How far each trainable variable of a new model moves."""
    model = _model()
    before = {_name(v): v.numpy() for v in model.trainable_variables}
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    for _ in range(steps):
        model.train_on_batch(*_data())
    return {_name(v): v.numpy() - before[_name(v)] for v in model.trainable_variables}


def test_rates_by_depth():
    rates = depth_rates(_model(), ["end1", "end2"], 0.5)
    by_layer = {name.split("/")[0]: rate for name, rate in rates.items()}
    assert by_layer == {"one": 0.25, "norm": 0.25, "shortcut": 0.5, "two": 0.5, "scores": 1.0}
    assert list(rates) == [_name(v) for v in _model().trainable_variables] and len(rates) == 10
    assert set(depth_rates(_model(), [], 0.5).values()) == {1.0}


def test_frozen_layers_have_no_rate():
    model = _model()
    model.get_layer("one").trainable = False
    assert not any(name.startswith("one/") for name in depth_rates(model, ["end1"], 0.5))


@pytest.mark.parametrize(
    ("ends", "decay", "message"),
    [
        (["end1"], 0, "decay is 0"),
        (["end1"], 1.1, "decay is 1.1"),
        (["end1"], float("nan"), "decay is nan"),
        (["end1", "end3"], 0.5, "no layer 'end3'"),
        (["end2", "end1"], 0.5, "not the order"),
        (["end1", "end1"], 0.5, "not the order"),
    ],
)
def test_wrong_stages_are_refused(ends, decay, message):
    with pytest.raises(ValueError, match=message):
        depth_rates(_model(), ends, decay)


def test_one_name_for_two_rates_is_refused():
    inputs = keras.Input((3,))
    x = keras.layers.Dense(3, name="scores")(inputs)
    head = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="scores")], name="head")
    model = keras.Model(inputs, head(x))
    assert set(depth_rates(model, ["scores"], 1.0).values()) == {1.0}
    with pytest.raises(ValueError, match="'scores/kernel'"):
        depth_rates(model, ["scores"], 0.5)


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18"])
def test_every_stage_of_a_real_network_has_its_rate(name):
    backbone = build_backbone(name, 64, "none")
    model = keras.Model(backbone.input, keras.layers.Dense(2, name="scores")(backbone.output))
    ends = stage_ends(backbone)
    rates = list(depth_rates(model, ends, 0.5).values())
    assert len(rates) == len(model.trainable_variables)
    assert rates == sorted(rates) and rates[-1] == 1.0  # growing from input to head
    assert set(rates) >= {0.5**distance for distance in range(1, len(ends) + 1)}


def test_one_step_moves_each_variable_by_exactly_its_share():
    rates = depth_rates(_model(), ["end1", "end2"], 0.5)
    plain = _changes(LayerwiseAdamW(RATE, 0.0))
    scaled = _changes(LayerwiseAdamW(RATE, 0.0, rates))
    for name, change in scaled.items():
        assert np.abs(change).max() > 1e-5
        np.testing.assert_allclose(change, rates[name] * plain[name], rtol=1e-3, atol=1e-7)


def test_decay_has_the_same_share_and_spares_biases_and_normalizations():
    rates = depth_rates(_model(), ["end1", "end2"], 0.5)
    values = {_name(v): v.numpy() for v in _model().trainable_variables}
    without, decayed = _changes(LayerwiseAdamW(RATE, 0.0, rates)), _changes(LayerwiseAdamW(RATE, DECAY, rates))
    for name, value in values.items():
        wanted = -RATE * DECAY * rates[name] * value if name.endswith("kernel") else np.zeros_like(value)
        np.testing.assert_allclose(decayed[name] - without[name], wanted, rtol=1e-3, atol=1e-7)
    assert sum(name.endswith("kernel") for name in values) == 4


def test_without_shares_it_is_adamw():
    adamw = keras.optimizers.AdamW(RATE, DECAY)
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    wanted, found = _changes(adamw, 3), _changes(LayerwiseAdamW(RATE, DECAY), 3)
    for name, change in wanted.items():
        np.testing.assert_allclose(found[name], change, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_moves_by_the_same_shares(policy):
    rates = depth_rates(_model(), ["end1", "end2"], 0.5)
    with with_precision(policy):
        plain, scaled = _changes(LayerwiseAdamW(RATE, 0.0)), _changes(LayerwiseAdamW(RATE, 0.0, rates))
    for name, change in scaled.items():
        assert np.abs(change).max() > 1e-5
        np.testing.assert_allclose(change, rates[name] * plain[name], rtol=1e-3, atol=1e-7)


def test_a_variable_without_a_rate_is_named():
    rates = depth_rates(_model(), ["end1", "end2"], 0.5)
    del rates["two/kernel"]
    with pytest.raises(ValueError, match=r"no rate for 1 of 10 variables, the first of them 'two/kernel'"):
        _changes(LayerwiseAdamW(RATE, rates=rates))


def test_saved_and_loaded_it_goes_on_alike(tmp_path):
    model = _model()
    schedule = learning_rate_schedule("cosine", RATE, 2, 3)
    rates = depth_rates(model, ["end1", "end2"], 0.5)
    model.compile(LayerwiseAdamW(schedule, DECAY, rates), "sparse_categorical_crossentropy")
    model.train_on_batch(*_data())
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.optimizer) is LayerwiseAdamW and again.optimizer.rates == rates
    for each in (model, again):
        each.train_on_batch(*_data())
    for one, other in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


TWO_DEVICES = """
import keras, numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
from tdsp_vision.modeling.optimizer import LayerwiseAdamW, depth_rates

def trained(strategy):
    with strategy.scope():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6,))
        x = keras.layers.Dense(5, "relu", name="body")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2, "softmax", name="scores")(x))
        model.compile(LayerwiseAdamW(0.01, 0.3, depth_rates(model, ["body"], 0.5)), "sparse_categorical_crossentropy")
    before = [w.copy() for w in model.get_weights()]
    x = np.random.default_rng(0).normal(size=[16, 6]).astype("float32")
    model.fit(x, np.arange(16) % 2, batch_size=8, epochs=2, shuffle=False, verbose=0)
    return before, model.get_weights()

mirrored = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert mirrored.num_replicas_in_sync == 2
(before, two), (same, one) = trained(mirrored), trained(tf.distribute.get_strategy())
for a, b, c, d in zip(before, same, two, one, strict=True):
    np.testing.assert_array_equal(a, b)
    assert np.abs(c - a).max() > 1e-3
    np.testing.assert_allclose(c, d, rtol=1e-4, atol=1e-6)
"""


def test_two_devices_learn_what_one_does():
    subprocess.run([sys.executable, "-c", TWO_DEVICES], check=True)
