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
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from tdsp_vision.data.tables import file_sha256, read_csv, read_json
from tdsp_vision.files import file_lock
from tdsp_vision.modeling.metrics import paired_auc_difference
from tdsp_vision.modeling.runs import find_run, read_predictions
from tdsp_vision.paths import ROOT, DatasetPaths, OutputPaths, resolve

# Read by MLflow when it is imported and when it asks.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # what fails can be logged later
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
}
WRITER = "TDSP_HISTORY_WRITER"  # in the environment of a notebook: who adds its run when it has ended
_SQLITE = "sqlite:///"
LONGEST = 6000  # characters of a parameter
LETTERS = "ABCDEFG"  # names of runs that are compared
COMPARED = ["auc", "accuracy", "balanced_accuracy", "recall", "precision", "specificity", "f1", "ece"]


def tracking_uri(output_dir: str) -> str:
    """Address of the run history; `?` and `%` of a path are written as an address needs them.

    A relative path is taken from the workspace, as all paths are. What follows a `?` in an address that was given is
    for the database, as in `sqlite:///runs.db?timeout=60`.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if given.startswith(_SQLITE):
        return _SQLITE + str(resolve(given.removeprefix(_SQLITE)))
    return given or _SQLITE + str(resolve(output_dir) / "mlflow.db").replace("%", "%25").replace("?", "%3F")


@contextmanager
def open_history(outputs: OutputPaths) -> Iterator[tuple]:
    """Yield MLflow's client and the id of the dataset's experiment, locked: looking up and adding is one step."""
    os.environ.update({name: os.environ.get(name) or value for name, value in QUIET.items()})
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    uri, files = tracking_uri(outputs.output_dir), resolve(outputs.output_dir) / "mlflow-artifacts"
    with file_lock(files.parent / "mlflow.lock"):
        client = MlflowClient(uri)
        if found := client.get_experiment_by_name(outputs.dataset):
            yield client, found.experiment_id
        else:
            place = None if uri.startswith("http") else (files / outputs.dataset).as_uri()
            yield client, client.create_experiment(outputs.dataset, place)


def log_run(outputs: OutputPaths, folder: Path | None = None, notebook: Path | None = None) -> str:
    """Log a finished run folder, once however often it is called; returns a sentence, which may be a warning.

    Args:
        folder: `outputs.runs / run_id`; None, before the work, only asks whether the history can be written.
        notebook: the executed notebook, to be added; a second one of the same name takes the first one's place.
    """
    if os.environ.get(WRITER) and not notebook:
        return f"the run history is written by {os.environ[WRITER]}"
    try:
        with open_history(outputs) as (client, experiment):
            if folder is None:
                return "the run history can be written"
            _log(client, experiment, folder, outputs, notebook)
    except Exception as error:  # whatever MLflow, a server or a disk says
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300].removesuffix(".")
        said = f"WARNING: the run history {tracking_uri(outputs.output_dir)} cannot be used ({said}). The run is kept"
        if folder is None:
            return f"{said} in its folder all the same; MLFLOW_TRACKING_URI names another history."
        return f"{said}; in the modeling notebook, log_run(outputs, outputs.runs / {folder.name!r}) adds it later."
    return f"logged as run {folder.name} of experiment {outputs.dataset}"


def _log(client, experiment: str, folder: Path, outputs: OutputPaths, notebook: Path | None) -> None:
    tags = {"run_folder": folder.name, "metrics_sha256": file_sha256(folder / "metrics.json")}
    asked = " and ".join(f"tags.{name} = '{value}'" for name, value in tags.items())
    there = client.search_runs([experiment], asked)
    run_id = next((run.info.run_id for run in there if run.info.status == "FINISHED"), None)
    if run_id is None:
        for half in there:
            client.delete_run(half.info.run_id)
        parameters = read_json(folder / "parameters.json")
        manifest = DatasetPaths(parameters["DATA_DIR"], outputs.dataset).manifest
        tags |= {"manifest_sha256": file_sha256(manifest), "commit": _commit()}
        run_id = client.create_run(experiment, tags=tags, run_name=folder.name).info.run_id
        _log_folder(client, run_id, folder, parameters)
    if notebook:
        client.log_artifact(run_id, notebook, "notebook")


def _log_folder(client, run_id: str, folder: Path, parameters: dict) -> None:
    from mlflow.entities import Metric, Param

    client.log_batch(run_id, params=[Param(name, str(value)[:LONGEST]) for name, value in parameters.items()])
    metrics = pd.json_normalize(read_json(folder / "metrics.json")).filter(regex=r"^(?!.*\.per_class\.)")
    curves, now = read_csv(folder / "history.csv").add_prefix("history/"), int(1000 * time.time())
    for table in (metrics, curves):
        for number, row in enumerate(table.select_dtypes("number").to_dict("records"), 1):
            step = int(row.get("history/epoch", number))
            numbers = [Metric(name, value, now, step) for name, value in row.items() if math.isfinite(value)]
            client.log_batch(run_id, metrics=numbers)
    client.log_artifacts(run_id, folder)
    client.set_terminated(run_id)


def _commit() -> str:
    """The commit of the repository, with -dirty where tracked files differ from it; "unknown" outside of one."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip() or "unknown"
    except FileNotFoundError:  # no git on this machine
        return "unknown"


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
    """Compare runs with the same test, those of `runs_to_compare` and then the new one; A, B, C, … in order.

    Returns:
        sentences: the letter of each run; then for each but A, whether its AUC differs from A's by more than luck
            (paired by image). Of a single run, that there is nothing to compare; the tables are empty then.
        settings: the parameters that differ, as text, a column for each run.
        metrics: of the test, a column for each run, then the AUC of validation, by which to choose.
    """
    if len(names) < 2:
        return ["there is no earlier run with this test to compare with"], pd.DataFrame(), pd.DataFrame()
    folders = {letter: outputs.runs / name for letter, name in zip(LETTERS, names, strict=False)}
    heads = {letter: read_json(folder / "metrics.json") for letter, folder in folders.items()}
    head, splits = heads["A"], read_csv(folders["A"] / "splits.csv")
    parameters = pd.DataFrame({letter: read_json(f / "parameters.json") for letter, f in folders.items()})
    parameters = parameters.drop(index=["RUN_NAME", "COMPARE"], errors="ignore").fillna("not known").astype(str)
    blocks = {k: one["test"] | {"auc of validation": one["validation"]["auc"]} for k, one in heads.items()}
    metrics = pd.DataFrame(blocks).reindex([*COMPARED, "auc of validation"]).astype(float).dropna()
    test = splits[splits.split == "test"]
    about = [head["positive_class"]] if head["positive_class"] else head["classes"]
    columns = [f"score_{name}" for name in about]
    read = {letter: read_predictions(folder).set_index("path") for letter, folder in folders.items()}
    scores = {letter: table.loc[test.path, columns].to_numpy() for letter, table in read.items()}
    truth = test.label.to_numpy(object)[:, None] == np.array(about, object)
    sentences = [f"{letter}: {folder.name}" for letter, folder in folders.items()]
    sentences += [_difference(letter, truth, scores, test.group.to_numpy()) for letter in list(folders)[1:]]
    return sentences, parameters[parameters.nunique(axis=1) > 1], metrics


