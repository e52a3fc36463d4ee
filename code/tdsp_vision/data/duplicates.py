"""Which images show the same picture? A coarse likeness proposes pairs, the pixels decide, the set says what is near.

miniature [2496] uint8: gray 48 x 48, then color 8 x 8 x 3 (RGB), of the whole frame.
copy       saved again or resized: nearly no difference in gray and color, and nothing else nearly as near
look-alike also cropped by a few percent, brighter or darker, mirrored, turned by quarters: the same fine detail

How near is near? Two photos of different birds differ by 70 gray values, two pages with one small letter by 10, two
parts under a fixed camera by 5. So every distance is held against that of random pairs of this set, and a family
counts only if nothing else lies within three times its own width. What all images share (a table, a page, a rim) is
the mean picture, and taken away first. Look-alikes that would tie a large part of the set together are not used.

Not seen: turns by other angles, crops of more than about 8 %, copies in other colors or drawn over.
"""

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE, COLOR_SIDE, COARSE = 48, 8, 8  # gray and color miniature; lowest frequencies (DCT) that propose pairs
GRAY = SIDE * SIDE
BLUR = 1.5  # pixels of the miniature
PER_IMAGE = 12  # pairs that are proposed, about; of them the best 6 are aligned
ALIGNED_PER_IMAGE, MOST_ALIGNED = 6, 30_000
LEAST_COARSE = 0.55  # cosine of standardized coarse detail; random pairs lie around 0
COPY_STEPS = (0.0125, 0.025, 0.05, 0.07)  # of the distance of random pairs
MOST_COPY, MOST_COLOR = 5, 15  # values: whatever the set, copies and colors of look-alikes do not differ by more
LOOK_STEPS = (0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3)  # 1 - correlation of aligned detail
LEAST_LOOK, STAND_OUT = 0.62, 0.53  # correlation of a pair that stands out; share of the way from chance to 1
SOFT = 4  # gray values: stronger detail counts hardly more, so that one dark spot is not the whole picture
SEPARATE = 3  # times its own width there must be nothing else around a family
SEPARATE_COPIES = 4
MOST_ALIKE, SHARE_ALIKE = 12, 0.02  # images of one family of look-alikes, or this share of the set
SHARE_LINKED = 0.1  # of the images, above which pairs that merely stand out are not used
ZOOMS, SHIFT = (1, 0.97, 0.94, 0.9), 3  # of a crop; pixels of the miniature
BLOCK, CHUNK = 1024, 2048  # rows of the likeness matrix, pairs that are aligned at a time


class Found(NamedTuple):
    """What `find_duplicates` found: numbers [n], equal for images of one family; look-alike pairs [m, 2], best first;
    and sentences on what was not used.
    """

    copies: np.ndarray
    look_alikes: np.ndarray
    pairs: np.ndarray
    sentences: list[str]


def miniature(small: np.ndarray) -> np.ndarray:
    """The miniature, uint8 [2496], of a picture, uint8 [h, w, 3]."""
    parts = ((cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), SIDE), (small, COLOR_SIDE))
    area = cv2.INTER_AREA  # the mean of what a pixel covers, so that copies of any size have one miniature
    return np.concatenate([cv2.resize(part, (side, side), interpolation=area).ravel() for part, side in parts])


def connected_groups(size: int, pairs: np.ndarray) -> np.ndarray:
    """Group numbers [size] such that the two indices of each pair [m, 2] share one; numbered by first member."""
    pairs = np.asarray(pairs, int).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1]


