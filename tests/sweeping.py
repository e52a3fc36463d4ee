"""What the tests of sweeps share: a toy of the modeling notebook, and how often each of its runs was made."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat

PARAMETERS = """
DATASET_NAME = "toys"  # names the folders
DATA_DIR = "data"  # where images lie
OUTPUT_DIR = "outputs"  # where results go
CLASSIFIER = "svm"  # svm | dnn
IMAGE_SIZE = 224  # pixels
SVM_C = [0.0001, 0.001]  # candidates
SCHEDULE = "cosine"  # text, with commas at times
DROPOUT = 0.2  # a share
EPOCHS = 0  # how many epochs to pretend
FAIL = "no"  # no | error | die
SECONDS = 0.0  # how long it takes
RUN_NAME = ""  # names the run
"""

RUN = """
import json, os, time
from datetime import datetime
from tdsp_vision.paths import OutputPaths

outputs = OutputPaths(OUTPUT_DIR, DATASET_NAME)
outputs.training.mkdir(parents=True, exist_ok=True)
checkpoint = outputs.training / f"{RUN_NAME}.npz"
for epoch in range(1, EPOCHS + 1):
    checkpoint.write_text("weights")
    row = {"epoch": epoch, "val_accuracy": 1 - DROPOUT, "checkpoint": str(checkpoint)}
    with open(os.environ["TDSP_EPOCH_LOG"], "a") as log:
        log.write(json.dumps(row) + "\\n")
    time.sleep(0.5)
with whole_folder(outputs.runs / f"{datetime.now():%Y%m%d-%H%M%S}-{RUN_NAME}") as draft:
    time.sleep(SECONDS)
    if FAIL == "error":
        {}["missing image"]
    if FAIL == "die":
        os._exit(3)
    good = {"auc": 1 - DROPOUT, "balanced_accuracy": IMAGE_SIZE / 1000}
    seconds = {"featurize": 1.0, "train": 2.0, "total": 4.0}
    write_json(draft / "metrics.json", {"validation": good, "test": {"auc": 0.5}, "seconds": seconds})
with open(outputs.root / "executions.txt", "a") as log:
    log.write(RUN_NAME + "\\n")
"""


def toy_notebooks(folder: Path) -> dict[str, Path]:
    """Write a data and a model notebook that take a second."""
    made = {}
    for stage, cells in {"data": ['SOURCE = "sample"  # x'], "model": [PARAMETERS.strip(), RUN.strip()]}.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.cells[0].metadata["tags"] = ["parameters"]
        made[stage] = folder / f"{stage}.ipynb"
        nbformat.write(notebook, made[stage])
    return made


SCRIPT = """
import sys
from pathlib import Path
from tdsp_vision import paths
paths.NOTEBOOKS.clear()
paths.NOTEBOOKS.update({stage: Path(path) for stage, path in %r.items()})
from tdsp_vision.sweeps import commands, plan
planned = plan.plan_sweep
plan.plan_sweep = lambda *given: planned(*given, history=False)
commands.sweep(prog_name="sweep")
"""


def start_sweep(notebooks: dict[str, Path], workspace: Path, *arguments: str) -> subprocess.Popen:
    """The sweep command over toy notebooks, in a process of its own; without run history, which costs seconds."""
    script = SCRIPT % {stage: str(path) for stage, path in notebooks.items()}
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TDSP_WORKSPACE": str(workspace)},
    )


def executions(workspace: Path) -> Counter:
    """How often each run folder was made."""
    file = workspace / "outputs/toys/executions.txt"
    return Counter(file.read_text().split()) if file.is_file() else Counter()


def runs(workspace: Path) -> list[str]:
    """Names of the run folders, without date and time; drafts are listed with their dot."""
    return sorted(
        path.name if path.name.startswith(".") else path.name.split("-", 2)[2]
        for path in (workspace / "outputs/toys/runs").iterdir()
    )


def read_json(file: Path) -> dict:
    return json.loads(file.read_text())


def finish(process: subprocess.Popen) -> tuple[int, str]:
    """Exit code and printed text of a process, once it has ended."""
    printed, _ = process.communicate(timeout=240)
    return process.returncode, printed
