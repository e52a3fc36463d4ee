"""A folder of labelled images: which of its files can be used, what they are called, and why others cannot be used.

birds/wren/*.jpg, birds/robin/*.jpg      one sub-folder per label, the smallest thing a person can make
birds/train/wren/*.jpg, birds/val/…      a division (train, val, test, fold1, …) above the labels, kept as `split`
birds/images/*.jpg, birds/labels.csv     a flat folder with a table of labels (`labels`)
birds/metadata.csv                       optional: a column that names the files, and any others, such as
                                         patient_id, lesion_id, age, license, attribution
"""

import os
import re
from pathlib import Path

import pandas as pd

from tdsp_vision.data.corrections import EXCLUDE
from tdsp_vision.data.images import RejectedImage
from tdsp_vision.data.labels import (
    comparable,
    label_problem,
    read_metadata,
    refuse_near_labels,
    split_name,
    table_of_labels,
)
from tdsp_vision.data.quality import look_at
from tdsp_vision.data.tables import COLUMNS
from tdsp_vision.paths import SAMPLE_DATA, resolve, shown

METADATA_FILE = "metadata.csv"
ENDINGS = ("jpg", "jpeg", "png", "gif", "bmp", "webp", "tif", "tiff", "heic", "heif", "avif", "ppm", "jp2", "dcm")


def find_source(source: str, source_path: str, dataset_name: str) -> Path:
    """The folder that SOURCE "sample" (`sample_data/<dataset_name>`) or "folder" (`source_path`) stands for.

    Raises:
        ValueError: if there is no such folder.
    """
    folder = SAMPLE_DATA / dataset_name if source == "sample" else resolve(source_path)
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}, which SOURCE {source!r} stands for; name one with images.")
    return folder


