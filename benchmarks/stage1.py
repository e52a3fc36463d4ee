"""How long does stage 1 take on photos as people have them? Every step of the first notebook but its pictures.

    python benchmarks/stage1.py [--images 4000] [--labels 2]

The photos, 400 x 500 pixels, are drawn into a temporary folder first, by as many processes as there are cores; that
is not timed. Printed are the seconds of each step and the peak memory of this process.
"""

import os
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click
import numpy as np
from PIL import Image

from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.manifest import duplicates_to_reject, load_manifest, mark_duplicates, write_dataset
from tdsp_vision.data.quality import MEASURES, predict_label_alone
from tdsp_vision.paths import DatasetPaths


@click.command()
@click.option("--images", default=4000)
@click.option("--labels", default=2)
def main(images: int, labels: int) -> None:
    """Print one line per step."""
    with tempfile.TemporaryDirectory() as folder:
        source, dataset = Path(folder, "source"), DatasetPaths(folder, "set")
        for label in range(labels):
            (source / f"label_{label}").mkdir(parents=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(draw, [source / f"label_{n % labels}" / f"{n}.jpg" for n in range(images)], chunksize=50))
        started = time.perf_counter()
        found, unusable = timed("read, decode, measure", scan_folder, source)
        marked = timed("copies and look-alikes", mark_duplicates, found)
        kept = marked[~marked.file.isin(duplicates_to_reject(marked).path)]
        timed("write the data set", write_dataset, dataset, kept, unusable, source, {"source": "drawn"})
        manifest = timed("load the manifest", load_manifest, dataset)
        measures = kept.set_index("path").loc[manifest.path, list(MEASURES)]
        timed("what predicts the label", predict_label_alone, measures, manifest.label, manifest.group)
        seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{images} photos of {labels} labels: {seconds:.1f} s on {os.cpu_count()} cores, peak memory {peak:.0f} MB")


def timed(what: str, step, *arguments, **options):
    """Result of a step, with its seconds printed."""
    start = time.perf_counter()
    result = step(*arguments, **options)
    print(f"{what:24}{time.perf_counter() - start:6.1f} s")
    return result


def draw(path: Path) -> None:
    """A photo of blotches and grain."""
    rng = np.random.default_rng(int(path.stem))
    grids = [rng.integers(0, 255, (*shape, 3), np.uint8) for shape in ((6, 8), (60, 80))]
    coarse, fine = (Image.fromarray(grid).resize((500, 400), Image.Resampling.BICUBIC) for grid in grids)
    noise = Image.fromarray(rng.integers(0, 255, (400, 500, 3), np.uint8))
    Image.blend(Image.blend(coarse, fine, 0.3), noise, 0.08).save(path, quality=90)


if __name__ == "__main__":
    main()
