"""Bring a folder of labelled images into `data/<dataset>/` and write down what came in and what did not.

manifest.csv   path,label,group,cluster,sha256,dhash,width,height,source,license,attribution,turned,source_sha256
               (+ metadata columns)
rejected.csv   path,reason: every file of the source that is not in the manifest
dataset.json   name, classes in order, counts, source, licenses, seed
corrections.csv  what a person changed afterwards (`corrections`), replayed by `load_manifest`

`path` is relative to the dataset folder. `cluster` numbers near-duplicates; `group` joins images of one patient,
lesion or cluster: what belongs together must not be split between training and test. `sha256` is of the file that
lies there, `source_sha256` of the file as it came: they differ where EXIF asked for a turn (`orientation`), and only
there, which `turned` names.
"""

import shutil
from pathlib import Path

import pandas as pd

from tdsp_vision.data.corrections import EXCLUDE, corrected_labels, read_corrections
from tdsp_vision.data.duplicates import connected_groups, find_duplicates
from tdsp_vision.data.images import upright_copy
from tdsp_vision.data.orientation import NOT_TURNED
from tdsp_vision.data.tables import file_sha256, read_csv, read_json, write_csv
from tdsp_vision.files import whole_file, write_json
from tdsp_vision.paths import DatasetPaths, shown

COLUMNS = ["path", "label", "group", "cluster", "sha256", "dhash", "width", "height"]
COLUMNS += ["source", "license", "attribution", "turned", "source_sha256"]
MARKS = ["original", "bits"]  # columns of `mark_duplicates` that do not go into the manifest


def mark_duplicates(images: pd.DataFrame, max_bits: int, look_alikes: pd.DataFrame | None = None) -> pd.DataFrame:
    """Add cluster, group, original, bits: what repeats what (`find_duplicates`), and what belongs together.

    The pairs of `look_alikes` (first, second: names of files) join a group, but are no duplicates.
    """
    found = find_duplicates(images.dhash.tolist(), max_bits)
    images = images.assign(cluster=found.cluster, original=images.file.to_numpy()[found.original], bits=found.bits)
    links = []
    if look_alikes is not None:
        names = pd.Index(images.file)
        links += zip(names.get_indexer(look_alikes["first"]), names.get_indexer(look_alikes.second), strict=True)
    for key in ("cluster", "patient_id", "lesion_id"):
        if key in images:
            known = images.reset_index(drop=True)[key].dropna()
            first = known.groupby(known).transform(lambda same: same.index[0])
            links += list(zip(known.index, first, strict=True))
    return images.assign(group=connected_groups(len(images), links))


def duplicates_to_reject(images: pd.DataFrame) -> pd.DataFrame:
    """Rows path, reason for each image of `mark_duplicates` that repeats an earlier one."""
    copies = images[images.file != images.original]
    labels = images.set_index("file").label
    reasons = [
        f"duplicate of {row.original} ({row.bits} of 256 bits differ)"
        + ("" if row.label == labels[row.original] else f"; LABEL CONFLICT: {row.label} against {labels[row.original]}")
        for row in copies.itertuples()
    ]
    return pd.DataFrame({"path": copies.file, "reason": reasons})


