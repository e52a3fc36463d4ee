"""Does a finished run hold on images from another place? Its model, threshold and calibration as they are, new images.

In: a run folder, the images it was made from, and another folder in any form that stage 1 reads.
Out: `outputs/<dataset>/runs/<run>/elsewhere/<name of the folder>/`, which model card and exit report read, with
metrics.json     source; said (whole sentences); left_out (reason to number of images); missing (classes without an
                 image); test, the run's own block of metrics, and elsewhere, the same of these images; scores (means
                 on both sides: score, of the positive class, else of the most likely one; happened, whether the image
                 is of that class; unfamiliar, whether `familiar` calls it so)
predictions.csv  path (relative to the other folder), split ("elsewhere"), label, predicted, score_<class>, familiar
figure.png       what the scores promise and what came true, on the run's test and elsewhere
Nothing else of the run is changed.
"""

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.calibration import CalibrationDisplay

from tdsp_vision.data.folder import comparable, scan_folder
from tdsp_vision.data.images import as_stored
from tdsp_vision.data.manifest import mark_duplicates
from tdsp_vision.data.quality import look_at
from tdsp_vision.data.tables import read_json, write_csv
from tdsp_vision.errors import ParameterError
from tdsp_vision.files import whole_file, write_json
from tdsp_vision.modeling.backbones import load_classifier
from tdsp_vision.modeling.batches import image_batches
from tdsp_vision.modeling.familiarity import UNFAMILIAR
from tdsp_vision.modeling.metrics import decide, evaluate, side_by_side
from tdsp_vision.modeling.runs import predictions_table, read_predictions
from tdsp_vision.paths import DatasetPaths, resolve, shown


def evaluate_elsewhere(run_folder: Path, dataset: DatasetPaths, source_path: str) -> tuple:
    """Judge a run on another folder and write the files of the module's contract.

    Images that repeat one of the run's own (a copy, also resized, cropped or mirrored), its test included, or belong
    with such a one (the same patient or lesion), are left out and counted, and so are those of no class of the run.
    Labels are matched by name, whatever their case. Of a class without images nothing can be said: the others are
    judged as if it could not be chosen.

    Args:
        run_folder: `outputs/<dataset>/runs/<run>`.
        dataset: the run's own images.
        source_path: the other folder. An earlier result of a folder of that name is replaced.

    Returns:
        sentences; the metrics of the run's test and of these images side by side, as text; the figure.

    Raises:
        ParameterError: if there is no such folder, no image is left, or those left are of one class only.
        ValueError: if the run's own images are not those that it learned from, or it knows no `familiar`.
    """
    run, own = read_json(run_folder / "metrics.json"), read_predictions(run_folder, dataset)
    source = resolve(source_path)
    if not source.is_dir():
        raise ParameterError(f"SOURCE_PATH is {source_path!r}; allowed is a folder with images, and {source} is none.")
    positive, threshold = run["positive_class"], run["test"]["threshold"]
    images, left_out = _new_images(source, run["classes"], own.file)
    columns = [k for k, name in enumerate(run["classes"]) if name in set(images.label)]
    classes = [run["classes"][k] for k in columns]
    missing = [name for name in run["classes"] if name not in classes]
    reasons = "; ".join(f"{count} ({reason})" for reason, count in left_out.items())
    said = [f"{len(images)} images of {', '.join(classes) or 'no class'}; left out: {reasons}."]
    said += [f"No image is of {', '.join(missing)}: judged as if that could not be chosen."] * bool(missing)
    if len(classes) < 2:
        raise ParameterError(f"{shown(source)} leaves {said[0]} Two of the run's classes are needed: {run['classes']}.")
    if positive not in classes:
        shares = np.ones(len(run["classes"])) if positive else np.array(threshold)
        positive, threshold = "", shares[columns].tolist()
    answers = _answers(run_folder / "model.keras", source, images, run["image_size"])
    scores = answers["scores"][:, columns] / answers["scores"][:, columns].sum(axis=1, keepdims=True)
    predicted = decide(scores, classes, positive, threshold)
    block = evaluate(images.label.to_numpy(object), scores, classes, positive, threshold, images.group)
    named = images.assign(path=images.file)
    table = predictions_table(named, "elsewhere", predicted, run["classes"], answers["scores"], answers["familiar"])
    sides = {"test": _promises(own[own.split == "test"], run), "elsewhere": _promises(table, run)}
    figure, blocks = _figure(sides), {"test": run["test"], "elsewhere": block}
    found = {"source": str(source), "said": said, "left_out": left_out, "missing": missing} | blocks
    folder = run_folder / "elsewhere" / source.name
    write_csv(folder / "predictions.csv", table)
    write_json(folder / "metrics.json", found | {"scores": {side: one.mean().to_dict() for side, one in sides.items()}})
    with whole_file(folder / "figure.png") as draft:
        figure.savefig(draft, dpi=120)
    return [*said, f"written to {shown(folder)}"], side_by_side(blocks), figure


def _new_images(source: Path, classes: list[str], own_files: pd.Series) -> tuple[pd.DataFrame, dict[str, int]]:
    """Images of a folder with the run's labels, as `mark_duplicates` has them; how many were left out, by reason."""
    images = scan_folder(source)[0]
    own = pd.DataFrame(look_at(list(own_files))).assign(label="", file=[f"{k}/own" for k in range(len(own_files))])
    both = mark_duplicates(pd.concat([images, own], ignore_index=True))
    images, own = both[: len(images)], both[len(images) :]
    label = images.label.map(comparable).map({comparable(name): name for name in classes})
    repeated, foreign = images.group.isin(own.group), label.isna()
    left_out = {"repeats or belongs with an image of the run": int(repeated.sum())}
    left_out["its label is no class of the run"] = int((foreign & ~repeated).sum())
    return images.assign(label=label)[~foreign & ~repeated].reset_index(drop=True), left_out


def _answers(model_file: Path, source: Path, images: pd.DataFrame, image_size: int) -> dict[str, np.ndarray]:
    """Scores [n, K] and familiar [n, 1] of images in the form in which stage 1 would keep them."""
    with tempfile.TemporaryDirectory() as folder:
        files = [source / file for file in images.file]
        for row in np.flatnonzero(images.sha256 != images.source_sha256):
            content, files[row] = as_stored(files[row].read_bytes()).content, Path(folder, str(row))
            files[row].write_bytes(content)
        return load_classifier(model_file).predict(image_batches(files, image_size, 32), verbose=0)


def _promises(table: pd.DataFrame, run: dict) -> pd.DataFrame:
    """Per image what `scores` in `metrics.json` is the mean of."""
    scores = table[[f"score_{name}" for name in run["classes"]]].set_axis(run["classes"], axis=1)
    score = scores[run["positive_class"]] if run["positive_class"] else scores.max(axis=1)
    happened = table.label == (run["positive_class"] or scores.idxmax(axis=1))
    return pd.DataFrame({"score": score.clip(0, 1), "happened": happened, "unfamiliar": table.familiar < UNFAMILIAR})


def _figure(sides: dict[str, pd.DataFrame]) -> plt.Figure:
    """Calibration of both sides, and where their scores lie."""
    figure, (curve, bars) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for side, one in sides.items():
        CalibrationDisplay.from_predictions(one.happened, one.score, n_bins=10, ax=curve, name=side)
        bars.hist(one.score, np.linspace(0, 1, 21), density=True, histtype="step", lw=2, label=side)
    curve.set(xlabel="score", ylabel="share that came true", title="What they promise")
    bars.legend()
    bars.set(xlabel="score", ylabel="density", title="Where the scores lie")
    plt.close(figure)
    return figure
