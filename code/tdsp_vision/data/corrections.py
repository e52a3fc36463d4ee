"""Labels that a person corrected: data/<dataset>/corrections.csv, an overlay on the manifest, which never changes.

corrections.csv   path,label: one line per image; the label EXCLUDE drops it, any other may be new. Where an image
                  has several lines the last one counts. More columns (who, why) are kept and not used.

In Python corrections are a plain dict, path to label.
"""

import pandas as pd

from tdsp_vision.data.tables import read_csv, write_csv
from tdsp_vision.files import file_lock
from tdsp_vision.paths import DatasetPaths, shown

EXCLUDE = "EXCLUDE"


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
        corrections: path to label as a person left them.
        opened: the same as they were when that person began; brought up to `corrections`, for the next call.

    Raises:
        ValueError: if a path or label is empty or no text, or the file that is there cannot be read.
    """
    wrong = [item for item in corrections.items() if not all(isinstance(text, str) and text.strip() for text in item)]
    if wrong:
        raise ValueError(f"corrections hold {wrong[0]}; each needs a path and a label, both text and not empty.")
    changed = {path for path in {*opened, *corrections} if opened.get(path) != corrections.get(path)}
    with file_lock(paths.root / ".corrections.lock"):
        lines = _lines(paths)
        before = dict(lines[["path", "label"]].itertuples(index=False))
        now = {path: label for path, label in before.items() if path not in changed}
        now |= {path: corrections[path] for path in corrections if path in changed}
        if now != before:
            stay = lines[lines.path.map(now) == lines.label]
            added = {path: label for path, label in now.items() if before.get(path) != label}
            write_csv(paths.corrections, pd.concat([stay, pd.DataFrame(added.items(), columns=["path", "label"])]))
    opened.clear()
    opened.update(corrections)
    return len(now)


def corrected_labels(manifest: pd.DataFrame, corrections: dict[str, str]) -> pd.Series:
    """The label of each row of `manifest` (path, label) with `corrections` applied; EXCLUDE is one of them."""
    labels = [corrections.get(path, label) for path, label in zip(manifest.path, manifest.label, strict=True)]
    return pd.Series(labels, manifest.index, dtype=manifest.label.dtype)


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
    return lines.drop_duplicates("path", keep="last")
