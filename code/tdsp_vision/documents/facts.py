"""What the files of a run, of its data set and of its deployment say, as one plain structure.

In:  outputs/<dataset>/runs/<run_id>/, data/<dataset>/, outputs/<dataset>/deployment/ (only if it served this run).
Out: a dict of plain values, the only source of the documents. What no file says is None or absent, never a guess.
"""

import json
from pathlib import Path

import pandas as pd

from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.errors import ParameterError
from tdsp_vision.paths import DatasetPaths, OutputPaths, shown

DRAWN = "drawn by tdsp_vision"  # how the attribution of a drawn sample image begins
MOST_LISTED = 10  # wrong test images
TEXT = ("path", "label", "predicted", "reason", "sha256")  # columns that stay text even where all values are numbers


def read_facts(dataset: DatasetPaths, outputs: OutputPaths, run: Path) -> dict:
    """Everything that is known of `run` (a run folder), of what it was made from, and of what it became.

    Returns:
        run, dataset (names); figures (names of the run's); metrics, model_card, parameters, info, report, dictionary,
        service, parity, latency (content of the files; None where there is none, the last three also where another
        run was deployed, which `other_run` then names); history (rows); sides, wrong, images, corrections
        and changed (as the functions below count them; None where a table is absent or lacks a column).

    Raises:
        ParameterError: a file is not what it should be.
    """
    manifest = load_manifest(dataset) if dataset.manifest.is_file() else None
    splits = _read(run / "splits.csv")
    facts = {
        "run": run.name,
        "dataset": dataset.name,
        "figures": sorted(file.stem for file in (run / "figures").glob("*.png")),
        "info": _read(dataset.info),
        "report": _read(dataset.report),
        "dictionary": _read(dataset.dictionary),
        "history": _counted(lambda table: table.to_dict("records"), _read(run / "history.csv")),
        "sides": _counted(_sides, splits),
        "wrong": _counted(_wrong, _read(run / "predictions.csv")),
        "images": _counted(_images, manifest),
        "corrections": _counted(_corrections, _read(dataset.corrections)),
        "changed": _counted(_changed, manifest, splits),
    }
    facts |= {name: _read(run / f"{name}.json") for name in ("metrics", "model_card", "parameters")}
    deployed = {name: _read(outputs.deployment / f"{name}.json") for name in ("service", "parity", "latency")}
    served = (deployed["service"] or {}).get("run", run.name)
    return facts | (deployed if served == run.name else {"other_run": served})


def _read(file: Path) -> object:
    """Content of a JSON file, a table of a CSV file (only an empty field is a missing value), or text."""
    if not file.is_file():
        return None
    try:
        if file.suffix == ".csv":
            return pd.read_csv(file, dtype=dict.fromkeys(TEXT, str), keep_default_na=False, na_values=[""])
        text = file.read_text(encoding="utf-8")
        return json.loads(text, object_hook=_without_nulls) if file.suffix == ".json" else text
    except ValueError as error:
        raise ParameterError(f"{shown(file)} cannot be read: {' '.join(str(error).split())}.") from None


def _without_nulls(entries: dict) -> dict:
    """An entry that is null says as little as one that is not there."""
    return {key: value for key, value in entries.items() if value is not None}


def _counted(count, *tables: pd.DataFrame | None) -> dict | list | None:
    try:
        return None if any(table is None for table in tables) else count(*tables)
    except KeyError:  # a column is not there
        return None


def _sides(splits: pd.DataFrame) -> dict:
    """Images, groups and images of each class by side."""
    return {
        side: {"images": len(rows), "groups": rows["group"].nunique(), "labels": rows["label"].value_counts().to_dict()}
        for side, rows in splits.groupby("split")
    }


def _wrong(predictions: pd.DataFrame) -> dict:
    """How many test images were called wrongly, and the ones with the highest score: path, label, predicted, score."""
    test = predictions[predictions["split"] == "test"]
    wrong = test[test["label"] != test["predicted"]]
    wrong = wrong.assign(score=wrong.filter(like="score_").max(axis=1))
    return {"n": len(wrong), "tested": len(test), "first": wrong.nlargest(MOST_LISTED, "score").to_dict("records")}


def _images(manifest: pd.DataFrame) -> dict:
    return {
        "n": len(manifest),
        "groups": manifest["group"].nunique(),
        "licenses": manifest["license"].replace("", "unknown").value_counts().to_dict(),
        "drawn": manifest["attribution"].str.startswith(DRAWN).sum(),
    }


def _corrections(corrections: pd.DataFrame) -> dict:
    last = corrections.drop_duplicates("path", keep="last")["label"]
    return {"n": len(last), "excluded": (last == "EXCLUDE").sum()}


def _changed(manifest: pd.DataFrame, splits: pd.DataFrame) -> dict:
    """Images that the run used and the data set no longer has as they were (file or label), and the other way round."""
    then, now = (set(rows[["path", "label", "sha256"]].itertuples(index=False)) for rows in (splits, manifest))
    return {"gone": len(then - now), "new": len(now - then)}
