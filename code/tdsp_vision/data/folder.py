"""A folder of labelled images: which of its files can be used, and why the others cannot.

birds/wren/*.jpg, birds/robin/*.jpg      one sub-folder per label, the smallest thing a person can make
birds/metadata.csv                       optional: a column `path` (`wren/1.jpg`) and any others, such as
                                         patient_id, lesion_id, age, license, attribution
"""

from pathlib import Path

import pandas as pd

from tdsp_vision.data.images import RejectedImage, inspect_images
from tdsp_vision.data.manifest import COLUMNS, read_csv
from tdsp_vision.paths import SAMPLE_DATA, resolve, shown

METADATA_FILE = "metadata.csv"


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
        source: folder such as `birds/{wren,robin}/*.jpg`; deeper sub-folders count to their label.
        quiet: no progress bar.

    Returns:
        images: file (relative to `source`), label, sha256, dhash, width, height and the metadata columns;
        rejected: path (relative to `source`), reason. Each file is in exactly one of the two.

    Raises:
        ValueError: if it has fewer than two labels with a usable image.
    """
    files = sorted(path for path in source.rglob("*") if path.is_file() and not _is_hidden(path, source))
    files = [path for path in files if path != source / METADATA_FILE]
    rows, rejected = [], []
    for path, found in zip(files, inspect_images(files, quiet), strict=True):
        name = path.relative_to(source).as_posix()
        if isinstance(found, RejectedImage):
            rejected.append({"path": name, "reason": str(found)})
        elif "/" not in name:
            rejected.append({"path": name, "reason": "not in a sub-folder, so it has no label"})
        else:
            rows.append({"file": name, "label": name.split("/")[0], **vars(found)})
    images = pd.DataFrame(rows, columns=["file", "label", "sha256", "dhash", "width", "height"])
    if images.label.nunique() < 2:
        raise ValueError(
            f"SOURCE_PATH is {str(source)!r} and holds usable images of {images.label.nunique()} label(s) "
            f"({len(rejected)} files rejected); it needs a sub-folder for each of two or more labels."
        )
    images = _with_metadata(images, source / METADATA_FILE)
    return images, pd.DataFrame(rejected, columns=["path", "reason"])


def _is_hidden(path: Path, source: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(source).parts)


def _with_metadata(images: pd.DataFrame, path: Path) -> pd.DataFrame:
    if not path.is_file():
        return images
    metadata = read_csv(path)
    if "path" not in metadata or metadata.path.duplicated().any():
        raise ValueError(f"{shown(path)} needs a column 'path' that names each image once.")
    clash = (set(metadata) & {*COLUMNS, *images}) - {"path", "license", "attribution"}
    if clash:
        raise ValueError(f"{shown(path)} has a column {min(clash)!r}, which the manifest fills itself; rename it.")
    return images.merge(metadata.rename(columns={"path": "file"}), on="file", how="left")
