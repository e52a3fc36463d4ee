"""One trial of a sweep, run exactly once by whoever comes first: a worker process that executes the notebook.

A trial's name is a digest of all that shapes its run: values, data, and the notebook's code cells. Its folder is
`outputs/<dataset>/sweeps/trials/<name>/`, shared by all sweeps of the data set:

    trial.json   the `Trial`          <name>.ipynb  the executed notebook
    result.json  what came of it      log.txt lock

The run folder, which appears whole, is the proof that a trial is done; whoever finds it runs nothing. Before that the
worker holds `lock`. It ends with its kernel as soon as the process that started it is gone, however that ended: its
standard input then closes. What a killed worker leaves behind carries the trial's folder in its environment
(TDSP_TRIAL) and is ended first. Between machines whose shared file system passes no locks on, only the run folder
judges: a trial may then run twice where a lost machine is still alive.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.files import file_lock, write_json
from tdsp_vision.runner import attach_to_history, end_with_starter, run_notebook

_WORKER = "tdsp_vision.sweeps.trial"


@dataclass(frozen=True)
class Trial:
    """What to run: `values` vary in the sweep, `parameters` are all that the notebook gets; all plain data."""

    name: str
    values: dict[str, object]
    parameters: dict[str, object]
    notebook: str
    output_dir: str
    dataset: str

    @property
    def title(self) -> str:
        """`CLASSIFIER=svm IMAGE_SIZE=224`."""
        return " ".join(f"{name}={value}" for name, value in self.values.items())

    @property
    def outputs(self) -> paths.OutputPaths:
        return paths.OutputPaths(self.output_dir, self.dataset)

    @property
    def folder(self) -> Path:
        return self.outputs.sweeps / "trials" / self.name

    def run(self) -> Path | None:
        """Folder of the finished run, if there is one."""
        found = sorted(self.outputs.runs.glob(f"*-{self.name}/metrics.json"))
        return found[0].parent if found else None


def trial_name(parameters: Mapping[str, object], notebook: Path, data: list[Path]) -> str:
    """Digest of all that shapes a run, 12 characters: every parameter, the notebook's code, and the files `data`."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    files = [hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "" for file in data]
    return hashlib.sha256(json.dumps([dict(parameters), code, files], sort_keys=True).encode()).hexdigest()[:12]


def run_trial(trial: Trial, environment: Mapping[str, str], stop: threading.Event | None = None) -> dict:
    """Run a trial to its end in a process of its own, or find that it was done before.

    Args:
        environment: variables for the worker, on top of this process's own.
        stop: once it is set, the worker is ended.

    Returns:
        `status` "done" with `run` (id) and `seconds`, "failed" with `error` (a sentence), or "stopped".
    """
    if run := trial.run():
        return {"status": "done", "run": run.name, "seconds": 0.0}
    write_json(trial.folder / "trial.json", asdict(trial))
    (trial.folder / "result.json").unlink(missing_ok=True)
    own = os.environ | dict(environment) | {"TDSP_TRIAL": str(trial.folder)}
    with (trial.folder / "log.txt").open("wb") as log:
        command = [sys.executable, "-m", _WORKER, str(trial.folder)]
        # Ctrl-C is not for the worker, hence the session of its own.
        pipes = {"stdin": subprocess.PIPE, "stdout": log, "stderr": log, "start_new_session": True}
        with subprocess.Popen(command, env=own, **pipes) as worker:
            while worker.poll() is None and not (stop and stop.is_set()):
                time.sleep(0.1)
            worker.stdin.close()
            worker.wait()
    _end_processes_of(trial)
    if (trial.folder / "result.json").is_file():
        return json.loads((trial.folder / "result.json").read_text(encoding="utf-8"))
    return (
        {"status": "stopped"} if stop and stop.is_set() else {"status": "failed", "error": _last_words(trial, worker)}
    )


def _work(folder: Path) -> None:
    """Bring the trial in `folder` to its result; another worker of the same trial ends first."""
    trial = Trial(**json.loads((folder / "trial.json").read_text(encoding="utf-8")))
    with file_lock(folder / "lock"):
        _end_processes_of(trial)
        for draft in trial.outputs.runs.glob(f".*-{trial.name}.*"):  # of a killed kernel
            shutil.rmtree(draft)
        started, run, executed = time.monotonic(), trial.run(), folder / f"{trial.name}.ipynb"
        try:
            if not run:
                run_notebook(Path(trial.notebook), trial.parameters, executed)
        except (ParameterError, RunFailed) as error:
            failed = {"status": "failed", "error": str(error).splitlines()[0]}
        else:
            failed = {"status": "failed", "error": f"the notebook ran to its end and left no run named {trial.name}"}
        result = failed
        if run := trial.run():  # a run that was saved counts, even where a later cell failed
            attach_to_history(trial.outputs, run.name, executed)
            result = {"status": "done", "run": run.name}
        write_json(folder / "result.json", result | {"seconds": round(time.monotonic() - started, 1)})


def _end_processes_of(trial: Trial) -> None:
    """Kill, and wait for, every process of this user that a killed worker of the trial left behind: its kernel."""
    while left := [process for process in psutil.process_iter() if _belongs_to(process, trial)]:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)


def _belongs_to(process: psutil.Process, trial: Trial) -> bool:
    try:  # another worker only waits for the lock, or will end by itself
        return process.environ().get("TDSP_TRIAL") == str(trial.folder) and _WORKER not in process.cmdline()
    except psutil.Error:  # gone meanwhile, or another user's
        return False


def _last_words(trial: Trial, worker: subprocess.Popen) -> str:
    lines = (trial.folder / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    words = next((line.strip() for line in reversed(lines) if line.strip()), "none (often it is a lack of memory)")
    code = worker.returncode
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"its process ended {how}; its last words: {words[:500]}"


if __name__ == "__main__":
    end_with_starter()
    _work(Path(sys.argv[1]))
