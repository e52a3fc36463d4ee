"""Runs remembered and compared: MLflow keeps every finished run; runs are set side by side on the test they share.

MLflow's store is MLFLOW_TRACKING_URI where that is set (a server, a database), else <OUTPUT_DIR>/mlflow.db. A run
folder becomes one run in the experiment named like its dataset:

parameters  those of the notebook
metrics     each single number of metrics.json, as `test.auc`; each column of history.csv, as `history/loss`, by epoch
tags        run_folder, metrics_sha256, manifest_sha256, commit (of the repository, with -dirty where files differed)
artifacts   the files of the run folder, model.keras among them; notebook/<name>.ipynb

The run folder is the truth and never at risk: what goes wrong with the history is a sentence, not an error. A run
counts when its status is FINISHED; one that was killed while it was logged is deleted by the next `log_run`.
"""

import logging
import math
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pandas as pd

from tdsp_vision.data.tables import file_sha256, read_csv, read_json
from tdsp_vision.files import file_lock
from tdsp_vision.modeling.metrics import paired_auc_difference
from tdsp_vision.modeling.runs import find_run
from tdsp_vision.paths import ROOT, DatasetPaths, OutputPaths, resolve, shown

# Read by MLflow when it is imported and when it asks.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # what fails can be logged later
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
}
_SQLITE = "sqlite:///"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LONGEST = 6000  # characters of a parameter
LETTERS = "ABCDEFG"  # names of runs that are compared
OF_THE_SPLIT = ("SEED", "GROUP_BY", "TEST_FRACTION")
COMPARED = ["auc", "accuracy", "balanced_accuracy", "recall", "precision", "specificity", "f1", "ece"]


def _database(output_dir: str) -> Path | None:
    """The SQLite file of the run history; a relative path is taken from the workspace, as all paths are. None: none."""
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if given and not given.startswith(_SQLITE):
        return None
    return resolve(unquote(given.removeprefix(_SQLITE).split("?")[0])) if given else resolve(output_dir) / "mlflow.db"


def tracking_uri(output_dir: str) -> str:
    """Address of the run history; `?` and `%` of a path are written as an address needs them.

    What follows a `?` in an address that was given is for the database, as in `sqlite:///runs.db?timeout=60`.
    """
    file, given = _database(output_dir), os.environ.get("MLFLOW_TRACKING_URI", "")
    options = "".join(given.partition("?")[1:])
    return _SQLITE + str(file).replace("%", "%25").replace("?", "%3F") + options if file else given


def artifact_folder(output_dir: str) -> Path:
    """Folder for files of runs whose history is a database: beside an SQLite file, else in OUTPUT_DIR."""
    file = _database(output_dir)
    return (file.parent if file else resolve(output_dir)) / "mlflow-artifacts"


@contextmanager
def open_history(outputs: OutputPaths) -> Iterator:
    """Yield `mlflow`, set to this history and the dataset's experiment, locked: looking up and adding is one step."""
    os.environ.update({name: os.environ.get(name) or value for name, value in QUIET.items()})
    import mlflow

    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri, files = tracking_uri(outputs.output_dir), artifact_folder(outputs.output_dir)
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    with file_lock(files.parent / "mlflow.lock"):
        try:
            mlflow.set_tracking_uri(uri)  # which sets MLFLOW_TRACKING_URI, also for a later history elsewhere
            found = mlflow.get_experiment_by_name(outputs.dataset)
            if found is None:
                place = (files / outputs.dataset).as_uri() if uri.startswith(_DATABASES) else None
                mlflow.create_experiment(outputs.dataset, place)
            mlflow.set_experiment(outputs.dataset)
            yield mlflow
        finally:
            os.environ["MLFLOW_TRACKING_URI"] = given


def check_history(outputs: OutputPaths) -> str:
    """Ask the history, before the work, whether it can be written: "" if so, else a sentence of warning."""
    try:
        with open_history(outputs):
            return ""
    except Exception as error:  # whatever MLflow, a server or a disk says
        return (
            f"WARNING: the run history {tracking_uri(outputs.output_dir)} cannot be used ({_said(error)}). The run "
            "will be kept in its folder all the same; MLFLOW_TRACKING_URI names another history."
        )


