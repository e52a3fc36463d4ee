"""Pictures that may show the same thing although their hashes differ: a second look, for a person to decide.

A dHash sees the light and dark of the whole frame. Between photos through one lens with a dark rim it can differ in
fewer bits than between two crops of one photo, and then no threshold on its bits tells copies from neighbours.
Compared here is what is left when rim, lighting and shape are gone: the fine detail in the middle of the frame.
It sees crops of a few percent and changed colors; like the dHash it is blind to turned and mirrored copies.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from tdsp_vision.data.images import as_rgb
from tdsp_vision.data.orientation import shown_upright

SIDE = 64  # pixels of the miniature
SIGMA = 2  # of the blur that is taken away, in pixels of the miniature
LEAST = 0.7  # correlation; 1 is the same detail, dermoscopy of different lesions stays below about 0.65
BLOCK = 2048  # rows of the correlation matrix held at a time


def find_look_alikes(folder: Path, files: list[str], least: float = LEAST, quiet: bool = False) -> pd.DataFrame:
    """Pairs of images whose fine detail correlates, best first; all pairs are compared, by matrix product.

    Args:
        folder: what `files` are relative to.
        files: different image files; they may still have to be turned upright.
        least: correlation, -1 to 1, from which on a pair is named.

    Returns:
        first, second (names as in `files`, in that order), correlation.
    """
    if not len(files):
        return pd.DataFrame(columns=["first", "second", "correlation"])
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda name: detail(folder / name), files)
        details = np.stack(list(tqdm(found, total=len(files), desc="second look", unit="image", disable=quiet or None)))
    rows, names = [], np.array(files, object)
    for start in range(0, len(details), BLOCK):
        correlation = details[start : start + BLOCK] @ details[start:].T
        first, second = np.nonzero(correlation >= least)
        ahead = second > first
        first, second = first[ahead], second[ahead]
        rows += zip(names[first + start], names[second + start], correlation[first, second].astype(float), strict=True)
    table = pd.DataFrame(rows, columns=["first", "second", "correlation"])
    return table.sort_values("correlation", ascending=False, ignore_index=True, kind="stable")


def detail(file: Path) -> np.ndarray:
    """Fine detail of one picture: float32 [m], length 1 and mean 0, or all 0 where the middle is plain."""
    with Image.open(file) as image:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        image = shown_upright(as_rgb(image)).convert("L")
    gray = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    gray -= cv2.GaussianBlur(gray, (0, 0), SIGMA)
    place = np.linspace(-1, 1, SIDE) ** 2
    middle = gray[place[:, None] + place < 0.9]
    middle -= middle.mean()
    length = np.linalg.norm(middle)
    return middle / length if length > 1e-3 else np.zeros_like(middle)
