"""Does a finished run hold on images from another place? Its model, threshold and calibration as they are, new images.

In: a run folder, the images it was made from, and another folder in any form that stage 1 reads.
Out: `outputs/<dataset>/runs/<run>/elsewhere/<name of the folder>/`, with
metrics.json     source; said (whole sentences); left_out (reason to number of images); missing (classes without an
                 image); test, the run's own block of metrics, and elsewhere, the same of these images; scores (means
                 on both sides: score, of the positive class, else of the most likely one; happened, whether the image
                 is of that class; unfamiliar, whether `familiar` calls it so)
predictions.csv  path (relative to the other folder), label, predicted, score_<class>, familiar where the model has it
figure.png       what the scores promise and what came true, on the run's test and elsewhere
and the entry `elsewhere` in the run's `model_card.json`. Nothing else of the run is changed.
"""

import tempfile
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.calibration import CalibrationDisplay

from tdsp_vision.data.folder import comparable, scan_folder
from tdsp_vision.data.images import as_stored
from tdsp_vision.data.manifest import mark_duplicates
from tdsp_vision.data.quality import look_at
from tdsp_vision.data.tables import read_csv, read_json, write_csv
from tdsp_vision.errors import ParameterError
from tdsp_vision.files import whole_file, write_json
from tdsp_vision.modeling.backbones import load_classifier
from tdsp_vision.modeling.familiarity import UNFAMILIAR
from tdsp_vision.modeling.features import predict_files
from tdsp_vision.modeling.metrics import decide, evaluate
from tdsp_vision.modeling.runs import read_predictions
from tdsp_vision.paths import DatasetPaths, resolve, shown


def evaluate_elsewhere(run_folder: Path, dataset: DatasetPaths, source_path: str) -> tuple[dict, plt.Figure]:
    """Judge a run on another folder and write the files of the module's contract.

    Images that repeat one which the run learned or chose by (a copy, also resized, cropped or mirrored) are left out
    and counted, and so are those whose label is no class of the run. Labels are matched by name, whatever their case.
    Of a class without images nothing can be said: the others are judged as if it could not be chosen.

    Args:
        run_folder: `outputs/<dataset>/runs/<run>`.
        dataset: the run's own images.
        source_path: the other folder. An earlier result of a folder of that name is replaced.

    Returns:
        what `metrics.json` holds, and the figure.

    Raises:
        ParameterError: if no image is left, or those left are of one class only, which cannot be judged.
        ValueError: if the run's own images are not those that it learned from.
    """
    run, source = read_json(run_folder / "metrics.json"), resolve(source_path)
    images = mark_duplicates(scan_folder(source)[0])
    label = images.label.map(comparable).map({comparable(name): name for name in run["classes"]})
    repeated = _repeats(images, list(read_predictions(run_folder, dataset).query("split != 'test'").file))
    left_out = {"repeats an image that the run learned or chose by": int(repeated.sum())}
    left_out["its label is no class of the run"] = int((label.isna() & ~repeated).sum())
    images = images.assign(label=label)[label.notna() & ~repeated].reset_index(drop=True)
    columns = [k for k, name in enumerate(run["classes"]) if name in set(images.label)]
    classes = [run["classes"][k] for k in columns]
    missing = [name for name in run["classes"] if name not in classes]
    said = f"{len(images)} images of {', '.join(classes) or 'no class'}; left out: " + "; ".join(
        f"{count} ({reason})" for reason, count in left_out.items()
    )
    if len(classes) < 2:
        raise ParameterError(f"{shown(source)} leaves {said}. Two of the run's classes are needed: {run['classes']}.")
    table = _predict(run_folder, source, images, run)
    scores = table[[f"score_{name}" for name in classes]].to_numpy()
    rule = (run["positive_class"], run["test"]["threshold"])
    if rule[0] not in classes:
        rule = ("", [rule[1][k] if isinstance(rule[1], list) else 1.0 for k in columns])
    scores = scores / scores.sum(axis=1, keepdims=True)
    table["predicted"] = decide(scores, classes, *rule)
    block = evaluate(table.label.to_numpy(object), scores, classes, *rule, images.group.to_numpy())
    own = read_csv(run_folder / "predictions.csv").query("split == 'test'")
    sides = {side: _promise(one, run) for side, one in (("test", own), ("elsewhere", table))}
    found = {"source": str(source), "said": [f"{said}."], "left_out": left_out, "missing": missing}
    found["said"] += [f"No image is of {', '.join(missing)}: judged as if that could not be chosen."] * bool(missing)
    found |= {"test": run["test"], "elsewhere": block}
    found["scores"] = {side: one.mean().to_dict() for side, one in sides.items()}
    return found, _write(run_folder, source.name, found, table, sides)


