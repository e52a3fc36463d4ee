"""Write what is known of a data set as TDSP's data report and data dictionary: Markdown that renders anywhere.

data/<dataset>/data_report.md       counts, quality, class balance, relations to the target, open questions
data/<dataset>/data_dictionary.md   each column of the manifest: meaning, share known of each class, values
data/<dataset>/figures/*.png        the pictures that the report shows

All of it is computed. What only people can know (how the images were taken, who labelled them, what a column of the
source means) stands there as a question, never as an invented sentence.
"""

from pathlib import Path

import pandas as pd

from tdsp_vision.data import quality
from tdsp_vision.data.plots import auc_intervals, measures_by_class
from tdsp_vision.data.tables import COLUMNS, read_json
from tdsp_vision.files import whole_file, write_text
from tdsp_vision.paths import DatasetPaths

SMALL_CLASS = 50  # images, below which a class can hardly be tested
MOST_NAMED = 50  # conflicts, columns and classes that are listed one by one
MOST_LISTED = 6  # different values of a column that are listed
NEARLY_BLACK = 8  # mean gray value
ASKED = "(from the source; what does it mean?)"
KNOWN = COLUMNS | dict.fromkeys(["patient_id", "lesion_id"], "images that share it stay on one side of the split")
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
    columns, suspicions = describe_columns(manifest), quality.warnings_in_words(found, manifest.label)
    classes = manifest.groupby("label").agg(images=("path", "size"), groups=("group", "nunique"))
    classes["share"] = classes.images / len(manifest)
    spread = measures.describe(percentiles=[0.05, 0.5, 0.95]).T[["min", "5%", "50%", "95%", "max"]]
    figures = {"measures": measures_by_class(measures, manifest.label), "confounders": auc_intervals(found)}
    for name, figure in figures.items():
        with whole_file(paths.figures / f"{name}.png") as draft:
            figure.savefig(draft, dpi=100)
    blocks = [
        f"# Data report: {paths.name}",
        "Computed by the data acquisition notebook; `data_dictionary.md` explains the columns of `manifest.csv`, and "
        "`rejected.csv` names every file that was left out.",
        "## General summary of the data",
        f"{len(manifest)} images of {len(classes)} classes in {manifest.group.nunique()} groups; the largest group has "
        f"{manifest.group.value_counts().max()}. Source: {read_json(paths.info)['source']}.",
        manifest.license.replace("", "(unknown)").value_counts().rename_axis("license").rename("images"),
        "## Data quality summary",
        [*_quality(manifest, rejected, measures), *sentences],
        rejected.kind.value_counts().rename_axis("kind of reason").rename("entries"),
        spread.assign(meaning=pd.Series(quality.MEASURES)).rename_axis("measure"),
        "![Measures by class](figures/measures.png)",
        "## Target variable",
        f"The target is `label`. Always answering `{classes.images.idxmax()}` is right in {classes.share.max():.1%} of "
        "the images: the accuracy to beat.",
        classes,
        "## Individual variables",
        "`data_dictionary.md` lists them, with their values and how often they are known in each class.",
        "## Variable ranking",
        "How well each measure alone predicts the label, without a look at shapes (AUC; 0.5 is guessing). Of many "
        f"classes the {quality.MOST_SHOWN} largest are compared, and chance lies a little higher.",
        found.set_index("measure"),
        "![AUC of each measure alone](figures/confounders.png)",
        "## Relationship between explanatory variables and target variable",
        *(quality.class_by(manifest, column) for column in quality.columns_to_compare(manifest)[: quality.MOST_SHOWN]),
        "## Open questions",
        _questions(manifest, rejected, columns, suspicions),
    ]
    _write(paths.report, blocks)
    title = f"# Data dictionary: {paths.name}"
    _write(paths.dictionary, [title, "The columns of `manifest.csv`, one row per image.", columns])
    return paths.report


