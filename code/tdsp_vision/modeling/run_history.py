"""Where MLflow keeps the run history, and the one way to open it: quiet, without usage reports, one process at a time.

MLFLOW_TRACKING_URI where it is set (a server, a database), else <OUTPUT_DIR>/mlflow.db. A server keeps files itself;
with a database they go to `mlflow-artifacts/<dataset>/`, beside the SQLite file or in OUTPUT_DIR. The database names
them by absolute paths, so a folder that was moved shows its runs without their files.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdsp_vision.files import file_lock
from tdsp_vision.paths import OutputPaths, resolve, shown

# Read by MLflow when it is imported. A server that does not answer is asked four times, not seven.
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4",
}
_SQLITE = "sqlite:///"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")


def tracking_uri(output_dir: str) -> str:
    """Address of the run history; a relative path of an SQLite file is taken from the workspace, as all paths are."""
    uri = os.environ.get("MLFLOW_TRACKING_URI") or f"{_SQLITE}{resolve(output_dir)}/mlflow.db"
    return f"{_SQLITE}{resolve(uri.removeprefix(_SQLITE))}" if uri.startswith(_SQLITE) else uri


def sqlite_file(uri: str) -> Path | None:
    """The file of an SQLite address; None for any other."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def artifact_folder(output_dir: str) -> Path:
    """Folder for files of runs whose history is a database, one sub-folder for each dataset."""
    file = sqlite_file(tracking_uri(output_dir))
    return (file.parent if file else resolve(output_dir)) / "mlflow-artifacts"


@contextmanager
def open_history(output_dir: str) -> Iterator:
    """Yield a `mlflow.MlflowClient`, locked: looking a run up and adding it is one step; so is a first start."""
    os.environ.update({name: os.environ.get(name) or value for name, value in QUIET.items()})
    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    with file_lock(artifact_folder(output_dir).parent / "mlflow.lock"):
        yield MlflowClient(tracking_uri(output_dir))


def experiment_id(client, outputs: OutputPaths) -> str:
    """Id of the dataset's experiment: made where missing, taken back where it was deleted."""
    found = client.get_experiment_by_name(outputs.dataset)
    if found is None:
        a_database = tracking_uri(outputs.output_dir).startswith(_DATABASES)
        place = (artifact_folder(outputs.output_dir) / outputs.dataset).as_uri() if a_database else None
        return client.create_experiment(outputs.dataset, place)
    if found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    return found.experiment_id


def best_run(outputs: OutputPaths, experiment: str = "") -> str:
    """Id of the run folder with the highest validation AUC of an MLflow experiment.

    Balanced accuracy decides between equal ones and between runs without an AUC, which come after those that have one;
    then the newest wins. Runs whose folder is gone do not count.

    Args:
        experiment: its name; "" for the dataset's own.

    Raises:
        ValueError: if there is no such experiment, no finished run in it, or none whose folder is still there.
    """
    uri, name = tracking_uri(outputs.output_dir), experiment or outputs.dataset
    file = sqlite_file(uri)
    if file and not file.exists():
        raise ValueError(f"There is no run history at {shown(file)}; run the modeling notebook first.")
    order = [f"metrics.`validation.{metric}` DESC" for metric in ("auc", "balanced_accuracy")]
    with open_history(outputs.output_dir) as client:
        known = {one.name: one.experiment_id for one in client.search_experiments()}
        if name not in known:
            there = ", ".join(map(repr, sorted(known)))
            raise ValueError(f"There is no experiment {name!r} in the run history {uri}; there are {there}.")
        runs = client.search_runs([known[name]], "attributes.status = 'FINISHED'", order_by=order, max_results=50_000)
    folders = [run.data.tags["run_folder"] for run in runs if "run_folder" in run.data.tags]
    if not folders:
        raise ValueError(
            f"Experiment {name!r} of the run history {uri} has no finished run; run the modeling notebook."
        )
    for folder in folders:
        if (outputs.runs / folder / "metrics.json").is_file():
            return folder
    raise ValueError(
        f"No run of experiment {name!r} has a folder in {shown(outputs.runs)} any more, not even the best of "
        f"{len(folders)}, {folders[0]!r}; run the modeling notebook again, or name an experiment of this dataset."
    )
