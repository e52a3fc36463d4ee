"""What refining a pre-trained network needs beside Keras: rates by layer and step, precision, devices, a rate finder.

And a training that can be watched and survives a kill. The recipe itself is in the notebook. Batches are tuples
(images, answers), as `fit` takes them.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from tdsp_vision.modeling.backbones import stages
from tdsp_vision.modeling.batches import PREPROCESS_VERSION
from tdsp_vision.modeling.features import read_arrays, write_arrays
from tdsp_vision.parameters import listed_rates

DEFAULT_RATE = 0.0005  # where the rate finder finds none
DIVERGED = 4  # times the lowest loss: from here on the trial shows nothing more


def smoothed_answers(targets: np.ndarray, n_classes: int, fine: np.ndarray, smoothing: float, rows) -> dict:
    """What a network is asked of some images, by output: one-hot, `smoothing` of it shared out among all classes.

    Images of rare classes count no more than others: with eight classes, the rarest of them one image in a hundred,
    such weights wrecked a network within three epochs. Whether a rare class is called is up to the threshold.

    Args:
        targets: int [n].
        fine: float [n, F] of `splits.fine_targets`; with F = 0 there is no second question.
        smoothing: 0 to below 1 (Szegedy et al. 2016, arXiv:1512.00567, section 7).
        rows: int [r], numbers of the images.

    Returns:
        {"scores": [r, K], "fine": [r, F]}, float32. Where a fine label is unknown the row is 0 and costs nothing.
    """
    asked = {"scores": np.eye(n_classes)[targets[rows]]} | ({"fine": fine[rows]} if fine.shape[1] else {})
    shared = {name: smoothing * one_hot.mean(axis=1, keepdims=True) for name, one_hot in asked.items()}
    return {name: ((1 - smoothing) * one_hot + shared[name]).astype("float32") for name, one_hot in asked.items()}


def train_last_stages(backbone: keras.Model, trainable_stages: int) -> None:
    """Freeze all but the last stages (`backbones.stages`); 0 freezes nothing. ValueError if it has not so many."""
    parts = stages(backbone)
    if not 0 <= trainable_stages < len(parts):
        allowed = f"allowed are 0 (all of {backbone.name}) and 1 to {len(parts) - 1} (the last ones)"
        raise ValueError(f"TRAINABLE_STAGES is {trainable_stages}; {allowed}.")
    for layer in sum(parts[:-trainable_stages] if trainable_stages else [], []):
        layer.trainable = False


def layer_shares(model: keras.Model, backbone: keras.Model, decay: float) -> list[float]:
    """Share of the rate for each of `model.trainable_variables`: the head's 1, and each stage `decay` of the next.

    What ImageNet taught early layers (edges, colors) needs less change (Howard and Ruder 2018, arXiv:1801.06146).

    Args:
        model: contains the layers of `backbone`.
        decay: above 0, at most 1, which gives all the whole rate.
    """
    parts = stages(backbone)
    depth = {id(v): len(parts) - i for i, part in enumerate(parts) for layer in part for v in layer.variables}
    return [decay ** depth.get(id(variable), 0) for variable in model.trainable_variables]


class LayerwiseAdamW(keras.optimizers.AdamW):
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) in which each variable has its own share of the rate.

    The share scales update and weight decay. Variables with a single axis (biases) do not decay (He et al. 2019, "Bag
    of tricks", arXiv:1812.01187, section 3.1). It keeps a moving average of each weight, which `Checkpoint` validates.

    Args:
        shares: of each trainable variable, in their order, from `layer_shares`.
        averaged: steps over which the averages reach, about; 1 for none.
        learning_rate, weight_decay, **kwargs: as for `keras.optimizers.AdamW`.
    """

    def __init__(self, learning_rate=0.001, weight_decay=0.004, shares: list[float] = (), averaged=1, **kwargs):
        kwargs |= {"use_ema": True, "ema_momentum": 1 - 1 / averaged}
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, **kwargs)
        self.shares, self.averaged = list(shares), averaged
        self.exclude_from_weight_decay(var_names=[""])  # from Keras's, which has one rate; see `update_step`

    def update_step(self, gradient, variable, learning_rate):
        """Decay, then Adam's update, in the order of `keras.optimizers.AdamW`, both at the variable's own rate."""
        rate = keras.ops.cast(learning_rate, variable.dtype) * self.shares[self._get_variable_index(variable)]
        if len(variable.shape) > 1:
            self.assign_sub(variable, variable * (rate * self.weight_decay))
        super().update_step(gradient, variable, rate)

    def get_config(self):
        """What `from_config` needs to build the same optimizer."""
        return super().get_config() | {"shares": self.shares, "averaged": self.averaged}


