"""Write what is known of a data set as TDSP's data report and data dictionary: Markdown that renders anywhere.

data/<dataset>/data_report.md       counts, quality, class balance, relations to the target, open questions
data/<dataset>/data_dictionary.md   each column of the manifest: meaning, share known, values
data/<dataset>/figures/*.png        the pictures that the report shows

All of it is computed. What only people can know (how the images were taken, who labelled them, what a column of the
source means) stands there as a question, never as an invented sentence.
"""

from pathlib import Path

import pandas as pd

from tdsp_vision.data.plots import auc_intervals, measure_histograms
from tdsp_vision.data.quality import MEASURES, MOST_SHOWN, class_by, columns_to_compare, share_known, warnings_in_words
from tdsp_vision.data.tables import read_json
from tdsp_vision.files import whole_file, write_text
from tdsp_vision.paths import DatasetPaths

SMALL_CLASS = 50  # images, below which a class can hardly be tested
MOST_NAMED = 50  # conflicts, columns and classes that are listed one by one
MOST_LISTED = 6  # different values of a column that are listed
NEARLY_BLACK = 8  # mean gray value
ASKED = "(from the source; what does it mean?)"
KNOWN = {
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
    "turned": "how the picture was turned upright: 0 (not at all), degrees, mirrored",
    "converted": "from which format to which the file was converted; empty: not at all",
    "source_sha256": "hash of the file as it came, hexadecimal",
    "split": "the side on which the source had the image",
    "patient_id": "images that share it stay on one side of the split",
    "lesion_id": "images that share it stay on one side of the split",
}
# As the ISIC Archive's API, version 2, has them; known where its `isic_id` stands beside them.
ISIC = {
    "isic_id": "name of the image in the ISIC Archive",
    "age_approx": "age of the patient in years, rounded by the archive",
    "sex": "sex of the patient",
    **{f"anatom_site_{n}": f"place on the body, level {n} (1: coarsest)" for n in range(1, 6)},
    **{f"diagnosis_{n}": f"diagnosis, level {n} (1: coarsest)" for n in range(1, 6)},
    "image_type": "kind of photo, such as dermoscopic",
}


def write_data_report(paths: DatasetPaths, manifest, rejected, measures, found, sentences=()) -> Path:
    """Write `data_report.md`, `data_dictionary.md` and their figures into the dataset folder; the path of the report.

    Args:
        manifest, rejected: tables as `write_dataset` wrote them.
        measures: the `MEASURES`, one row per row of the manifest.
        found: of `quality.predict_label_alone`.
        sentences: of `mark_duplicates`.
    """
    suspicions = warnings_in_words(found, manifest.label)
    counts = manifest.groupby("label").agg(images=("path", "size"), groups=("group", "nunique"))
    counts["share"] = counts.images / len(manifest)
    spread = measures.describe(percentiles=[0.05, 0.5, 0.95]).T[["min", "5%", "50%", "95%", "max"]]
    largest = f"{manifest.group.nunique()} groups; the largest group has {manifest.group.value_counts().max()}"
    blocks = [
        f"# Data report: {paths.name}",
        "Computed by the data acquisition notebook; `data_dictionary.md` explains the columns of `manifest.csv`, and "
        "`rejected.csv` names every file that was left out.",
        "## General summary of the data",
        f"{len(manifest)} images of {len(counts)} classes in {largest}. Source: {read_json(paths.info)['source']}.",
        _table(manifest.license.replace("", "(unknown)").value_counts().rename_axis("license").rename("images")),
        "## Data quality summary",
        _list(_quality(manifest, rejected, measures, sentences)),
        _table(rejected.kind.value_counts().rename_axis("kind of reason").rename("files")),
        _table(spread.assign(meaning=pd.Series(MEASURES)).rename_axis("measure")),
        _figure(paths, "measures", measure_histograms(measures, manifest.label), "Measures by class"),
        "## Target variable",
        f"The target is `label`. Always answering `{counts.images.idxmax()}` is right in {counts.share.max():.1%} of "
        "the images: the accuracy to beat.",
        _table(counts),
        "## Individual variables",
        _table(share_known(manifest)),
        "## Variable ranking",
        "How well each measure alone predicts the label, without a look at shapes (AUC; 0.5 is guessing).",
        _table(found.set_index("measure")),
        _figure(paths, "confounders", auc_intervals(found), "AUC of each measure alone"),
        _list(suspicions or ["No interval lies clearly above 0.5."]),
        "## Relationship between explanatory variables and target variable",
        *(_table(class_by(manifest, column)) for column in columns_to_compare(manifest)[:MOST_SHOWN]),
        "## Open questions",
        _list(_questions(manifest, rejected, suspicions)),
    ]
    write_text(paths.report, "\n\n".join(blocks) + "\n")
    dictionary = f"# Data dictionary: {paths.name}\n\nThe columns of `manifest.csv`, one row per image.\n\n"
    write_text(paths.dictionary, dictionary + _table(describe_columns(manifest)) + "\n")
    return paths.report


