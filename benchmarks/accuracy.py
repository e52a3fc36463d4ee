"""How accurate are the ways to a classifier over several seeds on real photos?

    python benchmarks/accuracy.py [--photos ../shared/data] [--seeds N] [--only isic2019_256] [--way three] [--fresh]

Every run is the modeling notebook itself, run headless; a seed draws its own split, the same for all ways. Kept are
the runs in `outputs/benchmarks/accuracy`: what is there already is not run again (`--fresh` starts over), so a run that
was stopped goes on. Printed, and written as Markdown there, are each seed's metrics, their means and the minutes of
featurizing and training. Without a positive class the balanced accuracy by the SVMs' plain margins, not calibrated,
stands beside that of the run. For two classes there is the difference of the AUCs to the first way with its paired
95 % interval: all models judge the same test images.
"""

import os
import shutil
from pathlib import Path

import click
import numpy as np
import pandas as pd
from sklearn.metrics import balanced_accuracy_score

from tdsp_vision.data.tables import read_json, write_csv
from tdsp_vision.files import write_text
from tdsp_vision.modeling.backbones import build_backbone, flip_average, member_sizes, pooled_layers
from tdsp_vision.modeling.features import FeatureCache
from tdsp_vision.modeling.metrics import paired_auc_difference
from tdsp_vision.modeling.svm import build_svm, svm_as_dense
from tdsp_vision.paths import NOTEBOOKS, ROOT, DatasetPaths, OutputPaths
from tdsp_vision.runner import run_notebook

# What differs from the notebook's defaults. Insects are much like ImageNet's, so a short and gentle training is best,
# they are small in pictures larger than 224 px, so looking closer pays, and they have an up, so only left and right
# are taken for the same. docs/improving_accuracy.md says what was chosen when.
THREE = "efficientnet_lite0+efficientnet_lite1+efficientnet_lite2"
DATASETS = {
    "isic2019_256": {"POSITIVE_CLASS": "malignant"},
    "isic2019_diagnoses": {"POSITIVE_CLASS": ""},
    "ants_bees": {"POSITIVE_CLASS": "", "VALIDATION_FRACTION": 0.1},
}
REFINEMENT = {"CLASSIFIER": "dnn", "DROPOUT": 0.5, "EPOCHS": 15}
LESIONS = REFINEMENT | {"AUGMENT": "dermoscopy", "TEST_VIEWS": "flips", "LAYER_DECAY": 1.0}
INSECTS = REFINEMENT | {"AUGMENT": "photos", "LAYER_DECAY": 0.8, "EPOCHS": 6, "LEARNING_RATE": 0.00005}
LOOKING_CLOSER = {"IMAGE_SIZE": 320, "TEST_VIEWS": "mirror"}
RECIPES = {
    "isic2019_256": {
        "svm": {},
        "three": {"BACKBONE": THREE, "IMAGE_SIZE": 256},
        "dnn": LESIONS | {"FINE_LABELS": "diagnosis"},
    },
    "isic2019_diagnoses": {"svm": {}, "three": {"BACKBONE": THREE}, "dnn": LESIONS},
    "ants_bees": {
        "svm": LOOKING_CLOSER,
        "three": LOOKING_CLOSER | {"BACKBONE": THREE},
        "dnn": INSECTS | LOOKING_CLOSER,
    },
}
WAYS = ["svm", "three", "dnn"]
SEEDS = {"isic2019_256": 5, "isic2019_diagnoses": 5, "ants_bees": 10}  # 99 test images are few: each is a whole percent
COLUMNS = ["auc", "balanced_accuracy", "accuracy", "sensitivity", "specificity", "ece"]


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), default=ROOT.parent / "shared" / "data")
@click.option("--seeds", type=int, help=f"for each data set; else {SEEDS}")
@click.option("--only", type=click.Choice(list(DATASETS)), multiple=True)
@click.option("--way", "ways", type=click.Choice(WAYS), multiple=True, default=WAYS, show_default=True)
@click.option("--fresh", is_flag=True, help="forget the runs that are there")
@click.option("--into", type=click.Path(path_type=Path, exists=True), help="page that gets the tables, at its mark")
def main(photos: Path, seeds: int | None, only: tuple, ways: tuple, fresh: bool, into: Path | None) -> None:
    """Run what is missing, then print and write the tables."""
    workspace = ROOT / "outputs" / "benchmarks" / "accuracy"
    if fresh:
        shutil.rmtree(workspace, ignore_errors=True)
    os.environ["TDSP_WORKSPACE"] = str(workspace)
    reports = []
    for name in only or DATASETS:
        outputs = OutputPaths("outputs", name)
        prepare(name, photos / name.replace("diagnoses", "256"), workspace)
        rows = []
        for seed in range(seeds or SEEDS[name]):
            runs = {way: finished_run(outputs, name, way, seed) for way in ways}
            rows.append(compared(seed, runs))
            print(pd.DataFrame(rows[-1:]).to_string(index=False), flush=True)
        title = f"#### {name}, {len(rows)} seeds"
        reports.append(f"{title}\n\n{settings_in_words(name, ways)}\n\n{as_markdown(pd.DataFrame(rows))}\n")
    report = "### Ways to a classifier\n\n" + "\n".join(reports)
    write_text(workspace / "accuracy.md", report)
    print(f"\n{report}")
    if into:
        put_into(into, "accuracy", report)


