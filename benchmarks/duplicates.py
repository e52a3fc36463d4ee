"""How long does the search for duplicates take, and how many pairs does it compare, against comparing all of them?

    python benchmarks/duplicates.py [--images 100000] [--bits 10]

Three kinds of hashes, each in a process of its own, with 500 planted pairs that differ in exactly `--bits` bits:

random       each bit a coin toss: the easiest case
smooth       dHashes of blurred noise, whose neighbouring bits say the same; many lie near each other by themselves
alike        95 % random, and 5,000 that all differ from one hash in up to 5 bits

All pairs are timed on a part of the images and multiplied, as they would take minutes.
"""

import multiprocessing
import resource
import time

import click
import cv2
import numpy as np

from tdsp_vision.data.duplicates import find_duplicates

KINDS = ("random", "smooth", "alike")
PLANTED = 500


@click.command()
@click.option("--images", default=100_000)
@click.option("--bits", default=10)
def main(images: int, bits: int) -> None:
    """Print one line per kind of hashes."""
    all_pairs = images * (images - 1) // 2
    seconds = time_of_all_pairs() * all_pairs
    print(f"{images:,} hashes, up to {bits} bits apart; comparing all {all_pairs:,} pairs: about {seconds:.0f} s")
    for kind in KINDS:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            took, peak, compared, clusters, found = pool.apply(measure, (kind, images, bits))
        print(
            f"{kind:8}{took:6.1f} s ({seconds / took:.0f} times faster), peak memory {peak:.0f} MB, compared "
            f"{compared:,} pairs ({compared / all_pairs:.4%}), {clusters:,} clusters, "
            f"{found} of {PLANTED} planted copies in the cluster of their original"
        )


def hashes(kind: str, count: int, bits: int) -> np.ndarray:
    """Bits [count, 256] as 0 and 1; the last `PLANTED` repeat the first ones with `bits` bits changed."""
    rng = np.random.default_rng(0)
    if kind == "smooth":
        noise = rng.normal(size=(count - PLANTED, 16, 17)).astype(np.float32)
        codes = np.stack([np.diff(cv2.GaussianBlur(one, (0, 0), 4), axis=1).ravel() > 0 for one in noise])
    else:
        codes = rng.integers(0, 2, (count - PLANTED, 256), np.uint8).astype(bool)
    if kind == "alike":
        for row in range(len(codes) - 5000, len(codes)):
            codes[row] = codes[-1]
            codes[row, rng.choice(256, rng.integers(1, 6), replace=False)] ^= True
    copies = codes[:PLANTED].copy()
    for copy in copies:
        copy[rng.choice(256, bits, replace=False)] ^= True
    return np.concatenate([codes, copies])


def measure(kind: str, count: int, bits: int) -> tuple[float, float, int, int, int]:
    """Seconds, peak memory of the process in MB, pairs compared, clusters, planted copies found."""
    texts = [row.tobytes().hex() for row in np.packbits(hashes(kind, count, bits), axis=1)]
    start = time.perf_counter()
    found = find_duplicates(texts, bits)
    seconds = time.perf_counter() - start
    together = int((found.cluster[-PLANTED:] == found.cluster[:PLANTED]).sum())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return seconds, peak, found.compared, len(np.unique(found.cluster)), together


def time_of_all_pairs(sample: int = 3000) -> float:
    """Seconds per pair, each hash against all later ones with NumPy."""
    words = np.random.default_rng(0).integers(0, 2**63, (sample, 4), np.uint64)
    start = time.perf_counter()
    for row in range(sample):
        np.bitwise_count(words[row + 1 :] ^ words[row]).sum(axis=1)
    return (time.perf_counter() - start) / (sample * (sample - 1) / 2)


if __name__ == "__main__":
    main()
