"""Cells that end a notebook early, for tests of what is around it: a command, its settings, the files it leaves.

The one of modeling checks its parameters as ever, and then leaves a run of a tiny network; the one of deployment
exports and serves that, and leaves out parity, speed and updates under load.
"""

from pathlib import Path

import nbformat

MODELING = """
import keras
import numpy as np
import pandas as pd
from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.modeling.metrics import evaluate
from tdsp_vision.modeling.runs import model_card, new_run_id, predictions_table, save_run
from tdsp_vision.modeling.splits import leakage
from tdsp_vision.modeling.history import log_run
from tdsp_vision.paths import DatasetPaths, OutputPaths, resolve

get_ipython().input_transformers_cleanup.append(lambda lines: [])  # nothing of the cells below is run
dataset, outputs = DatasetPaths(DATA_DIR, DATASET_NAME), OutputPaths(OUTPUT_DIR, DATASET_NAME)
manifest = load_manifest(dataset)
classes, labels = sorted(manifest.label.unique()), manifest.label.to_numpy(dtype=object)
split = pd.Series("test", index=manifest.index)
scores = np.where(labels[:, None] == np.array(classes, dtype=object), 0.7, 0.3 / (len(classes) - 1))
threshold = 0.5 if POSITIVE_CLASS else None
block = evaluate(labels, scores, classes, POSITIVE_CLASS, threshold)
about = {"dataset": DATASET_NAME, "classifier": CLASSIFIER, "backbone": BACKBONE, "weights": WEIGHTS, "image_size": 32}
about |= {"classes": classes, "positive_class": POSITIVE_CLASS}
about["splits"] = {"train": 0, "validation": 0, "test": len(manifest)}
confounder = {"measure": "file_kb", "direction": "no difference", "training_auc": 0.5, "auc": 0.5, "auc_ci": [0.4, 0.6]}
metrics = about | {"validation": block, "test": block | {"subgroups": [], "best_confounder": confounder}}
metrics["seconds"] = {"featurize": 1.0, "train": 1.0, "total": 2.0}
card = model_card(about, dataset, leakage(manifest, split), threshold, {"objections": []}, {"seed": SEED})
tables = {"predictions": predictions_table(manifest, split, scores, labels, classes)}
tables["splits"] = manifest[["path", "label", "group", "sha256"]].assign(split=split)
tables["history"] = pd.DataFrame({"c": SVM_C, "auc_mean": 0.5})
layers = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(len(classes), activation="softmax")]
model = keras.Sequential([keras.Input([32, 32, 3]), *layers])
name = new_run_id(RUN_NAME or CLASSIFIER)
run = save_run(outputs, name, model, tables, {"metrics": metrics, "model_card": card, "parameters": {"DATA_DIR": DATA_DIR}}, {})
if not (resolve(OUTPUT_DIR) / "mlflow.db").exists():
    log_run(outputs, run)
"""
DEPLOYMENT = """


get_ipython().input_transformers_cleanup.append(lambda lines: [])
for name, content in {"request": {"instances": []}, "response": {"predictions": []}}.items():
    write_json(outputs.deployment / f"{name}.json", content)
write_json(outputs.deployment / "service.json", {"files": [], "classes": metrics["classes"], "what": reason})
if not KEEP_RUNNING:
    deployment.delete()
"""
# The cell behind which each stands, by a text in it.
ENDS = {
    "code/02_modeling/modeling.ipynb": ("check_schedule(SCHEDULE", MODELING),
    "code/03_deployment/deployment.ipynb": ("create_deployment(outputs,", DEPLOYMENT),
}


def end_early(root: Path) -> None:
    """Change both notebooks below `root`, a copy of the repository."""
    for name, (last, code) in ENDS.items():
        notebook = nbformat.read(root / name, as_version=4)
        (place,) = [number for number, cell in enumerate(notebook.cells) if last in cell.source]
        notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(code.strip()))
        nbformat.write(notebook, root / name)
