"""Does a finished run hold on images from another place? Its model, threshold and calibration as they are, new images.

In: a run folder, the images it was made from, and another folder in any form that stage 1 reads.
Out: `outputs/<dataset>/runs/<run>/elsewhere/<name of the folder>/`, with
metrics.json     source; left_out (reason to number of images); missing (classes without an image); test, the run's own
                 block of metrics, and elsewhere, the same of these images; scores (the columns of `_promise`, means)
predictions.csv  path (relative to the other folder), label, predicted, score_<class>, familiar where the model has it
figure.png       what the scores promise and what came true, on the run's test and elsewhere
and the entry `elsewhere` in the run's `model_card.json`. Nothing else of the run is changed.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.calibration import CalibrationDisplay

from tdsp_vision.data.duplicates import find_duplicates, miniature
from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.images import as_stored, quiet_decoders, read_image
from tdsp_vision.data.labels import comparable
from tdsp_vision.data.manifest import mark_duplicates
from tdsp_vision.data.tables import read_csv, read_json, write_csv
from tdsp_vision.errors import ParameterError
from tdsp_vision.files import whole_file, write_json
from tdsp_vision.modeling.backbones import load_classifier
from tdsp_vision.modeling.familiarity import in_one_output
from tdsp_vision.modeling.features import predict_files
from tdsp_vision.modeling.metrics import decide, evaluate
from tdsp_vision.paths import DatasetPaths, shown


def evaluate_elsewhere(run_folder: Path, dataset: DatasetPaths, source: Path) -> dict:
    """Judge a run on another folder; returns what `metrics.json` holds and writes the files of the module's contract.

    Images that repeat one which the run learned or chose by (a copy, also resized, cropped or mirrored) are left out
    and counted, and so are those whose label is no class of the run. Labels are matched by name, whatever their case.
    Of a class without images nothing can be said: the others are judged as if it could not be chosen.

    Args:
        run_folder: `outputs/<dataset>/runs/<run>`.
        dataset: the run's own images.
        source: the other folder. An earlier result of a folder of that name is replaced.

    Raises:
        ParameterError: if no image is left, or those left are of one class only, which cannot be judged.
    """
    run, seen = read_json(run_folder / "metrics.json"), read_csv(run_folder / "splits.csv").query("split != 'test'")
    images = mark_duplicates(scan_folder(source)[0])
    label = images.label.map(comparable).map({comparable(one): one for one in run["classes"]})
    repeated = _repeats(images, [dataset.root / path for path in seen.path], seen.sha256)
    left_out = {"repeats an image that the run learned or chose by": int(repeated.sum())}
    left_out |= {"its label is no class of the run": int((label.isna() & ~repeated).sum())}
    images = images.assign(label=label)[label.notna() & ~repeated].reset_index(drop=True)
    missing = [one for one in run["classes"] if one not in set(images.label)]
    classes = [one for one in run["classes"] if one not in missing]
    if len(classes) < 2:
        raise ParameterError(
            f"SOURCE_PATH is {shown(source)}, which leaves {len(images)} images of {len(classes)} of the run's classes "
            f"({', '.join(run['classes'])}), and two classes are needed. Left out: {left_out}."
        )
    table = _predict(run_folder, source, images, run)
    scores = table[[f"score_{one}" for one in classes]].to_numpy()
    scores = scores / scores.sum(axis=1, keepdims=True)
    rule = (run["positive_class"], run["test"]["threshold"]) if run["positive_class"] in classes else ("", None)
    table["predicted"] = decide(scores, classes, *rule)
    block = evaluate(table.label.to_numpy(object), scores, classes, *rule, images.group.to_numpy())
    own = read_csv(run_folder / "predictions.csv").query("split == 'test'")
    sides = {side: _promise(one, run) for side, one in (("test", own), ("elsewhere", table))}
    found = {"source": str(source), "left_out": left_out, "missing": missing, "test": run["test"], "elsewhere": block}
    found |= {"scores": {side: one.mean().to_dict() for side, one in sides.items()}}
    _write(run_folder, source.name, found, table, sides)
    return found


def side_by_side(found: dict) -> pd.DataFrame:
    """What `evaluate_elsewhere` found as a table: each metric on the run's test and elsewhere, with its interval."""
    sides = {side: pd.DataFrame(found[side]["intervals"], index=["low", "high"]).T for side in ("test", "elsewhere")}
    for side, table in sides.items():
        table.insert(0, side, [found[side][metric] for metric in table.index])
        table.loc["ece", side] = found[side]["ece"]
    return pd.concat(sides.values(), axis=1).astype(float)