def log_run(outputs: OutputPaths, folder: Path, notebook: Path | None = None) -> str:
    """Log a finished run folder, once however often it is called; returns a sentence, which may be a warning.

    Args:
        folder: `outputs.runs / run_id`.
        notebook: the executed notebook, to be added; a second one of the same name takes the first one's place.
    """
    try:
        with open_history(outputs) as mlflow:
            _log(mlflow, folder, outputs, notebook)
    except Exception as error:  # as above; the run folder is safe
        command = f"python -m tdsp_vision history --log {shlex.quote(shown(folder))}"
        return (
            f"WARNING: run {folder.name} is safe in {shown(folder)}, but could not be added to the run history "
            f"{tracking_uri(outputs.output_dir)} ({_said(error)}). To add it later: {command}"
        )
    return f"logged as run {folder.name} of experiment {outputs.dataset}"


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300].removesuffix(".")


def _log(mlflow, folder: Path, outputs: OutputPaths, notebook: Path | None) -> None:
    identity = {"run_folder": folder.name, "metrics_sha256": file_sha256(folder / "metrics.json")}
    asked = " and ".join(f"tags.{name} = '{value}'" for name, value in identity.items())
    there = mlflow.search_runs(experiment_names=[outputs.dataset], filter_string=asked, output_format="list")
    run_id = next((run.info.run_id for run in there if run.info.status == "FINISHED"), None)
    if run_id is None:
        for half in there:
            mlflow.delete_run(half.info.run_id)
        run_id = _log_folder(mlflow, folder, outputs, identity)
    if notebook:
        mlflow.log_artifact(notebook, "notebook", run_id=run_id)


def _log_folder(mlflow, folder: Path, outputs: OutputPaths, identity: dict[str, str]) -> str:
    parameters = read_json(folder / "parameters.json")
    manifest = DatasetPaths(parameters["DATA_DIR"], outputs.dataset).manifest
    tags = identity | {"manifest_sha256": file_sha256(manifest), "commit": _commit()}
    with mlflow.start_run(run_name=folder.name, tags=tags) as run:
        mlflow.log_params({name: str(value)[:LONGEST] for name, value in parameters.items()})
        mlflow.log_metrics(dict(_numbers(read_json(folder / "metrics.json"))))
        for number, row in enumerate(read_csv(folder / "history.csv").select_dtypes("number").to_dict("records"), 1):
            mlflow.log_metrics(dict(_numbers({"history": row}, "/")), step=int(row.get("epoch", number)))
        mlflow.log_artifacts(folder)
    return run.info.run_id


