"""The plain files of a dataset: CSV (UTF-8, commas, a line of column names, no index), JSON, and their hashes."""

import csv
import hashlib
import json
import os
import shutil
import warnings
from pathlib import Path

import pandas as pd

from tdsp_vision.files import whole_file
from tdsp_vision.paths import shown

# Columns of the manifest that stage 1 fills; `split` only where the set came divided.
COLUMNS = ["path", "label", "group", "cluster", "sha256", "dhash", "width", "height", "bytes"]
COLUMNS += ["source", "license", "attribution", "turned", "converted", "source_sha256", "split"]
# Columns that stay text even if all their values look like numbers, beside `id` and all that end in `_id`.
TEXT = ["path", "label", "split", "sha256", "dhash", "source", "license", "attribution", "turned", "converted"]
TEXT += ["source_sha256", "kind", "reason", "predicted"]


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
            if text:
                with path.open(encoding="utf-8-sig") as file:
                    head = next((line for line in file if line.strip()), "")
                options["sep"] = max(",;\t", key=head.count)
                return pd.read_csv(path, dtype=str, **options)
            columns = pd.read_csv(path, index_col=False, nrows=0).columns
            kinds = {name: str for name in columns if name in TEXT or is_id(name)}
            return pd.read_csv(path, dtype=kinds, low_memory=False, **options)
    except (ValueError, FileNotFoundError, pd.errors.ParserWarning) as error:
        raise ValueError(
            f"{shown(path)} cannot be read ({' '.join(str(error).split())}); it must be UTF-8 text: a line of column "
            "names, then lines with a value for each, separated by commas."
        ) from error


def is_id(column: str) -> bool:
    """Whether a column holds ids, by its name."""
    return column == "id" or column.endswith("_id")


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, whole or not at all."""
    words = table.select_dtypes(exclude="number").astype(str)
    broken = any(words[name].str.contains("\r", regex=False).any() for name in words)  # pandas would not quote it
    with whole_file(path) as draft:
        quoting = csv.QUOTE_NONNUMERIC if broken else csv.QUOTE_MINIMAL
        table.to_csv(draft, index=False, lineterminator="\n", quoting=quoting)


def read_json(path: Path) -> dict:
    """Content of a JSON file of this project (UTF-8); ValueError, naming it, if it is not there or was cut off."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{shown(path)} is no whole JSON ({error}): bring a whole one, or make it anew.") from error


def link_or_copy(origin: Path, target: Path) -> None:
    """Bring a file to a second place, whole or not at all: a hard link where the disk has such, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    link = target.with_name(f".{target.name}.link")
    link.unlink(missing_ok=True)
    try:
        os.link(origin.resolve(), link)  # not by `whole_file`, which would change the mode of the original
        link.replace(target)
    except OSError:
        with whole_file(target) as draft:
            shutil.copyfile(origin, draft)


def file_sha256(path: Path) -> str:
    """sha256 of the content of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
