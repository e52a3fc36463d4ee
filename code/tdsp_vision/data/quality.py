"""What can be measured of each image, and what is known about it, before any model sees it.

Pictures are measured at most 256 pixels wide or high, which is about what a network gets and makes large and small
files comparable; file size, pixels and aspect ratio are those of the file. Measures see less than people: each says
what it mistakes for what.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tdsp_vision.data.duplicates import miniature
from tdsp_vision.data.images import RejectedImage, quiet_decoders, read_image
from tdsp_vision.data.tables import COLUMNS

MOST_VALUES = 12  # a column with more different values is text, or a number that is put into ranges
MEASURES = {  # column of `measure_images`: what it is
    "file_kb": "size of the file in kB (1,000 bytes)",
    "megapixels": "width x height in millions of pixels",
    "aspect_ratio": "width / height",
    "brightness": "mean gray value, 0 (black) to 255 (white)",
    "contrast": "standard deviation of the gray values",
    "sharpness": "variance of the Laplacian of the gray values; noise and hair count as sharpness, too",
    "dark_corners": "1 - brightness of the corners / median inside the inscribed ellipse; 1: black corners",
    "ink": "share of saturated green, blue and violet pixels: on skin ink, stickers or cloth; red and black ink are "
    "not seen, and elsewhere it is just a color",
    "thin_lines": "share of pixels in dark lines up to 3 pixels wide: hair, ruler ticks, written numbers or a fine "
    "pattern of the subject, which it cannot tell apart; pale hair and white rulers are not seen",
}


def measure_images(files: list[Path], quiet: bool = False) -> pd.DataFrame:
    """Measure image files: one row per file, in order, float columns as in `MEASURES`.

    Raises:
        RejectedImage: if one cannot be read as an image.
    """
    rows = look_at(files, quiet)
    if refused := [row for row in rows if isinstance(row, RejectedImage)]:
        raise refused[0]
    return pd.DataFrame(rows, columns=list(MEASURES), dtype=float)


def look_at(files: list[Path], quiet: bool = False) -> list[dict | RejectedImage]:
    """`ImageFacts`, `MEASURES` and miniature of each file, in order, several at a time; a rejection as a value."""

    def look(file: Path) -> dict | RejectedImage:
        """What a thread gives back for one file."""
        try:
            facts, small = read_image(file)
        except RejectedImage as reason:
            return reason
        return vars(facts) | measure(small, facts.bytes, facts.width, facts.height) | {"miniature": miniature(small)}

    with quiet_decoders(), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(look, files)
        return list(tqdm(found, total=len(files), desc="reading images", unit="image", disable=quiet or None))


def measure(small: np.ndarray, size: int, width: int, height: int) -> dict[str, float]:
    """The `MEASURES` of a picture, uint8 [h, w, 3], at most 256 pixels wide and high; of its file: bytes and pixels."""
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    (brightness, contrast), (_, edges) = map(cv2.meanStdDev, (gray, cv2.Laplacian(gray, cv2.CV_32F)))
    values = [size / 1e3, width * height / 1e6, width / height, brightness.item(), contrast.item(), edges.item() ** 2]
    values += [float(dark_corners(gray)), float(ink(small)), float(thin_lines(gray))]
    return dict(zip(MEASURES, values, strict=True))


def dark_corners(gray: np.ndarray) -> float:
    """How much darker the corners are than the rest, uint8 [h, w] to about 0 (as bright) to 1 (black).

    The corners lie outside of 1.2 times the inscribed ellipse. The median of what is inside of it hardly feels a
    dark lesion in the middle. Brighter corners give a negative value, a strip too narrow to have corners gives 0.
    """
    if min(gray.shape) < 8:
        return 0.0
    corners, inside = _places(*gray.shape)
    counts = cv2.calcHist([gray], [0], inside, [256], [0, 256]).cumsum()
    return 1 - cv2.mean(gray, corners)[0] / max(np.searchsorted(counts, counts[-1] / 2), 1)


@lru_cache(maxsize=64)
def _places(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the corners are, and what is inside of the ellipse; uint8 [height, width] each, 0 elsewhere."""
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in (height, width))
    distance = y[:, None] ** 2 + x**2
    return (distance > 1.2**2).astype(np.uint8), (distance < 1).astype(np.uint8)


