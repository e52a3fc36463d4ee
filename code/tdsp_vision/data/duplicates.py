"""Which images show the same picture? A coarse likeness proposes pairs, the pixels decide, the set says what is near.

miniature [2496] uint8: gray 48 x 48, then color 8 x 8 x 3 (RGB), of the whole frame.
copy       saved again or resized: nearly no difference in gray and color, and nothing else nearly as near
look-alike also cropped by a few percent, brighter or darker, mirrored, turned by quarters: the same fine detail

How near is near? Two photos of different birds differ by 70 gray values, two pages with one small letter by 10, two
parts under a fixed camera by 5. So every distance is held against that of random pairs of this set, and a family
counts only if nothing else lies within a few times its own width. What all images share (a table, a page, a rim) is
the mean picture, and taken away first. Families that would tie a large part of the set together are not used.

Not seen: turns by other angles, crops of more than about 8 %, copies in other colors or drawn over.
"""

import cv2
import numpy as np
from scipy.fft import dct, dctn, idct
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SIDE, COLOR_SIDE = 48, 8  # pixels of the miniature, in gray and in color
COARSE = 8  # pixels of the picture by which pairs are proposed
GRAY = SIDE * SIDE
PER_IMAGE = 12  # pairs that are proposed, about; of them the best 6 are aligned
COPY_STEPS = np.array([0.0125, 0.025, 0.05, 0.07])  # of the distance of random pairs
MOST_COPY, MOST_COLOR = 5, 15  # values: whatever the set, copies and colors of look-alikes do not differ by more
LOOK_STEPS = np.array([0.03, 0.06, 0.1, 0.15, 0.2, 0.25, 0.3])  # 1 - correlation of aligned detail
MOST_ALIKE, SHARE_ALIKE = 12, 0.02  # images of one family of look-alikes, or this share of the set
CROPPED, MARGIN = (48, 46, 45, 43), 2  # pixels to which a picture shrinks that was cropped; what a shift may cut off
SHRINK = idct(dct(np.eye(SIDE, dtype=np.float32), axis=0)[:COARSE], axis=0)  # keeps the lowest frequencies
ROWS, CHUNK = 128, 2048  # of the likeness matrix; pairs that are compared at a time


def miniature(small: np.ndarray) -> np.ndarray:
    """The miniature, uint8 [2496], of a picture, uint8 [h, w, 3]."""
    area = cv2.INTER_AREA  # the mean of what a pixel covers, so that copies of any size have one miniature
    gray = cv2.resize(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=area)
    return np.append(gray, cv2.resize(small, (COLOR_SIDE, COLOR_SIDE), interpolation=area))


def connected_groups(size: int, pairs: np.ndarray) -> np.ndarray:
    """Group numbers [size] such that the two indices of each pair [m, 2] share one; numbered by first member."""
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    return connected_components(graph, directed=False)[1]


