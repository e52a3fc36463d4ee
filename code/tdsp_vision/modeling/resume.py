"""Training that survives a kill: after each epoch, everything that the next one depends on is on disk.

<folder>/<fingerprint>.npz holds `about` (JSON: fingerprint, epoch, best_epoch, best_value, history rows), `model<i>`
and `optimizer<i>` (all variables, in Keras' order: weights, statistics of batch normalization, random states of
dropout; iterations, moments, loss scale) and, unless the last epoch is the best, `best<i>` (the model's variables
after the best epoch). It is one file, so no kill can leave two that disagree; while it is replaced there are two.

On a CPU, TensorFlow repeats a training bit by bit (same machine, same number of threads), so a continued one ends
with the weights of an undisturbed one. On a GPU that needs `tf.config.experimental.enable_op_determinism()` first.
"""

import hashlib
import json
import math
import os
import platform
import time
import warnings
import zipfile
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from tdsp_vision.files import whole_file
from tdsp_vision.modeling.batches import PREPROCESS_VERSION
from tdsp_vision.paths import shown


def fingerprint(settings: dict) -> str:
    """Name of a training for `Checkpoint`: 16 hex digits of all that shapes its result.

    Args:
        settings: what JSON can hold: every parameter, the augmentation as text, digests of manifest, split and
            initial weights. Versions of the packages that compute are added here.

    Raises:
        TypeError: if a value has no JSON form.
    """
    packages = ("tensorflow", "keras", "numpy", "imgaug")
    about = {"versions": {name: version(name) for name in packages}, "machine": platform.machine()}
    about |= {"preprocess": PREPROCESS_VERSION, "settings": settings}
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]


