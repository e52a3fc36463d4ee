"""The files of a run with its data set and deployment, as the notebooks write them; small and always the same."""

import json
from pathlib import Path

import pandas as pd
from PIL import Image

from tdsp_vision.files import write_json
from tdsp_vision.paths import DatasetPaths, OutputPaths

RUN = "20260131-142501-svm-tiny"
KEYS = ("auc", "balanced_accuracy", "accuracy", "precision", "f1", "average_precision", "ece", "brier")


def documented_run(workspace: Path, classes=("benign", "malignant"), positive="malignant"):
    """Data set, outputs and run folder below `workspace`: 40 images, their labels dealt out in turn."""
    dataset, outputs = DatasetPaths(str(workspace / "data"), "tiny"), OutputPaths(str(workspace / "outputs"), "tiny")
    run = outputs.runs / RUN
    table = pd.DataFrame({"path": [f"images/{k}.jpg" for k in range(40)], "label": (list(classes) * 40)[:40]})
    table["group"], table["cluster"], table["sha256"] = table.index // 4, table.index, [f"{k:064x}" for k in range(40)]
    more = {"dhash": "0", "width": 64, "height": 48, "source": "here", "turned": "0", "source_sha256": table.sha256}
    owned = {"license": ["CC-BY"] * 34 + [""] * 6, "attribution": "A. Person"}
    splits = table[["path", "label", "group", "sha256"]].assign(
        split=["train"] * 16 + ["validation"] * 8 + ["test"] * 16
    )
    predictions = splits[["path", "split", "label"]].assign(predicted=classes[0], **dict.fromkeys(scores(classes), 0.5))
    for file, content in {
        dataset.manifest: table.assign(**more, **owned),
        run / "splits.csv": splits,
        run / "predictions.csv": predictions,
        run / "history.csv": pd.DataFrame({"c": [0.25, 0.5], "auc_mean": [0.7125, 0.6875]}),
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        content.to_csv(file, index=False)
    write_json(dataset.info, {"name": "tiny", "images": 40, "rejected": 1, "source": "a folder"})
    dataset.report.write_text(
        "# Data report\n\n![M](figures/m.png)\n\n- Who gave the labels, and how were they confirmed?\n"
    )
    dataset.dictionary.write_text("# Data dictionary\n")
    for number, name in enumerate(("metrics", "model_card", "parameters")):
        write_json(run / f"{name}.json", _documents(classes, positive)[number])
    for file in (run / "figures/confusion_matrix.png", run / "figures/new.png", dataset.figures / "m.png"):
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(file)
    (outputs.root / "latest.txt").write_text(RUN + "\n")
    _deployment(outputs.deployment)
    return dataset, outputs, run


def scores(classes) -> list[str]:
    return [f"score_{name}" for name in classes]


def _documents(classes, positive) -> tuple[dict, dict, dict]:
    keys = KEYS + (("sensitivity", "specificity") if positive else ("top5_accuracy",))
    block = {key: 0.5 + number / 100 for number, key in enumerate(keys)} | {"threshold": 0.437 if positive else None}
    block["intervals"] = {key: [block[key] - 0.1, block[key] + 0.1] for key in keys} | {"auc": None}
    each = {"n": 8, "recall": 0.5, "precision": 0.25, "specificity": 0.75, "auc": 0.625}
    known = {"column": "sex", "value": "female", "n": 7, "n_positive": 4, "note": "too few"}
    known |= dict.fromkeys(("auc", "accuracy", "low", "high", "sensitivity", "specificity"))
    test = block | {"n": 16, "per_class": dict.fromkeys(classes, each), "subgroups": [known]}
    test["confusion_matrix"] = [[8 - k] * len(classes) for k in range(len(classes))]
    test["best_confounder"] = {"measure": "file_kb", "auc": 0.5625, "auc_ci": [0.4375, 0.6875]}
    metrics = {"classifier": "svm", "backbone": "lite", "weights": "imagenet", "image_size": 32}
    metrics |= {"classes": list(classes), "positive_class": positive, "splits": {"train": 16, "validation": 8}}
    metrics |= {"validation": block | {"n": 8}, "test": test, "seconds": {"total": 12.5}}
    card = {"created": "2026-01-31T14:25", "purpose": "For tests.", "limits": "For nothing else.", "settings": {}}
    card |= {"decision": {"origin": "the best on validation"}, "trust": {"objections": ["The test is small."]}}
    card |= {"torn_groups": [{"kept_together": "cluster", "groups": 40, "torn_groups": 0, "torn_images": 0}]}
    return metrics, card | {"versions": {"python": "3.12"}}, {"SVM_C": [0.25, 0.5], "SEED": 7}


def _deployment(folder: Path) -> None:
    service = {"backend": "local", "what": "Backend local: a stand-in.", "run": RUN, "model": "birds", "version": "3"}
    speed = {"clients": 8, "requests": 321, "errors": 4, "p50_ms": 12.25, "p95_ms": 34.5, "requests_per_s": 160.0}
    write_json(folder / "service.json", service)
    write_json(folder / "parity.json", {"n": 40, "max_abs_diff": 2.5e-7, "tolerance": 1e-5})
    write_json(folder / "latency.json", {"backend": "local", "in_process_p50_ms": 9.75, "service": [speed]})


def change_json(file: Path, **entries) -> None:
    """Set some entries of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))
