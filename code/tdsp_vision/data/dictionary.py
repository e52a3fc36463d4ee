"""What each column of a manifest means: the table of the data dictionary."""

import pandas as pd

MOST_LISTED = 6  # different values that are listed
# Column: type, unit (or empty), meaning. ISIC names as its API v2 has them.
KNOWN = {
    "path": ("text", "", "file, relative to the dataset folder"),
    "label": ("category", "", "the class; what a model should predict"),
    "group": ("integer", "", "images of one patient, lesion or picture share it; never split between train and test"),
    "cluster": ("integer", "", "copies of one picture share it"),
    "sha256": ("text", "", "hash of the file as it lies there, hexadecimal"),
    "dhash": ("text", "", "256-bit difference hash of the picture (16 x 16), hexadecimal"),
    "width": ("integer", "pixels", "width of the upright picture"),
    "height": ("integer", "pixels", "height of the upright picture"),
    "source": ("text", "", "where the images were read from"),
    "license": ("category", "", "licence of the image"),
    "attribution": ("text", "", "who must be named when the image is used"),
    "turned": ("category", "", "how the picture was turned upright: 0 (copied byte for byte), degrees, mirrored"),
    "source_sha256": ("text", "", "hash of the file as it came, hexadecimal"),
    "patient_id": ("text", "", "patient, as the source names them"),
    "lesion_id": ("text", "", "lesion, as the source names it"),
    "isic_id": ("text", "", "name of the image in the ISIC Archive"),
    "age": ("number", "years", "age of the patient"),
    "age_approx": ("number", "years", "age of the patient, rounded by the archive"),
    "sex": ("category", "", "sex of the patient"),
    "site": ("category", "", "place on the body"),
    **{f"anatom_site_{n}": ("category", "", f"place on the body, level {n} (1: coarsest)") for n in range(1, 6)},
    **{f"diagnosis_{n}": ("category", "", f"diagnosis, level {n} (1: coarsest)") for n in range(1, 6)},
    "diagnosis_confirm_type": ("category", "", "how the diagnosis was confirmed"),
    "fitzpatrick_skin_type": ("category", "", "skin type after Fitzpatrick, I (lightest) to VI (darkest)"),
    "image_type": ("category", "", "kind of photo, such as dermoscopic"),
}


def describe_columns(manifest: pd.DataFrame) -> pd.DataFrame:
    """Type, meaning, unit, share known and range or values of each column; a column not known here says so."""
    rows = {}
    for name in manifest:
        values = manifest[name].replace("", pd.NA).dropna()
        number = pd.api.types.is_numeric_dtype(values) and len(values) > 0
        kind, unit, meaning = KNOWN.get(name, ("number" if number else "text", "", "(from the source; not documented)"))
        rows[name] = {
            "type": kind,
            "meaning": meaning,
            "unit": unit,
            "known": f"{len(values) / max(len(manifest), 1):.0%}",
            "values": _values(values, number),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("column")


def _values(values: pd.Series, number: bool) -> str:
    different = sorted(values.unique(), key=str)
    if number:
        return f"{values.min():g} to {values.max():g}"
    if len(different) <= MOST_LISTED:
        return ", ".join(map(str, different))
    return f"{len(different)} different, such as {str(different[0])[:40]}"
