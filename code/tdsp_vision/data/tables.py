"""The plain files of a dataset: CSV (UTF-8, commas, a line of column names, no index), JSON, and their hashes."""

import csv
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

import pandas as pd

from tdsp_vision.files import whole_file, write_text
from tdsp_vision.paths import shown

# Columns of the manifest that stage 1 fills, and what they mean; `split` only where the set came divided.
COLUMNS = {
    "path": "file, relative to the dataset folder",
    "label": "the class; what a model should predict",
    "group": "images of one patient, lesion or look share it; never split between train and test",
    "cluster": "copies of one picture share it",
    "sha256": "hash of the file as it lies there, hexadecimal",
    "dhash": "256-bit difference hash of the picture (16 x 16), hexadecimal",
    "width": "of the upright picture, in pixels",
    "height": "of the upright picture, in pixels",
    "bytes": "size of the file as it lies there",
    "source": "where the images were read from",
    "license": "licence of the image",
    "attribution": "who must be named when the image is used",
    "converted": "how the file was converted, such as TIFF to PNG or turned upright; empty: not at all",
    "source_sha256": "hash of the file as it came, hexadecimal",
    "split": "the side on which the source had the image",
}
NUMBERS = ["group", "cluster", "width", "height", "bytes"]
# Columns that stay text even if all their values look like numbers, beside `id` and all that end in `_id`.
TEXT = {*COLUMNS, "kind", "reason", "predicted"} - {*NUMBERS}


def read_csv(path: Path, text: bool = False) -> pd.DataFrame:
    """Read a table of this project: paths, labels and ids stay text, and only an empty field is a missing value.

    Args:
        text: leave every column as text; commas, semicolons or tabs may part the fields then.

    Raises:
        ValueError: naming the file, if it is not a table of UTF-8 text with as many fields in a line as columns.
    """
    options = {"keep_default_na": False, "na_values": [""], "index_col": False, "encoding": "utf-8-sig"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # fields without a column would be lost
            with path.open(encoding="utf-8-sig") as file:
                head = next((line for line in file if line.strip()), "")
            options["sep"] = max(",;\t", key=head.count) if text else ","
            columns = pd.read_csv(path, nrows=0, **options).columns
            kinds = {name: str for name in columns if text or name in TEXT or is_id(name)}
            return pd.read_csv(path, dtype=kinds, low_memory=False, **options)
    except (ValueError, FileNotFoundError, pd.errors.ParserWarning) as error:
        why, form = " ".join(str(error).split()), "a line of names, then lines with as many values, parted by commas"
        raise ValueError(f"{shown(path)} cannot be read ({why}); it must be UTF-8 text: {form}.") from error


def is_id(column: str) -> bool:
    """Whether a column holds ids, by its name."""
    return column == "id" or column.endswith("_id")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, whole or not at all."""
    text = table.to_csv(index=False, lineterminator="\n")
    if "\r" in text:  # which pandas does not quote by itself
        text = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    write_text(path, text)


def read_json(path: Path) -> dict:
    """Content of a JSON file of this project (UTF-8); ValueError, naming it, if it is not there or was cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{shown(path)} is no whole JSON ({error}): bring a whole one, or make it anew.") from error


def link_or_copy(origin: Path, target: Path) -> None:
    """Bring a file to a second place, whole or not at all: a hard link where the disk has such, else a copy."""
    with whole_file(target) as draft:
        try:
            os.link(origin.resolve(), draft)
        except OSError:
            shutil.copyfile(origin, draft)


def file_sha256(path: Path) -> str:
    """sha256 of the content of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
