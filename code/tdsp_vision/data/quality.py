"""What can be measured of each image, what is known about it, and what of that would let a model cheat.

Pictures are measured at most 256 pixels wide or high, which is about what a network gets and makes large and small
files comparable; file size, pixels and aspect ratio are those of the file. Measures see less than people: each says
what it mistakes for what. A measure that alone predicts the label is a question, not yet a proof: brightness, contrast
and lines can be part of the subject, or of the camera, the archive, the clinic.
"""

import os
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from tqdm.contrib.concurrent import thread_map

from tdsp_vision.data.duplicates import miniature
from tdsp_vision.data.images import RejectedImage, read_image
from tdsp_vision.data.tables import COLUMNS, is_id

MOST_SHOWN = 12  # classes of a table or figure, values of a column that is compared
TOGETHER = "all together"
MEASURES = {  # column of `measures.csv`: what it is
    "file_kb": "size of the file in kB (1,000 bytes)",
    "megapixels": "width x height in millions of pixels",
    "aspect_ratio": "width / height",
    "brightness": "mean gray value, 0 (black) to 255 (white)",
    "contrast": "standard deviation of the gray values",
    "sharpness": "variance of the Laplacian of the gray values; noise and hair count as sharpness, too",
    "dark_corners": "1 - brightness of the corners / median inside the inscribed ellipse; 1: black corners",
    "ink": "share of saturated green, blue and violet pixels; on skin ink, stickers or cloth, elsewhere just a color",
    "thin_lines": "share of pixels in dark lines up to 3 pixels wide: hair, ruler ticks or a pattern of the subject",
}


