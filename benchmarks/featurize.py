"""How much does reading image files cost? Featurization of files against the bare forward pass, side by side.

    python benchmarks/featurize.py [--photos FOLDER] [--images 640] [--rounds 5]

Both use the same network and batch size. The forward pass gets one batch that is already in memory, again and again;
featurization reads, decodes and resizes every file. The rounds alternate, so that whatever else the machine does
hits both. Printed are images per second, their ratio (1.00 would mean that reading is free), and how much the
memory of the process grows from N to 8 N files.
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

from tdsp_vision.modeling.backbones import build_backbone, pooled_layers
from tdsp_vision.modeling.features import predict_files
from tdsp_vision.paths import SAMPLE_DATA

SIZE, BATCH = 224, 32


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), default=SAMPLE_DATA / "lesions")
@click.option("--images", default=640, help="files per round")
@click.option("--rounds", default=5)
def main(photos: Path, images: int, rounds: int) -> None:
    """Print one line per file size, and the growth of memory."""
    originals = sorted(photos.rglob("*.jpg"))
    featurizer = pooled_layers(build_backbone("efficientnet_lite0", SIZE))
    print(
        f"{len(originals)} photos from {photos}; EfficientNet-Lite0 at {SIZE} px, batches of {BATCH}, {rounds} rounds"
    )
    with tempfile.TemporaryDirectory() as folder:
        for side in (256, 512, 1024):
            files = resized_copies(originals, side, images, Path(folder) / str(side))
            compare(featurizer, files, side, rounds)
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


def compare(featurizer, files: list[Path], side: int, rounds: int) -> None:
    """Alternate both for some rounds and print medians and their ratio."""
    batch = tf.constant(np.random.default_rng(0).uniform(0, 255, (BATCH, SIZE, SIZE, 3)).astype("float32"))
    steps = len(files) // BATCH
    predict_files(featurizer, files[:BATCH], SIZE, BATCH, quiet=True)
    bare, whole = [], []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            featurizer.predict_on_batch(batch)
        bare.append(steps * BATCH / (time.perf_counter() - start))
        start = time.perf_counter()
        predict_files(featurizer, files, SIZE, BATCH, quiet=True)
        whole.append(len(files) / (time.perf_counter() - start))
    kilobytes = np.mean([file.stat().st_size for file in files]) / 1000
    ratio = np.median(np.array(whole) / np.array(bare))
    print(
        f"{side:5d} px files ({kilobytes:4.0f} kB): forward pass {np.median(bare):6.1f} images/s, "
        f"files {np.median(whole):6.1f} images/s, ratio {ratio:.2f} (rounds {min(bare):.0f}-{max(bare):.0f})"
    )


def memory_growth(featurizer, files: list[Path]) -> None:
    """Memory of the process after N and after 8 N files, less the vectors themselves."""
    process = psutil.Process()
    predict_files(featurizer, files, SIZE, BATCH, quiet=True)
    before = process.memory_info().rss
    vectors = predict_files(featurizer, files * 8, SIZE, BATCH, quiet=True)
    grown = (process.memory_info().rss - before - vectors.nbytes) / 1e6
    print(f"memory: {len(files)} files, then {len(files) * 8}: {grown:+.0f} MB")


if __name__ == "__main__":
    main()
