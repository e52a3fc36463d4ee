"""Labels that a person corrected: data/<dataset>/corrections.csv, an overlay on the manifest, which never changes.

corrections.csv   path,label: one line per image; the label EXCLUDE drops it, any other may be new. Where an image
                  has several lines the last one counts. More columns (who, why) are kept and not used.

In Python corrections are a plain dict, path to label.
"""

import pandas as pd

from tdsp_vision.data.tables import read_csv, write_csv
from tdsp_vision.paths import DatasetPaths, shown

EXCLUDE = "EXCLUDE"


def read_corrections(paths: DatasetPaths) -> dict[str, str]:
    """What `corrections.csv` says, path to label; empty if there is no such file.

    Raises:
        ValueError: if it is no table, or a line has no path or no label.
    """
    return dict(_lines(paths)[["path", "label"]].itertuples(index=False))


def write_corrections(paths: DatasetPaths, corrections: dict[str, str]) -> int:
    """Make `corrections.csv` say exactly this; no correction, no file. Returns the number of corrections.

    A file that says so already is not touched, so a run that only replays it leaves it as it is, byte for byte.
    Lines that stay keep their other columns.

    Raises:
        ValueError: if a path or label is empty or no text, or the file that is there cannot be read.
    """
    wrong = [item for item in corrections.items() if not all(isinstance(text, str) and text.strip() for text in item)]
    if wrong:
        raise ValueError(f"corrections hold {wrong[0]}; each needs a path and a label, both text and not empty.")
    lines = _lines(paths)
    before = dict(lines[["path", "label"]].itertuples(index=False))
    if not corrections:
        paths.corrections.unlink(missing_ok=True)
    elif corrections != before:
        stay = lines[lines.path.map(corrections) == lines.label]
        added = {path: label for path, label in corrections.items() if before.get(path) != label}
        write_csv(paths.corrections, pd.concat([stay, pd.DataFrame(added.items(), columns=["path", "label"])]))
    return len(corrections)


def corrected_labels(manifest: pd.DataFrame, corrections: dict[str, str]) -> pd.Series:
    """The label of each row of `manifest` (path, label) with `corrections` applied; EXCLUDE is one of them.

    Raises:
        ValueError: if a correction is of an image that is not in the manifest.
    """
    unknown = set(corrections) - set(manifest.path)
    if unknown:
        raise ValueError(
            f"corrections.csv names {min(unknown)!r}, which is not in the manifest; remove that line "
            "(or bring the image back)."
        )
    labels = [corrections.get(path, label) for path, label in zip(manifest.path, manifest.label, strict=True)]
    return pd.Series(labels, manifest.index, dtype=manifest.label.dtype)


def corrections_table(manifest: pd.DataFrame, corrections: dict[str, str]) -> pd.DataFrame:
    """Rows path, given, now of each image whose label in `manifest` (as given) is not the one it has now.

    Raises:
        ValueError: as `corrected_labels`.
    """
    table = manifest[["path"]].assign(given=manifest.label, now=corrected_labels(manifest, corrections))
    return table[table.given != table.now].reset_index(drop=True)


def _lines(paths: DatasetPaths) -> pd.DataFrame:
    if not paths.corrections.is_file():
        return pd.DataFrame({"path": [], "label": []}, dtype=str)
    lines = read_csv(paths.corrections)
    if not {"path", "label"} <= set(lines) or lines[["path", "label"]].isna().any(axis=None):
        raise ValueError(f"{shown(paths.corrections)} needs the columns 'path' and 'label', both filled in each line.")
    return lines.drop_duplicates("path", keep="last")
