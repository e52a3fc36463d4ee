"""A folder of labelled images: which of its files can be used, what they are called, and why others cannot be used.

birds/wren/*.jpg, birds/robin/*.jpg      one sub-folder per label, the smallest thing a person can make
birds/train/wren/*.jpg, birds/val/…      a division (train, val, test, fold1, …) above the labels, kept as `split`
birds/images/*.jpg, birds/labels.csv     a flat folder with a table of labels (HAM10000, ISIC challenges, Kaggle)
birds/metadata.csv                       optional: a column that names the files, and any others, such as
                                         patient_id, lesion_id, age, license, attribution

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

from tdsp_vision.data.quality import look_at
from tdsp_vision.data.tables import COLUMNS, TEXT, is_id, read_csv
from tdsp_vision.paths import resolve, shown

METADATA_FILE = "metadata.csv"
EXCLUDE = "EXCLUDE"  # the label of a correction that drops an image
ENDING = re.compile(r"\.(?:jpe?g?|jfif|png|gif|bmp|webp|tiff?|hei[cf]|avif|ppm|jp2|dcm)$", re.IGNORECASE)
SPLITS = {"train": "train", "training": "train", "val": "validation", "valid": "validation", "dev": "validation"}
SPLITS |= {"validation": "validation", "validate": "validation", "test": "test", "testing": "test"}
SPLITS |= {"eval": "test", "evaluation": "test", "holdout": "test"}
PART = re.compile(r"(.*[ _-])?(part|batch|chunk|images?|photos)[ _-]?\d+")
NAMES = re.compile("file|image|img|path|photo|isic", re.IGNORECASE)  # how columns are called that name files
MISSING = {"", "na", "n/a", "nan", "null", "none", "nil", "-", "--", "?", "missing", "unknown"}
# Columns that mean something here, whatever case, blanks or dashes they are written with.
MEANINGFUL = ["patient_id", "lesion_id", "isic_id", "license", "attribution", "split", "age", "sex", "site"]
MEANINGFUL = {name.replace("_", ""): name for name in MEANINGFUL}
ALIASES = {"licence": "license", "patient": "patientid", "subjectid": "patientid"}
LABEL_NAMES = ["label", "labels", "class", "category", "target", "diagnosis", "dx", "species", "breed"]


def scan_folder(source: Path, labels: str = "", label_column: str = "label") -> tuple[pd.DataFrame, pd.DataFrame]:
    """Look at every file below `source`, each read and decoded once; sentences on what was found are printed.

    Args:
        source: the folder, in one of the forms above; files and folders that start with a dot are passed over.
        labels: table of labels, in, below or beside `source`; "" looks for one where no sub-folder names a label.
        label_column: its column of labels; columns of 0 and 1, one for each label, are understood as well.

    Returns:
        images: file (relative to `source`), label, split (where the set came divided), the metadata columns, the facts
        of `read_image`, the `MEASURES`, miniature (see `duplicates`);
        rejected: path (relative to `source`), kind, reason. Each file is in exactly one of the two. Links to folders,
        sub-folders that became no label and lines of tables without a file are in `rejected`, too.

    Raises:
        ValueError: if fewer than two labels have a usable image, if labels differ in case, blanks or Unicode form
            only, or a table cannot be used.
    """
    files, folders, rejected = _list_files(source)
    places, level = _places(files)
    csv_files = [source / name for name in files if name.casefold().endswith((".csv", ".tsv"))]
    from_table, tables, used = bool(labels) or not places.label.any(), [], set()
    if from_table:
        name, table, lines = table_of_labels(source, labels, label_column, csv_files, files)
        places["label"] = table.pop("label").reindex(files).fillna("")
        tables, rejected, used = [table], rejected | lines, {name}
    metadata = [path for path in csv_files if comparable(path.name) == METADATA_FILE]
    if metadata and metadata[0].name not in used:
        table, lines = read_metadata(metadata, source, _file_index(files))
        tables, rejected, used = [*tables, table], rejected | lines, used | {path.name for path in metadata}
    places = places[[name.split("/")[-1] not in used for name in places.index]]
    pictures = places.label[[bool(ENDING.search(name)) for name in places.index]]
    _ask_about_tables(source, used, pictures, from_table)
    named = places.label if from_table else places.label[places.label.isin(["", EXCLUDE])]
    rejected = {name: ("no label", why) for name, why in named.map(label_problem).items() if why} | rejected
    usable = [name for name in places.index if name not in rejected]
    looked = dict(zip(usable, look_at([source / name for name in usable]), strict=True))
    rejected |= {name: (found["kind"], found["reason"]) for name, found in looked.items() if "kind" in found}
    facts = {name: found for name, found in looked.items() if "kind" not in found}
    images = places.join(pd.DataFrame(list(facts.values()), list(facts)), how="inner")
    if not from_table:
        rejected |= _lost_labels(folders, level, set(images.label), rejected)
    refuse_near_labels(images.label.unique())
    if images.label.nunique() < 2:
        first = next((f", the first, {name!r}: {why}" for name, (_, why) in rejected.items()), "")
        found = f"holds usable images of {images.label.nunique()} label(s) ({len(rejected)} files rejected{first})"
        raise ValueError(f"SOURCE_PATH is {str(source)!r} and {found}; it needs two or more labels.")
    for table in tables:
        images = _joined(images, table, shown(source))
    images = images.rename_axis("file").reset_index()
    images = images if images.split.any() else images.drop(columns="split")
    return images, pd.DataFrame([(name, *why) for name, why in rejected.items()], columns=["path", "kind", "reason"])


def _list_files(source: Path) -> tuple[list[str], list[str], dict[str, tuple[str, str]]]:
    """Names of files to look into and of folders, in alphabetical order; for all else a kind and a reason."""
    files, folders, rejected = [], [], {}
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        text = name.encode("utf-8", "backslashreplace").decode("utf-8")  # a text file can hold no other bytes
        if "/." in f"/{name}":
            continue
        if os.access(path, os.R_OK) and path.is_dir() and not path.is_symlink():
            folders.append(text)
        elif text != name or re.search(r"[\x00-\x1f\x7f]", name):
            rejected[text] = ("name", "its name has a control character or is not UTF-8; rename it")
        elif os.access(path, os.R_OK) and path.is_file():
            files.append(name)
        else:
            rejected[name] = ("unreadable", "cannot be read, or is no file: links to folders are not followed")
    return files, folders, rejected


def _places(files: list[str]) -> tuple[pd.DataFrame, int]:
    """Label and split of each file by its folders, "" for what they do not say; and how deep the labels stand.

    The labels are the first folders that differ, are no sides of a division and no numbered parts such as batch1.
    """
    above = pd.Series([name.split("/")[:-1] for name in files], files, dtype=object)
    images = above[[bool(ENDING.search(name)) for name in files]]
    images = above if images.empty else images
    level = deepest = max(map(len, above), default=0)
    division = None
    for depth in reversed(range(deepest)):
        heads = {parts[depth] for parts in images if len(parts) > depth}
        sides = {*map(split_name, heads)}
        if len(sides) > 1 and None not in sides:
            division = depth
        elif len(heads) > 1 and not all(PART.fullmatch(comparable(head)) for head in heads):
            level = depth
    # above the labels a stray file may have no side, below them each image has one, or it divides nothing
    division = None if division and division > level and images.str.len().min() <= division else division
    beside = {parts[level] for parts in images if len(parts) > level}
    odd = sorted(filter(split_name, beside))
    if len({*map(split_name, odd)}) > 1 or {*map(comparable, odd)} & {*SPLITS} - {"train"}:  # a train may be a label
        others = ", ".join(sorted(beside - {*odd})[:5])
        found = f"By the names of the folders {', '.join(odd)} the set came divided, and beside them stand {others}"
        raise ValueError(f"{found}; move or rename either of them.")
    label = above.str.get(level).map(lambda text: comparable(text, exact=True), na_action="ignore")
    split = None if division is None else above.str.get(division).map(split_name, na_action="ignore")
    return pd.DataFrame({"label": label, "split": split}, files, dtype=object).fillna("").astype(str), level


def _lost_labels(folders, level, labels, rejected) -> dict[str, tuple[str, str]]:
    """Sub-folders at the level of the labels from which no image could be used, each with its reason."""
    lost = {}
    for folder in folders:
        if folder.count("/") == level and comparable(folder.split("/")[level], exact=True) not in labels:
            inside = [why for name, (_, why) in rejected.items() if name.startswith(f"{folder}/")]
            why = f"no file of {len(inside)} can be used (the first: {inside[0]})" if inside else "it has no files"
            lost[f"{folder}/"] = ("no label", f"this sub-folder became no label: {why}")
            print(f"{folder}/: {lost[f'{folder}/'][1]}")
    return lost


def _joined(images: pd.DataFrame, table: pd.DataFrame, source: str) -> pd.DataFrame:
    """Images by file with the columns of a table by file; its `split` counts where the folders say nothing."""
    taken = {*COLUMNS, "file", "original"} - {"license", "attribution"} | set(images)
    if clash := set(table) & taken - {"split"}:
        found = f"Metadata of {source}: column {min(clash)!r}, which the manifest fills itself, or another table"
        raise ValueError(f"{found}; rename it.")
    if "split" in table:
        given = table.pop("split").map(lambda text: split_name(text) or text, na_action="ignore")
        images["split"] = images.split.where(images.split != "", given).fillna("")
    return images.join(table)


def _ask_about_tables(source: Path, used: set[str], labels: pd.Series, from_table: bool) -> None:
    """Print which tables beside the images are not used; ValueError where the labels of one cross the sub-folders.

    A set that came by patient or clinic has sub-folders that are no labels, and a table that knows them. Labels that
    are the sub-folders' under other names, finer or coarser, do not cross them: the one tells at least half of what
    there is to know of the other.
    """
    unused = [path for path in source.glob("*.[ct]sv") if path.name not in used]
    for path, table in _tables(unused, source, labels.index).items():
        if 2 * table.index.nunique() < len(labels):
            continue
        from sklearn.metrics import homogeneity_completeness_v_measure  # here: it takes a second, and is seldom asked

        known = None if from_table else _label_column(table, "label")
        other = known[0].groupby(level=0).first().dropna() if known else labels
        if max(homogeneity_completeness_v_measure(labels[other.index], other)[:2]) < 0.5:
            found = f"{shown(path)} has other labels than the sub-folders: {other.iloc[0]!r} for {other.index[0]}"
            raise ValueError(f"{found}; set LABELS to {path.name!r}, or move it elsewhere to keep the sub-folders'.")
        print(f"{shown(path)} names most of the images and is not used; in one {METADATA_FILE} its columns would be.")


def comparable(text: str, exact: bool = False) -> str:
    """Text in one Unicode form; without `exact` also without case, outer blanks, backslashes and a leading `./`."""
    text = unicodedata.normalize("NFC", text)
    return text if exact else re.sub(r"^(\./|/)+", "", text.strip().casefold().replace("\\", "/"))


def split_name(text: str) -> str | None:
    """`train`, `validation`, `test` or a fold, if a folder or a word of a column says so; else None."""
    word = comparable(text)
    found = [SPLITS[part] for part in re.split("[^a-z]+", word) if part in SPLITS]
    return found[0] if len(found) == 1 else word if re.fullmatch(r"(fold|split|cv)[ _-]?\d+", word) else None


def label_problem(label: str) -> str:
    """Why a label cannot be the name of a folder; empty if it can."""
    if not label:
        return "no label: it is not in a sub-folder, or the table of labels has no line for it"
    if label == EXCLUDE:
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
            found = f"The labels {seen[key]!r} and {label!r} differ only in case, blanks or Unicode form"
            raise ValueError(f"{found}; if they are one, give them one name, and if not, two that differ more.")


def read_metadata(paths: list[Path], source: Path, index: dict[str, str | None]) -> tuple[pd.DataFrame, dict]:
    """Columns of tables by file of an index, and for each line that names none a kind and a reason.

    Raises:
        ValueError: if one cannot be read, no column names the files, one is named twice, or most lines name none.
    """
    tables = [_read_table(path, source, index) for path in paths]
    tables = [table.rename(columns={table.columns[0]: ""}) for table in tables if table.index.notna().any()] or tables
    table = pd.concat(tables)
    why = ("metadata", f"listed in {METADATA_FILE}, but there is no such file, or more than one")
    names = enumerate(table.iloc[:, 0].items(), 2)
    lines = {f"{METADATA_FILE}, line {number}: {name}": why for number, (file, name) in names if pd.isna(file)}
    if table.empty or 2 * len(lines) > len(table):
        found = f"{len(lines)} of its {len(table)} lines match no file or several (first: {next(iter(lines), '')})"
        raise ValueError(f"{shown(paths[0])} needs a column that names the images, and {found}; correct it.")
    for name in table.index[table.index.duplicated() & table.index.notna()]:
        raise ValueError(f"{', '.join(map(shown, paths[:3]))}: more than one line names {name}; remove one.")
    return _typed(table), lines


def table_of_labels(source: Path, name: str, column: str, csv_files, files) -> tuple[str, pd.DataFrame, dict]:
    """Labels of a flat folder by one of its tables, or one beside it; a sentence on what was taken is printed.

    Returns:
        the name of the table; the table by image: label and metadata columns; a kind and a reason for each image with
        two labels.

    Raises:
        ValueError: if there is not just one table with a label for most of the images (unless it was named), or
            another one has labels of other images.
    """
    images = [file for file in files if ENDING.search(file)]
    if name:
        places = [path for path in (source / name, source.parent / name, resolve(name)) if path.is_file()]
        tables = {path: _read_table(path, source, _file_index(images)) for path in places[:1]}
    else:
        tables = _tables([*csv_files, *source.parent.glob("*.[ct]sv")], source, images)
    known = {path: found for path, table in tables.items() if (found := _label_column(table, column))}
    fitting = [path for path in known if name or 2 * tables[path].index.nunique() >= len(images)]
    if len(fitting) != 1 or any(set(tables[path].index.dropna()) - set(tables[fitting[0]].index) for path in known):
        listed = "; ".join(f"{shown(path)} with {', '.join(table.columns[1:9])}" for path, table in tables.items())
        found = f"LABELS is {name!r} and LABEL_COLUMN {column!r}; no two folders are labels, and no one table has those"
        advice = "name one and its column, make a sub-folder for each label, or set SOURCE_PATH to the labelled images"
        raise ValueError(f"{found} of the images (looked at: {listed or 'none'}); {advice}.")
    (path,), table, (label, used) = fitting, tables[fitting[0]], known[fitting[0]]
    print(f"labels are read from {shown(path)}: files by {table.columns[0]!r}, labels by {', '.join(used)}")
    if missing := table.index.isna().sum():
        print(f"{missing} of its {len(table)} lines name no image, or several")
    given = label.dropna().groupby(level=0).unique()
    given = given[given.map(len) > 1].map(sorted).map(", ".join)
    lines = {file: ("label conflict", f"{path.name} gives it the labels {labels}") for file, labels in given.items()}
    table = table.drop(columns=used).assign(label=label)[label.notna() & ~label.index.isin(list(lines))]
    return path.name, _typed(table[~table.index.duplicated()]), lines


def _tables(paths: Iterable[Path], source: Path, files: Iterable[str]) -> dict[Path, pd.DataFrame]:
    """Those of some tables that can be read; of one name and form, such as one in the folder of each side, as one."""
    index, forms = _file_index(files), {}
    for path in sorted({path for path in paths if "submission" not in path.name.casefold()}):  # made-up labels
        try:
            if b"\n" in path.read_bytes()[:5000]:  # a table of pixels has a longer line of names
                table = _read_table(path, source, index)
                forms.setdefault((path.name, *table.columns), {})[path] = table
        except (ValueError, OSError) as error:
            print(error)
    return {min(tables): pd.concat(tables.values()) for tables in forms.values()}


def _label_column(table: pd.DataFrame, wanted: str) -> tuple[pd.Series, list[str]] | None:
    """The label of each line, and the columns that said so; None where none does."""
    table = table.iloc[:, 1:].dropna(axis="columns", how="all")
    by_name = {comparable(name): name for name in table}
    names = map(comparable, LABEL_NAMES if wanted == "label" else [wanted])
    if name := next((by_name[name] for name in names if name in by_name), None):
        return table[name].map(lambda text: comparable(text, exact=True), na_action="ignore"), [name]
    numbers = table.apply(pd.to_numeric, errors="coerce")
    numbers = numbers.loc[:, numbers.isin([0, 1]).all()]
    if wanted == "label" and numbers.shape[1] > 1 and (numbers.sum(axis=1) == 1).all():
        return numbers.idxmax(axis=1), list(numbers)
    return None


def _read_table(path: Path, source: Path, index: dict[str, str | None]) -> pd.DataFrame:
    """A table as text by the file of an index that each line names (none or several: missing).

    The first column is the one that names files: it fits most of them; of several such, as numbers of lines or of
    patients beside numbered images, it is called so, or has endings. Names that mean something here are as here.
    """
    table = read_csv(path, text=True).dropna(how="all")
    plain = [re.sub("[^a-z]", "", comparable(name)) for name in table]
    plain = [key if ALIASES.get(key, key) in plain else ALIASES.get(key, key) for key in plain]
    table.columns = [MEANINGFUL.get(key, name.strip()) for key, name in zip(plain, table, strict=True)]
    for name in table.columns[table.columns.duplicated()]:
        raise ValueError(f"{shown(path)} has the column {name!r} twice; rename one.")
    table = table.apply(lambda column: column.str.strip()).replace("", np.nan)
    folder = comparable(os.path.relpath(path.parent, source))
    found = {name: _matched_files(table[name], index, folder) for name in table}
    fits = [(found[name].nunique(), bool(NAMES.search(name)), table[name].str.contains(ENDING).sum()) for name in table]
    name = table.columns[fits.index(max(fits))]
    return table[[name, *table.columns.drop(name)]].set_index(found[name])


def _file_index(files: Iterable[str]) -> dict[str, str | None]:
    """File by each end of its path, with and without ending; None where several files fit."""
    index = {}
    for name in files:
        end = comparable(name)
        while end:
            for key in {end, ENDING.sub("", end)}:
                index[key] = name if index.get(key, name) == name else None
            end = end.partition("/")[2]
    exact = {comparable(name): name for name in files}
    return index | (exact if len(exact) == len(files) else {})


def _matched_files(values: pd.Series, index: dict[str, str | None], folder: str) -> pd.Series:
    """The file that each value names, or None: in the table's own folder, else anywhere. Folders that all values begin
    with may be missing on the disk.
    """

    def find(word: str, skipped: int) -> str | None:
        end = word.split("/", skipped)[-1]
        near = f"{folder}/{end}"
        return next(filter(None, map(index.get, (near, ENDING.sub("", near), end, ENDING.sub("", end)))), None)

    words = values.fillna("").map(comparable)
    shared = os.path.commonprefix([word.split("/")[:-1] for word in words if word])
    return max((words.apply(find, args=(skipped,)) for skipped in range(len(shared) + 1)), key=pd.Series.count)


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    """Lines that name a file, without that name. Ids and texts stay text; columns of numbers become numbers, with words
    such as NA and infinity missing.
    """
    typed = table[table.index.notna()].iloc[:, 1:].dropna(axis="columns", how="all")
    for name, values in typed.items():
        filled = values.where(~values.str.casefold().isin(MISSING))
        numbers = pd.to_numeric(filled, errors="coerce")
        if is_id(name):
            typed[name] = filled
        elif name not in TEXT and filled.notna().any() and numbers.notna().equals(filled.notna()):
            typed[name] = numbers.replace([np.inf, -np.inf], np.nan)
    return typed
