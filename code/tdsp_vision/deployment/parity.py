"""Proof that the served model is the model that was evaluated: the same files, the same scores, the same labels.

In: a run's `predictions.csv` (`path,split,label,predicted,score_<class>…`), its `splits.csv` (with `sha256`) and the
files they speak of. Out: the content of `parity.json`.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from tdsp_vision import paths
from tdsp_vision.data.tables import file_sha256
from tdsp_vision.deployment.client import ServingClient
from tdsp_vision.errors import RunFailed

TEXT = ["path", "split", "label", "predicted"]
REMEDY = "Export this run's model again and serve that version."


def read_predictions(run_folder: Path, dataset_root: Path) -> pd.DataFrame:
    """A run's predictions with a column `file` (absolute paths), after a look at whether the files are as they were.

    A file that is newer than the run is compared by its hash. Labels stay text: a class may be called "007" or "None".

    Raises:
        RunFailed: if images are missing or changed; it counts them and says what to do.
    """
    table = pd.read_csv(run_folder / "predictions.csv", dtype=dict.fromkeys(TEXT, str), keep_default_na=False)
    table["file"] = [dataset_root / path for path in table.path]
    missing = [file for file in table.file if not file.is_file()]
    hashes = pd.read_csv(run_folder / "splits.csv", dtype=str, keep_default_na=False).set_index("path").sha256
    made = (run_folder / "metrics.json").stat().st_mtime
    newer = [row for row in table.itertuples() if row.file.is_file() and row.file.stat().st_mtime > made]
    changed = [row.file for row in newer if file_sha256(row.file) != hashes[row.path]]
    if missing or changed:
        raise RunFailed(
            f"Of the {len(table)} images of run {run_folder.name}, {len(missing)} are missing and {len(changed)} have "
            f"changed, {paths.shown((missing or changed)[0])} for one; run data acquisition again with the same "
            "source, or train a new run on the images as they are."
        )
    return table


def check_parity(client: ServingClient, predictions: pd.DataFrame, rule: dict, tolerance: float = 1e-5) -> dict:
    """Score files through the service and compare with the run's own predictions; shows its progress.

    Args:
        client: the service.
        predictions: rows of `read_predictions`, at least one, with a column `score_<class>` per class.
        rule: `classes, positive_class, threshold`, as `model_info.json` has them. A label may differ only where
            rounding alone can tip it: at the threshold, and where the two highest scores are equal.
        tolerance: largest allowed difference of a score.

    Returns:
        `n`, `max_abs_diff`, `tolerance`, and `borderline`: number of labels that differ within rounding.

    Raises:
        RunFailed: if a file has no score, or a score or label differs by more than that.
    """
    columns = [f"score_{name}" for name in rule["classes"]]
    served = client.score(tqdm(predictions.file.to_list(), desc="images", leave=False))
    expected = predictions[columns].to_numpy(np.float64)
    broken = served[~served.valid]
    if len(broken) or not len(served):
        first = broken.iloc[0].error if len(broken) else "there was none to score"
        raise RunFailed(f"{len(broken)} of {len(served)} files have no score; the first: {first}.")
    differences = np.abs(served[columns].to_numpy(np.float64) - expected).max(axis=1)
    worst = int(np.argmax(differences))  # the first NaN, if there is one
    if not differences[worst] <= tolerance:
        raise RunFailed(
            f"Served scores differ from the run's by up to {differences[worst]:.3g} ({served.source[worst]}); "
            f"at most {tolerance:g} is allowed. {REMEDY}"
        )
    differ = served.label.to_numpy() != predictions.predicted.to_numpy()
    if len(wrong := np.flatnonzero(differ & (_margin(expected, rule) > tolerance))):
        row = served.iloc[wrong[0]]
        raise RunFailed(
            f"{len(wrong)} labels differ from the run's; {row.source}: served {row.label!r}, "
            f"predicted {predictions.predicted.iloc[wrong[0]]!r}. {REMEDY}"
        )
    largest = float(differences[worst])
    return {"n": len(served), "max_abs_diff": largest, "tolerance": tolerance, "borderline": int(differ.sum())}


def _margin(scores: np.ndarray, rule: dict) -> np.ndarray:
    """How far scores float64 [n, K] lie from the nearest border of the decision, float64 [n]."""
    borders, ranked = [np.full(len(scores), np.inf)], scores  # a single class has no border
    if rule["positive_class"]:
        positive = rule["classes"].index(rule["positive_class"])
        borders.append(np.abs(scores[:, positive] - rule["threshold"]))
        ranked = np.delete(scores, positive, axis=1)
    if ranked.shape[1] > 1:
        highest = np.sort(ranked, axis=1)[:, -2:]
        borders.append(highest[:, 1] - highest[:, 0])
    return np.min(borders, axis=0)