def put_into(page: Path, name: str, text: str) -> None:
    """Replace what stands between the marks `<!-- name -->` and `<!-- /name -->` of a page."""
    before, found, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not (found and end):
        raise click.ClickException(f"{page} has no marks <!-- {name} --> and <!-- /{name} -->; add them.")
    write_text(page, f"{before}{found}{text.strip()}\n{end}{after}")


def prepare(name: str, source: Path, workspace: Path) -> None:
    """Read the photos into the workspace by the first notebook, once, with what their file names say of them."""
    if (workspace / "data" / name / "manifest.csv").is_file():
        return
    copy = workspace / "photos" / name
    shutil.copytree(source, copy, dirs_exist_ok=True)
    # ISIC_0000007_MNV.jpg: the last part is the diagnosis.
    files = pd.Series(sorted(file.relative_to(copy).as_posix() for file in copy.glob("*/ISIC_*.jpg")), dtype=str)
    diagnosis = files.str.extract(r"_([A-Z]+)\.jpg$")[0]
    if name == "isic2019_diagnoses":
        for file, label in zip(files, diagnosis, strict=True):
            (copy / label).mkdir(exist_ok=True)
            (copy / file).rename(copy / label / Path(file).name)
        for label in ("benign", "malignant"):
            (copy / label).rmdir()
    elif len(files):
        write_csv(copy / "metadata.csv", pd.DataFrame({"path": files, "diagnosis": diagnosis}))
    parameters = {"DATASET_NAME": name, "SOURCE": "folder", "SOURCE_PATH": str(copy)}
    run_notebook(NOTEBOOKS["data"], parameters, workspace / "notebooks" / f"{name}-data.ipynb")


def finished_run(outputs: OutputPaths, dataset: str, way: str, seed: int) -> Path:
    """The run folder of one seed and one way; trained now if it is not there."""
    name = f"{way}-seed{seed}"
    found = sorted(outputs.runs.glob(f"*-{name}/metrics.json"))
    if not found:
        settings = {"DATASET_NAME": dataset, "SEED": seed, "RUN_NAME": name, "COMPARE": "none"}
        settings |= DATASETS[dataset] | RECIPES[dataset][way]
        run_notebook(NOTEBOOKS["model"], settings, outputs.notebooks / f"{name}.ipynb")
        found = sorted(outputs.runs.glob(f"*-{name}/metrics.json"))
    return found[-1].parent


