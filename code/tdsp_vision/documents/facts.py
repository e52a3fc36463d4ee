"""What the files of a run, of its data set and of its deployment say, as one plain structure.

In:  outputs/<dataset>/runs/<run_id>/, data/<dataset>/, outputs/<dataset>/deployment/ (only if it served this run).
Out: a dict of plain values, the only source of the documents. What no file says is empty or absent, never a guess.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.paths import DatasetPaths, OutputPaths, shown

SIDES = ("train", "validation", "test")
DRAWN = "drawn by tdsp_vision"  # how the attribution of a drawn sample image begins
MOST_LISTED = 10  # wrong test images, and people to be named
TEXT = ("path", "label", "predicted", "reason", "sha256")  # columns that stay text even where all values are numbers
# Columns of the manifest that this project computed or that stand in the documents in another way.
COMPUTED = ["path", "label", "group", "cluster", "sha256", "dhash", "width", "height", "source", "license"]
COMPUTED += ["attribution", "turned", "source_sha256", "split"]


def read_facts(dataset: DatasetPaths, outputs: OutputPaths, run: Path) -> dict:
    """Everything that is known of `run` (a run folder), of what it was made from, and of what it became.

    Returns:
        run, dataset (names); metrics, card, parameters, info, service, parity, latency (the JSON files; empty where
        there is none, the last three also where another run was deployed, which `other_run` then names); history
        (rows); sides (`_sides`); wrong (`_wrong`); images (`_images`); rejected (`_rejected`); corrections
        (`_corrections`); changed (`_changed`); report, dictionary (text); figures (names of the run's figures).

    Raises:
        ValueError: a file is not what it should be.
    """
    manifest = load_manifest(dataset) if dataset.manifest.is_file() else None
    splits, service = _table(run / "splits.csv"), _json(outputs.deployment / "service.json")
    facts = {
        "run": run.name,
        "dataset": dataset.name,
        "metrics": _json(run / "metrics.json"),
        "card": _json(run / "model_card.json"),
        "parameters": _json(run / "parameters.json"),
        "info": _json(dataset.info),
        "history": _told(lambda table: table.to_dict("records"), _table(run / "history.csv")),
        "sides": _told(_sides, splits),
        "wrong": _told(_wrong, _table(run / "predictions.csv")),
        "images": _told(_images, manifest),
        "rejected": _told(_rejected, _table(dataset.rejected)),
        "corrections": _told(_corrections, _table(dataset.corrections)),
        "changed": _told(_changed, manifest, splits),
        "report": dataset.report.read_text(encoding="utf-8") if dataset.report.is_file() else "",
        "dictionary": dataset.dictionary.read_text(encoding="utf-8") if dataset.dictionary.is_file() else "",
        "figures": sorted(file.stem for file in (run / "figures").glob("*.png")),
    }
    if service.get("run") != run.name:
        return facts | {"service": {}, "parity": {}, "latency": {}, "other_run": service.get("run")}
    parity, latency = (_json(outputs.deployment / f"{name}.json") for name in ("parity", "latency"))
    return facts | {"service": service, "parity": parity, "latency": latency}


def _json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{shown(file)} is not valid JSON: {error}.") from None
    if not isinstance(content, dict):
        raise ValueError(f"{shown(file)} holds no JSON object; write it again with its notebook.")
    return content


def _table(file: Path) -> pd.DataFrame | None:
    """A CSV file, or None; only an empty field is a missing value, so a class may be called `None` or `NA`."""
    if not file.is_file():
        return None
    try:
        return pd.read_csv(file, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""])
    except ValueError as error:
        raise ValueError(f"{shown(file)} cannot be read: {' '.join(str(error).split())}.") from None


def _told(describe: Callable[..., dict | list], *tables: pd.DataFrame | None) -> dict | list:
    """What `describe` says of the tables; nothing where one of them is absent or lacks a column."""
    try:
        return describe(*tables) if all(table is not None for table in tables) else {}
    except KeyError:
        return {}


def _sides(splits: pd.DataFrame) -> dict:
    """Images, groups and images of each class on each side, and how many groups lie on two sides (`torn`)."""
    rows = {side: splits[splits["split"] == side] for side in SIDES}
    sides = {
        side: {"images": len(part), "groups": part["group"].nunique(), "counts": part["label"].value_counts().to_dict()}
        for side, part in rows.items()
    }
    return {"of": sides, "torn": (splits.groupby("group")["split"].nunique() > 1).sum()}


def _wrong(predictions: pd.DataFrame) -> dict:
    """How many test images were called wrongly, and the ones with the highest score: path, label, predicted, score."""
    test = predictions[predictions["split"] == "test"]
    wrong = test[test["label"] != test["predicted"]]
    wrong = wrong.assign(score=wrong[[name for name in wrong if name.startswith("score_")]].max(axis=1))
    return {"n": len(wrong), "tested": len(test), "first": wrong.nlargest(MOST_LISTED, "score").to_dict("records")}


def _images(manifest: pd.DataFrame) -> dict:
    named = manifest["attribution"][manifest["attribution"] != ""].value_counts()
    others = manifest[[name for name in manifest if name not in COMPUTED]].replace("", pd.NA)
    return {
        "n": len(manifest),
        "labels": manifest["label"].value_counts().sort_index().to_dict(),
        "groups": manifest["group"].nunique(),
        "largest_group": manifest["group"].value_counts().max(),
        "licenses": manifest["license"].replace("", "unknown").value_counts().to_dict(),
        "without_license": (manifest["license"] == "").sum(),
        "named": named.head(MOST_LISTED).to_dict(),
        "more_named": max(0, len(named) - MOST_LISTED),
        "drawn": manifest["attribution"].str.startswith(DRAWN).sum(),
        "columns": others.notna().mean().to_dict(),
        "sizes": {side: [manifest[side].min(), manifest[side].max()] for side in ("width", "height")},
    }


def _rejected(rejected: pd.DataFrame) -> dict:
    reasons = rejected["reason"].astype(str)
    conflicts = reasons.str.contains("LABEL CONFLICT", regex=False)
    return {
        "n": len(rejected),
        "duplicates": reasons.str.startswith("duplicate of").sum(),
        "conflicts": conflicts.sum(),
    }


def _corrections(corrections: pd.DataFrame) -> dict:
    last = corrections.drop_duplicates("path", keep="last")["label"]
    return {"n": len(last), "excluded": (last == "EXCLUDE").sum()}


def _changed(manifest: pd.DataFrame, splits: pd.DataFrame) -> dict:
    """Images that the run used and the data set no longer has as they were (file or label), and the other way round."""
    then, now = (set(rows[["path", "label", "sha256"]].itertuples(index=False)) for rows in (splits, manifest))
    return {"gone": len(then - now), "new": len(now - then)}