def _commit() -> str:
    """The commit of the repository, with -dirty where tracked files differ from it; "unknown" outside of one."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"
    except FileNotFoundError:  # no git on this machine
        return "unknown"


def _numbers(content: dict, mark: str = ".", name: str = "") -> Iterator[tuple[str, float]]:
    """Each finite number of nested JSON by its place, `test.auc`; no table by class."""
    for key, item in content.items():
        place = f"{name}{mark}{key}" if name else key
        if isinstance(item, dict) and key != "per_class":
            yield from _numbers(item, mark, place)
        elif isinstance(item, int | float) and not isinstance(item, bool) and math.isfinite(item):
            yield place, float(item)


def runs_to_compare(outputs: OutputPaths, compare: str, head: dict, splits: pd.DataFrame) -> list[str]:
    """Ids of the earlier runs that COMPARE means, found before the work.

    Args:
        compare: "none"; "previous", the newest run with the same test; or ids, separated by commas.
        head: dataset, classes and positive_class of the run that is about to be made.
        splits: path, label, split and sha256 of its images.

    Raises:
        ValueError: for a run that is not there, is named twice or has another test; says which and why.
    """
    if compare == "none":
        return []
    if compare == "previous":
        names = sorted((path.name for path in outputs.runs.glob("[!.]*")), reverse=True)
        return [name for name in names if not _obstacle(outputs.runs / name, head, splits)][:1]
    names = [find_run(outputs, name.strip()).name for name in compare.split(",")]
    if len(set(names)) < len(names) or len(names) >= len(LETTERS):
        raise ValueError(f"COMPARE is {compare!r}; name each run once, and at most {len(LETTERS) - 1} of them.")
    for name in names:
        if obstacle := _obstacle(outputs.runs / name, head, splits):
            raise ValueError(f"COMPARE names {name}, which cannot be compared with this run: {obstacle}.")
    return names


def compare_runs(outputs: OutputPaths, names: list[str]) -> tuple[list[str], pd.DataFrame, pd.DataFrame]:
    """Compare the last of the named runs with those before it, which must have the same test; A, B, C, … in order.

    Returns:
        sentences: the letter of each run; then for each but A, whether its AUC differs from A's by more than luck
            (paired by image). Where nothing can be compared, why; the tables are empty then.
        settings: the parameters that differ, as text, a column for each run.
        metrics: of the test, a column for each run, then the AUC of validation, by which to choose.
    """
    *earlier, own = [outputs.runs / name for name in names]
    nothing = pd.DataFrame(), pd.DataFrame()
    if not earlier:
        return ["there is no earlier run with this test to compare with"], *nothing
    head, splits = read_json(own / "metrics.json"), read_csv(own / "splits.csv")
    for folder in earlier:
        if obstacle := _obstacle(folder, head, splits):
            return [f"{folder.name} cannot be compared with this run: {obstacle}"], *nothing
    folders = dict(zip(LETTERS, [*earlier, own], strict=False))
    heads = {letter: read_json(folder / "metrics.json") for letter, folder in folders.items()}
    parameters = pd.DataFrame({letter: read_json(f / "parameters.json") for letter, f in folders.items()})
    parameters = parameters.drop(index=["RUN_NAME", "COMPARE"], errors="ignore").fillna("not known").astype(str)
    metrics = {name: [one["test"].get(name) for one in heads.values()] for name in COMPARED}
    metrics |= {"auc of validation": [one["validation"]["auc"] for one in heads.values()]}
    metrics = pd.DataFrame(metrics, list(folders), dtype=float).T.dropna()
    text = dict.fromkeys(("path", "label", "predicted"), str)  # a class may be called 007 or NA
    read = {k: pd.read_csv(f / "predictions.csv", dtype=text, keep_default_na=False) for k, f in folders.items()}
    test = splits[splits.split == "test"]
    tables = {letter: table.set_index("path").loc[test.path] for letter, table in read.items()}
    about = [head["positive_class"]] if head["positive_class"] else head["classes"]
    sentences = [f"{letter}: {folder.name}" for letter, folder in folders.items()]
    sentences += [_difference(letter, tables, about, test.group.to_numpy()) for letter in list(folders)[1:]]
    return sentences, parameters[parameters.nunique(axis=1) > 1], metrics


def _obstacle(folder: Path, head: dict, splits: pd.DataFrame) -> str:
    """Why the run in `folder` cannot be compared with one of this head and these images; "" if it can."""
    needed = ("parameters.json", "metrics.json", "splits.csv", "predictions.csv")
    missing = [name for name in needed if not (folder / name).is_file()]
    if missing:
        return f"it has no {missing[0]}; train it anew"
    metrics = read_json(folder / "metrics.json")
    for name in ("dataset", "classes", "positive_class"):
        if metrics[name] != head[name]:
            return f"its {name} is {metrics[name]!r}, and here it is {head[name]!r}"
    tests = [table[table.split == "test"] for table in (splits, read_csv(folder / "splits.csv"))]
    here, there = (set(test[["path", "label", "sha256"]].itertuples(index=False, name=None)) for test in tests)
    if here == there:
        return ""
    return (
        f"of its {len(there)} test images and these {len(here)}, {len(here & there)} are the same, with the same label "
        f"and content; train both with the same {', '.join(OF_THE_SPLIT)} and manifest"
    )


def _difference(run: str, tables: dict[str, pd.DataFrame], about: list[str], groups: np.ndarray) -> str:
    """Whether the AUC of `run` differs from A's by more than luck, a sentence."""
    truth = tables["A"].label.to_numpy(object)[:, None] == np.array(about, object)
    scores = (tables[letter][[f"score_{name}" for name in about]].to_numpy(float) for letter in ("A", run))
    difference, low, high = paired_auc_difference(truth, *scores, groups)
    what = f"{run}'s {'AUC' if len(about) < 3 else 'mean AUC'} minus A's is {round(difference, 3) + 0.0:.3f}"
    if low is None:
        return f"{what}; too few groups of images differ for an interval."
    verdict = "which contains 0: no difference is shown" if low <= 0 <= high else "which does not contain 0"
    return f"{what}, with a 95 % interval of {low:.3f} to {high:.3f}, {verdict}."