def learning_rate_schedule(schedule: str, peak: float, epochs: int, steps_per_epoch: int):
    """The learning rate by step, for an optimizer.

    "cosine" climbs to `peak` in the first tenth and falls along a cosine to 0 (Goyal et al. 2017, arXiv:1706.02677;
    Loshchilov and Hutter 2017, arXiv:1608.03983); "constant" is `peak`; a list, as `listed_rates` reads it,
    holds one rate for each epoch.
    """
    steps = epochs * steps_per_epoch
    if schedule == "cosine":
        warmup = max(1, steps // 10)
        decay = keras.optimizers.schedules.CosineDecay
        return decay(peak / 10, max(1, steps - warmup), warmup_target=peak, warmup_steps=warmup)
    rates = [float(peak)] * epochs if schedule == "constant" else listed_rates(schedule, epochs)
    ends = [epoch * steps_per_epoch - 1 for epoch in range(1, epochs + 1)]  # the last changes nothing
    return keras.optimizers.schedules.PiecewiseConstantDecay(ends, [*rates, rates[-1]])


def learning_rate_range_test(model: keras.Model, batches, low=1e-6, high=1e-1, steps: int = 60) -> pd.DataFrame:
    """Train for `steps` batches, each at a higher rate than the last, and take all of it back.

    A single short trial in place of a search (Smith 2017, arXiv:1506.01186, section 3.3).

    Args:
        model: compiled; its loss and the kind and settings of its optimizer are used.
        batches: as for `fit`, started again where they are fewer than `steps`.
        low, high: rates of the first and the last step; in between they grow by a constant factor.

    Returns:
        columns rate, loss (of that step's batch, before its update) and smoothed, one row per step; fewer than `steps`
        where the loss reached `DIVERGED` times its lowest value. Weights and states of random layers are as they were.
    """
    trial, rows = keras.Model(model.inputs, model.output), []
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # float16 wraps it
    trial.compile(type(optimizer).from_config(optimizer.get_config() | {"learning_rate": low}), model.loss)
    before = [(variable, variable.numpy().copy()) for variable in model.variables]
    try:
        for rate, batch in zip(np.geomspace(low, high, steps), islice(batches.repeat(), steps), strict=True):
            trial.optimizer.learning_rate = rate
            loss = trial.train_on_batch(*batch, return_dict=True)["loss"]
            if not np.isfinite(loss) or loss > DIVERGED * min((row["loss"] for row in rows), default=loss):
                break
            rows.append({"rate": float(rate), "loss": float(loss)})
    finally:
        for variable, value in before:
            variable.assign(value)
    trial = pd.DataFrame(rows, columns=["rate", "loss"])
    return trial.assign(smoothed=trial.loss.rolling(max(5, len(rows) // 10), center=True, min_periods=1).mean())


def suggest_rate(trial: pd.DataFrame) -> tuple[float, str]:
    """A tenth of the rate at which the smoothed loss is lowest, and why, as a sentence.

    There the rate is already too high to go on with, and one order below it the loss still falls steeply (Howard and
    Gugger 2020, arXiv:2002.04688). Where the trial shows no such place, `DEFAULT_RATE`.

    Args:
        trial: of `learning_rate_range_test`.
    """
    losses = trial.smoothed
    if len(trial) < 10 or losses.idxmin() == losses.index[0]:
        reason = f"broke after {len(trial)} steps" if len(trial) < 10 else "only rose"
        return DEFAULT_RATE, f"The loss of the trial {reason}; the default rate {DEFAULT_RATE:g} is taken."
    lowest = trial.rate[losses.idxmin()]
    return float(lowest / 10), f"The loss of the trial is lowest at {lowest:.1e}; a tenth of that is taken."


def choose_precision(precision: str) -> tuple[str, str]:
    """The Keras policy to train with, and why, as a sentence.

    "auto" is a rule and no measurement, so the same machine always gives the same answer: 16 bits on a GPU that is
    made for them (NVIDIA, "CUDA C++ programming guide", tensor cores). Scores are float32 always.

    Args:
        precision: "auto", or a policy of Keras.

    Raises:
        ValueError: for "mixed_float16" without a GPU.
    """
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    capability = min((tuple(found.get("compute_capability", (0, 0))) for found in gpus), default=None)
    if precision == "mixed_float16" and capability is None:
        raise ValueError("PRECISION is 'mixed_float16', which is ten times slower without a GPU; take 'auto'.")
    if precision != "auto":
        return precision, f"{precision}, as PRECISION says."
    if capability is None:
        return "float32", "float32: a processor is seldom faster with 16 bits."
    policy = "mixed_bfloat16" if capability >= (8, 0) else "mixed_float16" if capability >= (7, 0) else "float32"
    return policy, f"{policy}: the GPU has compute capability {capability[0]}.{capability[1]}."


@contextmanager
def with_precision(policy: str) -> Iterator[None]:
    """Layers built inside compute in `policy`; afterwards, and after an error, the policy is again what it was."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def training_strategy(batch_size: int) -> tuple[tf.distribute.Strategy, str]:
    """How to train on what this machine has, and a sentence about it; build and compile within `strategy.scope()`.

    Each device holds the whole network and computes its share of each batch; the gradients are summed, so the result
    is that of one device up to rounding and dropout (TensorFlow guide "Distributed training with TensorFlow").

    Args:
        batch_size: images in a batch over all devices together; so many devices are used as divide it.
    """
    devices = [d.name for d in tf.config.list_logical_devices("GPU")]
    used = max((count for count in range(1, len(devices) + 1) if batch_size % count == 0), default=0)
    if used < 2:
        return tf.distribute.get_strategy(), f"One {'GPU' if devices else 'processor'} trains."
    reason = f"{used} of {len(devices)} devices train, with {batch_size // used} images of each batch of {batch_size}."
    return tf.distribute.MirroredStrategy(devices[:used]), reason


def equal_shares(batches: tf.data.Dataset, strategy: tf.distribute.Strategy, whole: bool = False) -> tf.data.Dataset:
    """The same batches with images repeated where the devices' shares would not be equal; for one device unchanged.

    Keras takes the mean over each share and then over the shares, which is the mean over the batch only if they are
    equal, and TensorFlow fails where a share is empty. A last batch of 5 images for 2 devices holds each image twice.

    Args:
        whole: repeat every batch once for each device. For validation: as the repetitions of the last batch count in
            the mean over an epoch, that mean is exact only if all batches have the same number of them.
    """
    count = strategy.num_replicas_in_sync
    if count == 1:
        return batches
    times = [count if whole else count // math.gcd(rest, count) for rest in range(count)]  # gcd(0, n) is n

    def repeated(*columns):
        often = tf.gather(times, tf.shape(columns[0])[0] % count)
        return tf.nest.map_structure(lambda column: tf.repeat(column, often, axis=0), columns)

    return batches.map(repeated)


class Checkpoint(keras.callbacks.SwapEMAWeights):
    """Prints a line for each epoch, keeps the state on disk and the best epoch's weights, stops when nothing improves.

    Validated and kept are the moving averages of the weights that the optimizer holds (`use_ema`): the weights jump
    about from step to step, and what they jump about is mostly better (Polyak and Juditsky 1992, doi 10.1137/0330046).

        checkpoint = Checkpoint(folder, settings, epochs)
        first = checkpoint.restore(model)          # after `compile`
        model.fit(…, initial_epoch=first, epochs=epochs, callbacks=[checkpoint], verbose=0)
        …                                          # save the model
        checkpoint.path.unlink(missing_ok=True)

    <folder>/<digest of settings and versions>.npz holds `rows` (JSON, the history) and, numbered, the variables of the
    model and of its optimizer in Keras' order, then the model's weights after its best epoch. It is one file, replaced
    as a whole, so a kill leaves no two that disagree; Keras' own `BackupAndRestore` overwrites its files in place and
    forgets the best epoch. A continued training sees its images in another order, so it ends equally well and not with
    the same bits.

    A full disk costs the checkpoint and not the training.

    Args:
        folder: where checkpoints lie; it may be deleted at any time.
        settings: all that shapes the result: parameters, digests of images, sides and augmentation.
        epochs: number of epochs that `fit` gets.
        patience: epochs without improvement of val_loss after which training stops; 0 never stops.

    Attributes:
        rows: history, a dictionary for each epoch, also those before a kill: epoch (from 1), loss and accuracy of the
            classes and the same with val_ before them, learning_rate (of the epoch's first step), seconds (validation
            included); with finer labels also fine_loss.
    """

    def __init__(self, folder: Path, settings: dict, epochs: int, patience: int = 0):
        super().__init__()
        packages = {name: version(name) for name in ("tensorflow", "keras", "numpy", "imgaug")}
        about = json.dumps([packages, PREPROCESS_VERSION, settings], sort_keys=True)
        self.path = folder / f"{hashlib.sha256(about.encode()).hexdigest()[:16]}.npz"
        self.epochs, self.patience, self.rows, self._best = epochs, patience or math.inf, [], []

    @property
    def best_epoch(self) -> int:
        """The one with the lowest val_loss, from 1; 0 before there is one."""
        losses = [(row["val_loss"], row["epoch"]) for row in self.rows if math.isfinite(row["val_loss"])]
        return min(losses, default=(0, 0))[1]

    def restore(self, model: keras.Model) -> int:
        """Put a compiled model where the killed training left it; prints one line if there was one.

        Returns:
            `initial_epoch` for `fit`: 0 for a new training, `epochs` for one that had ended.

        Warns:
            UserWarning: if the file cannot be used; training starts anew.
        """
        if not model.optimizer.built:
            with model.distribute_strategy.scope():  # on each device that the model is on
                model.optimizer.build(model.trainable_variables)
        stored = read_arrays(self.path, "training starts anew")
        if not stored:
            return 0
        self.rows = json.loads(stored.pop("rows").item())
        values, variables = list(stored.values()), [*model.variables, *model.optimizer.variables]
        self._best = values[len(variables) :]
        for variable, value in zip(variables, values, strict=False):
            variable.assign(value)
        print(f"continues after epoch {len(self.rows)} of {self.epochs}" + (", where it had ended" * self._over()))
        return self.epochs if self._over() else len(self.rows)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Note rate and time."""
        self._rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._clock = time.perf_counter()

    def on_test_end(self, logs: dict | None = None) -> None:
        """Remember what was validated, the averages, before training goes on with the weights themselves."""
        self._validated = self.model.get_weights()
        super().on_test_end(logs)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add a row and show it, keep the weights if they are the best, write the file, stop if nothing improves."""
        logs = {name: float(value) for name, value in logs.items()}
        if "scores_loss" in logs:  # of several outputs the classes' own numbers count
            logs = {name.replace("scores_", ""): logs[name] for name in logs if name not in ("loss", "val_loss")}
        seconds = round(time.perf_counter() - self._clock, 3)
        row = {"epoch": epoch + 1} | logs | {"learning_rate": self._rate, "seconds": seconds}
        self.rows.append(row)
        if self.best_epoch == epoch + 1:
            self._best = self._validated
        measures = "  ".join(f"{k} {v:.3f}" for k, v in row.items() if k.endswith(("loss", "accuracy")))
        print(f"epoch {epoch + 1}/{self.epochs}  {measures}  rate {self._rate:.1e}  {seconds:.0f} s", flush=True)
        variables = [*self.model.variables, *self.model.optimizer.variables]
        values = [*map(keras.ops.convert_to_numpy, variables), *self._best]
        arrays = {"rows": np.array(json.dumps(self.rows))} | {str(i): value for i, value in enumerate(values)}
        write_arrays(self.path, "the training goes on, and a kill would cost what was trained since", arrays)
        self.model.stop_training = self._over()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Give the model the weights of the best epoch; ValueError if no epoch had a loss that is a number."""
        if not self.best_epoch:
            raise ValueError("val_loss was no number after any epoch; take a lower LEARNING_RATE.")
        self.model.set_weights(self._best)

    def _over(self) -> bool:
        return len(self.rows) >= self.epochs or len(self.rows) - self.best_epoch >= self.patience
