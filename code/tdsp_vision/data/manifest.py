"""Bring a folder of labelled images into `data/<dataset>/` and write down what came in and what did not.

manifest.csv     path,label,group,cluster,sha256,dhash,width,height,bytes,source,license,attribution,converted,
                 source_sha256 (+ split where the set came divided, + metadata columns)
measures.csv     path and the `quality.MEASURES` of each image, as float
rejected.csv     path,kind,reason: every file of the source that is not in the manifest
dataset.json     name, classes in order, counts, source, licenses, seed
corrections.csv  path,label: what a person changed afterwards, an overlay on the manifest, which never changes. The
                 label EXCLUDE drops an image, any other may be new; the last line of an image counts. More columns
                 (who, why) are kept and not used.

`path` is relative to the dataset folder. `cluster` numbers copies of one picture; `group` joins images of one patient,
lesion, cluster or look: what belongs together must not be split between training and test. `sha256` and `bytes` are
of the file that lies there, `source_sha256` is of the file as it came; `converted` says why they differ.
In Python corrections are a plain dict, path to label.
"""

import hashlib
import re
from pathlib import Path

import numpy as np
import pandas as pd

from tdsp_vision.data.duplicates import connected_groups, find_duplicates
from tdsp_vision.data.folder import EXCLUDE, comparable, refuse_near_labels
from tdsp_vision.data.images import as_stored
from tdsp_vision.data.quality import MEASURES
from tdsp_vision.data.tables import COLUMNS, NUMBERS, file_sha256, link_or_copy, read_csv, read_json, write_csv
from tdsp_vision.files import file_lock, whole_file, write_json
from tdsp_vision.paths import DatasetPaths, shown

MARKS = ["file", "original", "miniature", *MEASURES]  # not for the manifest
# How exporters of augmented sets name what they made of one picture: Roboflow, and Augmentor.
EXPORTED = re.compile(r"^(.+)(?:_(?:jpe?g|png)\.rf\.[0-9a-f]{32}|_[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.\w+$")


def mark_duplicates(images: pd.DataFrame) -> pd.DataFrame:
    """Add cluster (copies of one picture), original (the file that is kept of them) and group (what belongs together).

    Kept is the copy with most pixels, then most bytes, then the first name. Groups join whatever shares a patient_id,
    lesion_id or cluster, looks alike (`duplicates`), or has one name before an exporter's ending, also through others.

    Args:
        images: of `scan_folder`.

    Returns:
        the same images, also with path, where they will lie in the dataset folder; in `attrs["look_alikes"]` pairs of
        files that look alike and are no copies, best first; in `attrs["sentences"]` what a reader of the report should
        know.
    """
    marked, which = images.reset_index(drop=True), pd.factorize(images.source_sha256)[0]
    first = marked.drop_duplicates("source_sha256")
    copies, alike, sentences = find_duplicates(np.stack(first.miniature.to_list()))
    marked["cluster"] = pd.factorize(copies[which])[0]
    best = marked.assign(pixels=marked.width * marked.height)
    best = best.sort_values(["pixels", "bytes", "file"], ascending=[False, False, True])
    marked["original"] = best.groupby("cluster").file.transform("first")
    stems = marked.label + "/" + marked.file.str.split("/").str[-1].str.extract(EXPORTED)[0].astype("str")
    keys = [marked.cluster, pd.Series(connected_groups(len(first), alike)[which]), stems]
    keys += [marked[name] for name in ("patient_id", "lesion_id") if name in marked]
    marked["group"] = connected_groups(len(marked), np.concatenate([_links(key) for key in keys]))
    marked["path"] = _stored_paths(marked)
    alike = alike[copies[alike[:, 0]] != copies[alike[:, 1]]]
    marked.attrs = {"sentences": sentences, "look_alikes": first.file.to_numpy(dtype=object)[alike].tolist()}
    return marked


def _links(keys: pd.Series) -> np.ndarray:
    """Pairs [m, 2] of each row and the first one with the same key; a missing key joins nothing."""
    known = keys.dropna()
    first = known.index.to_series().groupby(known).transform("first")
    return np.column_stack([known.index, first]).astype(int)


