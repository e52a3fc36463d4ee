"""Two devices learn what one does, batch by batch; also a program, since a process has its devices once and for all.

python test_strategy.py FOLDER      two logical CPUs; writes FOLDER/results.npz and FOLDER/rows.json
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tdsp_vision.modeling.batches import image_batches, training_batches
from tdsp_vision.modeling.dnn import AveragedWeights, averaging, class_weights, freeze_batch_normalization
from tdsp_vision.modeling.features import predict_files
from tdsp_vision.modeling.imgaug_numpy2 import iaa
from tdsp_vision.modeling.optimizer import LayerwiseAdamW, depth_rates
from tdsp_vision.modeling.precision import as_float32, with_precision
from tdsp_vision.modeling.rate_finder import learning_rate_range_test
from tdsp_vision.modeling.resume import Checkpoint, fingerprint
from tdsp_vision.modeling.schedules import learning_rate_schedule
from tdsp_vision.modeling.strategy import equal_shares, training_strategy

SIZE, BATCH, EPOCHS = 16, 8, 3
TRAIN, HELD_OUT = slice(0, 17), slice(17, 26)  # 17 and 9 images: the last batches hold one
TARGETS = np.arange(26) % 3 % 2  # twice as many zeros as ones
STEPS = -(-17 // BATCH)


class Killed(Exception):
    """Stands for the end of the process."""


class Kill(keras.callbacks.Callback):
    """Ends training in the middle of the second epoch."""

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == STEPS + 2:
            raise Killed


def build(strategy: tf.distribute.Strategy, dropout: float, policy: str) -> keras.Model:
    """As the notebook does it: a network whose batch normalization is frozen, and a head that was trained before."""
    keras.utils.set_random_seed(2)
    head = keras.Sequential([keras.Input((6,)), keras.layers.Dropout(dropout, seed=5)], name="head")
    head.add(keras.layers.Dense(2, "softmax", name="scores"))
    with with_precision(policy), strategy.scope():
        inputs = keras.Input((SIZE, SIZE, 3))
        x = keras.layers.Conv2D(6, 3, 2, name="one")(keras.layers.Rescaling(1 / 255)(inputs))
        x = keras.layers.ReLU(name="end")(keras.layers.BatchNormalization()(x))
        x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(6, 3, 2, name="two")(x))
        top = keras.models.clone_model(head)
        top.set_weights(head.get_weights())
        model = keras.Model(inputs, top(x), name="classifier")
        freeze_batch_normalization(model)
        shares = depth_rates(model, ["end"], 0.5)
        schedule = learning_rate_schedule("cosine", 0.01, EPOCHS, STEPS)
        optimizer = LayerwiseAdamW(schedule, weight_decay=0.1, rates=shares, **averaging(1, STEPS))
        model.compile(optimizer, keras.losses.CategoricalCrossentropy(label_smoothing=0.1), metrics=["accuracy"])
    return model


def train(files: list[Path], folder: Path, strategy, dropout=0.0, policy="float32", extra=(), find_rate=False):
    """Train, or go on with what `folder` holds; the model, its history, and a learning-rate trial where asked for."""
    model = build(strategy, dropout, policy)
    one_hot, weights = np.eye(2)[TARGETS], class_weights(TARGETS[TRAIN])
    arguments = (files[TRAIN], one_hot[TRAIN], SIZE, BATCH, 3, EPOCHS)
    flips = iaa.Sequential([iaa.Fliplr(0.5), iaa.Flipud(0.5)])
    trial = None
    if find_rate:
        with strategy.scope():
            trial = learning_rate_range_test(model, training_batches(*arguments), 1e-4, 1e-2, 10, weights)
    checkpoint = Checkpoint(folder, fingerprint({}), EPOCHS)
    first = checkpoint.restore(model)
    batches = equal_shares(training_batches(*arguments, first, flips), strategy)
    held_weights = np.linspace(0.5, 1.5, 9)
    held_out = image_batches(files[HELD_OUT], SIZE, BATCH, one_hot[HELD_OUT], held_weights)
    fit = {"validation_data": equal_shares(held_out, strategy, whole=True), "class_weight": weights, "verbose": 0}
    fit |= {"epochs": EPOCHS, "initial_epoch": first, "steps_per_epoch": STEPS, "shuffle": False}
    model.fit(batches, callbacks=[*extra, AveragedWeights(), checkpoint], **fit)
    return model, checkpoint.rows, trial


def write_pictures(folder: Path) -> list[Path]:
    rng = np.random.default_rng(5)
    files = [folder / f"{number:02}.png" for number in range(len(TARGETS))]
    for file, target in zip(files, TARGETS, strict=True):
        Image.fromarray(rng.integers(0, 200 + 50 * target, [20, 20, 3], dtype=np.uint8)).save(file)
    return files


def main(folder: Path) -> None:
    """Train the same network in all ways that are compared below."""
    logical = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], logical)
    files = np.array(write_pictures(folder))
    one, (two, _) = tf.distribute.get_strategy(), training_strategy(BATCH, ["CPU:0", "CPU:1"])
    results, rows = {"replicas": two.num_replicas_in_sync}, {}

    def keep(name: str, model: keras.Model, history: list[dict], trial) -> None:
        rows[name] = history
        for i, variable in enumerate([*model.variables, *model.optimizer.variables]):
            results[f"{name}/{i}"] = variable.numpy()
        if trial is not None:
            results[f"{name} trial"] = trial.loss.to_numpy()

    results["start/0"] = build(one, 0.0, "float32").variables[0].numpy()
    keep("one", *train(files, folder / "one", one, find_rate=True))
    keep("two", *train(files, folder / "two", two, find_rate=True))
    keep("undisturbed", *train(files, folder / "undisturbed", two, 0.5, "mixed_float16"))
    with pytest.raises(Killed):
        train(files, folder / "killed", two, 0.5, "mixed_float16", [Kill()])
    model, *others = train(files, folder / "killed", two, 0.5, "mixed_float16")
    keep("killed", model, *others)
    single = as_float32(keras.Model(model.input, model.output))  # as the notebook saves it
    results["predicted"], results["scores"] = predict_files(single, files, SIZE), predict_files(model, files, SIZE)
    np.savez(folder / "results.npz", **results)
    (folder / "rows.json").write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[dict, dict]:
    """Results of the program: arrays by name, and histories."""
    folder = tmp_path_factory.mktemp("two")
    quiet = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    subprocess.run([sys.executable, __file__, str(folder)], check=True, env=quiet)
    with np.load(folder / "results.npz") as stored:
        return {name: stored[name] for name in stored.files}, json.loads((folder / "rows.json").read_text())


def values(results: dict, name: str) -> list[np.ndarray]:
    return [value for key, value in results.items() if key.startswith(f"{name}/")]


def test_two_devices_learn_what_one_does(trained):
    results, rows = trained
    assert results["replicas"] == 2
    one, two = values(results, "one"), values(results, "two")
    assert np.abs(one[0] - results["start/0"]).max() > 1e-3
    for a, b in zip(one, two, strict=True):  # weights, moments and averages
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)
    for a, b in zip(rows["one"], rows["two"], strict=True):
        assert b["val_loss"] == pytest.approx(a["val_loss"], rel=1e-4)
        assert b["val_accuracy"] == pytest.approx(a["val_accuracy"])
    assert len({row["val_loss"] for row in rows["one"]}) == EPOCHS


def test_the_trial_of_learning_rates_is_the_same(trained):
    results, _ = trained
    np.testing.assert_allclose(results["one trial"], results["two trial"], rtol=1e-4)
    assert len(results["one trial"]) == 10 and np.ptp(results["one trial"]) > 0.01


def test_killed_on_two_devices_it_ends_as_if_nothing_had_happened(trained):
    """With dropout, averages and a scaled loss."""
    results, rows = trained
    undisturbed, killed = values(results, "undisturbed"), values(results, "killed")
    assert len(undisturbed) > len(values(results, "two"))  # the state of dropout and of the loss scale
    for a, b in zip(undisturbed, killed, strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(rows["undisturbed"], rows["killed"], strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}


def test_the_trained_network_predicts_on_one_device(trained):
    results, _ = trained
    assert results["scores"].shape == (26, 2)
    np.testing.assert_allclose(results["predicted"], results["scores"], atol=2e-3)  # float32 of float16


def test_one_device_changes_nothing():
    strategy, reason = training_strategy(BATCH, [])
    assert strategy is tf.distribute.get_strategy() and reason == "One processor trains."
    assert training_strategy(BATCH, ["GPU:0"]) == (strategy, "One GPU trains.")
    batches = tf.data.Dataset.range(5).batch(2)
    assert equal_shares(batches, strategy) is batches is equal_shares(batches, strategy, whole=True)


def test_devices_that_do_not_divide_a_batch_are_left_out(monkeypatch):
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", list)
    devices = [f"GPU:{number}" for number in range(3)]
    wanted = "2 of 3 devices train, with 16 images of each batch of 32; all would with a BATCH_SIZE that 3 divides."
    assert training_strategy(32, devices) == (devices[:2], wanted)
    assert training_strategy(33, devices) == (devices, "3 of 3 devices train, with 11 images of each batch of 33.")
    assert training_strategy(7, devices)[0] is tf.distribute.get_strategy()


class Replicas:
    """As much of a strategy as `equal_shares` asks for."""

    def __init__(self, count: int):
        self.num_replicas_in_sync = count


@pytest.mark.parametrize(("replicas", "times"), [(2, [1, 1, 2]), (4, [1, 1, 4]), (3, [3, 3, 3]), (8, [1, 1, 8])])
def test_shares_are_equal_and_means_the_same(replicas, times):
    x, y = np.arange(21.0), np.arange(42.0).reshape(21, 2)
    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    shared = list(equal_shares(batches, Replicas(replicas)))
    for before, after, count in zip(batches, shared, times, strict=True):
        assert len(after[0]) == len(before[0]) * count and len(after[0]) % replicas == 0
        for one, other in zip(before, after, strict=True):
            np.testing.assert_allclose(np.mean(one, axis=0), np.mean(other, axis=0))
    assert [len(x) for x, _ in equal_shares(batches, Replicas(replicas), whole=True)] == [
        8 * replicas,
        8 * replicas,
        5 * replicas,
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