def find_duplicates(miniatures: np.ndarray) -> Found:
    """Families of copies and of look-alikes.

    Args:
        miniatures: [n, 2496] uint8 of different files.
    """
    n, rng = len(miniatures), np.random.default_rng(0)  # of the random pairs
    if n < 2:
        return Found(np.arange(n), np.arange(n), np.empty((0, 2), int), [])
    one, other = rng.integers(0, n, (2, min(4000, 4 * n * n)))
    one, other = one[one != other], other[one != other]
    apart = np.median(_differences(miniatures, one, other)[0])
    mean = _detail(miniatures[rng.permutation(n)[:2000]]).mean(axis=0)
    pairs, turn, coarse = _oriented(miniatures, _proposed(miniatures, rng), rng)

    upright = np.flatnonzero(turn == 0)
    gray, color = _differences(miniatures, *pairs[upright].T)
    steps = np.minimum(apart * np.array(COPY_STEPS), MOST_COPY)
    gray = np.where(color <= max(2, steps[-1]), gray, np.inf)
    copies = connected_groups(n, _families(n, pairs[upright], gray, steps, SEPARATE_COPIES, most=n))

    best = np.sort(np.argsort(-coarse, kind="stable")[: min(ALIGNED_PER_IMAGE * n + 1000, MOST_ALIGNED)])
    pairs, turn = pairs[best], turn[best]
    chance = np.quantile(_correlations(miniatures, np.column_stack([one, other])[:2000], None, mean, np.inf), 0.99)
    correlation = _correlations(miniatures, pairs, turn, mean, np.clip(0.35 * apart, 6, MOST_COLOR))
    links, sentences = _look_alikes(n, pairs, correlation, chance)
    order = np.argsort(-correlation[links], kind="stable")
    return Found(copies, connected_groups(n, pairs[links]), pairs[links][order], sentences)


def _look_alikes(n: int, pairs: np.ndarray, correlation: np.ndarray, chance: float) -> tuple[np.ndarray, list[str]]:
    """Which pairs are look-alikes: numbers of rows; and sentences on those that are not used."""
    most, sentences = max(MOST_ALIKE, int(SHARE_ALIKE * n)), []
    family = connected_groups(n, _families(n, pairs, 1 - correlation, np.array(LOOK_STEPS), SEPARATE, most))
    alone = (family[pairs[:, 0]] == family[pairs[:, 1]]) & (correlation >= 1 - LOOK_STEPS[-1])
    out = ~alone & (correlation >= max(LEAST_LOOK, chance + STAND_OUT * (1 - chance)))
    size = np.bincount(connected_groups(n, pairs[out])).max()
    if len(np.unique(pairs[out])) > max(SHARE_LINKED * n, MOST_ALIKE) or size > most:
        out[:] = False
    unused = len(np.unique(pairs[~alone & ~out & (correlation >= 1 - LOOK_STEPS[-1])]))
    if unused > max(SHARE_LINKED * n, MOST_ALIKE):
        found = f"{unused} of {n} images look much alike without being copies: a fixed camera or plain pages, perhaps"
        advice = "if some of them belong together, say so by a column of metadata"
        sentences.append(f"{found}. This likeness was not used, as it would tie a large part together; {advice}.")
    return np.flatnonzero(alone | out), sentences


def _families(n: int, pairs: np.ndarray, distance: np.ndarray, steps, free: float, most: int) -> np.ndarray:
    """Pairs [m, 2] within families: images linked by at most a step, and nothing else within `free` times of it."""
    found = [np.empty((0, 2), int)]
    for step in steps:
        near = pairs[distance <= step]
        narrow, wide = (connected_groups(n, some) for some in (near, pairs[distance <= free * step]))
        size, around = np.bincount(narrow)[narrow], np.bincount(wide)[wide]
        found.append(near[((size == around) & (size <= most))[near[:, 0]]])
    return np.concatenate(found)


