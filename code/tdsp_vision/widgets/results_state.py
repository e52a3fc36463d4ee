"""Which results are looked at and in which order; what a heat map looks like; which training images are alike.

predictions: path, label, predicted and score_<class> for each class; its index, whole numbers, each once, are the rows
by which images are named here and in the widgets: in the modeling notebook those of the manifest. No front end needed.
"""

import io
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from tdsp_vision.modeling.plots import FOR_AND_AGAINST
from tdsp_vision.modeling.svm import Standardizer

SHOWN = ("all", "correct", "wrong")
ORDERS = {"most confidently wrong first": "loss", "surest first": "confidence", "as listed": ""}
FAR = 5.0  # standard deviations; further away is as far


def judged(predictions: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """`predictions` with three more columns.

    Returns:
        a copy with correct (bool); confidence (0 to 1), the score of the class that was called, which below 0.5 means
        that a threshold has called it; loss (0 to 36, no unit), -log of the true class's score: cross-entropy.

    Raises:
        ValueError: if a column is missing, a row number stands twice or a label is none of `classes`.
    """
    needed = ["path", "label", "predicted", *(f"score_{name}" for name in classes)]
    missing = [name for name in needed if name not in predictions]
    if missing:
        raise ValueError(f"The predictions lack {', '.join(missing)}; they need the columns {', '.join(needed)}.")
    if not predictions.index.is_unique:
        raise ValueError("The predictions have a row number twice; number them anew, say with reset_index(drop=True).")
    called = {column: pd.Index(classes).get_indexer(predictions[column]) for column in ("label", "predicted")}
    for column, numbers in called.items():
        if (numbers < 0).any():
            unknown = predictions[column][numbers < 0].iloc[0]
            raise ValueError(f"The column {column} holds {unknown!r}; allowed are {', '.join(classes)}.")
    scores, places = predictions[needed[3:]].to_numpy(float), np.arange(len(predictions))
    own = scores[places, called["label"]].clip(np.finfo(float).eps)  # a score of 0 has no logarithm
    return predictions.assign(
        correct=called["label"] == called["predicted"],
        confidence=scores[places, called["predicted"]],
        loss=-np.log(own.clip(max=1)),
    )


def select(
    table: pd.DataFrame,
    shown: str = "all",
    label: str = "",
    confidence: tuple[float, float] = (0.0, 1.0),
    order: str = "loss",
) -> tuple[int, ...]:
    """Row numbers of `table`, which comes from `judged`, that are left, in the order in which they are looked at.

    Args:
        shown: all, correct or wrong.
        label: a true class; "" for all.
        confidence: lowest and highest, both included.
        order: loss or confidence, the highest first; "" as listed. What is equal stays as listed.

    Raises:
        ValueError: if `shown` or `order` is none of these.
    """
    if shown not in SHOWN or order not in ORDERS.values():
        raise ValueError(f"shown is {shown!r} and order {order!r}; allowed: {SHOWN} and {tuple(ORDERS.values())}.")
    low, high = confidence
    left = table[table.confidence.between(low - 1e-6, high + 1e-6)]  # a float32 score may lie a rounding above 1
    if label:
        left = left[left.label == label]
    if shown != "all":
        left = left[left.correct == (shown == "correct")]
    if order:
        left = left.sort_values(order, ascending=False, kind="stable")
    return tuple(left.index.tolist())


def heat_picture(picture: bytes, evidence: np.ndarray) -> bytes:
    """The picture (an encoded image) in gray with the evidence on it, in the colours of `explain_plots`; a JPEG file.

    Args:
        evidence: float [S, S], positive where a place speaks for the class. It is stretched to the picture's shape,
            as the network squeezed the picture; colours end at the 99.5th percentile of this map.
    """
    gray = Image.open(io.BytesIO(picture)).convert("L").convert("RGB")
    limit = float(np.percentile(np.abs(evidence), 99.5)) or 1.0
    colored = colormaps[FOR_AND_AGAINST](evidence / (2 * limit) + 0.5, bytes=True)[..., :3]
    blended = Image.blend(gray, Image.fromarray(colored).resize(gray.size), 0.6)
    file = io.BytesIO()
    blended.save(file, "JPEG", quality=90)
    return file.getvalue()


def nearest_training_images(
    features: np.ndarray, manifest: pd.DataFrame, train: np.ndarray, k: int = 5
) -> Callable[[int], pd.DataFrame]:
    """A function that finds the training images which look most like a given one to the frozen network.

    Euclidean distance of standardized features, cut off at 5 deviations: the space in which the linear SVM divides the
    classes. Each feature counts the same whatever its unit; cosine would forget how unusual an image is. It is given as
    root mean square over the features: two unrelated images are about 1.4 apart.

    Args:
        features: float [n, d], one row per row of the manifest.
        manifest: n rows with path and label.
        train: bool [n], the training side.
        k: how many at most.

    Returns:
        row number (0 to n - 1) -> columns path, label, distance of its neighbours, nearest first, itself left out.

    Raises:
        ValueError: if the three do not have the same length or nothing is in training.
    """
    if not len(features) == len(manifest) == len(train) or not np.any(train):
        raise ValueError(
            f"Neighbours got {len(features)} rows of features, {len(manifest)} of the manifest and {len(train)} marks, "
            f"{np.sum(train)} of them training; it needs equal numbers and at least one training image."
        )
    space = np.clip(Standardizer().fit(features[train]).transform(features), -FAR, FAR)  # one wild one hides nothing
    rows = np.flatnonzero(train)
    search = NearestNeighbors(n_neighbors=min(k + 1, len(rows)), algorithm="brute").fit(space[rows])

    def nearest(row: int) -> pd.DataFrame:
        distances, places = search.kneighbors(space[[row]])
        found = rows[places[0]]
        alike = manifest.iloc[found][["path", "label"]].assign(distance=distances[0] / np.sqrt(space.shape[1]))
        return alike[found != row].head(k)

    return nearest


def confusion_counts(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Images by class, int [K, K]: rows true, columns predicted, in the order of `classes`."""
    pairs = pd.crosstab(table.label, table.predicted)
    return pairs.reindex(index=list(classes), columns=list(classes), fill_value=0).to_numpy()