def write_dataset(
    paths: DatasetPaths, images: pd.DataFrame, rejected: pd.DataFrame, source: Path, info: dict
) -> pd.DataFrame:
    """Copy the images, upright, to `images/<label>/`; write manifest, rejections and `dataset.json`, in that order.

    A copy that is already there with the same content is left alone, so a killed run goes on where it stopped.
    The manifest is written after all images are in place; then copies that the source no longer has are removed.

    Args:
        images: from `mark_duplicates`, without what is to be left out.
        rejected: path, reason.
        source: the folder that `images.file` is relative to.
        info: what else `dataset.json` should say; `source` (one string) is required and may not change.

    Returns:
        the manifest.

    Raises:
        ValueError: if the dataset was made from another source or lies within its source (or the other way
            round), or two files would get one name.
    """
    _refuse_other_source(paths, info["source"])
    _refuse_overlap(paths, source)
    targets = images.file.map(copy_path)
    if targets.duplicated().any():
        raise ValueError(
            f"two files of the source would both become {targets[targets.duplicated()].iloc[0]}; rename one."
        )
    for row, target in zip(images.itertuples(), targets, strict=True):
        _store_once(source / row.file, paths.root / target, row.sha256, row.turned)
    manifest = _as_manifest(images, targets, info["source"])
    write_csv(paths.rejected, rejected.sort_values("path"))
    write_csv(paths.manifest, manifest)
    write_json(paths.info, _facts(paths.name, manifest, len(rejected)) | info)
    for stale in set(paths.images.rglob("*")) - {paths.root / target for target in targets}:
        if stale.is_file():
            stale.unlink()
    return manifest


def _as_manifest(images: pd.DataFrame, targets: pd.Series, source: str) -> pd.DataFrame:
    manifest = images.assign(path=targets, source=source).drop(columns=["file", *MARKS])
    for column in ("license", "attribution"):
        manifest[column] = manifest.get(column, pd.Series(index=manifest.index, dtype=object)).fillna("")
    manifest = manifest[COLUMNS + [column for column in manifest if column not in COLUMNS]]
    return manifest.sort_values("path", ignore_index=True)


def _facts(name: str, manifest: pd.DataFrame, rejected: int) -> dict:
    counts = manifest.label.value_counts().sort_index()
    return {
        "name": name,
        "classes": list(counts.index),
        "counts": {label: int(count) for label, count in counts.items()},
        "images": len(manifest),
        "rejected": rejected,
        "licenses": sorted(set(manifest.license) - {""}),
    }


def copy_path(file: str) -> str:
    """Where `wren/garden/1.jpg` of a source lies in the dataset folder: `images/wren/garden__1.jpg`."""
    label, name = file.split("/", maxsplit=1)
    return f"images/{label}/{name.replace('/', '__')}"


def load_manifest(paths: DatasetPaths, corrected: bool = True) -> pd.DataFrame:
    """The manifest with the corrections of `corrections.csv` applied; ids stay text.

    `corrected=False` gives the labels as they were given, and no image dropped.

    Raises:
        ValueError: if there is no manifest, or a correction has no label or an image that is not in it.
    """
    if not paths.manifest.is_file():
        raise ValueError(
            f"There is no {shown(paths.manifest)}; first run the data acquisition notebook with "
            f"DATASET_NAME {paths.name!r}."
        )
    manifest = read_csv(paths.manifest).fillna({"license": "", "attribution": ""})
    if not corrected:
        return manifest
    manifest = manifest.assign(label=corrected_labels(manifest, read_corrections(paths)))
    return manifest[manifest.label != EXCLUDE].reset_index(drop=True)


def _refuse_other_source(paths: DatasetPaths, source: str) -> None:
    if not paths.info.is_file():
        return
    before = read_json(paths.info)["source"]
    if before != source:
        raise ValueError(
            f"DATASET_NAME is {paths.name!r}, and {shown(paths.root)} was made from {before!r}, not {source!r}; "
            "choose another DATASET_NAME or delete that folder."
        )


def _refuse_overlap(paths: DatasetPaths, source: Path) -> None:
    """Copies that the source no longer has are deleted: in the source itself these would be somebody's originals."""
    ours, theirs = paths.images.resolve(), source.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        raise ValueError(
            f"SOURCE_PATH is {str(source)!r}, and the images would be copied to {shown(paths.images)}; neither may lie "
            "within the other. Choose another DATA_DIR, or move the images."
        )


def _store_once(origin: Path, target: Path, sha256: str, turned: str) -> None:
    if target.is_file() and file_sha256(target) == sha256:
        return
    with whole_file(target) as draft:
        if turned == NOT_TURNED:
            shutil.copyfile(origin, draft)
        else:
            upright_copy(origin, draft)