def ink(pixels: np.ndarray) -> float:
    """Share of pixels, uint8 [h, w, 3], with a hue from green to violet (70 to 310 degrees), neither pale nor dark."""
    hue, saturation, value = cv2.split(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV))
    return ((hue > 35) & (hue < 155) & (saturation > 64) & (value > 50)).mean()


def thin_lines(gray: np.ndarray) -> float:
    """Share of pixels, uint8 [h, w], clearly darker than the picture with its thin dark lines closed (black hat)."""
    blackhat = cv2.morphologyEx(gray, cv2.MORPH_BLACKHAT, np.ones((5, 5), np.uint8))
    return (blackhat > 25).mean()


def metadata_columns(manifest: pd.DataFrame) -> list[str]:
    """Columns of the manifest that came with the source, licence and attribution included."""
    return ["license", "attribution", *(column for column in manifest if column not in COLUMNS)]


def share_known(manifest: pd.DataFrame) -> pd.DataFrame:
    """For each metadata column: share of images that have it, overall and by class, and number of different values.

    A share that differs between the classes is a finding by itself: they may come from different archives.
    """
    metadata = manifest[metadata_columns(manifest)].replace("", pd.NA)
    shares = metadata.notna().groupby(shown_classes(manifest.label)).mean().T
    table = pd.DataFrame({"known": metadata.notna().mean(), "different values": metadata.nunique()})
    return table.join(shares.add_prefix("known of ")).rename_axis("column")


def shown_classes(labels: pd.Series, most: int = MOST_VALUES) -> pd.Series:
    """Labels for tables and figures: as they are, or the largest of them and "(n others)" where there are too many."""
    counts = labels.value_counts()
    if len(counts) <= most:
        return labels
    return labels.where(labels.isin(counts.index[: most - 1]), f"({len(counts) - most + 1} others)")


def columns_to_compare(manifest: pd.DataFrame) -> list[str]:
    """Metadata columns worth a table against the class: numbers, or 2 to 12 different values.

    Left out are ids, attribution, and diagnoses, from which the label itself was made.
    """
    skipped = ("id", "attribution", "diagnosis")
    columns = [name for name in metadata_columns(manifest) if not name.startswith(skipped) and not name.endswith("_id")]
    return [name for name in columns if 2 <= _in_ranges(manifest[name]).nunique() <= MOST_VALUES]


def class_by(manifest: pd.DataFrame, column: str) -> pd.DataFrame:
    """Number of images by value of `column` (rows; numbers in ranges, missing ones as such) and class (columns)."""
    return pd.crosstab(_in_ranges(manifest[column]), shown_classes(manifest.label))


def _in_ranges(values: pd.Series) -> pd.Series:
    """Categories in their order: text as it is; ages by decade, other numbers with many values in fifths."""
    known = values.replace("", pd.NA).dropna()
    is_number = pd.api.types.is_numeric_dtype(known)
    if is_number and str(values.name).startswith("age"):
        known = known // 10 * 10
        names = {low: f"{low:g} to {low + 9:g}" for low in sorted(known.unique())}
    elif is_number and known.nunique() > MOST_VALUES:
        fifth = pd.qcut(known.rank(), 5, labels=False, duplicates="drop")
        limits = known.groupby(fifth).agg(["min", "max"])
        known, names = fifth, {row.Index: f"{row.min:.15g} to {row.max:.15g}" for row in limits.itertuples()}
    else:
        names = {value: str(value) for value in sorted(known.unique())}
    filled = known.map(names).reindex(values.index).astype(object).fillna("(missing)")
    order = dict.fromkeys([*names.values(), "(missing)"])
    category = pd.Categorical(filled, [name for name in order if (filled == name).any()], ordered=True)
    return pd.Series(category, values.index, name=values.name)
