"""A folder of labelled images: which of its files can be used, and why the others cannot.

birds/wren/*.jpg, birds/robin/*.jpg      one sub-folder per label, the smallest thing a person can make
birds/metadata.csv                       optional: a column `path` (`wren/1.jpg`) and any others, such as
                                         patient_id, lesion_id, age, license, attribution
"""

import os
import re
from dataclasses import fields
from pathlib import Path

import pandas as pd

from tdsp_vision.data.corrections import EXCLUDE
from tdsp_vision.data.images import ImageFacts, RejectedImage, inspect_images
from tdsp_vision.data.manifest import COLUMNS, MARKS, copy_path
from tdsp_vision.data.tables import read_csv
from tdsp_vision.paths import SAMPLE_DATA, resolve, shown

METADATA_FILE = "metadata.csv"
FACTS = [field.name for field in fields(ImageFacts)]
MAX_NAME = 240  # bytes of a name and its ending; file systems take 255, and a draft needs some for itself


def find_source(source: str, source_path: str, dataset_name: str) -> Path:
    """The folder that the parameters SOURCE, SOURCE_PATH and DATASET_NAME stand for.

    Args:
        source: "sample": `sample_data/<dataset_name>` where there is one, else the drawn lesions; "folder":
            `source_path`.

    Raises:
        ValueError: if the folder does not exist, or `source_path` is given but not used.
    """
    if source == "sample" and source_path:
        raise ValueError(f"SOURCE_PATH is {source_path!r}, which SOURCE 'sample' does not use; set SOURCE to 'folder'.")
    if source == "sample":
        own = SAMPLE_DATA / dataset_name
        return own if own.is_dir() else SAMPLE_DATA / "lesions"
    folder = resolve(source_path) if source_path else None
    if folder is None or not folder.is_dir():
        raise ValueError(
            f"SOURCE_PATH is {source_path!r}, and there is no such folder; name one with a sub-folder for each label."
        )
    return folder


def scan_folder(source: Path, quiet: bool = False) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Look at every file below `source`, one sub-folder per label; `metadata.csv` there may add columns by `path`.

    Args:
        source: folder such as `birds/{wren,robin}/*.jpg`; deeper sub-folders count to their label; files and
            folders that start with a dot are passed over.
        quiet: no progress bar.

    Returns:
        images: file (relative to `source`), label, the fields of `ImageFacts` and the metadata columns;
        rejected: path (relative to `source`), reason. Each file is in exactly one of the two. Links to folders,
        folders that cannot be opened and lines of `metadata.csv` without a file are in `rejected`, too.

    Raises:
        ValueError: if it has fewer than two labels with a usable image, or `metadata.csv` cannot be used.
    """
    files, rejected = _list_files(source)
    rows = []
    for path, found in zip(files, inspect_images(files, quiet), strict=True):
        name = path.relative_to(source).as_posix()
        if isinstance(found, RejectedImage):
            rejected[name] = str(found)
        else:
            rows.append({"file": name, "label": name.split("/")[0], **vars(found)})
    images = pd.DataFrame(rows, columns=["file", "label", *FACTS])
    if images.label.nunique() < 2:
        first = "".join(f", the first, {name!r}: {reason}" for name, reason in list(rejected.items())[:1])
        raise ValueError(
            f"SOURCE_PATH is {str(source)!r} and holds usable images of {images.label.nunique()} label(s) "
            f"({len(rejected)} files rejected{first}); it needs a sub-folder for each of two or more labels."
        )
    if (source / METADATA_FILE).is_file():
        metadata = _read_metadata(source / METADATA_FILE, images)
        for name in metadata.file[~metadata.file.isin([*images.file, *rejected])]:
            rejected[name] = f"listed in {METADATA_FILE}, but there is no such file"
        images = images.merge(metadata, on="file", how="left")
    return images, pd.DataFrame(rejected.items(), columns=["path", "reason"])


def _list_files(source: Path) -> tuple[list[Path], dict[str, str]]:
    """Files to look into, in alphabetical order, and for all else that is not hidden a reason by its path."""
    files, rejected = [], {}

    def unreadable(error: OSError) -> None:
        rejected[_printable(Path(error.filename).relative_to(source))] = f"cannot be read: {error.strerror}"

    for folder, folders, names in os.walk(source, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if Path(folder, name).is_symlink()]
        for path in (Path(folder, name) for name in names + links if not name.startswith(".")):
            if reason := _reason_against(path, path.relative_to(source).as_posix()):
                rejected[_printable(path.relative_to(source))] = reason
            elif path != source / METADATA_FILE:
                files.append(path)
    return sorted(files, key=lambda path: path.parts), rejected


def _reason_against(path: Path, name: str) -> str:
    """Why a path cannot be used, whatever is in the file; empty if it can. `name`: relative to the source."""
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except OSError as error:  # in a folder that may be listed but not entered
        return f"cannot be read: {error.strerror}"
    if is_folder:
        return "a link to a folder, and such links are not followed"
    if not is_file:
        return "a link to nothing" if path.is_symlink() else "not a file with content"
    if name == METADATA_FILE:
        return ""
    if "/" not in name:
        return "not in a sub-folder, so it has no label"
    if name.split("/")[0] == EXCLUDE:
        return f"its label would be {EXCLUDE}, the word that drops an image; rename the sub-folder"
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]", name):
        return "its name has a control character or is not UTF-8; rename it"
    copy = Path(copy_path(name))
    if len(os.fsencode(copy.name)) + len(os.fsencode(copy.suffix)) > MAX_NAME:
        return "its name, with sub-folders, is too long; rename it"
    return ""


def _printable(path: Path) -> str:
    """With an escape for each byte that is not UTF-8, which no text file could hold."""
    return path.as_posix().encode("utf-8", "backslashreplace").decode("utf-8")


def _read_metadata(path: Path, images: pd.DataFrame) -> pd.DataFrame:
    metadata = read_csv(path)
    if "path" not in metadata or metadata.path.duplicated().any() or metadata.path.isna().any():
        raise ValueError(f"{shown(path)} needs a column 'path' that names each image once.")
    clash = set(metadata) & {*COLUMNS, *MARKS, *images} - {"path", "license", "attribution"}
    if clash:
        raise ValueError(f"{shown(path)} has a column {min(clash)!r}, which the manifest fills itself; rename it.")
    return metadata.rename(columns={"path": "file"})
