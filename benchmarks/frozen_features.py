"""Which features of a frozen network serve a linear SVM best? Shown for five seeds on real photos.

    python benchmarks/frozen_features.py [--photos ../shared/data] [--dataset isic2019_256] [--seeds 5] [--into PAGE]

Compared are the last layer, averages of many layers (`pooled`), both seen from four mirrored sides (`flips`), and
pooled features of two resolutions side by side. Every recipe gets the splits, the values of C and the choice of C that
the modeling notebook has. Printed are the AUC by cross-validation on the training side, by which a recipe may be
chosen, and the AUC on the test, which only reports; and, image by image, what each adds to the first on the test.
"""

import os
import tempfile
from pathlib import Path

import click
import keras
import numpy as np
import pandas as pd
from accuracy import prepare, put_into
from tdsp_vision.modeling.tta import flip_average

from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.modeling.backbones import build_backbone, pooled_layers
from tdsp_vision.modeling.features import FeatureCache
from tdsp_vision.modeling.metrics import auc
from tdsp_vision.modeling.splits import split_manifest
from tdsp_vision.modeling.svm import best_c, build_svm, svm_margins, sweep_c
from tdsp_vision.parameters import declared_parameters
from tdsp_vision.paths import NOTEBOOKS, ROOT, DatasetPaths

BACKBONE, SIZE, LARGER = "efficientnet_lite0", 224, 320


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), default=ROOT.parent / "shared" / "data")
@click.option("--dataset", "name", default="isic2019_256")
@click.option("--seeds", default=5)
@click.option("--into", type=click.Path(path_type=Path, exists=True), help="page that gets the table, at its mark")
def main(photos: Path, name: str, seeds: int, into: Path | None) -> None:
    """Print one line for each recipe, means over the seeds."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TDSP_WORKSPACE"] = folder
        prepare(name, photos / name, Path(folder))
        dataset = DatasetPaths("data", name)
        manifest = load_manifest(dataset)
        features = all_features([dataset.root / path for path in manifest.path], Path(folder) / "features")
    table = pd.DataFrame([measured(features, manifest, seed) for seed in range(seeds)])
    rows = []
    for recipe in features:
        gains = table[f"{recipe} test"] - table["last test"]
        row = {"recipe": recipe, "features": features[recipe].shape[1]}
        row |= {f"AUC, {side}": f"{table[f'{recipe} {side}'].mean():.3f}" for side in ("training side", "test")}
        rows.append(row | {"against the last layer": f"{gains.mean():+.3f}, better in {(gains > 0).sum()} of {seeds}"})
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(map(str, row.values()) for row in rows)]
    report = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    print(report)
    if into:
        put_into(into, "frozen features", report)


def all_features(files: list[Path], cache: Path) -> dict[str, np.ndarray]:
    """Recipe to features float32 [n, d]."""
    found = {}
    for size in (SIZE, LARGER):
        backbone = build_backbone(BACKBONE, size)
        last, pooled = backbone.output_shape[1], pooled_layers(backbone)
        for views, words in (("none", ""), ("flips", ", flips")):
            rows = FeatureCache(cache, flip_average(pooled, views), size).features(files)
            at = "" if size == SIZE else f" at {size} px"
            found |= {f"last{at}{words}": rows[:, -last:], f"pooled{at}{words}": rows}
        keras.utils.clear_session()
    for words in ("", ", flips"):
        found[f"pooled at both sizes{words}"] = np.hstack(
            [found[f"pooled{words}"], found[f"pooled at {LARGER} px{words}"]]
        )
    return found


def measured(features: dict[str, np.ndarray], manifest: pd.DataFrame, seed: int) -> dict[str, float]:
    """AUC of each recipe on both sides, for the split and the folds of one seed."""
    default = {name: parameter.default for name, parameter in declared_parameters(NOTEBOOKS["model"]).items()}
    fractions = default["TEST_FRACTION"], default["VALIDATION_FRACTION"]
    split = split_manifest(manifest, "auto", *fractions, seed)
    train, test = ((split == side).to_numpy() for side in ("train", "test"))
    targets, groups = pd.factorize(manifest.label, sort=True)[0], manifest.group.to_numpy()
    row = {}
    for recipe, x in features.items():
        sweep = sweep_c(x[train], targets[train], groups[train], default["SVM_C"], seed)
        svm = build_svm(best_c(sweep), seed).fit(x[train], targets[train])
        row |= {
            f"{recipe} training side": sweep.auc_mean.max(),
            f"{recipe} test": auc(targets[test], svm_margins(svm, x[test])),
        }
    return row


if __name__ == "__main__":
    main()
