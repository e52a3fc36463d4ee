"""What several devices cost and gain in training, in images per second: `training_strategy` against one device.

    python benchmarks/devices.py [--backbone efficientnet_lite0] [--seconds 20] [--rounds 5]

The things compared take turns, each for `--seconds` in each round, in one process. Printed are medians over the rounds
and the median of the ratio to the first line, which is one device. Every step is a whole one: forward, backward,
AdamW, on a batch of 224 px images that is in memory already; what reading files costs, `training.py` shows.

same batch   32 images for all devices together, as BATCH_SIZE means it: the result is that of one device
same share   32 images for each device, so a larger batch: the most that more devices can give

On two or more GPUs the ratio is the gain. Elsewhere the processor is divided into two logical devices that share its
cores: no computing power is added, and with the same batch 1 less the ratio is what mirroring costs.
"""

import click
import tensorflow as tf
from tdsp_vision.modeling.strategy import training_strategy
from torch_training import BATCH, SIZE
from training import Rate, classifier, compare, keras_rate, one_batch

from tdsp_vision.modeling.backbones import build_backbone


@click.command()
@click.option("--backbone", default="efficientnet_lite0", help="name, as in the parameter BACKBONE")
@click.option("--seconds", default=20.0, help="for each measurement")
@click.option("--rounds", default=5)
def main(backbone: str, seconds: float, rounds: int) -> None:
    """Print one table."""
    devices = find_devices()
    strategy, reason = training_strategy(BATCH, devices)
    print(f"{', '.join(devices)}: {reason}")
    if "CPU" in devices[0]:
        print("These are two names for the same cores: with the same batch the ratio shows what mirroring costs.")
    print(f"images of {SIZE} px, {rounds} rounds of {seconds:g} s; images/s (lowest to highest)")
    compare(backbone, contestants(backbone, strategy), seconds, rounds)


def find_devices() -> list[str]:
    """The GPUs if there are several, else the processor in two; has to come before anything is computed."""
    kind = "GPU" if len(tf.config.list_physical_devices("GPU")) > 1 else "CPU"
    if kind == "CPU":
        halves = [tf.config.LogicalDeviceConfiguration()] * 2
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], halves)
    return [device.name for device in tf.config.list_logical_devices(kind)]


def contestants(backbone: str, strategy: tf.distribute.Strategy) -> dict[str, Rate]:
    """One device, all with the same batch, all with the same share."""
    count = strategy.num_replicas_in_sync
    model = classifier(build_backbone(backbone, SIZE, "none"))
    with strategy.scope():
        mirrored = classifier(build_backbone(backbone, SIZE, "none"))
    large = one_batch().map(lambda images, targets: (tf.repeat(images, count, axis=0), tf.repeat(targets, count)))
    measure_large = keras_rate(mirrored, large)  # counts batches of 32
    return {
        f"one device, batch of {BATCH}": keras_rate(model, one_batch()),
        f"{count} devices, same batch of {BATCH}": keras_rate(mirrored, one_batch()),
        f"{count} devices, same share, batch of {BATCH * count}": lambda seconds: count * measure_large(seconds),
    }


if __name__ == "__main__":
    main()