class Checkpoint(keras.callbacks.Callback):
    """Keeps the state after each epoch on disk and the best epoch's weights at the end; stops when nothing improves.

    Takes the place of Keras' `EarlyStopping` and `BackupAndRestore`, which know nothing of each other: after a kill
    the best epoch so far would be forgotten. One process at a time may train one fingerprint.

        checkpoint = Checkpoint(folder, fingerprint(settings), epochs)
        first = checkpoint.restore(model)          # after `compile`
        model.fit(…, initial_epoch=first, epochs=epochs, callbacks=[checkpoint])
        …                                          # save the model
        checkpoint.discard()

    Args:
        folder: where checkpoints lie; it may be deleted at any time.
        name: from `fingerprint`.
        epochs: number of epochs that `fit` gets.
        patience: epochs without improvement after which training stops; None never stops.
        monitor: a value of the epoch's logs; the lowest one is the best. NaN is never an improvement.

    Attributes:
        rows: history, a dictionary for each epoch, also those before a kill: `epoch` (from 1), the epoch's logs,
            `learning_rate` (of its first step) and `seconds`.
        best_epoch: from 1; 0 before there is one.

    Where the environment variable TDSP_EPOCH_LOG names a file, each epoch's row goes there as well, as a line of JSON.
    """

    def __init__(self, folder: Path, name: str, epochs: int, patience: int | None = None, monitor: str = "val_loss"):
        super().__init__()
        self.path = folder / f"{name}.npz"
        self.name, self.epochs, self.monitor = name, epochs, monitor
        self.patience = math.inf if patience is None else patience
        self._forget()

    def _forget(self) -> None:
        self.rows, self.best_epoch, self.best_value = [], 0, math.inf
        self._best: list[np.ndarray] = []

    def restore(self, model: keras.Model) -> int:
        """Put a compiled model where the killed training left it; prints one line if there was one.

        Returns:
            `initial_epoch` for `fit`: 0 for a new training, `epochs` for one that had ended.

        Warns:
            UserWarning: if the file cannot be used; it is renamed to `*.damaged` and training starts anew.
        """
        if not model.optimizer.built:
            with model.distribute_strategy.scope():  # on each device that the model is on
                model.optimizer.build(model.trainable_variables)
        self._forget()
        for draft in self.path.parent.glob(f".{self.path.name}.*"):
            draft.unlink()  # of a process that was killed while writing
        if not self.path.is_file():
            return 0
        try:
            about, values = self._read(model)
        except Exception as error:  # whatever is wrong with the file, training is possible without it
            aside = self.path.with_suffix(".damaged")
            self.path.replace(aside)
            message = f"{shown(self.path)} cannot be used ({error}); it is now {aside.name} and training starts anew."
            warnings.warn(message, stacklevel=2)
            return 0
        self.rows, self.best_epoch, self.best_value = about["rows"], about["best_epoch"], about["best_value"]
        self._best = values["best"]
        for variable, value in zip(_variables(model), values["model"] + values["optimizer"], strict=True):
            variable.assign(value)
        done = len(self.rows)
        print(f"continues after epoch {done} of {self.epochs}" + (", where it had stopped" if self._over() else ""))
        return self.epochs if self._over() else done

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Note rate and time."""
        self._rate, self._clock = float(self.model.optimizer.learning_rate), time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add a row, keep the weights if they are the best, write the file, stop if nothing improves.

        Raises:
            ValueError: if the logs hold no `monitor`.
        """
        if self.monitor not in (logs or {}):
            known = ", ".join(map(repr, logs or {}))
            raise ValueError(f"monitor is {self.monitor!r}; this training reports {known}: give `fit` validation_data.")
        row = {"epoch": epoch + 1} | {name: float(value) for name, value in logs.items()}
        self.rows.append(row | {"learning_rate": self._rate, "seconds": round(time.perf_counter() - self._clock, 3)})
        if logs[self.monitor] < self.best_value:
            self.best_epoch, self.best_value = epoch + 1, float(logs[self.monitor])
            self._best = [_value(variable) for variable in self.model.variables]
        self._write()
        if told := os.environ.get("TDSP_EPOCH_LOG"):  # a sweep watches
            with Path(told).open("a", encoding="utf-8") as log:
                log.write(json.dumps(self.rows[-1] | {"checkpoint": str(self.path)}) + "\n")
        if self._over():
            self.model.stop_training = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """Give the model the weights of the best epoch.

        Raises:
            ValueError: if no epoch had a value that is a number.
        """
        if not self.best_epoch:
            raise ValueError(
                f"{self.monitor} was no number after any of {len(self.rows)} epochs: training diverged; "
                "take a lower LEARNING_RATE."
            )
        for variable, value in zip(self.model.variables, self._best, strict=True):
            variable.assign(value)

    def discard(self) -> None:
        """Delete the file, once the result is safe."""
        self.path.unlink(missing_ok=True)

    def _over(self) -> bool:
        return len(self.rows) >= self.epochs or len(self.rows) - self.best_epoch >= self.patience

    def _write(self) -> None:
        about = {"fingerprint": self.name, "rows": self.rows}
        about |= {"best_epoch": self.best_epoch, "best_value": self.best_value}
        parts = {"model": self.model.variables, "optimizer": self.model.optimizer.variables}
        values = {f"{part}{i}": _value(v) for part, variables in parts.items() for i, v in enumerate(variables)}
        if self.best_epoch != len(self.rows):
            values |= {f"best{i}": value for i, value in enumerate(self._best)}
        with whole_file(self.path) as draft, draft.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **values)

    def _read(self, model: keras.Model) -> tuple[dict, dict[str, list[np.ndarray]]]:
        """The file's content, checked: what is not of this training or does not fit raises ValueError."""
        with zipfile.ZipFile(self.path) as archive:
            if archive.testzip() is not None:  # reads all of it and compares its checksums
                raise ValueError("its content has changed")
        with np.load(self.path, allow_pickle=False) as stored:
            about = json.loads(stored["about"].item())
            if about["fingerprint"] != self.name:
                raise ValueError(f"it belongs to training {about['fingerprint']}")
            counts = {"model": len(model.variables), "optimizer": len(model.optimizer.variables)}
            counts["best"] = counts["model"] if 0 < about["best_epoch"] < len(about["rows"]) else 0
            values = {part: [stored[f"{part}{i}"] for i in range(count)] for part, count in counts.items()}
            if len(stored.files) != 1 + sum(counts.values()):
                raise ValueError(f"it holds {len(stored.files)} arrays where {1 + sum(counts.values())} are needed")
        for variable, value in zip(_variables(model), values["model"] + values["optimizer"], strict=True):
            if (value.shape, value.dtype) != (tuple(variable.shape), _value(variable).dtype):
                raise ValueError(f"{variable.path} has shape {value.shape} where {tuple(variable.shape)} is needed")
        if about["best_epoch"] == len(about["rows"]):
            values["best"] = values["model"]
        return about, values


def _variables(model: keras.Model) -> list:
    return [*model.variables, *model.optimizer.variables]


def _value(variable) -> np.ndarray:
    return np.array(variable.value.numpy())  # a copy: on a CPU it may be the variable's own memory
