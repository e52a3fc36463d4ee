"""Does memory stay flat, however many images there are? Peak memory at a tenth of the images and at all, side by side.

    python benchmarks/memory.py [--images 50000] [--size 64] [--batch 32]

One epoch of training with augmentation (`training_batches`, a tiny network) and one pass of prediction
(`predict_files`) over generated JPEG files, all different files with content of their own (no links). Each number of
images runs in a process of its own, since the peak of a process never falls again. The number of files is the only
difference, so flat means: a ratio near 1.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from PIL import Image


@click.command()
@click.option("--images", default=50_000, help="files in the larger run; the smaller one has a tenth")
@click.option("--size", default=64, help="side of the images in pixels, in the files and for the network")
@click.option("--batch", default=32, help="images per batch")
@click.option("--only", type=click.Path(path_type=Path, exists=True), hidden=True, help="measure files of this folder")
def main(images: int, size: int, batch: int, only: Path | None) -> None:
    """Print one line per number of images, and the ratio."""
    if only:
        print(json.dumps(measure(only, images, size, batch)))
        return
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        megabytes = generate(Path(folder), images, size) / 1e6
        print(f"{images} JPEG files of {size} px, {megabytes:.0f} MB; decoded {images * size**2 * 3 / 1e6:.0f} MB")
        for count in (images // 10, images):
            command = [sys.executable, __file__, "--images", count, "--size", size, "--batch", batch, "--only", folder]
            environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment)
            if done.returncode:
                raise click.ClickException(done.stderr)
            found = json.loads(done.stdout.splitlines()[-1])
            peaks.append(found["predicted"])
            print(
                f"{count:6d} images: peak {found['start']:.0f} MB before, {found['trained']:.0f} MB after an epoch of "
                f"training, {found['predicted']:.0f} MB after prediction; {found['seconds']:.0f} s"
            )
    print(f"ratio of the peaks {peaks[1] / peaks[0]:.3f}, {peaks[1] - peaks[0]:+.0f} MB for ten times the images")


def generate(folder: Path, count: int, size: int) -> int:
    """Write `count` different JPEG files; returns their bytes."""
    rng = np.random.default_rng(0)
    total = 0
    for number in range(count):
        picture = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((size, size))
        file = folder / f"{number:06d}.jpg"
        picture.save(file, quality=90)
        total += file.stat().st_size
    return total


def measure(folder: Path, count: int, size: int, batch: int) -> dict[str, float]:
    """Peak memory of this process in MB: before, after an epoch of training, after prediction; and the seconds."""
    import keras
    from tdsp_vision.modeling.imgaug_numpy2 import iaa

    from tdsp_vision.modeling.batches import training_batches
    from tdsp_vision.modeling.features import predict_files

    files = sorted(folder.glob("*.jpg"))[:count]
    targets = np.arange(count) % 2
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(4, 5, 4), keras.layers.GlobalAveragePooling2D()]
    network = keras.Sequential([keras.Input((size, size, 3)), *layers, keras.layers.Dense(2, "softmax")])
    network.compile("adam", "sparse_categorical_crossentropy")
    pipeline = iaa.Sequential([iaa.Fliplr(0.5), iaa.Affine(rotate=(-180, 180)), iaa.Multiply((0.8, 1.2))])
    found, start = {"start": peak()}, time.perf_counter()
    batches = training_batches(files, targets, size, batch, 0, 1, augmenter=pipeline)
    network.fit(batches, epochs=1, steps_per_epoch=-(-count // batch), shuffle=False, verbose=0)
    found["trained"] = peak()
    predict_files(network, files, size, batch, quiet=True)
    return found | {"predicted": peak(), "seconds": time.perf_counter() - start}


def peak() -> float:
    """Largest resident memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


if __name__ == "__main__":
    main()
