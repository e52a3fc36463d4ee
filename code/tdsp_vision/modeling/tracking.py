"""Run history: every finished run folder becomes one run in MLflow, in the experiment that is named like its dataset.

parameters  those of the notebook
metrics     each number of metrics.json, as `test.auc`; each column of history.csv, as `history/loss`, by epoch
tags        run_folder, metrics_sha256, manifest_sha256, version.<package>, mlflow.source.git.commit, git.dirty
artifacts   the files of the run folder; notebook/<name>.ipynb
model       `mlflow.keras.load_model(f"runs:/{id}/model")`, after `mlflow.set_tracking_uri(tracking_uri(OUTPUT_DIR))`;
            `mlflow.register_model(f"runs:/{id}/model", "lesions")` puts it into MLflow's registry

The run folder is the truth. A run counts when its status is FINISHED, which is set last; what a kill left half logged
is deleted by the next `log_run` of that folder (`mlflow gc` then frees its space).
"""

import subprocess
import tempfile
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from shutil import copyfile

from tdsp_vision.data.tables import file_sha256, read_csv, read_json
from tdsp_vision.modeling.flattened import curves, numbers
from tdsp_vision.modeling.run_history import best_run, experiment_id, open_history, tracking_uri
from tdsp_vision.paths import NOTEBOOKS, ROOT, DatasetPaths, OutputPaths

__all__ = ["attach_notebook", "best_run", "log_run", "tracking_uri"]


def log_run(outputs: OutputPaths, folder: Path, parameters: dict[str, object], notebook: Path | None = None) -> str:
    """Log a finished run folder once; returns MLflow's run id, the same one whenever the same folder is logged again.

    Args:
        folder: `outputs.runs / run_id`.
        parameters: those of the notebook, DATA_DIR among them: the manifest lies there.
        notebook: the executed notebook, where it is there already; else see `attach_notebook`.

    Raises:
        FileNotFoundError: where the folder or the manifest is incomplete.
        MlflowException: where the history cannot be written; the run folder is safe, and logging can be repeated.
    """
    card = read_json(folder / "model_card.json")
    ended = int(datetime.fromisoformat(card["created"]).timestamp() * 1000)  # ms since 1970
    with open_history(outputs.output_dir) as client:
        experiment = experiment_id(client, outputs)
        run_id = _finished(client, experiment, folder)
        if not run_id:
            for half in _logged(client, experiment, folder):
                _delete(client, half)
            run_id = _log_folder(client, experiment, outputs, folder, parameters, card, ended)
        if notebook:
            client.log_artifact(run_id, notebook, "notebook")
        client.set_terminated(run_id, end_time=ended)
    return run_id


def attach_notebook(outputs: OutputPaths, run: str, notebook: Path) -> None:
    """Add the executed notebook to a logged run; a second one of the same name takes the first one's place.

    Args:
        run: id of the run folder.

    Raises:
        FileNotFoundError: where there is no such folder.
        ValueError: where that run is not in the history.
    """
    with open_history(outputs.output_dir) as client:
        run_id = _finished(client, experiment_id(client, outputs), outputs.runs / run)
        if not run_id:
            raise ValueError(f"Run {run!r} is not in the history {tracking_uri(outputs.output_dir)}; log it first.")
        client.log_artifact(run_id, notebook, "notebook")


def _identity(folder: Path) -> dict[str, str]:
    """Tags by which a run folder is known again: two machines may use one name, hardly with the same numbers."""
    return {"run_folder": folder.name, "metrics_sha256": file_sha256(folder / "metrics.json")}


def _logged(client, experiment: str, folder: Path) -> list:
    """Runs of a run folder, half logged ones as well."""
    return client.search_runs([experiment], " and ".join(f"tags.{k} = '{v}'" for k, v in _identity(folder).items()))


def _finished(client, experiment: str, folder: Path) -> str | None:
    runs = _logged(client, experiment, folder)
    return next((run.info.run_id for run in runs if run.info.status == "FINISHED"), None)