def _repeats(images: pd.DataFrame, own_files: list[Path]) -> np.ndarray:
    """Whether each image shows the same picture as one of the run's own, bool [n]."""
    own = pd.DataFrame(look_at(own_files)).assign(
        label="", file=[f"{k}/{file.name}" for k, file in enumerate(own_files)]
    )
    both = mark_duplicates(pd.concat([own, images[list(own)]], ignore_index=True))
    return both.group[len(own) :].isin(both.group[: len(own)]).to_numpy()


def _predict(run_folder: Path, source: Path, images: pd.DataFrame, run: dict) -> pd.DataFrame:
    """Path, label, score_<class> and familiar of each image, in the form in which stage 1 would keep it."""
    model = load_classifier(run_folder / "model.keras")
    if len(model.outputs) > 1:
        outputs = [model.output[name] for name in ("scores", "familiar")]
        model = keras.Model(model.input, keras.layers.Concatenate(name="in_one")(outputs))
    with tempfile.TemporaryDirectory() as folder:
        files = [source / file for file in images.file]
        for row in np.flatnonzero(images.sha256 != images.source_sha256):
            content, files[row] = as_stored(files[row].read_bytes()).content, Path(folder, str(row))
            files[row].write_bytes(content)
        numbers = predict_files(model, files, run["image_size"])
    columns = [*(f"score_{name}" for name in run["classes"]), "familiar"][: numbers.shape[1]]
    return images[["file", "label"]].rename(columns={"file": "path"}).join(pd.DataFrame(numbers, columns=columns))


def _promise(table: pd.DataFrame, run: dict) -> pd.DataFrame:
    """Per image what `scores` in `metrics.json` is the mean of."""
    scores = table[[f"score_{name}" for name in run["classes"]]].set_axis(run["classes"], axis=1)
    score = scores[run["positive_class"]] if run["positive_class"] else scores.max(axis=1)
    happened = table.label == (run["positive_class"] or scores.idxmax(axis=1))
    found = pd.DataFrame({"score": score.clip(0, 1), "happened": happened})
    return found.assign(unfamiliar=table.familiar < UNFAMILIAR) if "familiar" in table else found


def _write(run_folder: Path, name: str, found: dict, table: pd.DataFrame, sides: dict[str, pd.DataFrame]) -> plt.Figure:
    """The files of the module's contract; returns the figure: calibration of both sides, and where their scores lie."""
    figure, (curve, bars) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for side, one in sides.items():
        CalibrationDisplay.from_predictions(one.happened, one.score, n_bins=10, ax=curve, name=side)
        bars.hist(one.score, np.linspace(0, 1, 21), density=True, histtype="step", lw=2, label=side)
    bars.set(xlabel="score", ylabel="density", title="Where the scores lie")
    plt.close(figure)
    folder, card = run_folder / "elsewhere" / name, read_json(run_folder / "model_card.json")
    with whole_file(folder / "figure.png") as draft:
        figure.savefig(draft, dpi=120)
    write_csv(folder / "predictions.csv", table)
    write_json(folder / "metrics.json", found)
    short = {side: {key: found[side][key] for key in ("n", "auc", "auc_ci", "ece")} for side in sides}
    short |= {key: found[key] for key in ("source", "missing", "scores")} | {
        "left_out": sum(found["left_out"].values())
    }
    write_json(run_folder / "model_card.json", card | {"elsewhere": card.get("elsewhere", {}) | {name: short}})
    return figure
