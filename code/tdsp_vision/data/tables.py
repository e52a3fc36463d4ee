"""The plain files of a dataset: CSV (UTF-8, commas, a line of column names, no index), JSON, and their hashes."""

import hashlib
import json
import warnings
from pathlib import Path

import pandas as pd

from tdsp_vision.files import whole_file
from tdsp_vision.paths import shown

# Columns that stay text even if all their values look like numbers, beside `id` and all that end in `_id`.
TEXT = ["path", "label", "sha256", "dhash", "source", "license", "attribution", "turned", "source_sha256"]


def read_csv(path: Path) -> pd.DataFrame:
    """Read a table of this project: paths, labels and ids stay text, and only an empty field is a missing value.

    Raises:
        ValueError: naming the file, if it is not a table of UTF-8 text with as many fields in a line as columns.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # fields without a column would be lost
            columns = pd.read_csv(path, index_col=False, nrows=0).columns
            text = {name: str for name in columns if name in TEXT or name == "id" or name.endswith("_id")}
            return pd.read_csv(
                path, dtype=text, keep_default_na=False, na_values=[""], index_col=False, low_memory=False
            )
    except (ValueError, pd.errors.ParserWarning) as error:
        raise ValueError(
            f"{shown(path)} cannot be read ({' '.join(str(error).split())}); it must be UTF-8 text: a line of column "
            "names, then lines with a value for each, separated by commas."
        ) from error


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, whole or not at all."""
    with whole_file(path) as draft:
        table.to_csv(draft, index=False, lineterminator="\n")


def read_json(path: Path) -> dict:
    """Content of a JSON file of this project (UTF-8)."""
    return json.loads(path.read_text(encoding="utf-8"))


def file_sha256(path: Path) -> str:
    """sha256 of the content of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