def look_at(files: list[Path]) -> list[dict]:
    """Facts (`read_image`), `MEASURES` and miniature of each file, in order, several at a time; of one that cannot be
    used kind and reason.
    """

    def look(file: Path) -> dict:
        """What a thread gives back for one file."""
        try:
            facts, small = read_image(file)
        except RejectedImage as reason:
            return {"kind": reason.kind, "reason": str(reason)}
        except OSError as error:
            return {"kind": "unreadable", "reason": f"cannot be read: {error.strerror}"}
        return facts | measure(small, facts["bytes"], facts["width"], facts["height"]) | {"miniature": miniature(small)}

    return thread_map(look, files, max_workers=os.cpu_count(), desc="reading images", unit="image", disable=None)


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
    dark lesion in the middle. Brighter corners give a negative value.
    """
    square = cv2.resize(gray, (64, 64), interpolation=cv2.INTER_AREA)
    y, x = np.ogrid[-1:1:64j, -1:1:64j]
    distance = y**2 + x**2
    return 1 - square[distance > 1.2**2].mean() / max(np.median(square[distance < 1]), 1)


def ink(pixels: np.ndarray) -> float:
    """Share of pixels, uint8 [h, w, 3], with a hue from green to violet (70 to 310 degrees), neither pale nor dark.

    Red and black ink are not seen. (OpenCV counts hues in steps of 2 degrees.)
    """
    return (cv2.inRange(cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV), (36, 65, 51), (154, 255, 255)) > 0).mean()


def thin_lines(gray: np.ndarray) -> float:
    """Share of pixels, uint8 [h, w], clearly darker than the picture with its thin dark lines closed (black hat).

    Pale hair and white rulers are not seen.
    """
    return (cv2.morphologyEx(gray, cv2.MORPH_BLACKHAT, np.ones((5, 5), np.uint8)) > 25).mean()


def shown_classes(labels: pd.Series) -> pd.Series:
    """Labels for tables and figures: as they are, or the largest of them and "(n others)" where there are too many."""
    others = labels.value_counts().index[MOST_SHOWN - 1 :]
    return labels.mask(labels.isin(others), f"({len(others)} others)") if len(others) > 1 else labels


def columns_to_compare(manifest: pd.DataFrame) -> list[str]:
    """Metadata columns worth a table against the class: numbers, or 2 to 12 different values.

    Left out are ids, attribution, and diagnoses, from which the label itself was made.
    """
    metadata = [name for name in manifest if not (name in COLUMNS or is_id(name) or name.startswith("diagnosis"))]
    return [name for name in ["license", *metadata] if 2 <= in_ranges(manifest[name]).nunique() <= MOST_SHOWN]


def class_by(manifest: pd.DataFrame, column: str) -> pd.DataFrame:
    """Number of images by value of `column` (rows; numbers in ranges, missing ones as such) and class (columns)."""
    return pd.crosstab(in_ranges(manifest[column]), shown_classes(manifest.label))


def in_ranges(values: pd.Series) -> pd.Series:
    """Categories in their order: text as it is, numbers with many values in fifths."""
    known = values.replace("", pd.NA).sort_values()
    names = known.map(str)
    if pd.api.types.is_numeric_dtype(known) and known.nunique() > MOST_SHOWN:
        fifths = known.groupby(pd.qcut(known.rank(), 5, labels=False, duplicates="drop"))
        names = fifths.transform(lambda fifth: f"{fifth.min():.15g} to {fifth.max():.15g}")
    names = names.where(known.notna(), "(missing)")
    return names.astype(pd.CategoricalDtype(names.unique(), ordered=True))[values.index]


def boosting(n: int, seed: int):
    """Gradient boosting for n images: leaves of 20 images, or of an eighth of them where they are few."""
    from sklearn.ensemble import HistGradientBoostingClassifier  # here: it takes longer than all that refuses before

    least = min(20, max(n // 8, 2))
    return HistGradientBoostingClassifier(max_iter=60, max_depth=3, min_samples_leaf=least, random_state=seed)


def predict_label_alone(measures: pd.DataFrame, labels: pd.Series, groups: pd.Series, seed: int = 0) -> pd.DataFrame:
    """AUC of each measure, and of all together, with its 95 % interval.

    AUC of one class against the rest, max(a, 1 - a), averaged over the classes. The interval keeps the direction that
    was found: where a measure tells nothing, it has 0.5 inside. Averaged over many classes, chance alone can lie a
    little above 0.5. It comes from the contributions of whole groups, because images of one patient are no independent
    evidence (Obuchowski 1997, doi 10.2307/2533959).
    "all together" is gradient boosting on all measures, cross-validated over groups; it is left out where a class
    has fewer than 5 groups. Of more than a dozen classes the dozen with most images is compared, so that time grows
    with the images and not with images times classes.

    Args:
        measures: [n] rows, a number in each column.
        labels: [n], at least two different.
        groups: [n], what belongs together.

    Returns:
        measure, auc, low, high, direction ("larger in malignant": the class in which it is largest; of all together
        "boosted"), best first.
    """
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

    largest = labels.isin(labels.value_counts().index[:MOST_SHOWN]).to_numpy()
    measures, labels, groups = measures[largest], labels[largest].to_numpy(), pd.factorize(groups[largest])[0]
    classes, rows = np.unique(labels), []
    scores = {name: np.tile(measures[[name]], len(classes)) for name in measures}
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
    if pd.Series(groups).groupby(labels).nunique().min() >= folds.n_splits:
        how = {"groups": groups, "cv": folds, "method": "predict_proba"}
        with threadpool_limits(1, "openmp"):  # threads that wait for each other cost more than these few rows
            scores[TOGETHER] = cross_val_predict(boosting(len(labels), seed), measures, labels, **how)
    for name, values in scores.items():
        areas, influence = auc_and_influence(labels[:, None] == classes, values)
        signs = np.where((areas < 0.5) & (name != TOGETHER), -1, 1)
        area = 0.5 + (signs * (areas - 0.5)).mean()
        half = 1.96 * np.linalg.norm(np.bincount(groups, (signs * influence).mean(axis=1)))
        larger = f"larger in {classes[areas.argmax()]}" if areas.max() > 0.5 else "no difference"
        rows.append((name, area, max(area - half, 0), min(area + half, 1), "boosted" if name == TOGETHER else larger))
    return pd.DataFrame(sorted(rows, key=lambda row: -row[1]), columns=["measure", "auc", "low", "high", "direction"])


def auc_and_influence(truths: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """AUC [K] of each column against the rest, and what each image contributes to it, [n, K], summing to 0.

    The AUC is the share of pairs in the right order (Mann and Whitney 1947); an image's contribution is how its own
    share differs from the mean (DeLong et al. 1988, doi 10.2307/2531595).

    Args:
        truths: bool [n, K], each column with images inside and outside.
        scores: float [n, K].
    """
    table, others = pd.DataFrame(scores), np.where(truths, (~truths).sum(axis=0), truths.sum(axis=0))
    within = table.where(truths).rank().fillna(table.mask(truths).rank())
    share = ((table.rank() - within) / others).to_numpy()
    share = np.where(truths, share, 1 - share)
    areas = np.array([column[truth].mean() for column, truth in zip(share.T, truths.T, strict=True)])
    return areas, (share - areas) / (len(truths) - others)


def warnings_in_words(found: pd.DataFrame, labels: pd.Series) -> list[str]:
    """One sentence for each measure whose interval lies clearly above guessing; none where a class has fewer than 20
    images, because then something always seems to predict.
    """
    clear = found[(found.low > 0.55) & (labels.value_counts().min() >= 20)]
    return [
        f"`{name}` ({direction}) predicts the label, blind to shapes: AUC {auc:.2f} (95 %: {low:.2f} to {high:.2f})."
        for name, auc, low, high, direction in clear.itertuples(index=False)
    ]
