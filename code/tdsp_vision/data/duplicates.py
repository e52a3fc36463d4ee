"""Find pictures that are the same picture: 256-bit hashes, alike when at most `max_bits` of their bits differ.

Two hashes that differ in at most k bits agree exactly in at least one of k + 1 disjoint bands of bits (the
pigeonhole principle), so only hashes that share a band are compared, not all pairs (Manku, Jain and Das Sarma
2007, "Detecting near-duplicates for web crawling"). Hashes of smooth pictures share their bands by the thousand;
such a crowd is divided again by the bits that are left, to which the same principle applies.

What a dHash does not see: it compares neighbours within the whole frame, so a copy that was turned, mirrored,
cropped or framed anew is another picture to it. And plain areas count as much as the subject: pictures of one
color have equal hashes, and near-plain ones hashes of noise.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

HASH_BITS = 256
CROWD = 500  # hashes with a band in common, from which on dividing them again is cheaper than comparing them
DEEPEST = 3  # divisions of a crowd
CHUNK = 1 << 20  # pairs compared at a time: bounds the memory


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found, each int array [n] in the order of the images.

    cluster: images that are linked by near-duplicates, directly or through others, share a number.
    original: index of the earlier image that this one repeats; its own index where it is the one to keep.
    bits: Hamming distance to that original.
    compared: how many pairs of different hashes were compared to find out.
    """

    cluster: np.ndarray
    original: np.ndarray
    bits: np.ndarray
    compared: int


def find_duplicates(hashes: list[str], max_bits: int) -> Duplicates:
    """Which images repeat an earlier one; earlier means further up in the list, so sort it by path.

    Going down the list, an image repeats the first of those kept so far that is at most `max_bits` away; if there is
    none, it is kept itself.

    Args:
        hashes: dHash of each image, 64 hexadecimal digits.
        max_bits: distance up to which two images are the same picture, 0 (equal hashes only) to 64. Up to about 20
            the work grows hardly faster than the number of images; far above, with its square.

    Raises:
        ValueError: if `max_bits` is outside 0 to 64.
    """
    if not 0 <= max_bits <= 64:
        raise ValueError(f"NEAR_DUPLICATE_BITS is {max_bits}; allowed are 0 (equal hashes only) to 64.")
    codes = np.array([list(bytes.fromhex(text)) for text in hashes], np.uint8).reshape(-1, HASH_BITS // 8)
    codes, first, owner = np.unique(codes, axis=0, return_index=True, return_inverse=True)
    owner = owner.reshape(-1)
    search = _Search(codes, max_bits)
    search.link()
    kept = _kept(search, first)
    bits = np.bitwise_count(codes[owner] ^ codes[kept[owner]]).sum(axis=1, dtype=int)
    return Duplicates(search.cluster[owner], first[kept[owner]], bits, search.compared)


def connected_groups(size: int, pairs: np.ndarray) -> np.ndarray:
    """Group numbers [size] such that the two indices of each pair [m, 2] share one; numbered by first member."""
    pairs = np.asarray(pairs, int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1]


class _Search:
    """Clusters of distinct codes [n, 32] uint8; `cluster` [n] starts with each code alone and grows together."""

    def __init__(self, codes: np.ndarray, max_bits: int):
        self.max_bits, self.compared = max_bits, 0
        self.bits = np.unpackbits(codes, axis=1)
        self.words = np.ascontiguousarray(codes).view(np.uint64)  # [n, 4]
        self.cluster = np.arange(len(codes))

    def link(self) -> None:
        """Join whatever is at most `max_bits` apart. Pairs are never stored, so dense data need no more memory."""
        self._divide(np.arange(len(self.words)), np.arange(HASH_BITS), 0)

    def distance(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Differing bits of words [..., 4] and [..., 4]; each broadcast pair counts as compared."""
        total = sum(np.bitwise_count(one[..., word] ^ other[..., word]).astype(np.uint16) for word in range(4))
        self.compared += total.size
        return total

    def _divide(self, rows: np.ndarray, free: np.ndarray, depth: int) -> None:
        """Find close pairs among codes that agree in all but the `free` bits."""
        bands = self.max_bits + 1
        if depth == DEEPEST or 2 ** (len(free) // bands) <= 2 * bands:  # a band so narrow excludes nearly nothing
            self._compare(rows, np.array([0, len(rows)]))
            return
        for band in range(bands):
            chosen = free[band::bands]  # spread over the picture: neighbouring bits say the same of a smooth one
            crowds = []
            order, edges = _by_key(self.bits[rows[:, None], chosen])
            sizes = np.diff(edges)
            for start, size in zip(edges[:-1][sizes > CROWD], sizes[sizes > CROWD], strict=True):
                crowds.append(rows[order[start : start + size]])
            few = np.repeat((sizes > 1) & (sizes <= CROWD), sizes)
            sizes = sizes[(sizes > 1) & (sizes <= CROWD)]
            self._compare(rows[order[few]], np.concatenate([[0], np.cumsum(sizes)]))
            for crowd in crowds:
                if np.any(self.cluster[crowd] != self.cluster[crowd[0]]):
                    self._divide(crowd, np.setdiff1d(free, chosen), depth + 1)

    def _compare(self, rows: np.ndarray, edges: np.ndarray) -> None:
        """Compare all pairs within each group rows[edges[i]:edges[i + 1]] that are not in one cluster yet."""
        for left, right in _pairs_within(edges):
            left, right = rows[left], rows[right]
            apart = self.cluster[left] != self.cluster[right]
            left, right = left[apart], right[apart]
            close = self.distance(self.words[left], self.words[right]) <= self.max_bits
            if close.any():
                links = np.column_stack([self.cluster[left[close]], self.cluster[right[close]]])
                self.cluster = connected_groups(self.cluster.max() + 1, links)[self.cluster]


def _by_key(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Order that brings equal rows of bits [n, b] together, and the edges between the groups [groups + 1]."""
    keys = np.packbits(bits, axis=1)
    order = np.lexsort(keys.T)
    changes = np.flatnonzero(np.any(np.diff(keys[order], axis=0), axis=1)) + 1
    return order, np.concatenate([[0], changes, [len(order)]])


def _pairs_within(edges: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All pairs of positions with no edge between them, as two int arrays, about `CHUNK` at a time."""
    ends = np.repeat(edges[1:], np.diff(edges))
    here, shift, gathered, count = np.arange(len(ends)), 0, [], 0
    while len(here):
        shift += 1
        here = here[here + shift < ends[here]]
        gathered.append((here, here + shift))
        count += len(here)
        if count > CHUNK or not len(here):
            yield tuple(np.concatenate(side) for side in zip(*gathered, strict=True))
            gathered, count = [], 0


def _kept(search: _Search, first: np.ndarray) -> np.ndarray:
    """For each code the one that is kept in its place; `first` [n] is where in the list it appears first."""
    kept = np.arange(len(first))
    order = np.lexsort([first, search.cluster])
    edges = np.flatnonzero(np.diff(search.cluster[order], prepend=-1, append=-1))
    for start, end in zip(edges[:-1], edges[1:], strict=True):
        members = order[start:end]
        stay, stay_words, count = members.copy(), search.words[members], 1  # room for the case that all are kept
        for code in members[1:]:
            close = search.distance(stay_words[:count], search.words[code]) <= search.max_bits
            if close.any():
                kept[code] = stay[close.argmax()]
            else:
                stay[count], stay_words[count], count = code, search.words[code], count + 1
    return kept
