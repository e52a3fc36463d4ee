"""How long does the search for copies and look-alikes take, and what does it find?

    python benchmarks/duplicates.py [--images 100000]

Two kinds of pictures, each in a process of its own, with 300 planted copies (noise of one gray value) and 300 planted
look-alikes (mirrored and made brighter) of pictures of the set:

photos   random blotches of several sizes, as far apart as photos are
pages    one small mark in the middle of a white page: most of each picture agrees with all others
"""

import multiprocessing
import resource
import time

import click
import cv2
import numpy as np

from tdsp_vision.data.duplicates import connected_groups, find_duplicates, miniature

PLANTED = 300


@click.command()
@click.option("--images", default=100_000)
def main(images: int) -> None:
    """Print one line per kind of pictures."""
    for kind in ("photos", "pages"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            took, peak, copies, alike, wrong = pool.apply(measure, (kind, images))
        print(
            f"{images:,} {kind}: {took:.1f} s, peak memory {peak:.0f} MB, {copies} of {PLANTED} copies, {alike} of "
            f"{PLANTED} look-alikes, {wrong} other images taken for copies"
        )


def picture(kind: str, seed: int) -> np.ndarray:
    """uint8 [96, 96, 3]."""
    rng = np.random.default_rng(seed)
    grids = [rng.integers(0, 255, (side, side, 3), np.uint8) for side in (5, 24)]
    coarse, fine = (cv2.resize(grid, (96, 96), interpolation=cv2.INTER_CUBIC) for grid in grids)
    if kind == "photos":
        return cv2.addWeighted(coarse, 0.65, fine, 0.35, 0)
    page = np.full((96, 96, 3), 255, np.uint8)
    page[36:60, 36:60] = fine[36:60, 36:60]
    return page


def changed(pixels: np.ndarray, seed: int, look_alike: bool) -> np.ndarray:
    """A copy, or a look-alike, of a picture."""
    if look_alike:
        return (pixels[:, ::-1] * 0.85).astype(np.uint8)
    return (pixels + np.random.default_rng(seed).normal(0, 1, pixels.shape)).clip(0, 255).astype(np.uint8)


def measure(kind: str, count: int) -> tuple[float, float, int, int, int]:
    """Seconds, peak memory of the process in MB, planted copies and look-alikes found, wrong copies."""
    minis = np.empty((count, 2496), np.uint8)
    fresh = count - 2 * PLANTED
    for row in range(count):
        pixels = picture(kind, row if row < fresh else row - fresh)
        minis[row] = miniature(pixels if row < fresh else changed(pixels, row, look_alike=row >= fresh + PLANTED))
    start = time.perf_counter()
    copies, pairs, _ = find_duplicates(minis)
    seconds = time.perf_counter() - start
    groups = connected_groups(count, pairs)
    found = int((copies[fresh : fresh + PLANTED] == copies[:PLANTED]).sum())
    alike = int((groups[fresh + PLANTED :] == groups[PLANTED : 2 * PLANTED]).sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return seconds, peak, found, alike, count - len(np.unique(copies)) - found


if __name__ == "__main__":
    main()