def compared(seed: int, runs: dict[str, Path]) -> dict:
    """One row: the test metrics and minutes of each way, and how far its AUC is from the first way's."""
    row, first = {"seed": seed}, next(iter(runs))
    for way, folder in runs.items():
        metrics = read_json(folder / "metrics.json")
        row |= {f"{way} {key}": metrics["test"][key] for key in COLUMNS if metrics["test"].get(key) is not None}
        if metrics["classifier"] == "svm" and not metrics["positive_class"]:
            row[f"{way} balanced_accuracy by plain margins"] = by_plain_margins(folder)
        row[f"{way} minutes"] = (metrics["seconds"]["train"] + metrics["seconds"]["featurize"]) / 60
        if way != first and len(metrics["classes"]) == 2:
            difference, (low, high) = _auc_difference(runs[first], folder)
            row |= {f"{way} - {first}": difference, f"{way} - {first}, 95 %": f"{low:+.3f} to {high:+.3f}"}
    return row


def _auc_difference(first: Path, second: Path) -> tuple[float, list[float]]:
    """Second minus first, on the same test images, with its paired interval."""
    tests = [pd.read_csv(folder / "predictions.csv").query("split == 'test'") for folder in (first, second)]
    groups = pd.read_csv(first / "splits.csv").set_index("path").group.loc[tests[0].path].to_numpy()
    positive = read_json(first / "metrics.json")["positive_class"] or sorted(tests[0].label.unique())[-1]
    scores = [test[f"score_{positive}"].to_numpy() for test in tests]
    return paired_auc_difference((tests[0].label == positive).to_numpy(), *scores, groups)


def by_plain_margins(folder: Path) -> float:
    """Balanced accuracy of a run's SVMs on its test if each image is called by its highest margin, not calibrated.

    The rule of a run without a positive class is measured by this: it should find no less, with scores that are
    probabilities as well. Of several networks the margins are averaged.
    """
    asked, splits = read_json(folder / "parameters.json"), pd.read_csv(folder / "splits.csv")
    tried, outputs = pd.read_csv(folder / "history.csv"), OutputPaths("outputs", asked["DATASET_NAME"])
    root, test = DatasetPaths("data", asked["DATASET_NAME"]).root, (splits.split == "test").to_numpy()
    targets, _ = pd.factorize(splits.label, sort=True)
    members, margins = asked["BACKBONE"].split("+"), 0
    for name, size in zip(members, member_sizes(members, asked["IMAGE_SIZE"])[1], strict=True):
        network = pooled_layers(build_backbone(name, size, asked["WEIGHTS"], asked["IMAGE_SIZE"]))
        cache = FeatureCache(outputs.features, flip_average(network, asked["TEST_VIEWS"]), asked["IMAGE_SIZE"])
        features = cache.features([root / path for path in splits.path])
        own = tried[tried.member == name] if "member" in tried else tried
        svm = build_svm(own.c[own.log_loss.idxmin()], asked["SEED"]).fit(features[~test], targets[~test])
        kernel, bias = svm_as_dense(svm)
        margins = margins + features[test] @ kernel + bias
    return float(balanced_accuracy_score(targets[test], margins.argmax(axis=1)))


def settings_in_words(dataset: str, ways: tuple) -> str:
    """What differs from the notebook's defaults, in one line."""
    settings = {"all": DATASETS[dataset]} | {way: RECIPES[dataset][way] for way in ways}
    lists = {way: ", ".join(f"{key} {value!r}" for key, value in recipe.items()) for way, recipe in settings.items()}
    return "; ".join(f"{way}: {text or 'defaults'}" for way, text in lists.items()) + "."


def as_markdown(rows: pd.DataFrame) -> str:
    """Seeds as rows, their mean below, to three digits (minutes to one)."""
    mean = rows.mean(numeric_only=True).to_dict() | {"seed": "mean"}
    table = pd.concat([rows.astype({"seed": object}), pd.DataFrame([mean])], ignore_index=True)
    lines = [list(table.columns), ["---"] * len(table.columns)]
    for row in table.to_dict("records"):
        lines.append([_shown(name, value) for name, value in row.items()])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(name: str, value: object) -> str:
    if isinstance(value, float) and np.isnan(value):  # a column that has no mean
        return ""
    if not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if name.endswith("minutes") else f"{value:.3f}"


if __name__ == "__main__":
    main()