def find_duplicates(miniatures: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Which of n different files show the same picture, from their miniatures, uint8 [n, 2496].

    Returns:
        numbers [n], equal for copies of one picture.
        pairs [m, 2] of look-alikes, copies among them, best first.
        a sentence if more than a tenth of the images look alike in a way that was not used.
    """
    n, rng = len(miniatures), np.random.default_rng(0)  # of the random pairs
    if n < 2:
        return np.arange(n), np.empty((0, 2), int), []
    some = rng.integers(0, n, (min(4000, 4 * n * n), 2))
    apart = np.median(_distances(miniatures, some[some[:, 0] != some[:, 1]]))
    pairs, turns, coarse = _proposed(miniatures, rng)

    upright = pairs[turns == 0]
    steps = np.minimum(apart * COPY_STEPS, MOST_COPY)
    copies = upright[_families(n, upright, _distances(miniatures, upright), steps, free=4, most=n)]

    best = np.argsort(-coarse, kind="stable")[: min(6 * n + 1000, 30_000)]  # each takes about a millisecond
    mean = np.mean([_parts(one)[0] for one in miniatures[rng.permutation(n)[:2000]]], axis=0)
    most_color = np.clip(0.35 * apart, 6, MOST_COLOR)
    aligned = [_correlation(*miniatures[pairs[row]], turns[row], mean, most_color) for row in best]
    pairs, distance = pairs[best], 1 - np.array(aligned)
    alike = _families(n, pairs, distance, LOOK_STEPS, free=2.5, most=max(MOST_ALIKE, SHARE_ALIKE * n))
    unused = len(np.unique(pairs[~alike & (distance <= LOOK_STEPS[-1])]))
    sentence = f"{unused} of {n} images look much alike without being copies: a fixed camera or plain pages, perhaps. "
    sentence += "It was not used, as it would tie a large part together; metadata can say what belongs together."
    pairs = pairs[alike][np.argsort(distance[alike], kind="stable")]
    return connected_groups(n, copies), pairs, [sentence] if unused > max(0.1 * n, MOST_ALIKE) else []


def _families(n: int, pairs: np.ndarray, distance: np.ndarray, steps, free: float, most: float) -> np.ndarray:
    """Which pairs [m] are within families: at most `most` images, linked by at most a step, and nothing else within
    `free` times that step.
    """
    found = np.zeros(len(pairs), bool)
    for step in steps:
        near = distance <= step
        narrow, wide = (connected_groups(n, pairs[some]) for some in (near, distance <= free * step))
        size, around = np.bincount(narrow)[narrow], np.bincount(wide)[wide]
        found |= near & ((size == around) & (size <= most))[pairs[:, 0]]
    return found


def _proposed(miniatures: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs [m, 2] whose coarse detail is alike in one orientation, its number (see `_turned`) and the cosine.

    The lowest frequencies of a picture only change sign when it is mirrored, and trade places when it is turned. Their
    amounts, made free of that order and standardized over the set, are compared for all pairs: about `PER_IMAGE` for
    each image go on. Only those are compared in all eight orientations.
    """
    n = len(miniatures)
    chunks = (miniatures[start : start + CHUNK, :GRAY].reshape(-1, SIDE, SIDE) for start in range(0, n, CHUNK))
    coarse = np.concatenate([SHRINK @ gray.astype(np.float32) @ SHRINK.T for gray in chunks])
    views = [dctn(_turned(coarse, turn), axes=(1, 2)) for turn in range(8)]
    amounts, swapped = (np.sqrt(np.abs(view)) for view in views[:2])
    amounts = np.where(np.tri(COARSE), np.maximum(amounts, swapped), np.minimum(amounts, swapped))
    amounts = _standardized(amounts, amounts, 1e-3)
    views = [_standardized(view, views[0], 10) for view in views]

    few = rng.permutation(n)[:3000]
    likeness = (amounts[few] @ amounts[few].T)[np.triu_indices(len(few), 1)]
    least, found = np.quantile(likeness, max(0, 1 - 2 * PER_IMAGE / n)), []
    for start in range(0, n, ROWS):
        block = amounts[start : start + ROWS] @ amounts[start:].T
        hits = np.flatnonzero(block >= least)
        hits = hits[:: len(hits) // (6 * PER_IMAGE * len(block)) + 1]  # a crowd of equal pictures
        one, other = start + np.array(np.divmod(hits, n - start))
        cosines = [(views[0][one] * view[other]).sum(axis=1) for view in views]
        found.append(np.stack([one, other, np.argmax(cosines, axis=0), np.max(cosines, axis=0)]))
    one, other, turns, cosine = np.concatenate(found, axis=1)
    keep = (one < other) & (cosine >= 0.55)  # random pairs lie around 0
    return np.column_stack([one, other])[keep].astype(int), turns[keep].astype(int), cosine[keep]


def _standardized(frequencies: np.ndarray, among: np.ndarray, least: float) -> np.ndarray:
    """Vectors [n, 63] of length 1: frequencies [n, 8, 8], without the mean brightness, against their mean and spread.

    `least` is added to the spread, because a frequency that hardly varies is noise.
    """
    rows = ((frequencies - among.mean(axis=0)) / (among.std(axis=0) + least)).reshape(len(frequencies), -1)[:, 1:]
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-3)


def _turned(pictures: np.ndarray, turn: int) -> np.ndarray:
    """Pictures [m, s, s, …] turned by quarters, and for turns of 4 to 7 mirrored as well."""
    pictures = np.rot90(pictures, turn, axes=(1, 2))
    return pictures[:, :, ::-1] if turn > 3 else pictures


def _parts(miniature: np.ndarray, turn: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """float32: the fine detail [48, 48], which is gray without its blur, and the colors of sixteen parts [4, 4, 3]."""
    gray, color = miniature[:GRAY].reshape(1, SIDE, SIDE), miniature[GRAY:].reshape(1, COLOR_SIDE, COLOR_SIDE, 3)
    gray, color = (_turned(part, turn)[0].astype(np.float32) for part in (gray, color))
    return gray - cv2.GaussianBlur(gray, (0, 0), 1.5), cv2.resize(color, (4, 4), interpolation=cv2.INTER_AREA)


def _correlation(one: np.ndarray, other: np.ndarray, turn: int, mean: np.ndarray, most_color: float) -> float:
    """Correlation of the fine detail of two miniatures, at the best of a few crops and shifts; -1 for other colors.

    Colors are those of sixteen parts, which a crop hardly moves, after one is made as bright as the other, clipped at
    white. Detail of more than about 4 gray values counts hardly more, so that one dark spot is not the whole picture.
    """
    details, (color, other_color) = zip(_parts(one), _parts(other, turn), strict=True)
    details = [(detail - mean) / (np.abs(detail - mean) + 4) for detail in details]
    gain = np.clip(color.mean() / max(1, other_color.mean()), 0.6, 1.7)
    apart = np.sqrt(((color - np.minimum(255, gain * other_color)) ** 2).mean())
    if apart > most_color or np.std(details, axis=(1, 2)).min() < 0.01:  # the latter: of one color all over
        return -1
    best = -1
    for whole, cropped in (details, details[::-1]):
        for side in CROPPED:
            part = cv2.resize(cropped, (side, side), interpolation=cv2.INTER_AREA)[MARGIN:-MARGIN, MARGIN:-MARGIN]
            best = max(best, cv2.matchTemplate(whole, part, cv2.TM_CCOEFF_NORMED).max())
    return best


def _distances(miniatures: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Root of the mean squared difference of pairs [m], in gray or, less 1 for rounding, in color: the larger one."""
    found = []
    for some in np.array_split(pairs, len(pairs) // CHUNK + 1):
        squares = (miniatures[some[:, 0]].astype(np.float32) - miniatures[some[:, 1]]) ** 2
        gray, color = (np.sqrt(part.mean(axis=1)) for part in np.split(squares, [GRAY], axis=1))
        found.append(np.maximum(gray, color - 1))
    return np.concatenate(found).astype(float)
