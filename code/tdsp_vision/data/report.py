"""Write what is known of a data set as TDSP's data report and data dictionary: Markdown that renders anywhere.

data/<dataset>/data_report.md       counts, quality, class balance, relations to the target, open questions
data/<dataset>/data_dictionary.md   each column of the manifest: type, meaning, unit, share known, values
data/<dataset>/figures/*.png        the pictures that the report shows

All of it is computed. What only people can know (how the images were taken, who labelled them, what a column of the
source means) stands there as a question, never as an invented sentence.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tdsp_vision.data.confounders import warnings_in_words
from tdsp_vision.data.plots import auc_intervals, class_shares, image_grid, measure_histograms
from tdsp_vision.data.quality import MEASURES, class_by, columns_to_compare, share_known
from tdsp_vision.data.tables import read_json
from tdsp_vision.files import whole_file, write_text
from tdsp_vision.paths import DatasetPaths

EXAMPLES = 6  # pictures of each class
MOST_SHOWN = 12  # classes with examples, columns with a figure
SMALL_CLASS = 50  # images, below which a class can hardly be tested
MOST_NAMED = 50  # conflicts, columns and classes that are listed one by one
NEARLY_BLACK = 8  # mean gray value
MOST_LISTED = 6  # different values of a column that are listed
HEAD = """# Data report: {name}