def _obstacle(folder: Path, head: dict, splits: pd.DataFrame) -> str:
    """Why the run in `folder` cannot be compared with one of this head and these images; "" if it can."""
    try:
        metrics, _ = (read_json(folder / name) for name in ("metrics.json", "parameters.json"))
        for name in ("dataset", "classes", "positive_class"):
            if metrics[name] != head[name]:
                return f"its {name} is {metrics[name]!r}, and here it is {head[name]!r}"
        tests = [table[table.split == "test"] for table in (splits, read_predictions(folder))]
    except (ValueError, KeyError, TypeError) as error:
        return f"its files are not whole ({str(error).removesuffix('.')})"
    here, there = (set(test[["path", "label", "sha256"]].itertuples(index=False, name=None)) for test in tests)
    if here == there:
        return ""
    return (
        f"of its {len(there)} test images and these {len(here)}, {len(here & there)} are the same, with the same label "
        f"and content; train both with the same SEED, GROUP_BY, TEST_FRACTION and manifest"
    )


def _difference(run: str, truth: np.ndarray, scores: dict[str, np.ndarray], groups: np.ndarray) -> str:
    """Whether the AUC of `run` differs from A's by more than luck, a sentence."""
    difference, interval = paired_auc_difference(truth, scores["A"], scores[run], groups)
    what = f"{run}'s {'AUC' if truth.shape[1] < 3 else 'mean AUC'} minus A's is {round(difference, 3) + 0.0:.3f}"
    if interval is None:
        return f"{what}; too few groups of images differ for an interval."
    low, high = interval
    verdict = "which contains 0: no difference is shown" if low <= 0 <= high else "which does not contain 0"
    return f"{what}, with a 95 % interval of {low:.3f} to {high:.3f}, {verdict}."