def describe_columns(manifest: pd.DataFrame) -> pd.DataFrame:
    """Meaning, share known and range or values of each column; a column not known here is asked about.

    A share that differs between the classes is a finding by itself: they may come from different archives.
    """
    meanings, filled = KNOWN | (ISIC if "isic_id" in manifest else {}), manifest.replace("", pd.NA)
    table = filled.notna().groupby(quality.shown_classes(manifest.label)).mean().T.add_prefix("known of ")
    table.insert(0, "known", filled.notna().mean())
    table = table.map("{:.0%}".format)
    table.insert(0, "meaning", [meanings.get(name, ASKED) for name in manifest])
    for name in manifest:
        values = filled[name].dropna()
        listed = ", ".join(sorted(map(str, values.unique()))[:MOST_LISTED]) + ", …" * (values.nunique() > MOST_LISTED)
        if pd.api.types.is_numeric_dtype(values) and len(values):
            listed = f"{values.min():g} to {values.max():g}"
        table.loc[name, "values"] = listed[:120]
    return table.rename_axis("column")


def _quality(manifest: pd.DataFrame, rejected: pd.DataFrame, measures: pd.DataFrame) -> list[str]:
    lines = [
        f"{manifest.cluster.duplicated().sum()} copies of a picture that is there stayed",
        f"{(manifest.turned != '0').sum()} images turned upright, as their EXIF asked; all others as they were",
        f"{(manifest.converted != '').sum()} images converted; all others byte for byte",
        f"{(measures.brightness < NEARLY_BLACK).sum()} images are nearly black",
        f"{len(rejected)} entries in `rejected.csv`: files, sub-folders and lines that are not used",
    ]
    if "split" in manifest:
        torn = (manifest.groupby("group").split.nunique() > 1).sum()
        sides = manifest.split.fillna("(none)").value_counts().to_dict()
        lines.append(f"It came divided, {sides}; {torn} groups stand on more than one side")
    return lines


def _questions(manifest, rejected, columns, suspicions) -> list[str]:
    asked = ["Who gave the labels, and how were they confirmed?", "How and with which devices were the images taken?"]
    if unknown := (manifest.license == "").sum():
        asked.append(f"What licence do the {unknown} images have for which none is known?")
    if not {"patient_id", "lesion_id"} & set(manifest.dropna(axis="columns", how="all")):
        asked.append("Do several images show one patient or one object? There is no `patient_id` and no `lesion_id`.")
    if unknown := [f"`{name}`" for name in columns.index[columns.meaning == ASKED][:MOST_NAMED]]:
        asked.append(f"What do these columns of the source mean, and in which units: {', '.join(unknown)}?")
    counts = manifest.label.value_counts()
    if small := [f"{label} ({count})" for label, count in counts[counts < SMALL_CLASS][:MOST_NAMED].items()]:
        asked.append(f"Are there enough images to test a model on these classes: {', '.join(small)}?")
    lost = rejected[(rejected.kind == "label conflict") | rejected.path.str.endswith("/")].head(MOST_NAMED)
    asked += [f"Which label is right, if any? {row.path}: {row.reason}" for row in lost.itertuples()]
    return asked + [f"Why is this so, and is it part of the subject? {line}" for line in suspicions]


def _write(path: Path, blocks: list[str | list | pd.DataFrame | pd.Series]) -> None:
    """Write Markdown: texts as they are, lists with bullets, tables with their index and 3 significant digits."""
    written = []
    for block in blocks:
        if isinstance(block, list):
            block = "\n".join(f"- {_plain(line)}" for line in block)
        elif not isinstance(block, str):
            table = block.reset_index()
            lines = [table.columns, ["---"] * table.shape[1], *table.itertuples(index=False)]
            block = "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)
        written.append(block)
    write_text(path, "\n\n".join(written) + "\n")


def _plain(value: object) -> str:
    """On one line and without what would end a table's cell."""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
