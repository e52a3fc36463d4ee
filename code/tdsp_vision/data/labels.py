"""Tables that say something about files: labels (HAM10000, ISIC challenges, Kaggle) and metadata, joined by names.

Tables and disks spell one file in many ways: other case, blanks, `./` or the folder's own name before it, without an
ending, composed or decomposed Unicode. A name matches where exactly one file fits; what fits none is counted.
"""

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from tdsp_vision.data.tables import TEXT, read_csv
from tdsp_vision.paths import resolve, shown

SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "dev": "validation"}
SPLITS |= {"validation": "validation", "validate": "validation", "test": "test", "testing": "test"}
FOLD = re.compile(r"(fold|split|cv)[ _-]?\d+")
ENDING = re.compile(r"\.(jpe?g|png|gif|bmp|webp|tiff?|hei[cf]|avif|ppm|jp2|dcm)$")
MISSING = {"", "na", "n/a", "nan", "null", "none", "nil", "-", "--", "?", "missing", "unknown"}
# Columns that mean something here, whatever case, blanks or dashes they are written with.
MEANINGFUL = ["patient_id", "lesion_id", "isic_id", "license", "attribution", "split", "age", "sex", "site"]
LABEL_NAMES = ["label", "labels", "class", "category", "target", "diagnosis", "dx", "species", "breed"]


def comparable(text: str, exact: bool = False) -> str:
    """Text in one Unicode form; without `exact` also without case, outer blanks, backslashes and a leading `./`."""
    text = unicodedata.normalize("NFC", text)
    return text if exact else re.sub(r"^(\./|/)+", "", text.strip().casefold().replace("\\", "/"))


def split_name(text: str) -> str | None:
    """`train`, `validation`, `test` or a fold, if a folder or a word of a column says so; else None."""
    word = comparable(text)
    return SPLITS.get(word) or (word if FOLD.fullmatch(word) else None)


def label_problem(label: str) -> str:
    """Why a label cannot be the name of a folder; empty if it can."""
    if label == "EXCLUDE":
        return "EXCLUDE is the word that drops an image"
    if not re.fullmatch(r"[^\x00-\x1f\x7f/\\:*?\"<>|.\s][^\x00-\x1f\x7f/\\:*?\"<>|]{0,99}(?<![.\s])", label):
        return 'a label becomes a folder name: 1 to 100 characters, none of / \\ : * ? " < > |, no dot at its ends'
    return ""


def refuse_near_labels(labels: Iterable[str]) -> None:
    """Raise ValueError if two labels differ only in case, blanks or Unicode form."""
    seen = {}
    for label in labels:
        key = "".join(unicodedata.normalize("NFKC", label).casefold().split())
        if seen.setdefault(key, label) != label:
            raise ValueError(
                f"The labels {seen[key]!r} and {label!r} differ only in case, blanks or Unicode form; if they are one, "
                "give them one name, and if not, two that differ more."
            )


def file_index(files: list[str]) -> dict[str, str | None]:
    """File by each end of its path, with and without ending; None where several files fit."""
    index = {}
    for name in files:
        parts = comparable(name).split("/")
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            for key in {end, ENDING.sub("", end)}:
                index[key] = name if index.get(key, name) == name else None
    exact = {comparable(name): name for name in files}
    return index | (exact if len(exact) == len(files) else {})


def matched_files(values: pd.Series, index: dict[str, str | None]) -> pd.Series:
    """The file that each value names, or None. Folders that all values begin with may be missing on the disk."""
    words = [comparable(value) if isinstance(value, str) else "" for value in values]
    folders = [word.split("/")[:-1] for word in words if word] or [[]]
    shared = len(os.path.commonprefix(folders))
    best = [None] * len(words)
    for skipped in range(shared + 1):
        tails = ["/".join(word.split("/")[skipped:]) for word in words]
        found = [index.get(tail) or index.get(ENDING.sub("", tail)) if tail else None for tail in tails]
        if sum(map(bool, found)) > sum(map(bool, best)):
            best = found
    return pd.Series(best, values.index, dtype=object)


def read_metadata(path: Path, files: list[str]) -> tuple[pd.DataFrame, dict[str, tuple[str, str]]]:
    """Columns of a table by file, and for each line that names none a kind and a reason.

    Raises:
        ValueError: if it cannot be read, no column names the files, one is named twice, or most lines name none.
    """
    table = _read(path)
    column, found = _file_column(table, files)
    why = ("metadata", f"listed in {path.name}, but there is no such file, or more than one")
    names = table[column] if column else found
    lines = {f"{path.name}, line {row + 2}: {names[row]}": why for row in table.index[found.isna()]}
    if 2 * len(lines) > len(table) or column is None:
        found = f"{len(lines)} of its {len(table)} lines match no file (the first: {next(iter(lines), '')})"
        raise ValueError(
            f"{shown(path)} needs a column that names the images, such as `path`, and {found}; correct it."
        )
    twice = found[found.duplicated() & found.notna()]
    if len(twice):
        place = f"in line {twice.index[0] + 2}; remove one"
        raise ValueError(f"{shown(path)} names {twice.iloc[0]} more than once, {place}.")
    table = table.drop(columns=column).set_index(found)
    return _typed(table[table.index.notna()]), lines