def _stored_paths(images: pd.DataFrame) -> list[str]:
    """Where the files of a source lie in the dataset folder: `wren/garden/1.tif` in `images/wren/garden__1.png`."""
    targets = {}  # by what they are called on a disk that ignores case
    for file, label, converted in zip(images.file, images.label, images.converted, strict=True):
        *folders, name = file.split("/")
        name = "__".join([*(part for part in folders if comparable(part, exact=True) != label), name])
        if ending := {"JPEG": ".jpg", "PNG": ".png"}.get(converted.rpartition(" to ")[2]):
            name = str(Path(name).with_suffix(ending))
        # file systems take names of 255 bytes, and a draft needs some for itself
        if f"{label}/{name}".casefold() in targets or len(name.encode()) > 220:
            name = f"{Path(name).stem[:50]}-{hashlib.sha256(file.encode()).hexdigest()[:8]}{Path(name).suffix[:8]}"
        targets[f"{label}/{name}".casefold()] = f"images/{label}/{name}"
    return list(targets.values())


def duplicates_to_reject(images: pd.DataFrame, remove: bool = True) -> pd.DataFrame:
    """Rows path, kind, reason for each image of `mark_duplicates` that repeats another one; none without `remove`.

    Copies under different labels are all left out, until a person decides: no program knows which label is right.

    Raises:
        ValueError: if more than a fifth of the images would be left out; smaller editions of a picture do not count.
    """
    rows, doubtful, pixels = [], [], dict(zip(images.file, images.width * images.height, strict=True))
    for _, copies in images.groupby("cluster") if remove else ():
        labels = " against ".join(sorted(set(copies.label)))
        for file, kept in zip(copies.file, copies.original, strict=True):
            others = ", ".join(name for name in copies.file if name != file)
            if " against " in labels:
                rows.append((file, "label conflict", f"duplicate of {others}; LABEL CONFLICT: {labels}"))
            elif file != kept:
                rows.append((file, "duplicate", f"duplicate of {kept}"))
            if file != kept and 2 * pixels[file] > pixels[kept]:
                doubtful.append(f"{file} repeats {kept}")
    if len(doubtful) > len(images) / 5:
        found = f"{len(doubtful)} of {len(images)} images would be left out as copies, more than a fifth"
        advice = "look at them, and remove them, or set REMOVE_DUPLICATES to False, which keeps them in groups"
        raise ValueError(f"{found}: {'; '.join(doubtful[:3])}; {advice}.")
    return pd.DataFrame(rows, columns=["path", "kind", "reason"])


def write_dataset(
    paths: DatasetPaths, images: pd.DataFrame, rejected: pd.DataFrame, source: Path, info: dict
) -> pd.DataFrame:
    """Bring the images to `images/<label>/`; write measures, rejections, manifest and `dataset.json`, in that order.

    Unchanged files are hard-linked where the disk allows it, else copied. One that is already there with the same
    content is left alone, so a killed run goes on where it stopped. The manifest is written after all images are in
    place; then files that the source no longer has are removed.

    Args:
        images: from `mark_duplicates`, without what is to be left out.
        rejected: path, kind, reason.
        source: the folder that `images.file` is relative to.
        info: what else `dataset.json` should say; `source` (one string) is required and may not change.

    Returns:
        the manifest.

    Raises:
        ValueError: if the dataset was made from another source or lies within its source (or the other way round).
    """
    _refuse_source(paths, source, info["source"])
    _bring(images, source, paths.root)
    named = {name: images[name].fillna("") if name in images else "" for name in ("license", "attribution")}
    manifest = images.drop(columns=MARKS).assign(source=info["source"], **named)
    columns = [*(name for name in COLUMNS if name in manifest), *(name for name in manifest if name not in COLUMNS)]
    manifest = manifest[columns].sort_values("path", ignore_index=True)
    counts = manifest.label.value_counts().sort_index().to_dict()
    facts = {"name": paths.name, "classes": list(counts), "counts": counts, "images": len(manifest)}
    facts |= {"rejected": len(rejected), "licenses": sorted(set(manifest.license) - {""})}
    write_csv(paths.measures, images[["path", *MEASURES]].sort_values("path"))
    write_csv(paths.rejected, rejected.sort_values("path"))
    write_csv(paths.manifest, manifest)
    write_json(paths.info, facts | info)
    for stale in set(paths.images.rglob("*")) - {paths.root / path for path in images.path}:
        if stale.is_file():
            stale.unlink()
    # on a disk that ignores case, the stale name may have been that of a new file
    _bring(images[[not (paths.root / path).is_file() for path in images.path]], source, paths.root)
    return manifest