def scan_folder(
    source: Path, labels: str = "", label_column: str = "label", quiet: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Look at every file below `source`, each read and decoded once; sentences on what was found are printed.

    Args:
        source: the folder, in one of the forms above; files and folders that start with a dot are passed over.
        labels: table of labels, in, below or beside `source`; "" looks for one where no sub-folder names a label.
        label_column: its column of labels; columns of 0 and 1, one for each label, are understood as well.
        quiet: no progress bar and no sentences.

    Returns:
        images: file (relative to `source`), label, split (where the set came divided), the fields of `ImageFacts`,
        the `MEASURES`, miniature (see `duplicates`), and the metadata columns;
        rejected: path (relative to `source`), kind, reason. Each file is in exactly one of the two. Links to folders,
        sub-folders that became no label and lines of tables without a file are in `rejected`, too.

    Raises:
        ValueError: if fewer than two labels have a usable image, if labels differ in case, blanks or Unicode form
            only, or a table cannot be used.
    """
    files, rejected, folders = _list_files(source)
    places, level = _places(files)
    table = None
    if labels or not any(label for label, _ in places.values()):
        table, lines, sentence = table_of_labels(source, labels, label_column, list(places))
        rejected |= lines
        files = [name for name in files if name != table.attrs["file"]]
        places = {name: (table.label.get(name, ""), places[name][1]) for name in files}
        if not quiet:
            print(sentence)
    problems = {name: _label_reason(places[name][0], table is not None) for name in files if name != METADATA_FILE}
    usable = [name for name, problem in problems.items() if not problem]
    rejected = {name: ("no label", why) for name, why in problems.items() if why} | rejected
    rows = []
    for name, found in zip(usable, look_at([source / name for name in usable], quiet), strict=True):
        if isinstance(found, RejectedImage):
            rejected[name] = (found.kind, str(found))
        else:
            rows.append({"file": name, "label": places[name][0], "split": places[name][1]} | found)
    images = pd.DataFrame(rows or {"file": [], "label": [], "split": []})
    if table is None:
        rejected |= _lost_labels(folders, level, set(images.label), rejected)
    _check_labels(source, images, rejected)
    extra = table.drop(columns="label") if table is not None else None
    if extra is None and METADATA_FILE in files:
        extra, lines = read_metadata(source / METADATA_FILE, list(places))
        rejected |= {line: problem for line, problem in lines.items() if line not in rejected}
    if extra is not None:
        images = _joined(images, extra, shown(source))
    if not images.split.astype(bool).any():
        images = images.drop(columns="split")
    lost = pd.DataFrame([(path, *why) for path, why in rejected.items()], columns=["path", "kind", "reason"])
    if not quiet:
        print(*(f"{row.path}: {row.reason}\n" for row in lost.itertuples() if row.path.endswith("/")), sep="", end="")
    return images, lost


def _list_files(source: Path) -> tuple[list[str], dict[str, tuple[str, str]], list[str]]:
    """Names of files to look into, in alphabetical order; for all else a kind and a reason; and all folders."""
    files, rejected, all_folders = [], {}, []

    def unreadable(error: OSError) -> None:
        name = _printable(Path(error.filename).relative_to(source))
        rejected[name] = ("unreadable", f"cannot be read: {error.strerror}")

    for folder, folders, names in os.walk(source, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        all_folders += [Path(folder, name).relative_to(source).as_posix() for name in folders if name not in links]
        for path in (Path(folder, name) for name in names + links if not name.startswith(".")):
            name = path.relative_to(source).as_posix()
            if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name):
                why = "its name has a control character or is not UTF-8; rename it"
                rejected[_printable(path.relative_to(source))] = ("name", why)
            elif os.access(path, os.R_OK) and path.is_file():
                files.append(name)
            else:
                rejected[name] = ("unreadable", "cannot be read, or is no file: links to folders are not followed")
    return sorted(files, key=lambda name: name.split("/")), rejected, sorted(all_folders)


def _printable(path: Path) -> str:
    """With an escape for each byte that is not UTF-8, which no text file could hold."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def _places(files: list[str]) -> tuple[dict[str, tuple[str, str]], int]:
    """Label and split of each file by its folders, "" for what they do not say; and how deep the labels stand."""
    images = [name.split("/")[:-1] for name in files if name.rsplit(".", 1)[-1].lower() in ENDINGS]
    images = images or [name.split("/")[:-1] for name in files]
    level, division = 0, None
    while heads := {parts[level] for parts in images if len(parts) > level}:
        splits = {head for head in heads if split_name(head)}
        deeper = {parts[level] for parts in images if len(parts) > level + 1}
        if splits == heads and division is None:
            division = level
        elif len(splits) > 1 and splits & deeper:
            beside = f"beside them stand {', '.join(sorted(heads - splits)[:5])}; move either of them elsewhere."
            raise ValueError(
                f"The folders {', '.join(sorted(splits))} look like a division above the labels, and {beside}"
            )
        elif len(heads) > 1:
            break
        level += 1
    places = {}
    for name in files:
        parts = name.split("/")[:-1]
        split = split_name(parts[division]) or "" if division is not None and len(parts) > division else ""
        places[name] = (comparable(parts[level], exact=True) if len(parts) > level else "", split)
    return places, level


def _label_reason(label: str, from_table: bool) -> str:
    if not label:
        return "no label: it is not in a sub-folder, or the table of labels has no line for it"
    return label_problem(label) if from_table or label == EXCLUDE else ""


def _lost_labels(folders, level, labels, rejected) -> dict[str, tuple[str, str]]:
    """Sub-folders at the level of the labels from which no image could be used, each with its reason."""
    lost = {}
    for folder in folders:
        parts = folder.split("/")
        if len(parts) == level + 1 and comparable(parts[level], exact=True) not in labels:
            inside = [why for name, (_, why) in rejected.items() if name.startswith(f"{folder}/")]
            why = f"no file of {len(inside)} can be used (the first: {inside[0]})" if inside else "it has no files"
            lost[f"{folder}/"] = ("no label", f"this sub-folder became no label: {why}")
    return lost


def _check_labels(source: Path, images: pd.DataFrame, rejected: dict) -> None:
    refuse_near_labels(images.label.unique())
    if images.label.nunique() < 2:
        first = "".join(f", the first, {name!r}: {why}" for name, (_, why) in list(rejected.items())[:1])
        found = f"holds usable images of {images.label.nunique()} label(s) ({len(rejected)} files rejected{first})"
        raise ValueError(f"SOURCE_PATH is {str(source)!r} and {found}; it needs two or more labels.")


def _joined(images: pd.DataFrame, extra: pd.DataFrame, where: str) -> pd.DataFrame:
    clash = set(extra) & {*COLUMNS, *images, "original"} - {"license", "attribution", "split"}
    if clash:
        raise ValueError(f"Metadata of {where}: column {min(clash)!r}, which the manifest fills itself; rename it.")
    if "split" in extra:
        given = images.file.map(extra.split).fillna("").map(lambda text: split_name(text) or text)
        images = images.assign(split=images.split.where(images.split.astype(bool), given))
        extra = extra.drop(columns="split")
    return images.merge(extra, left_on="file", right_index=True, how="left")
