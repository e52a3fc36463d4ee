"""Averaged weights: what is validated, kept and resumed; the averages themselves against a plain computation."""

from pathlib import Path

import keras
import numpy as np
import pytest
import resumable_training
from resumable_training import EPOCHS, STEPS, build, train, weights
from test_resume_training import Kill, Killed, history, same

from tdsp_vision.modeling.dnn import AveragedWeights, averaging
from tdsp_vision.modeling.optimizer import LayerwiseAdamW
from tdsp_vision.modeling.precision import with_precision

MEAN = averaging(1, STEPS)


class Trace(keras.callbacks.Callback):
    """The trainable weights after each step, and as the callbacks after `AveragedWeights` find them."""

    def __init__(self):
        super().__init__()
        self.steps, self.ends = [], []

    def _weights(self) -> list[np.ndarray]:
        return [variable.numpy().copy() for variable in self.model.trainable_variables]

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append(self._weights())

    def on_epoch_end(self, epoch, logs=None):
        self.ends.append(self._weights())


def average(steps: list[list[np.ndarray]], momentum: float) -> list[np.ndarray]:
    mean = steps[0]
    for values in steps[1:]:
        mean = [momentum * old + (1 - momentum) * new for old, new in zip(mean, values, strict=True)]
    return mean


def model() -> keras.Model:
    schedule = keras.optimizers.schedules.CosineDecay(0.1, EPOCHS * STEPS)
    return build(LayerwiseAdamW(schedule, 0.1, **MEAN))


def train_averaged(folder: Path, *callbacks, policy: str = "float32", patience: int | None = None):
    with with_precision(policy):
        return train(folder, [*callbacks, AveragedWeights()], patience, model())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    trace = Trace()
    folder = tmp_path_factory.mktemp("undisturbed")
    with_averages = train(folder, [AveragedWeights(), trace], model=model())
    return *with_averages[:2], trace


def test_arguments_of_the_optimizer():
    assert averaging(0, 12) == {}
    assert averaging(2, 12) == {"use_ema": True, "ema_momentum": pytest.approx(1 - 1 / 24)}
    assert averaging(0.5, 1)["ema_momentum"] == 0  # less than a step is no mean
    assert LayerwiseAdamW(**averaging(2, 12)).get_config()["ema_momentum"] == pytest.approx(1 - 1 / 24)


def test_each_epoch_ends_with_the_averages_of_all_steps_so_far(undisturbed):
    _, _, trace = undisturbed
    assert len(trace.steps) == EPOCHS * STEPS and len(trace.ends) == EPOCHS
    for epoch, end in enumerate(trace.ends, start=1):
        for found, wanted in zip(end, average(trace.steps[: epoch * STEPS], MEAN["ema_momentum"]), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_training_itself_does_not_notice(undisturbed, tmp_path):
    """Without the callback, the same optimizer takes the same steps."""
    trace = Trace()
    train(tmp_path, [trace], model=model())
    for one, other in zip(trace.steps, undisturbed[2].steps, strict=True):
        assert all(map(np.array_equal, one, other))


def test_the_end_is_the_averages_of_the_best_epoch_and_they_were_validated(undisturbed):
    trained, checkpoint, trace = undisturbed
    best = checkpoint.best_epoch
    assert 0 < best < EPOCHS  # so that it is not the state that training left
    for variable, value in zip(trained.trainable_variables, trace.ends[best - 1], strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    held_out = np.random.default_rng(3)
    loss, _ = trained.evaluate(held_out.normal(size=[16, 6, 6, 3]), held_out.integers(0, 2, 16), verbose=0)
    assert loss == pytest.approx(checkpoint.rows[best - 1]["val_loss"], rel=1e-5)
    assert checkpoint.best_value == checkpoint.rows[best - 1]["val_loss"]


def test_killed_again_and_again(tmp_path, undisturbed):
    for steps in (2, STEPS + 1, 3 * STEPS - 1):
        with pytest.raises(Killed):
            train_averaged(tmp_path, Kill(steps))
    again, checkpoint, first = train_averaged(tmp_path)
    assert first == 3 and history(checkpoint) == history(undisturbed[1])
    assert same(weights(again), weights(undisturbed[0]))
    for one, other in zip(again.optimizer.variables, undisturbed[0].optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())
    again, _, first = train_averaged(tmp_path)  # killed before the run was saved
    assert first == EPOCHS and same(weights(again), weights(undisturbed[0]))


def test_float16_with_its_scaled_loss(tmp_path):
    whole, checkpoint, _ = train_averaged(tmp_path / "whole", policy="mixed_float16")
    assert type(whole.optimizer) is keras.optimizers.LossScaleOptimizer and checkpoint.best_epoch
    with pytest.raises(Killed):
        train_averaged(tmp_path / "killed", Kill(3 * STEPS + 2), policy="mixed_float16")
    again, _, first = train_averaged(tmp_path / "killed", policy="mixed_float16")
    assert first == 3 and same(weights(whole), weights(again))


def test_without_validation_the_end_of_an_epoch_has_the_averages_too():
    trained, trace = model(), Trace()
    callbacks = [AveragedWeights(), trace]
    trained.fit(
        resumable_training.batches(0), epochs=2, steps_per_epoch=STEPS, callbacks=callbacks, verbose=0, shuffle=False
    )
    for number in (1, 2):
        wanted = average(trace.steps[: number * STEPS], MEAN["ema_momentum"])
        for found, value in zip(trace.ends[number - 1], wanted, strict=True):
            np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-6)


def test_an_optimizer_without_averages_is_refused(tmp_path):
    with pytest.raises(ValueError, match="optimizer without averages; give it use_ema=True"):
        train(tmp_path, [AveragedWeights()])