def _repeats(images: pd.DataFrame, own_files: list[Path], own_digests: pd.Series) -> np.ndarray:
    """Whether each image shows the same picture as one of the run's own, bool [n]."""
    with quiet_decoders(), ThreadPoolExecutor() as pool:
        own = [miniature(small) for _, small in pool.map(read_image, own_files)]
    same = images.sha256.isin(own_digests).to_numpy(copy=True)
    others = np.flatnonzero(~same)
    found = find_duplicates(np.stack([*own, *images.miniature.iloc[others]]))
    for families in (found.copies, found.look_alikes):
        same[others] |= np.isin(families[len(own) :], families[: len(own)])
    return same


def _predict(run_folder: Path, source: Path, images: pd.DataFrame, run: dict) -> pd.DataFrame:
    """Path, label, score_<class> and familiar of each image, in the form in which stage 1 would keep it."""
    with tempfile.TemporaryDirectory() as folder:
        files = [source / file for file in images.file]
        for row in np.flatnonzero(images.sha256 != images.source_sha256):
            content, files[row] = as_stored(files[row].read_bytes()).content, Path(folder, str(row))
            files[row].write_bytes(content)
        model = in_one_output(load_classifier(run_folder / "model.keras"))
        numbers = predict_files(model, files, run["image_size"])
    columns = [*(f"score_{one}" for one in run["classes"]), "familiar"][: numbers.shape[1]]
    return images[["file", "label"]].rename(columns={"file": "path"}).join(pd.DataFrame(numbers, columns=columns))


def _promise(table: pd.DataFrame, run: dict) -> pd.DataFrame:
    """Per image: score, of the positive class, else of the most likely one; happened, whether it is of that class;
    unfamiliar, whether it is rarer than one in twenty of the run's source, where the model says so.
    """
    scores = table[[f"score_{one}" for one in run["classes"]]].set_axis(run["classes"], axis=1)
    named, positive = scores.idxmax(axis=1), run["positive_class"]
    score = scores[positive] if positive else scores.max(axis=1)
    found = pd.DataFrame({"score": score.clip(0, 1), "happened": table.label == (positive or named)})
    return found.assign(unfamiliar=table.familiar < 0.05) if "familiar" in table else found


def _write(run_folder: Path, name: str, found: dict, table: pd.DataFrame, sides: dict[str, pd.DataFrame]) -> None:
    """The files of the module's contract, and a figure: calibration of both sides, and where their scores lie."""
    figure, (curve, bars) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for side, one in sides.items():
        CalibrationDisplay.from_predictions(one.happened, one.score, n_bins=10, ax=curve, name=side)
        bars.hist(one.score, np.linspace(0, 1, 21), density=True, histtype="step", lw=2, label=side)
    bars.set(xlabel="score", ylabel="density", title="Where the scores lie")
    plt.close(figure)
    with whole_file(run_folder / "elsewhere" / name / "figure.png") as draft:
        figure.savefig(draft, dpi=120)
    write_csv(run_folder / "elsewhere" / name / "predictions.csv", table)
    write_json(run_folder / "elsewhere" / name / "metrics.json", found)
    card = read_json(run_folder / "model_card.json")
    short = {side: {key: found[side][key] for key in ("n", "auc", "auc_ci", "ece")} for side in sides}
    short |= {key: found[key] for key in ("source", "left_out", "missing", "scores")}
    write_json(run_folder / "model_card.json", card | {"elsewhere": card.get("elsewhere", {}) | {name: short}})
