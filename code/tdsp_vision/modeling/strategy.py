"""Train on several accelerators of one machine: each holds the whole network and computes its share of each batch.

The gradients are summed over the devices before each step, so with the same batches the weights become those of one
device, up to rounding (`tf.distribute.MirroredStrategy`, TensorFlow guide "Distributed training with TensorFlow";
Goyal et al. 2017, arXiv:1706.02677). Two things differ:

- Dropout: the devices share one random state, so image i of each share gets the same mask: another training
  than on one device.
- Batch normalization that learns its statistics (WEIGHTS is "none") takes them from each device's share alone, as
  `BatchNormalization(synchronized=True)`, which is not used, would not. Each device has its own running averages; a
  checkpoint and the finished model hold those of the first. Frozen ones are the same everywhere.
"""

import math

import tensorflow as tf


def training_strategy(batch_size: int, devices: list[str] | None = None) -> tuple[tf.distribute.Strategy, str]:
    """How to train on what this machine has, and a sentence about it.

    Network, model and optimizer have to be built within `strategy.scope()`.

    Args:
        batch_size: images in a batch over all devices together; so many devices are used as divide it.
        devices: names such as "GPU:0"; None takes all GPUs that TensorFlow sees.

    Returns:
        a MirroredStrategy for several devices; TensorFlow's default one, which changes nothing, for one or none.
    """
    if devices is None:
        devices = [device.name for device in tf.config.list_logical_devices("GPU")]
    if len(devices) < 2:
        return tf.distribute.get_strategy(), f"One {'GPU' if devices else 'processor'} trains."
    used = max(count for count in range(1, len(devices) + 1) if batch_size % count == 0)
    reason = f"{used} of {len(devices)} devices train, with {batch_size // used} images of each batch of {batch_size}"
    reason += "." if used == len(devices) else f"; all would with a BATCH_SIZE that {len(devices)} divides."
    return tf.distribute.MirroredStrategy(devices[:used]) if used > 1 else tf.distribute.get_strategy(), reason


def equal_shares(batches: tf.data.Dataset, strategy: tf.distribute.Strategy, whole: bool = False) -> tf.data.Dataset:
    """The same batches with images repeated where the devices' shares would not be equal; for one device unchanged.

    Keras takes the mean over each share and then over the shares, which is the mean over the batch only if they are
    equal, and TensorFlow fails where a share is empty. A last batch of 5 images for 2 devices therefore holds each
    image twice; its mean is the same.

    Args:
        batches: tuples of tensors [b, …], such as images, targets and weights.
        whole: repeat every batch once for each device. For validation: as the repetitions of the last batch count in
            the mean over an epoch, that mean is exact only if all batches have the same number of them. Each device
            then computes all of validation, which gets no faster.

    Returns:
        for `fit`; only the training loss and accuracy that it reports count the last batch more than once.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return batches
    # gcd(0, n) is n: a batch without a rest is left as it is
    times = [replicas if whole else replicas // math.gcd(rest, replicas) for rest in range(replicas)]

    def repeated(*columns):
        count = tf.gather(times, tf.shape(columns[0])[0] % replicas)
        return tuple(tf.repeat(column, count, axis=0) for column in columns)

    return batches.map(repeated)
