"""Toys of the three notebooks: the real parameters cells, and a body that leaves the same files within a second.

What a toy is to do besides is told by parameters that it does not need otherwise: BATCH_SIZE 13 raises an error,
14 ends the kernel, 15 waits for ever; WEIGHT_DECAY is how many seconds the run takes, in tens.
"""

import json
import sys
import time
from pathlib import Path

import nbformat
import psutil

from tdsp_vision.paths import NOTEBOOKS

CHECK = 'from tdsp_vision.parameters import check_parameters\n\ncheck_parameters("{stage}", globals())'
DATA = """
from tdsp_vision.files import write_json
from tdsp_vision.paths import DatasetPaths

write_json(DatasetPaths(DATA_DIR, DATASET_NAME).info, {"counts": {"cat": IMAGES_PER_CLASS, "dog": 2}})
"""
MODEL = """
import os
import time
from datetime import datetime

from IPython.display import display
from tdsp_vision.files import whole_folder, write_json, write_text
from tdsp_vision.paths import OutputPaths

outputs = OutputPaths(OUTPUT_DIR, DATASET_NAME)
write_text(outputs.root / "kernel.pid", str(os.getpid()))
run = outputs.runs / f"{datetime.now():%Y%m%d-%H%M%S}-{RUN_NAME or CLASSIFIER}"
with whole_folder(run) as draft:
    time.sleep(10 * WEIGHT_DECAY + (1000 if BATCH_SIZE == 15 else 0))
    if BATCH_SIZE == 13:
        {}["missing image"]
    if BATCH_SIZE == 14:
        os._exit(3)
    auc = None if POSITIVE_CLASS == "" else 1 - DROPOUT
    good = {"auc": auc, "balanced_accuracy": IMAGE_SIZE / 10000, "accuracy": 0.5 + SEED / 100}
    test = good | {"auc_ci": [0.4, 0.75]} if auc else good
    seconds = {"train": 2.0, "total": 4.0}
    write_json(draft / "metrics.json", {"classifier": CLASSIFIER, "validation": good, "test": test, "seconds": seconds})
with open(outputs.root / "executions.txt", "a") as log:
    log.write(run.name.split("-", 2)[2] + "\\n")
display({"application/x.tdsp-run+json": {"run": run.name}, "text/plain": run.name}, raw=True)
"""
DEPLOY = """
from tdsp_vision.files import write_json
from tdsp_vision.paths import OutputPaths

folder = OutputPaths(OUTPUT_DIR, DATASET_NAME).deployment
answers = [{"label": "cat", "scores": [0.375, 0.625], "valid": True}, {"label": "", "scores": [0, 0], "valid": False}]
write_json(folder / "request.json", {"instances": []})
write_json(folder / "response.json", {"predictions": answers})
what = f"a toy serves {RUN}"
write_json(folder / "service.json", {"files": ["cat/a.jpg", "b/x.jpg"], "classes": ["cat", "dog"], "what": what})
"""


def toy_notebooks(folder: Path) -> dict[str, Path]:
    """Write the three toys into `folder`; stage -> notebook."""
    made = {}
    for stage, body in {"data": DATA, "model": MODEL, "deploy": DEPLOY}.items():
        real = json.loads(NOTEBOOKS[stage].read_text(encoding="utf-8"))
        (source,) = ["".join(c["source"]) for c in real["cells"] if "parameters" in c["metadata"].get("tags", [])]
        sources = [source, CHECK.format(stage=stage), body.strip()]
        toy = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        toy.metadata.update(real["metadata"])
        toy.cells[0].metadata["tags"] = ["parameters"]
        made[stage] = folder / f"{stage}.ipynb"
        nbformat.write(toy, made[stage])
    return made


def toy_command(folder: Path, *arguments: str) -> list[str]:
    """Command line of the program with toys, written into `folder`, in place of the notebooks."""
    if not (folder / "model.ipynb").exists():
        toy_notebooks(folder)
    script = f"""
import sys
from pathlib import Path
from tdsp_vision import paths, runner
runner.write_history = lambda *_: None  # toys leave nothing for it
paths.NOTEBOOKS.update({{stage: Path({str(folder)!r}) / f"{{stage}}.ipynb" for stage in paths.NOTEBOOKS}})
from tdsp_vision.__main__ import main
main(sys.argv[1:])
"""
    return [sys.executable, "-c", script, *arguments]


def wait_until_ended(pid: int) -> None:
    """Wait until a process that is nobody's child any more has ended; nobody may have asked how (a zombie)."""
    end = time.monotonic() + 60
    while psutil.pid_exists(pid):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return
        except psutil.NoSuchProcess:
            return
        assert time.monotonic() < end, f"process {pid} goes on"
        time.sleep(0.05)
