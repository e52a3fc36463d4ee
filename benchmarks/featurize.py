"""What does folding bring and reading cost? Featurization of files against two bare forward passes, side by side.

    python benchmarks/featurize.py [--photos FOLDER] [--images 640] [--rounds 5]

All use the same network and batch size. A forward pass gets one batch that is already in memory, again and again:
through the network with batch normalization folded into its convolutions, and through the unfolded one. Featurization
reads, decodes and resizes every file and uses the folded one. The rounds alternate, so that whatever else the machine
does hits all. Printed are images per second, featurization's ratio to each forward pass, and how much the memory of
the process grows from N to 8 N files. Wanted: at least 1.6 times the unfolded network on batches in memory.
"""

import io
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import psutil
import tensorflow as tf
from PIL import Image

from tdsp_vision.modeling import networks
from tdsp_vision.modeling.backbones import build_backbone, pooled_layers, weights_file
from tdsp_vision.modeling.features import predict_files
from tdsp_vision.modeling.weights import fill
from tdsp_vision.paths import SAMPLE_DATA

NETWORK, SIZE, BATCH = "efficientnet_lite0", 224, 32


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), default=SAMPLE_DATA / "lesions")
@click.option("--images", default=640, help="files per round")
@click.option("--rounds", default=5)
def main(photos: Path, images: int, rounds: int) -> None:
    """Print one line per file size, and the growth of memory."""
    originals = sorted(photos.rglob("*.jpg"))
    featurizer = pooled_layers(build_backbone(NETWORK, SIZE))
    plain = networks.build_lite(NETWORK, SIZE)
    fill(plain, weights_file(NETWORK, "imagenet"), networks.tensor_names, networks.as_keras)
    unfolded = pooled_layers(plain)
    print(
        f"{len(originals)} photos from {photos}; EfficientNet-Lite0 at {SIZE} px, batches of {BATCH}, {rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as folder:
        for side in (256, 512, 1024):
            files = resized_copies(originals, side, images, Path(folder) / str(side))
            compare(featurizer, unfolded, files, side, rounds)
        memory_growth(featurizer, files[: images // 8])


def resized_copies(originals: list[Path], side: int, count: int, folder: Path) -> list[Path]:
    """`count` JPEG files of side x side pixels, quality 90, made from the originals in turn."""
    folder.mkdir()
    files = []
    for number in range(count):
        with Image.open(originals[number % len(originals)]) as photo:
            picture = photo.convert("RGB").resize((side, side), Image.Resampling.BICUBIC)
        content = io.BytesIO()
        picture.save(content, "JPEG", quality=90)
        files.append(folder / f"{number:05d}.jpg")
        files[-1].write_bytes(content.getvalue())
    return files


def compare(featurizer, unfolded, files: list[Path], side: int, rounds: int) -> None:
    """Alternate the three for some rounds and print medians and ratios."""
    batch = tf.constant(np.random.default_rng(0).uniform(0, 255, (BATCH, SIZE, SIZE, 3)).astype("float32"))

    def forward(network):
        for _ in range(len(files) // BATCH):
            network.predict_on_batch(batch)

    ways = {
        "folded": lambda: forward(featurizer),
        "unfolded": lambda: forward(unfolded),
        "files": lambda: predict_files(featurizer, files, SIZE, BATCH),
    }
    speeds = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, call in ways.items():
            start = time.perf_counter()
            call()
            if number:  # the first round builds graphs
                speeds[way].append(len(files) / (time.perf_counter() - start))
    folded, plain, whole = (np.array(values) for values in speeds.values())
    kilobytes = np.mean([file.stat().st_size for file in files]) / 1000
    print(
        f"{side:5d} px files ({kilobytes:4.0f} kB): {np.median(whole):6.1f} images/s; forward pass folded "
        f"{np.median(folded):6.1f}, ratio {np.median(whole / folded):.2f}; unfolded {np.median(plain):6.1f}, "
        f"ratio {np.median(whole / plain):.2f}"
    )


def memory_growth(featurizer, files: list[Path]) -> None:
    """Memory of the process after N and after 8 N files, less the vectors themselves."""
    process = psutil.Process()
    predict_files(featurizer, files, SIZE, BATCH)
    before = process.memory_info().rss
    vectors = predict_files(featurizer, files * 8, SIZE, BATCH)
    grown = (process.memory_info().rss - before - vectors.nbytes) / 1e6
    print(f"memory: {len(files)} files, then {len(files) * 8}: {grown:+.0f} MB")


if __name__ == "__main__":
    main()