def _refuse_source(paths: DatasetPaths, source: Path, name: str) -> None:
    before = read_json(paths.info)["source"] if paths.info.is_file() else name
    if before != name:
        found = f"DATASET_NAME is {paths.name!r}, and {shown(paths.root)} was made from {before!r}, not {name!r}"
        advice = f"choose another DATASET_NAME, or delete {shown(paths.info)} to make it anew (corrections.csv stays)"
        raise ValueError(f"{found}; {advice}.")
    ours, theirs = paths.images.resolve(), source.resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):  # files are deleted here, these might be originals
        found = f"SOURCE_PATH is {str(source)!r}, and the images would come to {shown(paths.images)}"
        raise ValueError(f"{found}; neither may lie within the other. Choose another DATA_DIR, or move the images.")


def _bring(images: pd.DataFrame, source: Path, root: Path) -> None:
    """Bring files to their places that are not there yet: themselves, or what `as_stored` makes of them."""
    for row in images.itertuples():
        target = root / row.path
        if target.is_file() and file_sha256(target) == row.sha256:
            continue
        if row.sha256 == row.source_sha256:
            link_or_copy(source / row.file, target)
        else:
            with whole_file(target) as draft:
                draft.write_bytes(as_stored((source / row.file).read_bytes()).content)


def load_manifest(paths: DatasetPaths, corrected=True, check=True) -> pd.DataFrame:
    """The manifest with the corrections of `corrections.csv` applied; ids stay text.

    Args:
        corrected: False gives the labels as they were given, and no image dropped.
        check: whether each image is listed, there and unchanged (size; sha256 of those newer than the dataset).

    Raises:
        ValueError: if there is no manifest, a line of it cannot be used, images are missing or changed, or the
            corrections leave less than two labels or one of them without an image.
    """
    if not paths.manifest.is_file():
        advice = f"first run the data acquisition notebook with DATASET_NAME {paths.name!r}"
        raise ValueError(f"There is no {shown(paths.manifest)}; {advice}.")
    manifest = read_csv(paths.manifest)
    _check_lines(paths, manifest)
    manifest = manifest.fillna({"license": "", "attribution": "", "converted": ""})
    if check:
        _check_files(paths, manifest)
    if not corrected:
        return manifest
    corrections = read_corrections(paths)
    if gone := sorted(set(corrections) - set(manifest.path)):
        print(f"{shown(paths.corrections)} names {len(gone)} images that are not in the manifest, such as {gone[0]}.")
    now = manifest.assign(label=corrected_labels(manifest, corrections))
    now = now[now.label != EXCLUDE].reset_index(drop=True)
    if lost := sorted(set(manifest.label) - set(now.label)):
        advice = "take some of them back, or remove that label from the source and run data acquisition again"
        raise ValueError(f"The corrections in {shown(paths.corrections)} leave no image of {lost[0]!r}; {advice}.")
    refuse_near_labels(now.label.unique())
    return now


def _check_lines(paths: DatasetPaths, manifest: pd.DataFrame) -> None:
    remedy = "correct it, or run the data acquisition notebook again"
    for name in ("path", "label", "group", "sha256", "width", "height", "bytes"):
        if name not in manifest:
            raise ValueError(f"{shown(paths.manifest)} needs a column {name!r}, parted by commas; {remedy}.")
        values = pd.to_numeric(manifest[name], "coerce") if name in NUMBERS else manifest[name]
        for row, value in manifest[name][values.isna()].fillna("").items():
            raise ValueError(f"Line {row + 2} of {shown(paths.manifest)} has {value!r} as its {name}; {remedy}.")
    for row, path in manifest.path[manifest.path.duplicated()].items():
        raise ValueError(f"Line {row + 2} of {shown(paths.manifest)} names {path} again; {remedy}.")


