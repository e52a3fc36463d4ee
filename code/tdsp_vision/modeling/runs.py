"""The run folder: everything one training leaves behind, written whole or not at all.

outputs/<dataset>/runs/<run_id>/  splits.csv history.csv predictions.csv metrics.json model_card.json parameters.json
                                  model.keras figures/*.png
outputs/<dataset>/latest.txt      id of the run that was finished last
"""

import contextlib
import itertools
import platform
import re
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.data.tables import read_csv, read_json, write_csv
from tdsp_vision.files import whole_folder, write_json, write_text
from tdsp_vision.paths import DatasetPaths, OutputPaths, shown

PACKAGES = ("tensorflow", "keras", "scikit-learn", "numpy", "pillow")
SHARED = ["path", "split", "label"]  # columns of both tables of a run
LIMITS = "Scores hold for images like those in the dataset, taken in the same way."
OF_PATIENTS = "Not a medical device: not tested on patients, not to be used for any decision about them. "


def new_run_id(name: str) -> str:
    """`20260131-142501-<name>`, by local time; what a folder's name should not hold becomes `-`."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-" + re.sub(r"[^\w.-]+", "-", name)[:80]


def predictions_table(manifest: pd.DataFrame, split, predicted, classes: list[str], scores, familiar) -> pd.DataFrame:
    """Columns path, split, label, predicted, score_<class>, familiar for each image; scores [n, K], the others [n]."""
    table = manifest[["path"]].assign(split=split, label=manifest.label, predicted=predicted)
    table = table.join(pd.DataFrame(scores, manifest.index, [f"score_{name}" for name in classes]))
    return table.assign(familiar=familiar)


def model_card(
    about: dict, dataset: DatasetPaths, leaks: pd.DataFrame, threshold, trust: dict, settings: dict, origin: str
) -> dict:
    """What `metrics.json` cannot say: purpose, limits, origin (Mitchell et al. 2019, arXiv:1810.03993).

    Args:
        about: the head of `metrics.json`.
        leaks: from `leakage`, as evidence that the test was apart; patients are spoken of only where it knows some.
        threshold: from `choose_threshold`, or a person.
        trust: the notebook's answers to "how far can this be trusted?", and objections as a list.
        settings: seed and grouping, for whoever repeats the run.
        origin: by which rule, or by whom, the threshold was chosen on validation.
    """
    patients = {"patient_id", "lesion_id"} & set(leaks.kept_together)
    return {
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "purpose": "Teaching and research on image classification.",
        "limits": (OF_PATIENTS if patients else "") + LIMITS,
        "model": about,
        "decision": {"threshold": threshold, "origin": f"{origin}; the test was not used"},
        "data": read_json(dataset.info),
        "torn_groups": leaks.to_dict("records"),
        "trust": trust,
        "settings": settings,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def save_run(outputs: OutputPaths, run_id: str, model, tables: dict, documents: dict, figures: dict) -> Path:
    """Write a run folder and make it the latest; returns it.

    Args:
        run_id: from `new_run_id`; `-2`, `-3`, … is added where another run has taken it, so no training is lost.
        model: keras.Model, from float32 [n, S, S, 3], 0 to 255, to scores [n, K].
        tables: name to pd.DataFrame, splits, history and predictions; each becomes `<name>.csv`.
        documents: name to dict, metrics, model_card (which gets the `run_id`) and parameters; each becomes
            `<name>.json`.
        figures: name to a picture of `plots.as_picture`; each becomes `figures/<name>.png`.
    """
    for number in itertools.count(1):
        folder = outputs.runs / (run_id if number == 1 else f"{run_id}-{number}")
        documents = documents | {"model_card": documents["model_card"] | {"run_id": folder.name}}
        with contextlib.suppress(FileExistsError), whole_folder(folder) as draft:
            for name, table in tables.items():
                write_csv(draft / f"{name}.csv", table)
            for name, document in documents.items():
                write_json(draft / f"{name}.json", document)
            (draft / "figures").mkdir()
            for name, picture in figures.items():
                (draft / "figures" / f"{name}.png").write_bytes(picture.data)
            model.save(draft / "model.keras")
            break
    write_text(outputs.latest, folder.name + "\n")
    return folder


def find_run(outputs: OutputPaths, run: str) -> Path:
    """Folder of a run: an id, "latest", or "best".

    The best has the highest AUC on validation (balanced accuracy decides between equal ones, then the newest) among
    the runs with the same images, labels and sides as the newest one: an AUC on other images is another question.

    Raises:
        ValueError: if there is no such run; the message lists those there are.
    """
    known = sorted(path.name for path in outputs.runs.glob("[!.]*") if (path / "metrics.json").is_file())
    if not known:
        raise ValueError(f"There is no run in {shown(outputs.runs)}; run the modeling notebook first.")
    if run == "best":
        return _best(outputs, known)
    latest = outputs.latest.read_text(encoding="utf-8").strip() if outputs.latest.is_file() else ""
    run_id = latest if run == "latest" else run
    if run_id not in known:
        named = f", and {shown(outputs.latest)} names {latest!r}, which is not there" if run == "latest" else ""
        raise ValueError(f"RUN is {run!r}{named}; allowed are 'latest', 'best' and {', '.join(map(repr, known))}.")
    return outputs.runs / run_id


def read_predictions(folder: Path, dataset: DatasetPaths | None = None) -> pd.DataFrame:
    """`predictions.csv` of a run, with the sha256 of each image; labels stay text, also "007" and "None".

    Args:
        folder: of the run.
        dataset: compare the images with those that lie there now, and add their absolute paths as `file`.

    Raises:
        ValueError: if the table is not whole or knows other classes than `metrics.json`; if images are not the same.
    """
    scores = [f"score_{name}" for name in read_json(folder / "metrics.json")["classes"]]
    columns = {"predictions.csv": ["predicted", *scores, "familiar"], "splits.csv": ["sha256"]}
    tables = [read_csv(folder / name).reindex(columns=[*SHARED, *own]) for name, own in columns.items()]
    table = pd.merge(*(one.astype(dict.fromkeys(SHARED, object)) for one in tables), how="outer")
    numbers = [*scores, "familiar"]
    table[numbers] = table[numbers].apply(pd.to_numeric, errors="coerce")
    for name in table.columns[table.isna().any()]:
        found = f"{shown(folder / 'predictions.csv')} has no {name!r} for each image of splits.csv"
        raise ValueError(f"{found}: one of them, or metrics.json, was edited or cut off; name another run.")
    if dataset:
        now = load_manifest(dataset, corrected=False).set_index("path").sha256
        if changed := list(table.path[table.path.map(now) != table.sha256]):
            found = f"Of the {len(table)} images of run {folder.name}, {len(changed)} are missing or changed"
            raise ValueError(f"{found}, such as {changed[0]}; bring them back by data acquisition, or train a new run.")
        table["file"] = [dataset.root / path for path in table.path]
    return table


def _best(outputs: OutputPaths, known: list[str]) -> Path:
    metrics = {name: read_json(outputs.runs / name / "metrics.json") for name in known}
    tasks = {name: (metrics[name]["positive_class"], _images_and_sides(outputs.runs / name)) for name in known}
    alike = [name for name in known if tasks[name] == tasks[known[-1]]]
    sides = {name: metrics[name]["validation"] for name in alike}
    best = max(alike, key=lambda name: (sides[name]["auc"], sides[name]["balanced_accuracy"], name))
    print(f"{best} is the best of the {len(alike)} runs (of {len(known)}) with the images and sides of the newest one")
    return outputs.runs / best


def _images_and_sides(run_folder: Path) -> str:
    splits = run_folder / "splits.csv"
    return read_csv(splits).sort_values("path").to_csv(index=False) if splits.is_file() else run_folder.name
