"""Proof that the served model is the model that was evaluated: the same files, the same scores, the same labels.

In: a run's `predictions.csv` (`path,split,label,predicted,score_<class>…`) and the files it speaks of.
Out: the content of `parity.json`.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from tdsp_vision.deployment.client import ServingClient

REMEDY = "Export this run's model again and serve that version."


def check_parity(
    client: ServingClient,
    predictions: pd.DataFrame,
    image_paths: Sequence[Path],
    tolerance: float = 1e-5,
    positive_class: str = "",
    threshold: float | None = None,
) -> dict:
    """Score files through the service and compare with the run's own predictions.

    Args:
        client: the service.
        predictions: rows of `predictions.csv`, at least one, with a column `score_<class>` per class.
        image_paths: the image files of these rows, in their order.
        tolerance: largest allowed difference of a score.
        positive_class, threshold: as in `metrics.json`. A label may differ only where rounding alone can tip it:
            at the threshold, and where the two highest scores are equal.

    Returns:
        `n`, `max_abs_diff`, `tolerance`, and `borderline`: number of labels that differ within rounding.

    Raises:
        ValueError: if the arguments do not fit each other, a file is missing or not decoded, or a score or label
            differs by more than that.
    """
    columns = _checked_columns(client.classes, predictions, image_paths, positive_class, threshold)
    served = client.score_paths(image_paths)
    _refuse_broken(served)
    expected = predictions[columns].to_numpy(np.float64)
    differences = np.abs(served[columns].to_numpy(np.float64) - expected).max(axis=1)
    worst = int(np.argmax(differences))  # the first NaN, if there is one
    if not differences[worst] <= tolerance:
        raise ValueError(
            f"Served scores differ from the run's by up to {differences[worst]:.3g} ({image_paths[worst]}); "
            f"at most {tolerance:g} is allowed. {REMEDY}"
        )
    margin = _margin(expected, client.classes, positive_class, threshold)
    borderline = _borderline_labels(served, predictions["predicted"].to_numpy(), margin, tolerance)
    largest = float(differences[worst])
    return {"n": len(predictions), "max_abs_diff": largest, "tolerance": tolerance, "borderline": borderline}


def _checked_columns(classes, predictions, image_paths, positive_class, threshold) -> list[str]:
    """Names of the score columns, after a look at whether the arguments fit each other."""
    columns = [f"score_{name}" for name in classes]
    missing = [name for name in ["predicted", *columns] if name not in predictions]
    if missing:
        raise ValueError(f"predictions lack the columns {', '.join(missing)}; they have {list(predictions)}.")
    if len(predictions) != len(image_paths) or not len(predictions):
        raise ValueError(f"{len(predictions)} predictions and {len(image_paths)} paths; give one path per row.")
    if positive_class and (positive_class not in classes or threshold is None):
        raise ValueError(f"positive_class {positive_class!r} must be one of {classes} and have a threshold.")
    return columns


def _refuse_broken(served: pd.DataFrame) -> None:
    """ValueError if a file has no score."""
    broken = served[~served["valid"]]
    if len(broken):
        first = broken.iloc[0]
        raise ValueError(f"{len(broken)} of {len(served)} files have no score; {first.source}: {first.error}.")


def _borderline_labels(served: pd.DataFrame, predicted: np.ndarray, margin: np.ndarray, tolerance: float) -> int:
    """Number of labels that differ within rounding; ValueError if one differs beyond it."""
    differ = served["label"].to_numpy() != predicted
    wrong = np.flatnonzero(differ & (margin > tolerance))
    if len(wrong):
        row = served.iloc[wrong[0]]
        raise ValueError(
            f"{len(wrong)} labels differ from the run's; {row.source}: served {row.label!r}, "
            f"predicted {predicted[wrong[0]]!r}. {REMEDY}"
        )
    return int(differ.sum())


def _margin(scores: np.ndarray, classes: list[str], positive_class: str, threshold: float | None) -> np.ndarray:
    """How far scores float64 [n, K] lie from the nearest border of the decision, float64 [n]."""
    borders, ranked = [np.full(len(scores), np.inf)], scores  # a single class has no border
    if positive_class:
        positive = classes.index(positive_class)
        borders.append(np.abs(scores[:, positive] - threshold))
        ranked = np.delete(scores, positive, axis=1)
    if ranked.shape[1] > 1:
        highest = np.sort(ranked, axis=1)[:, -2:]
        borders.append(highest[:, 1] - highest[:, 0])
    return np.min(borders, axis=0)
