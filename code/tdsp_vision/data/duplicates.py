"""Find pictures that are the same picture: 256-bit hashes, alike when at most `max_bits` of their bits differ.

Two hashes that differ in at most k bits agree exactly in at least one of k + 1 disjoint bands of bits (the
pigeonhole principle), so only hashes that share a band are compared, not all pairs (Manku, Jain and Das Sarma
2007, "Detecting near-duplicates for web crawling").
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_BITS = 256


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found, each int array [n] in the order of the images.

    cluster: images that are linked by near-duplicates, directly or through others, share a number.
    original: index of the earlier image that this one repeats; its own index where it is the one to keep.
    bits: Hamming distance to that original.
    """

    cluster: np.ndarray
    original: np.ndarray
    bits: np.ndarray


def find_duplicates(hashes: list[str], max_bits: int) -> Duplicates:
    """Which images repeat an earlier one; earlier means further up in the list, so sort it by path.

    Args:
        hashes: dHash of each image, 64 hexadecimal digits.
        max_bits: distance up to which two images are the same picture, 0 (equal hashes only) to 64.

    Raises:
        ValueError: if `max_bits` is outside 0 to 64.
    """
    if not 0 <= max_bits <= 64:
        raise ValueError(f"NEAR_DUPLICATE_BITS is {max_bits}; allowed are 0 (equal hashes only) to 64.")
    codes = np.array([list(bytes.fromhex(text)) for text in hashes], np.uint8).reshape(-1, HASH_BITS // 8)
    codes, first, owner = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    pairs = _close_pairs(codes, max_bits)
    neighbours = defaultdict(list)
    for i, j in pairs:
        neighbours[i].append(j)
        neighbours[j].append(i)
    kept_code = np.arange(len(codes))
    kept = set()
    for code in np.argsort(first):
        earlier = [other for other in neighbours[code] if other in kept]
        if earlier:
            kept_code[code] = min(earlier, key=lambda other: first[other])
        else:
            kept.add(code)
    owner = owner.reshape(-1)
    bits = np.bitwise_count(codes[owner] ^ codes[kept_code[owner]]).sum(axis=1, dtype=int)
    return Duplicates(connected_groups(len(codes), pairs)[owner], first[kept_code[owner]], bits)


def connected_groups(size: int, pairs: np.ndarray) -> np.ndarray:
    """Group numbers [size] such that the two indices of each pair [m, 2] share one; numbered by first member."""
    pairs = np.asarray(pairs, int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1]


def _close_pairs(codes: np.ndarray, max_bits: int) -> np.ndarray:
    """Pairs (i, j), i < j, of distinct codes [n, 32] uint8 that differ in at most `max_bits` bits; int [m, 2]."""
    bits = np.unpackbits(codes, axis=1)
    found = [np.empty((0, 2), int)]
    for band in np.array_split(np.arange(HASH_BITS), max_bits + 1):
        key = np.packbits(bits[:, band], axis=1)
        order = np.lexsort(key.T)
        starts = np.flatnonzero(np.any(np.diff(key[order], axis=0), axis=1)) + 1
        for bucket in np.split(order, starts):
            if len(bucket) > 1:
                found.append(_close_within(np.sort(bucket), codes, max_bits))
    return np.unique(np.concatenate(found), axis=0)


def _close_within(bucket: np.ndarray, codes: np.ndarray, max_bits: int) -> np.ndarray:
    rows = []
    for position, index in enumerate(bucket[:-1]):
        others = bucket[position + 1 :]
        distance = np.bitwise_count(codes[others] ^ codes[index]).sum(axis=1, dtype=int)
        close = others[distance <= max_bits]
        rows.append(np.column_stack([np.full(len(close), index), close]))
    return np.concatenate(rows)
