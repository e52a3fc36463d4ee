"""What the files of a run, of its data set and of its deployment say, as one plain structure.

In:  outputs/<dataset>/runs/<run_id>/, data/<dataset>/, outputs/<dataset>/deployment/ (only if it served this run).
Out: a dict of plain values, the only source of the documents. What no file says is None or absent, never a guess.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd

from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.errors import ParameterError
from tdsp_vision.paths import DatasetPaths, OutputPaths, shown

DRAWN = "drawn by tdsp_vision"  # how the attribution of a drawn sample image begins
TEXT = dict.fromkeys(("path", "label", "predicted", "sha256"), str)  # columns that stay text even if all are numbers


def read_facts(dataset: DatasetPaths, outputs: OutputPaths, run: Path) -> dict:
    """Everything that is known of `run` (a run folder), of what it was made from, and of what it became.

    Returns:
        run, dataset (names); figures (names of the run's); metrics, model_card, parameters, info, report, dictionary,
        service, parity, latency (content of the files; None where there is none, the last three also where another
        run was deployed, which `other_run` then names); judged (name of another folder on which the run
        was judged to its metrics.json); history (rows); corrected (how many images a
        person gave another label, or left out); sides, wrong, images and changed (as the functions below count them).

    Raises:
        ParameterError: a file is not what it should be.
    """
    files = {"info": dataset.info, "report": dataset.report, "dictionary": dataset.dictionary}
    files |= {name: run / f"{name}.json" for name in ("metrics", "model_card", "parameters")}
    facts = {"run": run.name, "dataset": dataset.name} | {name: _read(file) for name, file in files.items()}
    facts["figures"] = sorted(file.stem for file in (run / "figures").glob("*.png"))
    facts["judged"] = {file.parent.name: _read(file) for file in sorted(run.glob("elsewhere/*/metrics.json"))}
    facts["history"] = _read(run / "history.csv", lambda table: table.to_dict("records"))
    facts |= {"sides": _read(run / "splits.csv", _sides), "wrong": _read(run / "predictions.csv", _wrong)}
    facts["corrected"] = _read(dataset.corrections, lambda table: table["path"].nunique())
    if dataset.manifest.is_file():
        manifest = load_manifest(dataset, check=False)
        facts |= {"images": _images(manifest), "changed": _read(run / "splits.csv", partial(_changed, manifest))}
    deployed = {name: _read(outputs.deployment / f"{name}.json") for name in ("service", "parity", "latency")}
    served = (deployed["service"] or {}).get("run", run.name)
    return facts | (deployed if served == run.name else {"other_run": served})


def _read(file: Path, count: Callable[[object], object] = lambda content: content) -> object:
    """What `count` makes of a JSON file, a CSV table or a text; None where the file or a column of it is missing."""
    if not file.is_file():
        return None
    try:
        if file.suffix == ".csv":  # only an empty field is a missing value: a class may be called `None` or `NA`
            return count(pd.read_csv(file, dtype=TEXT, keep_default_na=False, na_values=[""]))
        text = file.read_text(encoding="utf-8")
        return json.loads(text, object_hook=_without_nulls) if file.suffix == ".json" else text
    except KeyError:
        return None
    except ValueError as error:
        raise ParameterError(f"{shown(file)} cannot be read: {' '.join(str(error).split())}.") from None


def _without_nulls(entries: dict) -> dict:
    """An entry that is null says as little as one that is not there."""
    return {key: value for key, value in entries.items() if value is not None}


def _sides(splits: pd.DataFrame) -> dict:
    """Images, groups and images of each class by side."""
    return {
        side: {"images": len(rows), "groups": rows["group"].nunique(), "labels": rows["label"].value_counts().to_dict()}
        for side, rows in splits.groupby("split")
    }


def _wrong(predictions: pd.DataFrame) -> dict:
    """How many test images were called wrongly, and the ten with the highest score: path, label, predicted, score."""
    test = predictions[predictions["split"] == "test"]
    wrong = test[test["label"] != test["predicted"]]
    wrong = wrong.assign(score=wrong.filter(like="score_").max(axis=1))
    return {"n": len(wrong), "tested": len(test), "first": wrong.nlargest(10, "score").to_dict("records")}


def _images(manifest: pd.DataFrame) -> dict:
    licenses = manifest["license"].replace("", "unknown").value_counts().to_dict()
    drawn = manifest["attribution"].str.startswith(DRAWN).sum()
    return {"n": len(manifest), "groups": manifest["group"].nunique(), "licenses": licenses, "drawn": drawn}


def _changed(manifest: pd.DataFrame, splits: pd.DataFrame) -> dict:
    """Images that the run used and the data set no longer has as they were (file or label), and the other way round."""
    then, now = (set(rows[["path", "label", "sha256"]].itertuples(index=False)) for rows in (splits, manifest))
    return {"gone": len(then - now), "new": len(now - then)}