def describe_columns(manifest: pd.DataFrame) -> pd.DataFrame:
    """Meaning, share known and range or values of each column; a column not known here is asked about."""
    known, rows = KNOWN | (ISIC if "isic_id" in manifest else {}), {}
    for name in manifest:
        values = manifest[name].replace("", pd.NA).dropna()
        different = sorted(map(str, values.unique()))
        listed = ", ".join(different[:MOST_LISTED]) + (", …" if len(different) > MOST_LISTED else "")
        if pd.api.types.is_numeric_dtype(values) and len(values):
            listed = f"{values.min():g} to {values.max():g}"
        rows[name] = (known.get(name, ASKED), f"{len(values) / len(manifest):.0%}", listed[:120])
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["meaning", "known", "values"])
    return table.rename_axis("column")


def _quality(manifest, rejected, measures, sentences) -> list[str]:
    lines = [
        f"{manifest.cluster.duplicated().sum()} copies of a picture that is there stayed",
        f"{(manifest.turned != '0').sum()} images turned upright, as their EXIF asked; all others as they were",
        f"{(manifest.converted != '').sum()} images converted; all others byte for byte",
        f"{(measures.brightness < NEARLY_BLACK).sum()} images are nearly black",
        f"{len(rejected)} files left out",
        *sentences,
    ]
    if "split" in manifest:
        torn = (manifest.groupby("group").split.nunique() > 1).sum()
        sides = manifest.split.fillna("(none)").value_counts().items()
        listed = ", ".join(f"{side} {count}" for side, count in sides)
        lines.append(f"It came divided: {listed}; {torn} groups stand on more than one side")
    return lines


def _questions(manifest, rejected, suspicions) -> list[str]:
    asked = ["Who gave the labels, and how were they confirmed?", "How and with which devices were the images taken?"]
    if unknown := int((manifest.license == "").sum()):
        asked.append(f"What licence do the {unknown} images have for which none is known?")
    if not {"patient_id", "lesion_id"} & set(manifest.dropna(axis="columns", how="all")):
        asked.append("Do several images show one patient or one object? There is no `patient_id` and no `lesion_id`.")
    columns, counts = describe_columns(manifest).meaning, manifest.label.value_counts()
    if unknown := ", ".join(f"`{name}`" for name in columns.index[columns == ASKED][:MOST_NAMED]):
        asked.append(f"What do these columns of the source mean, and in which units: {unknown}?")
    small = [f"{label} ({count})" for label, count in counts[counts < SMALL_CLASS].items()]
    if small:
        asked.append(f"Are there enough images to test a model on these classes: {', '.join(small[:MOST_NAMED])}?")
    lost = rejected[rejected.kind.isin(["label conflict", "no label"])].head(MOST_NAMED)
    asked += [f"Which label is right, if any? {row.path}: {row.reason}" for row in lost.itertuples()]
    return asked + [f"Why is this so, and is it part of the subject? {line}" for line in suspicions]


def _figure(paths: DatasetPaths, name: str, figure, caption: str) -> str:
    """Save a figure and return the Markdown that shows it."""
    with whole_file(paths.figures / f"{name}.png") as draft:
        figure.savefig(draft, dpi=100)
    return f"![{caption}](figures/{name}.png)"


def _table(table: pd.DataFrame | pd.Series) -> str:
    """A Markdown table with the index as first columns; numbers with 3 significant digits."""
    table = table.reset_index()
    lines = [list(table.columns), ["---"] * table.shape[1]]
    for row in table.itertuples(index=False):
        lines.append([f"{value:.3g}" if isinstance(value, float) else value for value in row])
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _list(lines: list[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _plain(text: object) -> str:
    """On one line and without what would end a table's cell."""
    return " ".join(str(text).split()).replace("|", "\\|")
