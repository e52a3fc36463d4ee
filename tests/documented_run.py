"""The files of a run with its data set and deployment, as the notebooks write them; small and always the same."""

from pathlib import Path

import pandas as pd
from PIL import Image

from tdsp_vision.files import write_json
from tdsp_vision.paths import DatasetPaths, OutputPaths

RUN = "20260131-142501-svm-tiny"
KEYS = ("auc", "balanced_accuracy", "accuracy", "precision", "f1", "average_precision", "ece")


def documented_run(workspace: Path, classes=("benign", "malignant"), positive="malignant"):
    """Data set, outputs and run folder below `workspace`: 40 images, their labels dealt out in turn."""
    dataset, outputs = DatasetPaths(str(workspace / "data"), "tiny"), OutputPaths(str(workspace / "outputs"), "tiny")
    run, labels = outputs.runs / RUN, (list(classes) * 40)[:40]
    table = pd.DataFrame({"path": [f"images/{k}.jpg" for k in range(40)], "label": labels, "group": range(40)})
    table = table.assign(group=table.group // 4, sha256=[f"{k:064x}" for k in range(40)])
    splits = table.assign(split=["train"] * 16 + ["validation"] * 8 + ["test"] * 16)
    known = {"cluster": 0, "dhash": 0, "width": 64, "height": 48, "bytes": 9, "source": "here", "attribution": "Ann"}
    tables = {
        dataset.manifest: table.assign(**known, license=["CC-BY"] * 34 + [""] * 6, source_sha256="0"),
        run / "splits.csv": splits,
        run / "predictions.csv": splits.assign(predicted=classes[0], **{f"score_{name}": 0.5 for name in classes}),
        run / "history.csv": pd.DataFrame({"c": [0.25, 0.5], "auc_mean": [0.7125, 0.6875]}),
    }
    for file, content in tables.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        content.to_csv(file, index=False)
    asked = "- Who gave the labels, and how were they confirmed?\n"
    dataset.report.write_text(f"# Data report\n\n![M](figures/m.png)\n\n{asked}")
    dataset.dictionary.write_text("# Data dictionary\n")
    write_json(dataset.info, {"name": "tiny", "images": 40, "rejected": 1, "source": "a folder"})
    for name, content in _jsons(classes, positive).items():
        write_json((outputs.deployment if name in ("service", "parity", "latency") else run) / f"{name}.json", content)
    for file in (run / "figures/confusion_matrix.png", run / "figures/new.png", dataset.figures / "m.png"):
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), "red").save(file)
    (outputs.root / "latest.txt").write_text(RUN + "\n")
    return dataset, outputs, run


def _jsons(classes, positive) -> dict[str, dict]:
    keys = KEYS + (("sensitivity", "specificity") if positive else ("top5_accuracy",))
    block = {key: 0.5 + number / 100 for number, key in enumerate(keys)} | {
        "threshold": 0.437 if positive else [0.5] * len(classes)
    }
    block["intervals"] = {key: [block[key] - 0.1, block[key] + 0.1] for key in keys} | {"auc": None}
    known = {"column": "sex", "value": "female", "n": 7, "n_positive": 4, "auc": None, "accuracy": None}
    test = block | {"n": 16, "subgroups": [known | {"note": "too few"}], "no_interval": "Of one group only."}
    test["per_class"] = dict.fromkeys(classes, {"n": 8, "recall": 0.5, "precision": 0.25, "specificity": 0.75})
    test["confusion_matrix"] = [[8 - k] * len(classes) for k in range(len(classes))]
    test["best_confounder"] = {"measure": "file_kb", "auc": 0.5625, "auc_ci": [0.4375, 0.6875]}
    test |= {"unfamiliar": 0.0625, "metadata": {"columns": ["age"], "said": "age alone: AUC 0.622"}}
    elsewhere = {"n": 9, "auc": 0.6875, "auc_ci": [0.5625, 0.8125], "ece": 0.125}
    other = {"elsewhere": elsewhere, "scores": {"elsewhere": {"unfamiliar": 0.25}}, "left_out": {"a": 4, "b": 3}}
    metrics = {"classifier": "svm", "backbone": "lite", "weights": "imagenet", "image_size": 32, "test": test}
    metrics |= {"classes": list(classes), "positive_class": positive, "splits": {"train": 16, "validation": 8}}
    card = {"created": "2026-01-31T14:25", "purpose": "For tests.", "limits": "For nothing else.", "settings": {}}
    card |= {"decision": {"origin": "the best on validation"}, "trust": {"objections": ["The test is small."]}}
    card |= {"torn_groups": [{"kept_together": "cluster", "groups": 40, "torn_groups": 0, "torn_images": 0}]}
    speed = {"clients": 8, "requests": 321, "errors": 4, "p50_ms": 12.25, "p95_ms": 34.5, "requests_per_s": 160.0}
    return {
        "metrics": metrics | {"validation": block | {"n": 8}, "seconds": {"total": 12.5}},
        "model_card": card | {"versions": {"python": "3.12"}},
        "parameters": {"SVM_C": [0.25, 0.5], "SEED": 7},
        "service": {"backend": "local", "what": "A stand-in.", "run": RUN, "model": "birds", "version": "3"},
        "parity": {"n": 40, "max_abs_diff": 2.5e-7, "familiar_max_abs_diff": 3e-6, "tolerance": 1e-5},
        "elsewhere/clinic/metrics": other,
        "latency": {"backend": "local", "in_process_p50_ms": 9.75, "service": [speed]},
    }