def _proposed(miniatures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """About `PER_IMAGE` pairs [m, 2] for each image whose coarse detail is alike, however it was mirrored or turned.

    The lowest frequencies of a picture only change sign when it is mirrored, and trade places when it is turned.
    Their amounts, made free of that order and standardized over the set, are compared for all pairs.
    """
    upper, parts = np.triu_indices(COARSE), []
    for part in _chunks(len(miniatures)):
        amounts = np.sqrt(np.abs(_frequencies(miniatures[part])))
        swapped = amounts.transpose(0, 2, 1)
        parts.append(np.concatenate([(amounts + swapped)[:, *upper], np.abs(amounts - swapped)[:, *upper]], axis=1))
    either = np.concatenate(parts)
    either = (either - either.mean(axis=0)) / (either.std(axis=0) + 1e-3)
    either /= np.linalg.norm(either, axis=1, keepdims=True) + 1e-6
    n = len(either)
    some = rng.permutation(n)[:3000]
    likeness = (either[some] @ either[some].T)[np.triu_indices(len(some), 1)]
    least = max(0.5, np.quantile(likeness, max(0, 1 - 2 * PER_IMAGE / n))) if n > PER_IMAGE else -2
    found = []
    for start in range(0, n, BLOCK):
        for across in range(start, n, 4 * BLOCK):
            block = either[start : start + BLOCK] @ either[across : across + 4 * BLOCK].T
            hits = np.flatnonzero(block >= least)
            hits = hits[:: len(hits) // (6 * PER_IMAGE * len(block)) + 1]  # a crowd of equal pictures
            rows, columns = np.divmod(hits, block.shape[1])
            ahead = columns + across > rows + start
            found.append(np.column_stack([rows + start, columns + across])[ahead])
    return np.concatenate(found)


def _oriented(miniatures, pairs, rng) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs that are alike in one orientation, its number (0: as they are; bits 1, 2: mirrored, 4: transposed) and
    the cosine of their standardized coarse detail.
    """
    coarse = _frequencies(miniatures)
    mean, spread = coarse.mean(axis=0), coarse.std(axis=0) + 0.1
    spread[0, 0] = np.inf  # the mean brightness
    best = np.full(len(pairs), -1.0, np.float32)
    turn = np.zeros(len(pairs), np.int8)
    for start in range(0, len(pairs), 8 * CHUNK):
        part = slice(start, start + 8 * CHUNK)
        one, other = ((coarse[pairs[part, side]]) for side in (0, 1))
        one = _unit((one - mean) / spread)
        for number in range(8):
            cosine = (one * _unit((_turned(other, number, signs=True) - mean) / spread)).sum(axis=(1, 2))
            turn[part] = np.where(cosine > best[part], number, turn[part])
            best[part] = np.maximum(cosine, best[part])
    keep = best >= LEAST_COARSE
    return pairs[keep], turn[keep], best[keep]


def _turned(pictures: np.ndarray, number: int, signs: bool = False) -> np.ndarray:
    """Pictures [m, s, s, …], or with `signs` their frequencies, mirrored or turned as `number` says."""
    odd = (-1.0) ** np.arange(pictures.shape[1])
    if number & 1:
        pictures = pictures * odd.astype(np.float32) if signs else pictures[:, :, ::-1]
    if number & 2:
        pictures = pictures * odd.astype(np.float32)[:, None] if signs else pictures[:, ::-1]
    return pictures.swapaxes(1, 2) if number & 4 else pictures


def _correlations(miniatures, pairs, turn, mean, most_color) -> np.ndarray:
    """Correlation of the fine detail of each pair [m], at the best of a few crops and shifts; -1 for other colors."""
    found = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), CHUNK):
        part = slice(start, start + CHUNK)
        one, other = (miniatures[pairs[part, side]] for side in (0, 1))
        details = [_detail(one) - mean, _detail(other)]
        colors = [_blocks(some) for some in (one, other)]
        if turn is not None:
            for number in range(8):
                rows = turn[part] == number
                for sides in (details, colors):
                    sides[1][rows] = _turned(sides[1][rows], number)
        details[1] = details[1] - mean
        zoomed = [[_spectrum(zoom @ side @ zoom.T) for zoom in _ZOOMED] for side in details]
        best = [_best_shift(zoomed[0][0], some) for some in zoomed[1]]
        best += [_best_shift(some, zoomed[1][0]) for some in zoomed[0][1:]]
        found[part] = np.where(_color_apart(*colors) <= most_color, np.max(best, axis=0), -1)
    return found


def _spectrum(detail: np.ndarray) -> np.ndarray:
    detail = detail / (np.abs(detail) + SOFT) * _WINDOW
    return np.fft.rfft2(_unit(detail - detail.mean(axis=(1, 2), keepdims=True)))


def _best_shift(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlation [m] of two details, by their spectra, at the best shift of a few pixels."""
    at = np.fft.irfft2(one * other.conj(), s=(SIDE, SIDE))
    near = np.r_[-SHIFT:0, 0 : SHIFT + 1]
    return at[:, near][:, :, near].max(axis=(1, 2))


def _blocks(miniatures: np.ndarray) -> np.ndarray:
    """Mean colors [m, 4, 4, 3] of sixteen parts of a picture: hardly moved by a crop."""
    side = COLOR_SIDE // 2
    return miniatures[:, GRAY:].reshape(-1, side, 2, side, 2, 3).astype(np.float32).mean(axis=(2, 4))


def _color_apart(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Root of the mean squared difference [m] of colors, after one is made as bright as the other, clipped at white."""
    free = (one < 230) & (other < 230)
    products = [(a * b * free).sum(axis=(1, 2, 3)) for a, b in ((one, other), (other, other))]
    gain = np.where(products[1] > 0, products[0] / np.maximum(products[1], 1), 1).clip(0.6, 1.7)
    brighter = np.minimum(255, gain[:, None, None, None] * other)
    return np.sqrt(((one - brighter) ** 2).mean(axis=(1, 2, 3)))


def _differences(miniatures, one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Root of the mean squared difference of pairs, in gray [m] and in color [m]."""
    found = np.empty((2, len(one)))
    for part in _chunks(len(one)):
        squares = (miniatures[one[part]].astype(np.float32) - miniatures[other[part]]) ** 2
        found[:, part] = np.sqrt([squares[:, :GRAY].mean(axis=1), squares[:, GRAY:].mean(axis=1)])
    return found[0], found[1]


def _chunks(size: int) -> Iterator[slice]:
    return (slice(start, start + CHUNK) for start in range(0, size, CHUNK))


def _detail(miniatures: np.ndarray) -> np.ndarray:
    """Gray pictures [m, 48, 48] float32 without their slow changes."""
    gray = _gray(miniatures)
    return gray - _BLUR @ gray @ _BLUR.T


def _frequencies(miniatures: np.ndarray) -> np.ndarray:
    """The lowest frequencies [n, 8, 8] float32 of the gray pictures (DCT-II)."""
    return np.concatenate([_DCT @ _gray(miniatures[part]) @ _DCT.T for part in _chunks(len(miniatures))])


def _gray(miniatures: np.ndarray) -> np.ndarray:
    return miniatures[:, :GRAY].reshape(-1, SIDE, SIDE).astype(np.float32)


def _unit(pictures: np.ndarray) -> np.ndarray:
    length = np.sqrt((pictures**2).sum(axis=(1, 2), keepdims=True))
    return pictures / np.maximum(length, 1e-3)


def _sampled(zoom: float) -> np.ndarray:
    """Matrix that enlarges the middle `zoom` of a line of pixels to the whole line, linearly."""
    center = (SIDE - 1) / 2
    at = center + (np.arange(SIDE) - center) * zoom
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(SIDE))).astype(np.float32)


def _blurring() -> np.ndarray:
    weights = np.exp(-(np.subtract.outer(np.arange(SIDE), np.arange(SIDE)) ** 2) / (2 * BLUR**2))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


_ZOOMED, _BLUR = [_sampled(zoom) for zoom in ZOOMS], _blurring()
_WINDOW = np.sqrt(np.outer(*[np.hanning(SIDE + 2)[1:-1]] * 2)).astype(np.float32)
_DCT = (np.sqrt(2 / SIDE) * np.cos(np.pi * np.outer(np.arange(COARSE), np.arange(SIDE) + 0.5) / SIDE)).astype(
    np.float32
)
