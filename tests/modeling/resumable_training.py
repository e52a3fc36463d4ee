"""A small training with everything that a resumed one could get wrong; also a program, so that it can be killed.

    python resumable_training.py FOLDER      prints "epoch step" after each step

Dropout, statistics of batch normalization, moments of AdamW, a learning rate that depends on the step, and batches
whose order and noise depend on the epoch.
"""

import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tdsp_vision.modeling.resume import Checkpoint, fingerprint

EPOCHS, STEPS, BATCH = 6, 3, 8


def build(optimizer: keras.optimizers.Optimizer | None = None, channels: int = 4) -> keras.Model:
    """A compiled network for [n, 6, 6, 3]; the same at each call."""
    keras.utils.set_random_seed(3)
    layers = [
        keras.layers.Conv2D(channels, 3),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.Dropout(0.2),
        keras.layers.Flatten(),
    ]
    head = keras.Sequential([keras.Input((16 * channels,)), keras.layers.Dropout(0.4), keras.layers.Dense(2)])
    inputs = keras.Input((6, 6, 3))
    x = inputs
    for layer in layers:
        x = layer(x)
    model = keras.Model(inputs, head(x))
    schedule = keras.optimizers.schedules.CosineDecay(0.1, EPOCHS * STEPS)
    model.compile(
        optimizer or keras.optimizers.AdamW(schedule, weight_decay=0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def batches(first_epoch: int, epochs: int = EPOCHS) -> tf.data.Dataset:
    """Order and noise depend on the number of the epoch only."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=[STEPS * BATCH, 6, 6, 3]), rng.integers(0, 2, STEPS * BATCH)

    def make():
        for epoch in range(first_epoch, epochs):
            rng = np.random.default_rng([7, epoch])
            for rows in rng.permutation(len(x)).reshape(STEPS, BATCH):
                yield x[rows] + rng.normal(size=[BATCH, 6, 6, 3]), y[rows]

    signature = (tf.TensorSpec([BATCH, 6, 6, 3], tf.float32), tf.TensorSpec([BATCH], tf.int64))
    return tf.data.Dataset.from_generator(make, output_signature=signature)


def train(folder: Path, callbacks=(), patience: int | None = None, model: keras.Model | None = None):
    """Train, or go on with what `folder` holds; returns the model, the checkpoint and the first epoch (from 0)."""
    model = model or build()
    checkpoint = Checkpoint(folder, fingerprint({"patience": patience}), EPOCHS, patience)
    first = checkpoint.restore(model)
    held_out = np.random.default_rng(3)
    validation = held_out.normal(size=[16, 6, 6, 3]), held_out.integers(0, 2, 16)
    arguments = {"steps_per_epoch": STEPS, "validation_data": validation, "verbose": 0, "shuffle": False}
    model.fit(batches(first), epochs=EPOCHS, initial_epoch=first, callbacks=[*callbacks, checkpoint], **arguments)
    return model, checkpoint, first


def weights(model: keras.Model) -> dict[str, np.ndarray]:
    """All variables, random states included, by number."""
    return {str(i): variable.numpy() for i, variable in enumerate(model.variables)}


class Steps(keras.callbacks.Callback):
    """Prints "epoch step" after each step."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        print(self.epoch, batch, flush=True)


if __name__ == "__main__":
    train(Path(sys.argv[1]), [Steps()])
