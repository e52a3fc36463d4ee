"""What can be measured of each image, what is known about it, and what of that would let a model cheat.

Pictures are measured at most 256 pixels wide or high, which is about what a network gets and makes large and small
files comparable; file size, pixels and aspect ratio are those of the file. Measures see less than people: each says
what it mistakes for what. A measure that alone predicts the label is a question, not yet a proof: brightness, contrast
and lines can be part of the subject, or of the camera, the archive, the clinic.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from tdsp_vision.data.duplicates import miniature
from tdsp_vision.data.images import RejectedImage, quiet_decoders, read_image
from tdsp_vision.data.tables import COLUMNS

MOST_SHOWN = 12  # classes of a table or figure, values of a column that is compared
RESAMPLES, FOLDS = 1000, 5
CLEAR = 0.55  # lower end of an interval from which on a measure is worth a sentence
FEWEST = 20  # images of a class, for a sentence: with fewer something always seems to predict
TOGETHER = "all together"
MISSING = "(missing)"
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


def measure_images(files: list[Path]) -> pd.DataFrame:
    """Measure image files: one row per file, in order, float columns as in `MEASURES`.

    Raises:
        RejectedImage: if one cannot be read as an image.
    """
    rows = look_at(files)
    if refused := [row for row in rows if isinstance(row, RejectedImage)]:
        raise refused[0]
    return pd.DataFrame(rows, columns=list(MEASURES), dtype=float)


def look_at(files: list[Path]) -> list[dict | RejectedImage]:
    """Facts (`read_image`), `MEASURES` and miniature of each file, in order, several at a time; a rejection as a
    value.
    """

    def look(file: Path) -> dict | RejectedImage:
        """What a thread gives back for one file."""
        try:
            facts, small = read_image(file)
        except RejectedImage as reason:
            return reason
        return facts | measure(small, facts["bytes"], facts["width"], facts["height"]) | {"miniature": miniature(small)}

    with quiet_decoders(), ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(look, files)
        return list(tqdm(found, total=len(files), desc="reading images", unit="image", disable=None))


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


def share_known(manifest: pd.DataFrame) -> pd.DataFrame:
    """For each metadata column: share of images that have it, overall and by class, and number of different values.

    A share that differs between the classes is a finding by itself: they may come from different archives.
    """
    metadata = manifest[_metadata_columns(manifest)].replace("", pd.NA)
    shares = metadata.notna().groupby(shown_classes(manifest.label)).mean().T
    table = pd.DataFrame({"known": metadata.notna().mean(), "different values": metadata.nunique()})
    return table.join(shares.add_prefix("known of ")).rename_axis("column")


def _metadata_columns(manifest: pd.DataFrame) -> list[str]:
    """Columns of the manifest that came with the source, licence and attribution included."""
    return ["license", "attribution", *(column for column in manifest if column not in COLUMNS)]


def shown_classes(labels: pd.Series) -> pd.Series:
    """Labels for tables and figures: as they are, or the largest of them and "(n others)" where there are too many."""
    counts = labels.value_counts()
    if len(counts) <= MOST_SHOWN:
        return labels
    return labels.where(labels.isin(counts.index[: MOST_SHOWN - 1]), f"({len(counts) - MOST_SHOWN + 1} others)")


def columns_to_compare(manifest: pd.DataFrame) -> list[str]:
    """Metadata columns worth a table against the class: numbers, or 2 to 12 different values.

    Left out are ids, attribution, and diagnoses, from which the label itself was made.
    """
    skipped = ("id", "attribution", "diagnosis")
    names = [name for name in _metadata_columns(manifest) if not name.startswith(skipped) and not name.endswith("_id")]
    return [name for name in names if 2 <= in_ranges(manifest[name]).nunique() <= MOST_SHOWN]


def class_by(manifest: pd.DataFrame, column: str) -> pd.DataFrame:
    """Number of images by value of `column` (rows; numbers in ranges, missing ones as such) and class (columns)."""
    return pd.crosstab(in_ranges(manifest[column]), shown_classes(manifest.label))


def in_ranges(values: pd.Series) -> pd.Series:
    """Categories in their order: text as it is, numbers with many values in fifths."""
    known = values.replace("", pd.NA).dropna()
    names = {value: str(value) for value in sorted(known.unique())}
    if pd.api.types.is_numeric_dtype(known) and len(names) > MOST_SHOWN:
        fifth = pd.qcut(known.rank(), 5, labels=False, duplicates="drop")
        limits = known.groupby(fifth).agg(["min", "max"])
        known, names = fifth, {row.Index: f"{row.min:.15g} to {row.max:.15g}" for row in limits.itertuples()}
    filled = known.map(names).reindex(values.index).astype(object).fillna(MISSING)
    order = [name for name in dict.fromkeys([*names.values(), MISSING]) if (filled == name).any()]
    return pd.Series(pd.Categorical(filled, order, ordered=True), values.index, name=values.name)


def predict_label_alone(
    measures: pd.DataFrame, labels: pd.Series, groups: pd.Series, seed: int = 0, resamples: int = RESAMPLES
) -> pd.DataFrame:
    """AUC of each measure, and of all together, with a bootstrap 95 % interval.

    AUC of one class against the rest, max(a, 1 - a), averaged over the classes. The interval keeps the direction
    that was found: where a measure tells nothing, its interval has 0.5 inside. Averaged over many classes, chance
    alone can lie a little above 0.5. Whole groups are resampled, because images of one patient are no independent
    evidence (percentile bootstrap; Efron and Tibshirani 1993, chapter 13).
    "all together" is gradient boosting on all measures, cross-validated over groups; it is left out where a class
    has fewer than 5 groups. Of more than a dozen classes the dozen with most images is compared, so that time grows
    with the images and not with images times classes.

    Args:
        measures: [n] rows, a number in each column.
        labels: [n], at least two different.
        groups: [n], what belongs together.

    Returns:
        measure, auc, low, high, direction ("larger in malignant"; of more than two classes the one that stands out
        most), best first.
    """
    largest = labels.isin(labels.value_counts().index[:MOST_SHOWN]).to_numpy()
    measures, labels, groups = (table[largest].reset_index(drop=True) for table in (measures, labels, groups))
    classes, groups, rng = sorted(labels.unique()), pd.factorize(groups)[0], np.random.default_rng(seed)
    codes, size = pd.Categorical(labels, classes).codes, groups.max() + 1
    values = {name: [measures[name]] * len(classes) for name in measures}  # by class, higher where it is likelier
    if pd.Series(groups).groupby(codes).nunique().min() >= FOLDS:
        values[TOGETHER] = list(_cross_validated(measures, codes, groups, seed).T)
    ranks = {name: [np.unique(one, return_inverse=True)[1] for one in some] for name, some in values.items()}
    aucs = {name: [_class_aucs(some, codes, np.ones(len(codes)))] for name, some in ranks.items()}
    for _ in range(resamples):
        weights = rng.multinomial(size, np.full(size, 1 / size))[groups]
        for name, some in ranks.items():
            aucs[name].append(_class_aucs(some, codes, weights))
    rows = []
    for name, drawn in aucs.items():
        apart = np.array(drawn) - 0.5
        means = 0.5 + (apart if name == TOGETHER else apart * np.sign(apart[0])).mean(axis=1)
        low, high = np.nanpercentile(means[1:], [2.5, 97.5])  # not a number: a resample without one of the classes
        which = np.abs(apart[0]).argmax() if len(classes) > 2 else apart[0].argmax()
        direction = f"{'larger' if apart[0, which] >= 0 else 'smaller'} in {classes[which]}"
        direction = "" if name == TOGETHER else direction if apart[0].any() else "no difference"
        rows.append((name, means[0], low, high, direction))
    table = pd.DataFrame(rows, columns=["measure", "auc", "low", "high", "direction"])
    return table.sort_values("auc", ascending=False, ignore_index=True, kind="stable")


def _class_aucs(ranks: list[np.ndarray], codes: np.ndarray, weights: np.ndarray) -> list[float]:
    """AUC of each class against the rest, by its ranks [n]; `weights` [n] say how often each image counts."""
    aucs = []
    for number, rank in enumerate(ranks):
        inside = np.bincount(rank, weights * (codes == number))
        outside = np.bincount(rank, weights * (codes != number))
        pairs = inside.sum() * outside.sum()
        aucs.append((inside * (outside.cumsum() - outside / 2)).sum() / pairs if pairs else np.nan)
    return aucs


def _cross_validated(measures: pd.DataFrame, codes: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Probability of each class [n, K], each image scored by a model that has not seen its group."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # here: they take longer than all that refuses before
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    model = HistGradientBoostingClassifier(max_iter=60, max_depth=3, random_state=seed)
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    with threadpool_limits(1, "openmp"):  # threads that wait for each other cost more than these few rows
        return cross_val_predict(model, measures.to_numpy(), codes, groups=groups, cv=folds, method="predict_proba")


def warnings_in_words(found: pd.DataFrame, labels: pd.Series) -> list[str]:
    """One sentence for each measure whose interval lies clearly above guessing; none where a class is small."""
    sentences = []
    for row in found[found.low > CLEAR].itertuples() if labels.value_counts().min() >= FEWEST else ():
        numbers = f"AUC {row.auc:.2f} (95 % interval {row.low:.2f} to {row.high:.2f})"
        what = f"`{row.measure}` is {row.direction} and alone predicts"
        what = "All measures together, which know nothing of shapes, predict" if row.measure == TOGETHER else what
        sentences.append(f"{what} the label: {numbers}.")
    return sentences
