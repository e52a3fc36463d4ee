"""A run with its data set and deployment, small and made by the package's own functions where the content matters."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tdsp_vision.data.tables import write_csv
from tdsp_vision.files import write_json
from tdsp_vision.modeling.metrics import evaluate
from tdsp_vision.modeling.runs import model_card
from tdsp_vision.modeling.splits import leakage
from tdsp_vision.modeling.trust import subgroup_table
from tdsp_vision.modeling.metrics import decide
from tdsp_vision.paths import DatasetPaths, OutputPaths

RUN = "20260131-142501-svm-tiny"
N = 96  # images
BLUE = (0, 114, 178)


def documented_run(
    workspace: Path, classes: tuple[str, ...] = ("benign", "malignant"), positive: str = "malignant"
) -> tuple[DatasetPaths, OutputPaths, Path]:
    """Data set, outputs and run folder below `workspace`; the same at every call. Labels are dealt out in turn."""
    dataset, outputs = DatasetPaths(str(workspace / "data"), "tiny"), OutputPaths(str(workspace / "outputs"), "tiny")
    run = outputs.runs / RUN
    manifest = _dataset(dataset, list(classes))
    split = pd.Series(np.repeat(["train", "validation", "test"], [32, 24, 40]))
    metrics, scores, predicted = _judged(manifest, split, list(classes), positive)
    about = {key: metrics[key] for key in ("dataset", "classifier", "classes", "positive_class")}
    trust = {"training AUC": "0.987", "objections": ["The test has few images."]}
    threshold = metrics["test"]["threshold"]
    card = model_card(about, dataset, leakage(manifest, split), threshold, trust, {"seed": 0, "sensitivity": 0.0})
    write_json(run / "metrics.json", metrics)
    write_json(run / "model_card.json", {"run_id": RUN} | card)
    write_json(run / "parameters.json", {"DATASET_NAME": "tiny", "SVM_C": [0.25, 0.5], "SEED": 7})
    write_csv(run / "splits.csv", manifest[["path", "label", "group", "sha256"]].assign(split=split))
    table = manifest[["path"]].assign(split=split, label=manifest.label, predicted=predicted)
    write_csv(
        run / "predictions.csv", table.assign(**{f"score_{name}": scores[:, k] for k, name in enumerate(classes)})
    )
    write_csv(run / "history.csv", pd.DataFrame({"c": [0.25, 0.5], "auc_mean": [0.7125, 0.6875]}))
    for name in ("confusion_matrix", "something_new"):
        _figure(run / "figures" / f"{name}.png")
    (outputs.root / "latest.txt").write_text(RUN + "\n")
    _deployment(outputs.deployment, list(classes))
    return dataset, outputs, run


def _dataset(dataset: DatasetPaths, classes: list[str]) -> pd.DataFrame:
    number = np.arange(N)
    labels = [classes[k % len(classes)] for k in number]
    table = pd.DataFrame({"path": [f"images/{name}/{k}.jpg" for k, name in enumerate(labels)], "label": labels})
    table = table.assign(group=number // 4, cluster=number, sha256=[f"{k:064x}" for k in number], dhash="0")
    table = table.assign(width=64 + number % 2, height=48, source="here", license=np.where(number < 90, "CC-BY", ""))
    table = table.assign(attribution=np.where(number < 90, "A. Person", ""), turned="0", source_sha256=table.sha256)
    table = table.assign(patient_id=[f"P{k // 4}" for k in number], sex=["female", "male"] * (N // 2))
    counts = table.label.value_counts().sort_index()
    write_csv(dataset.manifest, table)
    reasons = ["duplicate of a/1.jpg (0 of 256 bits differ)", "damaged: it ends early"]
    write_csv(dataset.rejected, pd.DataFrame({"path": ["a/2.jpg", "a/3.jpg"], "reason": reasons}))
    info = {"name": "tiny", "classes": sorted(classes), "counts": {k: int(n) for k, n in counts.items()}, "images": N}
    write_json(dataset.info, info | {"rejected": 2, "licenses": ["CC-BY"], "source": "here"})
    question = "- Who gave the labels, and how were they confirmed?\n"
    report = f"# Data report: tiny\n\n![Measures](figures/measures.png)\n\n## Open questions\n\n{question}"
    dataset.report.write_text(report, encoding="utf-8")
    dataset.dictionary.write_text("# Data dictionary: tiny\n\n| column | type |\n| --- | --- |\n", encoding="utf-8")
    _figure(dataset.figures / "measures.png")
    return table


def _judged(manifest: pd.DataFrame, split: pd.Series, classes: list[str], positive: str):
    """metrics.json, scores [n, K] and predicted [n]."""
    labels, groups = manifest.label.to_numpy(dtype=object), manifest.group.to_numpy()
    right = np.array([classes.index(label) for label in labels])
    scores = np.random.default_rng(3).dirichlet(np.ones(len(classes)), N) + 0.3 * np.eye(len(classes))[right]
    scores /= scores.sum(axis=1, keepdims=True)
    threshold = 0.437 if positive else None
    predicted = decide(scores, classes, positive, threshold)
    masks = {side: (split == side).to_numpy() for side in ("validation", "test")}
    blocks = {
        side: evaluate(labels[mask], scores[mask], classes, positive, threshold, groups[mask])
        for side, mask in masks.items()
    }
    test = masks["test"]
    rows = subgroup_table(manifest[test], scores[test], classes, positive, threshold, groups[test])
    rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    confounder = {"measure": "file_kb", "direction": "no difference", "training_auc": 0.625, "auc": 0.5625}
    blocks["test"] |= {"subgroups": rows, "best_confounder": confounder | {"auc_ci": [0.4375, 0.6875]}}
    about = {"dataset": "tiny", "classifier": "svm", "backbone": "lite", "weights": "imagenet", "image_size": 32}
    counts = {side: int((split == side).sum()) for side in ("train", "validation", "test")}
    about |= {"classes": classes, "positive_class": positive, "splits": counts}
    return about | blocks | {"seconds": {"total": 12.5}}, scores, predicted


def _deployment(folder: Path, classes: list[str]) -> None:
    service = {"backend": "local", "what": "Backend local: a stand-in.", "run": RUN, "model": "birds", "version": "3"}
    write_json(folder / "service.json", service | {"files": [], "classes": classes})
    write_json(folder / "parity.json", {"n": N, "max_abs_diff": 2.5e-7, "tolerance": 1e-5, "borderline": 1})
    speed = {"clients": 8, "requests": 321, "errors": 4, "p50_ms": 12.25, "p95_ms": 34.5, "requests_per_s": 160.0}
    write_json(folder / "latency.json", {"backend": "local", "in_process_p50_ms": 9.75, "service": [speed]})


def _figure(file: Path) -> None:
    """2,500 shades of red and yellow, and a corner that is blue."""
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((50, 50, 4), 255, np.uint8)
    pixels[..., 1], pixels[..., 2] = 4 * np.arange(50), np.arange(50)[:, None]
    pixels[:2, :2, :3] = BLUE
    Image.fromarray(pixels).save(file)


def change_json(file: Path, **entries) -> None:
    """Set some entries of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
