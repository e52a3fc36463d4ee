"""The process of one trial: `python -m tdsp_vision.sweeps.worker FOLDER`, started by `trial.run_trial` only.

Reads trial.json, runs the notebook unless its run is already there, sees to its history, writes result.json.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import psutil

from tdsp_vision.execution import RunFailed, run_notebook
from tdsp_vision.files import file_lock, write_json
from tdsp_vision.sweeps.trial import Trial, end_processes_of, tidy


def work(folder: Path) -> None:
    """Bring the trial in `folder` to its result; waits for another worker of the same trial to end first."""
    trial = Trial(**json.loads((folder / "trial.json").read_text(encoding="utf-8")))
    with file_lock(folder / "lock"):
        end_processes_of(trial)
        started = time.monotonic()
        result = _attempt(trial)
        write_json(trial.file("result.json"), result | {"seconds": round(time.monotonic() - started, 1)})


def _attempt(trial: Trial) -> dict:
    tidy(trial, over=False)
    try:
        run = trial.run_folder() or _run(trial)
    except RunFailed as error:
        return {"status": "failed", "error": str(error).splitlines()[0]}
    tidy(trial, over=True)
    try:
        if trial.history:
            keep_history(trial, run)
    except Exception as error:  # whatever the history's server says; the run itself is safe
        words = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        return {"status": "failed", "error": f"run {run.name} is kept, but not its history: {words}"}
    return {"status": "done", "run": run.name}


def _run(trial: Trial) -> Path:
    """Run the notebook; a run that was saved counts, even where a later cell failed."""
    try:
        run_notebook(Path(trial.notebook), trial.parameters, trial.executed)
    except RunFailed:
        if not trial.run_folder():
            raise
    if run := trial.run_folder():
        return run
    raise RunFailed(f"the notebook ran to its end and left no run named {trial.name}")


def keep_history(trial: Trial, run: Path) -> None:
    """Log the run to the history, unless its notebook has done so, and add the executed notebook."""
    from tdsp_vision.modeling.history import log_run

    said = log_run(trial.outputs, run, trial.executed)
    if said.startswith("WARNING"):
        raise RuntimeError(said)


def _end_with_parent() -> None:
    """Wait for the end of standard input, which is the end of the parent; then end the kernel and this process."""
    os.read(0, 1)  # nothing is ever sent; and not through sys.stdin, whose lock would disturb this process's end
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(Path(sys.argv[1]))
