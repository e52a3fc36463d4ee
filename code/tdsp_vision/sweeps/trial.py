"""One trial of a sweep: its folder, and a worker process that runs its notebook exactly once.

<sweep>/trials/<number>/  trial.json    the `Trial`
                          result.json   status "done" with `run` (id), or "failed" with `error` (a sentence); `seconds`
                          <name>.ipynb  the executed notebook
                          epochs.jsonl  a line for each epoch that a training has finished: its row of the history
                          end.txt       "pruned" or "stopped", where the sweep wants the trial to end
                          log.txt lock

The run folder, which appears whole, is the proof that a trial is done; whoever finds it runs nothing. Before that the
worker holds `lock`, so a trial never runs twice at once, and it ends with its kernel as soon as the process that
started it is gone, however that ended: its standard input then closes. What a killed worker leaves behind carries
the trial's folder in its environment (TDSP_TRIAL) and is ended first. Between machines whose shared file system
passes no locks on, only the run folder judges: a trial may then run twice where a lost machine is still alive.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from tdsp_vision import paths
from tdsp_vision.files import write_json

POLL = 0.1  # seconds between two looks at a worker
_WORKER = "tdsp_vision.sweeps.worker"


@dataclass(frozen=True)
class Trial:
    """What to run: `values` vary, `parameters` are all that the notebook gets; places are absolute, all plain data.

    `history` says whether the run is logged to the run history.
    """

    number: int
    name: str
    values: dict[str, object]
    parameters: dict[str, object]
    notebook: str
    output_dir: str
    dataset: str
    folder: str
    history: bool = True

    @property
    def title(self) -> str:
        """`CLASSIFIER=svm IMAGE_SIZE=224`, or the name where nothing varies."""
        return " ".join(f"{name}={plain(value)}" for name, value in self.values.items()) or self.name

    @property
    def outputs(self) -> paths.OutputPaths:
        return paths.OutputPaths(self.output_dir, self.dataset)

    @property
    def executed(self) -> Path:
        """The executed notebook."""
        return Path(self.folder) / f"{self.name}.ipynb"

    def file(self, name: str) -> Path:
        """A file in the trial's folder."""
        return Path(self.folder) / name

    def run_folder(self) -> Path | None:
        """The finished run, if there is one."""
        found = sorted(self.outputs.runs.glob(f"*-{self.name}/metrics.json"))
        return found[0].parent if found else None

    def result(self) -> dict:
        """What the last worker said; {} where it said nothing, or the run it speaks of is gone."""
        file = self.file("result.json")
        said = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        return {} if said.get("status") == "done" and not self.run_folder() else said

    def epochs(self) -> list[dict]:
        """Rows of the training's history so far."""
        file = self.file("epochs.jsonl")
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.is_file() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]  # the last one may be half written


def run_trial(trial: Trial, environment: Mapping[str, str]) -> dict:
    """Run a trial to its end in a process of its own, or find that it was done before.

    Args:
        environment: variables for the worker, on top of this process's own.

    Returns:
        As result.json; `status` may also be "pruned" or "stopped", as asked for in end.txt.
    """
    if trial.result().get("status") == "done":
        return trial.result()
    started = time.monotonic()
    write_json(trial.file("trial.json"), asdict(trial))
    trial.file("result.json").unlink(missing_ok=True)
    with trial.file("log.txt").open("wb") as log, _worker(trial, environment, log) as worker:
        while worker.poll() is None and not trial.file("end.txt").exists():
            time.sleep(POLL)
    end_processes_of(trial)
    tidy(trial, over=False)
    if said := trial.result():
        return said
    if not trial.file("end.txt").exists():
        return {"status": "failed", "error": _last_words(trial, worker.returncode)}
    if trial.run_folder():  # it was quicker than the wish to end it; what comes after the run is still to be done
        trial.file("end.txt").unlink()
        return run_trial(trial, environment)
    asked = trial.file("end.txt").read_text(encoding="utf-8")
    if asked == "pruned":
        tidy(trial, over=True)
    return {"status": asked, "seconds": round(time.monotonic() - started, 1)}


@contextlib.contextmanager
def _worker(trial: Trial, environment: Mapping[str, str], log) -> Iterator[subprocess.Popen]:
    """A running worker; at the end of the block it is gone. Ctrl-C is not for it, hence the session of its own."""
    own = {"TDSP_TRIAL": trial.folder, "TDSP_EPOCH_LOG": str(trial.file("epochs.jsonl"))}
    worker = subprocess.Popen(
        [sys.executable, "-m", _WORKER, trial.folder],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        env=os.environ | dict(environment) | own,
        start_new_session=True,
    )
    try:
        yield worker
    finally:
        worker.stdin.close()
        worker.wait()


def end_processes_of(trial: Trial) -> None:
    """Kill, and wait for, every process of this user that a killed worker of the trial left behind: its kernel."""
    while left := [process for process in psutil.process_iter() if _belongs_to(process, trial)]:
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)


def _belongs_to(process: psutil.Process, trial: Trial) -> bool:
    try:  # another worker only waits for the lock, or will end by itself
        return process.environ().get("TDSP_TRIAL") == trial.folder and _WORKER not in process.cmdline()
    except psutil.Error:  # gone meanwhile, or another user's
        return False


def tidy(trial: Trial, over: bool) -> None:
    """Remove drafts of the run folder that a killed kernel left; with `over`, the training's checkpoint as well."""
    for draft in trial.outputs.runs.glob(f".*-{trial.name}.*"):
        shutil.rmtree(draft)
    for checkpoint in {row["checkpoint"] for row in trial.epochs()} if over else ():
        Path(checkpoint).unlink(missing_ok=True)


def _last_words(trial: Trial, code: int) -> str:
    lines = trial.file("log.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    words = next((line.strip() for line in reversed(lines) if line.strip()), "none (often it is a lack of memory)")
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"its process ended {how}; its last words: {words[:500]}"


def plain(value: object) -> str:
    """A parameter's value as it is shown: text without quotes, numbers with four digits at most."""
    return value if isinstance(value, str) else f"{value:.4g}" if isinstance(value, float) else str(value)
