"""What the files of a run, of its data set and of its deployment say, as one plain structure.

In:  outputs/<dataset>/runs/<run_id>/, data/<dataset>/, outputs/<dataset>/deployment/ (only if it served this run).
Out: a dict of plain values, the only source of the documents. A file that is not there is None, never a guess.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from tdsp_vision.data.corrections import EXCLUDE, read_corrections
from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.data.quality import share_known
from tdsp_vision.data.tables import read_csv
from tdsp_vision.paths import DatasetPaths, OutputPaths, shown

MEASURES = {  # key in metrics.json: name in the documents
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "average_precision": "average precision",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
}
SIDES = ("train", "validation", "test")
DRAWN = "drawn by tdsp_vision"  # how the attribution of a drawn sample image begins
MOST_LISTED = 10  # wrong test images, and people to be named


def read_facts(dataset: DatasetPaths, outputs: OutputPaths, run: Path) -> dict:
    """Everything that is known of `run` (a run folder) and of what it was made from and became.

    Returns:
        run, dataset (names); metrics, card, parameters (the files, or None); measures (`_measures`); history (rows,
        or None); splits (`_splits`, or None); wrong (`_wrong`, or None); figures (names of the run's figures);
        info, images, rejected, changed, report, dictionary, data_figures (of the data set, each may be None);
        corrections (`n`, `excluded`); service, parity, latency (None without a deployment of this run), and
        other_run (the run that the deployment served instead, or None).

    Raises:
        ValueError: a file is not what it should be, or metrics.json is missing or has no `validation` or `test`.
    """
    metrics = _json(run / "metrics.json")
    absent = [key for key in ("classes", "validation", "test") if key not in (metrics or {})]
    if absent:
        raise ValueError(f"{shown(run / 'metrics.json')} has no {absent[0]!r}; take a run of the modeling notebook.")
    splits, predictions = _table(run / "splits.csv"), _table(run / "predictions.csv")
    history = _table(run / "history.csv")
    facts = {
        "run": run.name,
        "dataset": dataset.name,
        "metrics": metrics,
        "measures": _measures(metrics),
        "card": _json(run / "model_card.json"),
        "parameters": _json(run / "parameters.json"),
        "history": None if history is None else history.to_dict("records"),
        "splits": None if splits is None else _splits(splits, metrics["classes"]),
        "wrong": None if predictions is None else _wrong(predictions),
        "figures": sorted(file.stem for file in (run / "figures").glob("*.png")),
    }
    return facts | _data(dataset, splits) | _deployment(outputs.deployment, run.name)


def _json(file: Path) -> dict | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ValueError(f"{shown(file)} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{shown(file)} holds no JSON object; write it again with its notebook.")
    return content


def _table(file: Path) -> pd.DataFrame | None:
    return read_csv(file) if file.is_file() else None


def _measures(metrics: dict) -> list[dict]:
    """Rows `name` and, for validation and test, [value, low, high] (95 % interval; None where there is none)."""
    rows = []
    for key, name in MEASURES.items():
        row = {"key": key, "name": name}
        for side in ("validation", "test"):
            low, high = metrics[side].get("intervals", {}).get(key) or (None, None)
            row[side] = [metrics[side].get(key), low, high]
        if row["test"][0] is not None:
            rows.append(row)
    return rows


def _splits(splits: pd.DataFrame, classes: Sequence[str]) -> dict:
    """Images of each class and groups on each side, and how many groups lie on two sides; counted in splits.csv."""
    sides = {}
    for side in SIDES:
        rows = splits[splits.split == side]
        counts = {name: int((rows.label == name).sum()) for name in classes}
        sides[side] = {"counts": counts, "images": len(rows), "groups": int(rows.group.nunique())}
    return {"sides": sides, "torn": int((splits.groupby("group").split.nunique() > 1).sum())}


def _wrong(predictions: pd.DataFrame) -> dict:
    """How many test images were called wrongly, and the ones with the highest score: path, label, predicted, score."""
    test = predictions[predictions.split == "test"]
    wrong = test[test.label != test.predicted]
    scores = wrong[[name for name in wrong if name.startswith("score_")]].max(axis=1)
    first = wrong.assign(score=scores).nlargest(MOST_LISTED, "score")[["path", "label", "predicted", "score"]]
    return {"n": len(wrong), "of": len(test), "first": first.to_dict("records")}


def _data(dataset: DatasetPaths, splits: pd.DataFrame | None) -> dict:
    manifest = load_manifest(dataset, check="none") if dataset.manifest.is_file() else None
    comparable = manifest is not None and splits is not None and "sha256" in splits
    rejected, corrected = _table(dataset.rejected), list(read_corrections(dataset).values())
    return {
        "info": _json(dataset.info),
        "images": None if manifest is None else _images(manifest),
        "rejected": None if rejected is None else _rejected(rejected),
        "corrections": {"n": len(corrected), "excluded": corrected.count(EXCLUDE)},
        "changed": _changed(manifest, splits) if comparable else None,
        "report": _text(dataset.report),
        "dictionary": _text(dataset.dictionary),
        "data_figures": sorted(file.stem for file in dataset.figures.glob("*.png")),
    }


def _text(file: Path) -> str | None:
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _images(manifest: pd.DataFrame) -> dict:
    known = share_known(manifest).known.drop(["license", "attribution"])
    named = manifest.attribution[manifest.attribution != ""].value_counts()
    return {
        "n": len(manifest),
        "counts": {name: int(count) for name, count in manifest.label.value_counts().sort_index().items()},
        "groups": int(manifest.group.nunique()),
        "largest_group": int(manifest.group.value_counts().max()),
        "licenses": {name or "unknown": int(n) for name, n in manifest.license.value_counts().items()},
        "without_license": int((manifest.license == "").sum()),
        "named": {name: int(count) for name, count in named.head(MOST_LISTED).items()},
        "different_named": len(named),
        "drawn": int(manifest.attribution.str.startswith(DRAWN).sum()),
        "about": {name: float(share) for name, share in known.items()},
        "width": [int(manifest.width.min()), int(manifest.width.max())],
        "height": [int(manifest.height.min()), int(manifest.height.max())],
    }


def _rejected(rejected: pd.DataFrame) -> dict:
    copies = int(rejected.reason.str.startswith("duplicate of").sum())
    conflicts = int(rejected.reason.str.contains("LABEL CONFLICT", regex=False).sum())
    return {"n": len(rejected), "duplicates": copies, "conflicts": conflicts}


def _changed(manifest: pd.DataFrame, splits: pd.DataFrame) -> dict:
    """Images that the run used and the data set no longer has as they were (file or label), and the other way round."""
    then, now = ({*zip(rows.path, rows.label, rows.sha256, strict=True)} for rows in (splits, manifest))
    return {"gone": len(then - now), "new": len(now - then)}


def _deployment(folder: Path, run: str) -> dict:
    """What the last deployment left behind, if it served this run: service.json is written last and names the run."""
    service = _json(folder / "service.json")
    if service is None or service.get("run") != run:
        return {"service": None, "parity": None, "latency": None, "other_run": service and service.get("run")}
    parity, latency = _json(folder / "parity.json"), _json(folder / "latency.json")
    latency = latency if "service" in (latency or {}) else None
    return {"service": service, "parity": parity, "latency": latency, "other_run": None}
