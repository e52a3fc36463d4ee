"""One trial of a sweep: the modeling notebook, run exactly once by whoever comes first.

A trial's name is a digest of all that shapes its run: values, data, and the notebook's code cells. Its folder is
`outputs/<dataset>/sweeps/trials/<name>/`, shared by all sweeps of the data set: the executed notebook, and a lock.

The run folder, which appears whole, is the proof that a trial is done; whoever finds it runs nothing. Before that its
process holds the lock. A killed process leaves a kernel that ends soon after; it carries the trial's folder in its
environment (TDSP_TRIAL), and whoever takes the trial up next ends it first. Between machines whose shared file system
passes no locks on, only the run folder judges: a trial may then run twice where a lost machine is still alive.
"""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.files import file_lock
from tdsp_vision.runner import run_notebook, write_history


@dataclass(frozen=True)
class Trial:
    """What to run: `parameters` are all that the notebook gets, RUN_NAME, which is `name`, among them."""

    name: str
    parameters: dict[str, object]
    notebook: Path

    @property
    def outputs(self) -> paths.OutputPaths:
        return paths.OutputPaths(self.parameters["OUTPUT_DIR"], self.parameters["DATASET_NAME"])

    @property
    def executed(self) -> Path:
        """The executed notebook."""
        return self.outputs.sweeps / "trials" / self.name / f"{self.name}.ipynb"

    def run(self) -> Path | None:
        """Folder of the finished run, if there is one."""
        return next((file.parent for file in self.outputs.runs.glob(f"*-{self.name}/metrics.json")), None)


def make_trial(values: Mapping[str, object], others: Mapping[str, object]) -> Trial:
    """The trial with `values` of what varies and `others`, every other parameter; its name is the digest of all."""
    notebook, parameters = paths.NOTEBOOKS["model"], {**others, **values, "RUN_NAME": ""}
    data = paths.DatasetPaths(parameters["DATA_DIR"], parameters["DATASET_NAME"])
    files = [file for file in (data.manifest, data.corrections) if file.is_file()]
    digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    name = hashlib.sha256(json.dumps([parameters, code, digests], sort_keys=True).encode()).hexdigest()[:12]
    return Trial(name, parameters | {"RUN_NAME": name}, notebook)


def run_trial(trial: Trial, environment: Mapping[str, str]) -> dict:
    """Run a trial to its end, or find that it was done before.

    Args:
        environment: variables for the kernel, on top of this process's own.

    Returns:
        `status` "done" with `run` (id) and `seconds`, or "failed" with `error` (a sentence) and `seconds`.
    """
    started = time.monotonic()
    with file_lock(trial.executed.parent / "lock"):  # another process may work on it
        result = {"status": "done", "run": trial.run().name} if trial.run() else _run(trial, environment)
    return result | {"seconds": round(time.monotonic() - started, 1)}


def _run(trial: Trial, environment: Mapping[str, str]) -> dict:
    _end_kernels_of(trial)
    for draft in trial.outputs.runs.glob(f".*-{trial.name}.*"):  # of a killed kernel
        shutil.rmtree(draft)
    environment = {**environment, "TDSP_TRIAL": str(trial.executed.parent)}
    error = f"the notebook ran to its end and left no run named {trial.name}"
    try:
        run_notebook(trial.notebook, trial.parameters, trial.executed, environment=environment)
    except (ParameterError, RunFailed) as failure:
        error = str(failure).splitlines()[0]
    if run := trial.run():  # a run that was saved counts, even where a later cell failed
        write_history(trial.outputs, run.name, trial.executed)
        return {"status": "done", "run": run.name}
    return {"status": "failed", "error": error}


def _end_kernels_of(trial: Trial) -> None:
    """Kill, and wait for, every process of this user that carries the trial in its environment."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):  # gone meanwhile, or another user's
            if process.environ().get("TDSP_TRIAL") == str(trial.executed.parent):
                process.kill()
                process.wait(10)