def _delete(client, run) -> None:
    for model in client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'"):
        client.delete_logged_model(model.model_id)
    client.delete_run(run.info.run_id)


def _log_folder(
    client, experiment: str, outputs: OutputPaths, folder: Path, parameters: dict, card: dict, ended: int
) -> str:
    """Everything but the executed notebook and the end; returns the new run's id."""
    metrics, history = read_json(folder / "metrics.json"), read_csv(folder / "history.csv")
    manifest = DatasetPaths(str(parameters["DATA_DIR"]), outputs.dataset).manifest
    tags = _identity(folder) | _code() | {"manifest_sha256": file_sha256(manifest)}
    tags |= {f"version.{name}": text for name, text in card["versions"].items()}
    started = ended - int(metrics["seconds"]["total"] * 1000)
    run_id = client.create_run(experiment, started, tags, folder.name).info.run_id
    model_id = _log_model(client, experiment, run_id, folder, metrics)
    _log_values(client, run_id, model_id, parameters, metrics, history, ended)
    for path in sorted(folder.iterdir()):
        if path.name != "model.keras":  # logged as a model
            client.log_artifact(run_id, path)
    return run_id


def _code() -> dict[str, str]:
    """Tags of the commit of the repository, "unknown" outside of one, and whether tracked files differed from it."""
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except FileNotFoundError:  # no git on this machine
        said = ""
    commit, _, dirty = said.partition("-")
    notebook = NOTEBOOKS["model"].relative_to(ROOT).as_posix()
    tags = {"mlflow.source.git.commit": commit or "unknown", "git.dirty": str(bool(dirty)).lower()}
    return tags | {"mlflow.source.name": notebook, "mlflow.source.type": "NOTEBOOK"}


def _log_values(client, run_id: str, model_id: str, parameters: dict, metrics: dict, history, ended: int) -> None:
    from mlflow.entities import Metric, Param
    from mlflow.utils.validation import MAX_METRICS_PER_BATCH, MAX_PARAM_VAL_LENGTH

    params = [Param(name, str(value)[:MAX_PARAM_VAL_LENGTH]) for name, value in parameters.items()]
    client.log_batch(run_id, params=params)
    values = [Metric(name, value, ended, 0, model_id=model_id) for name, value in numbers(metrics).items()]
    values += [Metric(name, value, ended, step) for name, step, value in curves(history)]
    for start in range(0, len(values), MAX_METRICS_PER_BATCH):
        client.log_batch(run_id, values[start : start + MAX_METRICS_PER_BATCH])


class _SavedModel:
    """A model file where `mlflow.keras` expects a model, of which it asks only to be saved; loading takes seconds."""

    def __init__(self, file: Path):
        self._file = file

    def save(self, path: str) -> None:
        copyfile(self._file, path)


def _log_model(client, experiment: str, run_id: str, folder: Path, metrics: dict) -> str:
    """Log `model.keras`: float32 [n, S, S, 3], 0 to 255, to scores [n, K]; returns the id of MLflow's model."""
    import mlflow.keras
    import numpy as np
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema, TensorSpec

    side, classes = metrics["image_size"], len(metrics["classes"])
    shapes = ((-1, side, side, 3), (-1, classes))
    signature = ModelSignature(*(Schema([TensorSpec(np.dtype("float32"), shape)]) for shape in shapes))
    needs = [f"{name}=={version(name)}" for name in ("tensorflow", "keras")]  # unnamed, MLflow searches, for long
    logged = client.create_logged_model(experiment, "model", run_id)
    about = Model(logged.artifact_location, run_id, model_uuid=logged.model_id, model_id=logged.model_id)
    with tempfile.TemporaryDirectory() as draft:
        to = str(Path(draft) / "model")
        given = {"signature": signature, "pip_requirements": needs, "mlflow_model": about}
        mlflow.keras.save_model(_SavedModel(folder / "model.keras"), to, **given)
        client.log_model_artifacts(logged.model_id, to)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])
    return logged.model_id