def _check_files(paths: DatasetPaths, manifest: pd.DataFrame) -> None:
    """Compare each file with its line: there, as long, and of the same content if it is newer than the dataset."""
    if len(manifest) != read_json(paths.info).get("images", len(manifest)):
        raise ValueError(f"{shown(paths.manifest)} is not as long as it was; run the data acquisition notebook again.")
    written, wrong = paths.info.stat().st_mtime, []
    for row in manifest.itertuples():
        file = paths.root / row.path
        fits = file.is_file() and file.stat().st_size == row.bytes
        if not fits or (file.stat().st_mtime > written and file_sha256(file) != row.sha256):
            wrong.append(row.path)
    if wrong:
        found = f"{len(wrong)} of {len(manifest)} images of {shown(paths.root)} are missing or changed"
        advice = "run the data acquisition notebook again, which brings them back"
        raise ValueError(f"{found}, such as {wrong[0]}; {advice}.")


def read_corrections(paths: DatasetPaths) -> dict[str, str]:
    """What `corrections.csv` says, path to label; empty if there is no such file.

    Raises:
        ValueError: if it is no table, or a line has no path or no label.
    """
    return dict(_lines(paths)[["path", "label"]].itertuples(index=False))


def write_corrections(paths: DatasetPaths, corrections: dict[str, str], opened: dict[str, str]) -> int:
    """Bring into `corrections.csv` what a person changed; returns the number of corrections it holds now.

    Only the difference between `opened` and `corrections` is written, so that decisions which another notebook or an
    editor wrote meanwhile stay. A file that says so already is not touched; lines that stay keep their other columns.

    Args:
        corrections: path to label as a person left them; without a label an image has no correction.
        opened: the same as they were when that person began; brought up to `corrections`, for the next call.

    Raises:
        ValueError: if the file that is there cannot be read.
    """
    now = {path: corrections.get(path) for path in [*opened, *corrections]}
    changed = pd.Series({path: label for path, label in now.items() if label != opened.get(path)}, dtype=object)
    with file_lock(paths.root / ".corrections.lock"):
        lines = _lines(paths)
        stay = lines[~lines.path.isin(changed.index) | (lines.label == lines.path.map(changed))]
        added = changed[changed.astype(bool) & ~changed.index.isin(stay.path)]
        if len(stay) < len(lines) or len(added):
            lines = pd.concat([stay, added.rename_axis("path").rename("label").reset_index()])
            write_csv(paths.corrections, lines)
    opened.clear()
    opened.update(corrections)
    return len(lines)


def corrected_labels(manifest: pd.DataFrame, corrections: dict[str, str]) -> pd.Series:
    """The label of each row of `manifest` (path, label) with `corrections` applied; EXCLUDE is one of them."""
    return manifest.path.map(corrections).astype(object).fillna(manifest.label).astype(manifest.label.dtype)


def corrections_table(manifest: pd.DataFrame, corrections: dict[str, str]) -> pd.DataFrame:
    """Rows path, given, now of each image whose label in `manifest` (as given) is not the one it has now."""
    table = manifest[["path"]].assign(given=manifest.label, now=corrected_labels(manifest, corrections))
    return table[table.given != table.now].reset_index(drop=True)


def _lines(paths: DatasetPaths) -> pd.DataFrame:
    if not paths.corrections.is_file():
        return pd.DataFrame({"path": [], "label": []}, dtype=str)
    lines = read_csv(paths.corrections)
    if not {"path", "label"} <= set(lines) or lines[["path", "label"]].isna().any(axis=None):
        raise ValueError(f"{shown(paths.corrections)} needs the columns 'path' and 'label', both filled in each line.")
    lines["label"] = lines.label.str.strip().replace(f"(?i)^{EXCLUDE}$", EXCLUDE, regex=True)
    return lines.drop_duplicates("path", keep="last")
