"""Training that can be watched and survives a kill: after each epoch, what the next one depends on is on disk.

<folder>/<fingerprint>.npz holds `about` (JSON: rows of the history, best epoch), `model<i>` and `optimizer<i>` (all
variables in Keras' order) and `best<i>` (the model's after its best epoch).
It is one file, replaced as a whole, so a kill leaves no two that disagree; Keras' own `BackupAndRestore` overwrites its
files in place and forgets the best epoch. A continued training sees its images in another order than an undisturbed
one would have, so it ends equally well and not with the same bits.

Rows of the history: epoch (from 1), loss and accuracy of the classes and the same with val_ before them, learning_rate
(of the epoch's first step), seconds (validation included); with finer labels also fine_loss.
"""

import hashlib
import json
import math
import os
import time
import warnings
from importlib.metadata import version
from pathlib import Path

import keras
import numpy as np

from tdsp_vision.files import whole_file
from tdsp_vision.modeling.batches import PREPROCESS_VERSION
from tdsp_vision.paths import shown


def fingerprint(settings: dict) -> str:
    """Name of a training: 16 hex digits of its settings (what JSON can hold) and of the versions of the packages."""
    packages = {name: version(name) for name in ("tensorflow", "keras", "numpy", "imgaug")}
    about = json.dumps([packages, PREPROCESS_VERSION, settings], sort_keys=True)
    return hashlib.sha256(about.encode()).hexdigest()[:16]


class Checkpoint(keras.callbacks.Callback):
    """Prints a line for each epoch, keeps the state on disk and the best epoch's weights, stops when nothing improves.

        checkpoint = Checkpoint(folder, settings, epochs)
        first = checkpoint.restore(model)          # after `compile`
        model.fit(…, initial_epoch=first, epochs=epochs, callbacks=[checkpoint], verbose=0)
        …                                          # save the model
        checkpoint.discard()

    Where the environment variable TDSP_EPOCH_LOG names a file, each row of the history goes there, as a line of JSON
    with the checkpoint's place. A full disk costs the checkpoint and not the training.

    Args:
        folder: where checkpoints lie; it may be deleted at any time.
        settings: all that shapes the result: parameters, digests of images, sides and augmentation.
        epochs: number of epochs that `fit` gets.
        patience: epochs without improvement of val_loss after which training stops; 0 never stops.

    Attributes:
        rows: history, a dictionary for each epoch, also those before a kill.
        best_epoch: the one with the lowest val_loss, from 1; 0 before there is one.
    """

    def __init__(self, folder: Path, settings: dict, epochs: int, patience: int = 0):
        super().__init__()
        self.path, self.epochs, self.patience = folder / f"{fingerprint(settings)}.npz", epochs, patience or math.inf
        self.rows, self.best_epoch, self._best = [], 0, []

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
        for draft in self.path.parent.glob(f".{self.path.name}.*"):
            draft.unlink()  # of a process that was killed while writing
        if not self.path.is_file():
            return 0
        kept = {"model": model.variables, "optimizer": model.optimizer.variables, "best": model.variables}
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                about = json.loads(stored["about"].item())
                values = {part: [stored[f"{part}{i}"] for i in range(len(kept[part]))] for part in kept}
        except Exception as error:  # whatever is wrong with the file, training is possible without it
            warnings.warn(f"{shown(self.path)} cannot be used ({error}); training starts anew.", stacklevel=2)
            return 0
        self.rows, self.best_epoch, self._best = about["rows"], about["best_epoch"], values["best"]
        for part in ("model", "optimizer"):
            for variable, value in zip(kept[part], values[part], strict=True):
                variable.assign(value)
        print(f"continues after epoch {len(self.rows)} of {self.epochs}" + (", where it had ended" * self._over()))
        return self.epochs if self._over() else len(self.rows)

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Note rate and time."""
        self._rate, self._clock = float(self.model.optimizer.learning_rate), time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add a row and show it, keep the weights if they are the best, write the file, stop if nothing improves."""
        logs = {name: float(value) for name, value in logs.items()}
        if "scores_loss" in logs:  # of several outputs the classes' own numbers count
            logs = {
                name.replace("scores_", ""): value for name, value in logs.items() if name not in ("loss", "val_loss")
            }
        order = sorted(logs, key=lambda name: (name.startswith("val_"), not name.endswith("loss"), name))
        row = {"epoch": epoch + 1} | {name: logs[name] for name in order}
        row |= {"learning_rate": self._rate, "seconds": round(time.perf_counter() - self._clock, 3)}
        lowest = self.rows[self.best_epoch - 1]["val_loss"] if self.best_epoch else math.inf
        self.rows.append(row)
        if row["val_loss"] < lowest:
            self.best_epoch = epoch + 1
            self._best = [np.array(variable.numpy()) for variable in self.model.variables]
        self._show()
        self._write()
        if log := os.environ.get("TDSP_EPOCH_LOG"):  # a sweep watches
            with Path(log).open("a", encoding="utf-8") as file:
                file.write(json.dumps(row | {"checkpoint": str(self.path)}) + "\n")
        self.model.stop_training = self._over()

    def on_train_end(self, logs: dict | None = None) -> None:
        """Give the model the weights of the best epoch; ValueError if no epoch had a loss that is a number."""
        if not self.best_epoch:
            raise ValueError(
                f"val_loss was no number after any of {len(self.rows)} epochs; take a lower LEARNING_RATE."
            )
        for variable, value in zip(self.model.variables, self._best, strict=True):
            variable.assign(value)

    def discard(self) -> None:
        """Delete the file, once the result is safe."""
        self.path.unlink(missing_ok=True)

    def _over(self) -> bool:
        return len(self.rows) >= self.epochs or len(self.rows) - self.best_epoch >= self.patience

    def _show(self) -> None:
        row = self.rows[-1]
        measures = "  ".join(f"{k} {v:.3f}" for k, v in row.items() if k.endswith(("loss", "accuracy")))
        rest = f"rate {row['learning_rate']:.1e}  {row['seconds']:.0f} s"
        print(f"epoch {row['epoch']}/{self.epochs}  {measures}  {rest}", flush=True)

    def _write(self) -> None:
        about = np.array(json.dumps({"rows": self.rows, "best_epoch": self.best_epoch}))
        parts = {"model": self.model.variables, "optimizer": self.model.optimizer.variables, "best": self._best}
        values = {f"{part}{i}": np.array(v) for part, variables in parts.items() for i, v in enumerate(variables)}
        try:
            with whole_file(self.path) as draft, draft.open("wb") as file:
                np.savez(file, about=about, **values)
        except OSError as error:
            message = f"{shown(self.path)} cannot be written ({error.strerror}); the training goes on, and a kill would"
            warnings.warn(f"{message} cost what was trained since it was written last.", stacklevel=2)