Computed by the data acquisition notebook; `data_dictionary.md` explains the columns of `manifest.csv`, and
`rejected.csv` names every file that was left out."""
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
    "diagnosis_confirm_type": "how the diagnosis was confirmed",
    "fitzpatrick_skin_type": "skin type after Fitzpatrick, I (lightest) to VI (darkest)",
    "image_type": "kind of photo, such as dermoscopic",
}


def write_data_report(paths: DatasetPaths, manifest, rejected, measures, found, sentences=()) -> Path:
    """Write `data_report.md`, `data_dictionary.md` and their figures into the dataset folder; the path of the report.

    Args:
        manifest, rejected: tables as `write_dataset` wrote them.
        measures: the `MEASURES`, one row per row of the manifest.
        found: of `confounders.predict_label_alone`.
        sentences: of `mark_duplicates`.

    Raises:
        ValueError: if there is not one row of measures for each row of the manifest.
    """
    if len(manifest) != len(measures):
        raise ValueError(f"the manifest has {len(manifest)} rows and the measures {len(measures)}; they must be equal.")
    manifest, measures = manifest.reset_index(drop=True), measures.reset_index(drop=True)
    suspicions = warnings_in_words(found, measures, manifest.label)
    parts = [
        HEAD.format(name=paths.name),
        _source(read_json(paths.info), manifest),
        _quality(manifest, rejected, measures, sentences, paths),
        _target(manifest, paths),
        f"## Individual variables\n\nShare of images for which each is known.\n\n{_table(share_known(manifest))}",
        _relations(manifest, found, suspicions, paths),
        _questions(manifest, rejected, suspicions),
    ]
    write_text(paths.report, "\n\n".join(parts) + "\n")
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
        meaning = known.get(name, "(from the source; what does it mean?)")
        rows[name] = {"meaning": meaning, "known": f"{len(values) / len(manifest):.0%}", "values": listed[:120]}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("column")


def _source(info: dict, manifest: pd.DataFrame) -> str:
    text = f"## General summary of the data\n\n- Source: {info['source']}\n- {len(manifest)} images of "
    text += (
        f"{manifest.label.nunique()} classes in {manifest.group.nunique()} groups (images of one patient, lesion or "
    )
    text += f"picture); the largest group has {manifest.group.value_counts().max()}"
    if "split" in manifest:
        sides = manifest.split.fillna("").replace("", "(none)").value_counts()
        torn = (manifest.groupby("group").split.nunique() > 1).sum()
        listed = ", ".join(f"{side} {count}" for side, count in sides.items())
        text += f"\n- It came divided: {listed}; {torn} groups stand on more than one side"
    licenses = manifest.license.replace("", "(unknown)").value_counts().rename_axis("license").rename("images")
    return f"{text}\n\n### Licences\n\n{_table(licenses)}"


def _quality(manifest, rejected, measures, sentences, paths) -> str:
    lines = [
        f"{manifest.cluster.duplicated().sum()} copies of a picture that is there stayed",
        f"{(manifest.turned != '0').sum()} images turned upright, as their EXIF asked; all others as they were",
        f"{(manifest.converted != '').sum()} images converted; all others byte for byte",
        f"{(measures.brightness < NEARLY_BLACK).sum()} images are nearly black",
        f"{len(rejected)} files left out",
        *sentences,
    ]
    text = "## Data quality summary\n\n" + "\n".join(f"- {line}" for line in lines)
    text += f"\n\n{_table(rejected.kind.value_counts().rename_axis('kind of reason').rename('files'))}"
    spread = measures.describe(percentiles=[0.05, 0.5, 0.95]).T[["min", "5%", "50%", "95%", "max"]]
    meaning = "\n".join(f"- `{name}`: {text}" for name, text in MEASURES.items())
    figure = _figure(paths, "measures", measure_histograms(measures, manifest.label), "Measures by class")
    return f"{text}\n\n### Measures\n\n{meaning}\n\n{_table(spread.rename_axis('measure'))}\n\n{figure}"


def _target(manifest, paths) -> str:
    counts = manifest.groupby("label").agg(images=("path", "size"), groups=("group", "nunique"))
    counts["share"] = counts.images / len(manifest)
    largest = manifest[manifest.label.isin(counts.images.nlargest(MOST_SHOWN).index)]
    examples = largest.sample(frac=1, random_state=0).groupby("label").head(EXAMPLES).sort_values("label")
    grid = image_grid([paths.root / path for path in examples.path], list(examples.label))
    text = f"## Target variable\n\nThe target is `label`. Always answering `{counts.images.idxmax()}` is right in "
    text += f"{counts.share.max():.1%} of the images: the accuracy to beat.\n\n{_table(counts)}"
    return text + "\n\n" + _figure(paths, "examples", grid, f"Examples of the largest classes (at most {MOST_SHOWN})")


def _relations(manifest, found, suspicions, paths) -> str:
    text = (
        "## Variable ranking\n\nHow well each measure alone predicts the label, without a look at shapes (AUC; 0.5 is "
    )
    text += f"guessing).\n\n{_table(found.set_index('measure'))}\n\n"
    text += _figure(paths, "confounders", auc_intervals(found), "AUC of each measure alone") + "\n\n"
    text += "\n".join(f"- {line}" for line in suspicions) or "No interval lies clearly above 0.5."
    text += "\n\n## Relationship between explanatory variables and target variable"
    columns = columns_to_compare(manifest)[:MOST_SHOWN]
    for number, column in enumerate(columns, start=1):
        table = class_by(manifest, column)
        figure = _figure(paths, f"class_by_{number}", class_shares(table, column), f"Class by {column}")
        text += f"\n\n### {column}\n\n{_table(table)}\n\n{figure}"
    return text if columns else text + "\n\nNo metadata column can be compared with the label."


def _questions(manifest, rejected, suspicions) -> str:
    asked = ["Who gave the labels, and how were they confirmed?", "How and with which devices were the images taken?"]
    if unknown := int((manifest.license == "").sum()):
        asked.append(f"What licence do the {unknown} images have for which none is known?")
    if not {"patient_id", "lesion_id"} & set(manifest.dropna(axis="columns", how="all")):
        asked.append("Do several images show one patient or one object? There is no `patient_id` and no `lesion_id`.")
    columns = describe_columns(manifest).meaning
    if unknown := [f"`{name}`" for name in columns.index[columns.str.endswith("?)")]]:
        asked.append(
            f"What do these columns of the source mean, and in which units: {', '.join(unknown[:MOST_NAMED])}?"
        )
    counts = manifest.label.value_counts()
    small = [f"{label} ({count})" for label, count in counts[counts < SMALL_CLASS].items()]
    if small:
        asked.append(f"Are there enough images to test a model on these classes: {', '.join(small[:MOST_NAMED])}?")
    lost = rejected[rejected.kind.isin(["label conflict", "no label"])].head(MOST_NAMED)
    asked += [f"Which label is right, if any? {row.path}: {row.reason}" for row in lost.itertuples()]
    asked += [f"Why is this so, and is it part of the subject? {line}" for line in suspicions]
    return "## Open questions\n\n" + "\n".join(f"- {_plain(line)}" for line in asked)


def _figure(paths: DatasetPaths, name: str, figure: Figure, caption: str) -> str:
    """Save a figure and return the Markdown that shows it. No label becomes a file name, as it may hold anything."""
    with whole_file(paths.figures / f"{name}.png") as draft:
        figure.savefig(draft, dpi=100)
    return f"![{_plain(caption).replace('[', '(').replace(']', ')')}](figures/{name}.png)"


def _table(table: pd.DataFrame | pd.Series) -> str:
    """A Markdown table with the index as first columns; numbers with 3 significant digits."""
    table = table.to_frame() if isinstance(table, pd.Series) else table
    table = table.reset_index()
    lines = [table.columns, ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join(
        "| " + " | ".join(_plain(f"{value:.3g}" if isinstance(value, float) else str(value)) for value in line) + " |"
        for line in lines
    )


def _plain(text: str) -> str:
    """On one line and without what would end a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")