def table_of_labels(source: Path, name: str, column: str, files: list[str]) -> tuple[pd.DataFrame, dict, str]:
    """Labels of a flat folder.

    Returns:
        the table by file: label and metadata columns, in `attrs["file"]` its own name if it lies below `source`; a
        kind and a reason for each file with two labels; and a sentence on what was taken.

    Raises:
        ValueError: if there is no such table or column, or it has no label for most of the images.
    """
    if name:
        candidates = [path for path in (source / name, source.parent / name, resolve(name)) if path.is_file()][:1]
    else:
        candidates = [*sorted(source.rglob("*.[ct]sv")), *sorted(source.parent.glob("*.[ct]sv"))]
    images = [file for file in files if ENDING.search(file.lower())]
    fitting = []
    for path in candidates:
        table = _read(path)
        key, found = _file_column(table, images)
        if key is not None and 2 * found.nunique() >= len(images):
            fitting.append((path, table.drop(columns=key), key, found))
    if len(fitting) != 1:
        listed = ", ".join(shown(path) for path in candidates) or "none"
        wrong = f"{len(fitting)} tables fit" if fitting else "no table names most of the images"
        advice = "name a CSV with a column of files and one of labels, or make a sub-folder for each label"
        raise ValueError(f"LABELS is {name!r}, no sub-folder names a label, and {wrong} (found: {listed}); {advice}.")
    path, table, key, found = fitting[0]
    labels, used = _label_column(path, table, column)
    table = table.drop(columns=used).assign(label=labels).set_index(found)
    table = table[table.index.notna() & table.label.notna()]
    several = table.groupby(level=0).label.nunique()
    given = {file: ", ".join(sorted(set(table.label[[file]]))) for file in several.index[several > 1]}
    lines = {file: ("label conflict", f"{path.name} gives it the labels {words}") for file, words in given.items()}
    table = _typed(table[~table.index.duplicated() & ~table.index.isin(list(lines))])
    table.attrs["file"] = path.relative_to(source).as_posix() if path.is_relative_to(source) else ""
    said = used[0] if len(used) == 1 else f"{len(used)} columns of 0 and 1"
    return table, lines, f"labels are read from {shown(path)}: files by {key!r}, labels by {said}"


def _label_column(path: Path, table: pd.DataFrame, wanted: str) -> tuple[pd.Series, list[str]]:
    """The label of each line, and the columns that said so."""
    by_name = {comparable(name): name for name in table}
    names = [wanted] if wanted != "label" else LABEL_NAMES
    for name in (comparable(name) for name in names):
        if name in by_name:
            values = table[by_name[name]]
            return values.map(lambda text: comparable(text, exact=True), na_action="ignore"), [by_name[name]]
    numbers = table.apply(pd.to_numeric, errors="coerce")
    hot = [name for name in table if numbers[name].isin([0, 1]).all()]
    if wanted == "label" and len(hot) > 1 and (numbers[hot].sum(axis=1) <= 1).all():
        return numbers[hot].idxmax(axis=1).where(numbers[hot].sum(axis=1) == 1), hot
    raise ValueError(f"LABEL_COLUMN is {wanted!r}, and {shown(path)} has only {', '.join(map(repr, table))}; name one.")


def _read(path: Path) -> pd.DataFrame:
    """A table as text, its columns under the names that mean something here, without blanks around its values."""
    table = read_csv(path, text=True).dropna(how="all").dropna(axis="columns", how="all")
    known = {re.sub("[^a-z]", "", name): name for name in MEANINGFUL} | {"licence": "license"}
    plain = {name: re.sub("[^a-z]", "", comparable(name)) for name in table}
    table = table.rename(columns={name: known.get(key, name.strip()) for name, key in plain.items()})
    if not table.columns.is_unique:
        twice = table.columns[table.columns.duplicated()][0]
        raise ValueError(f"{shown(path)} has the column {twice!r} twice; rename one.")
    table = table.apply(lambda column: column.str.strip())
    return table.replace("", np.nan)


def _file_column(table: pd.DataFrame, files: list[str]) -> tuple[str | None, pd.Series]:
    """The column whose values name most files, and the file of each line."""
    index = file_index(files)
    best, found = None, pd.Series(None, table.index, dtype=object)
    for name in table:
        matches = matched_files(table[name], index)
        if matches.nunique() > found.nunique():
            best, found = name, matches
    return best, found


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Ids and texts stay text; columns of numbers become numbers, with words such as NA and infinity missing."""
    typed = {}
    for name, values in table.items():
        is_id = name == "id" or name.endswith("_id")
        filled = values.where(~values.str.casefold().isin(MISSING))
        numbers = pd.to_numeric(filled, errors="coerce").replace([np.inf, -np.inf], np.nan)
        is_number = name not in TEXT and not is_id and len(filled.dropna()) > 0
        is_number = is_number and pd.to_numeric(filled.dropna(), errors="coerce").notna().all()
        typed[name] = filled if is_id else numbers if is_number else values
    return pd.DataFrame(typed, table.index)
