"""Proof that the served model is the model that was evaluated: the same files, the same scores, the same labels.

In: a run's `predictions.csv` (`path,split,label,predicted,score_<class>…`) and the files that it speaks of.
Out: the content of `parity.json`.
"""

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tdsp_vision.deployment.client import ServingClient
from tdsp_vision.errors import RunFailed

REMEDY = "Serve a version of this run's model; if the image has changed since the run, train a new run."


def check_parity(client: ServingClient, predictions: pd.DataFrame, rule: dict, tolerance: float = 1e-5) -> dict:
    """Score files through the service and compare with the run's own predictions; shows its progress.

    Args:
        client: the service.
        predictions: rows of `runs.read_predictions`, at least one, with a column `score_<class>` per class.
        rule: `classes, positive_class, threshold`, as `model_info.json` has them. A label may differ only where
            rounding alone can tip it: at the threshold, and where the two highest scores (without a positive class:
            relative to their shares) are equal.
        tolerance: largest allowed difference of a score.

    Returns:
        `n`, `max_abs_diff`, `tolerance`, and `borderline`: number of labels that differ within rounding.

    Raises:
        RunFailed: if a file has no score, or a score or label differs by more than that.
    """
    columns = [f"score_{name}" for name in rule["classes"]]
    served = client.score(tqdm(predictions.file.to_list(), desc="images", leave=False))
    expected = predictions[columns].to_numpy(np.float64)
    if len(broken := served[~served.valid]):
        raise RunFailed(f"{len(broken)} of {len(served)} files have no score; the first: {broken.iloc[0].error}.")
    differences = np.abs(served[columns].to_numpy(np.float64) - expected).max(axis=1)
    worst = int(np.argmax(differences))  # the first NaN, if there is one
    if not differences[worst] <= tolerance:
        raise RunFailed(
            f"Served scores differ from the run's by up to {differences[worst]:.3g} ({served.source[worst]}); "
            f"at most {tolerance:g} is allowed. {REMEDY}"
        )
    differ = [row for row in predictions.assign(served=served.label.to_numpy()).iloc if row.served != row.predicted]
    if wrong := [row for row in differ if _distance(row, rule) > tolerance]:
        raise RunFailed(
            f"{len(wrong)} labels differ from the run's; {wrong[0].file}: served {wrong[0].served!r}, "
            f"predicted {wrong[0].predicted!r}. {REMEDY}"
        )
    largest = float(differences[worst])
    return {"n": len(served), "max_abs_diff": largest, "tolerance": tolerance, "borderline": len(differ)}


def _distance(row: pd.Series, rule: dict) -> float:
    """How far an image's score lies from the border between its labels `served` and `predicted`."""
    if rule["positive_class"] in (row.served, row.predicted):
        return abs(row[f"score_{rule['positive_class']}"] - rule["threshold"])
    weights = [1] * len(rule["classes"]) if rule["positive_class"] else rule["threshold"]
    shares = dict(zip(rule["classes"], weights, strict=True))
    relative = [row[f"score_{name}"] / shares[name] for name in (row.served, row.predicted)]
    return abs(relative[0] - relative[1]) * min(shares[row.served], shares[row.predicted])
