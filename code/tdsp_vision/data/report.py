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

MOST_NAMED = 50  # conflicts and columns that are listed one by one
ASKED = "(from the source; what does it mean?)"
KNOWN = COLUMNS | dict.fromkeys(["patient_id", "lesion_id"], "images that share it stay on one side of the split")
ISIC = {  # columns of the ISIC Archive without the number at their end; known where its `isic_id` stands beside them
    "isic_id": "name of the image in the ISIC Archive",
    "age_approx": "age of the patient in years, rounded by the archive",
    "sex": "sex of the patient",
    "anatom_site": "place on the body, 1 coarsest",
    "diagnosis": "diagnosis, 1 coarsest",
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
    figures = {"measures": measures_by_class(measures, manifest.label), "confounders": auc_intervals(found)}
    for name, figure in figures.items():
        with whole_file(paths.figures / f"{name}.png") as draft:
            figure.savefig(draft, dpi=100)
    blocks = [
        f"# Data report: {paths.name}",
        "Computed by the data acquisition notebook from `manifest.csv` and `rejected.csv`.",
        "## General summary of the data",
        f"{len(manifest)} images of {len(classes)} classes in {manifest.group.nunique()} groups; the largest group has "
        f"{manifest.group.value_counts().max()}. Source: {read_json(paths.info)['source']}.",
        manifest.license.replace("", "(unknown)").value_counts().rename_axis("license").rename("images"),
        "## Data quality summary",
        f"- {(manifest.converted != '').sum()} images were converted or turned upright; all others are as they were",
        f"- {(measures.brightness < 8).sum()} images are nearly black: their mean gray value is below 8",
        *(f"- {sentence}" for sentence in sentences),
        rejected.kind.value_counts().rename_axis("kind of reason").rename("entries"),
        measures.agg(["min", "median", "max"]).T.assign(meaning=pd.Series(quality.MEASURES)).rename_axis("measure"),
        "![Measures by class](figures/measures.png)",
        "## Target variable",
        f"The target is `label`. Always answering `{classes.images.idxmax()}` is right in "
        f"{classes.images.max() / len(manifest):.1%} of the images: the accuracy to beat.",
        classes.assign(share=classes.images / len(manifest)),
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
        *(f"- {_plain(question)}" for question in _questions(manifest, rejected, columns, suspicions)),
    ]
    write_text(paths.report, "\n\n".join(map(_markdown, blocks)) + "\n")
    write_text(paths.dictionary, f"# Data dictionary: {paths.name}\n\n`manifest.csv`:\n\n{_markdown(columns)}\n")
    return paths.report


def describe_columns(manifest: pd.DataFrame) -> pd.DataFrame:
    """Meaning, share known and values of each column, numbers in ranges; a column not known here is asked about.

    A share that differs between the classes is a finding by itself: they may come from different archives.
    """
    archive, filled = ISIC if "isic_id" in manifest else {}, manifest.replace("", pd.NA)
    table = filled.notna().groupby(quality.shown_classes(manifest.label)).mean().T.add_prefix("known of ")
    table.insert(0, "known", filled.notna().mean())
    table = table.map("{:.0%}".format)
    table.insert(0, "meaning", [KNOWN.get(name, archive.get(name.rstrip("_12345"), ASKED)) for name in manifest])
    values = [", ".join(quality.in_ranges(filled[name].dropna()).cat.categories) for name in manifest]
    table["values"] = [text[:120] + " …" * (len(text) > 120) for text in values]
    return table.rename_axis("column")


def _questions(manifest, rejected, columns, suspicions) -> list[str]:
    asked = ["Who gave the labels, and how were they confirmed?", "How and with which devices were the images taken?"]
    if not {"patient_id", "lesion_id"} & set(manifest.dropna(axis="columns", how="all")):
        asked.append("Do several images show one patient or one object? There is no `patient_id` and no `lesion_id`.")
    if unknown := [f"`{name}`" for name in columns.index[columns.meaning == ASKED][:MOST_NAMED]]:
        asked.append(f"What do these columns of the source mean, and in which units: {', '.join(unknown)}?")
    lost = rejected[(rejected.kind == "label conflict") | rejected.path.str.endswith("/")].head(MOST_NAMED)
    asked += [f"Which label is right, if any? {row.path}: {row.reason}" for row in lost.itertuples()]
    return asked + [f"Why is this so, and is it part of the subject? {line}" for line in suspicions]


def _markdown(block: str | pd.DataFrame | pd.Series) -> str:
    """A text as it is, a table with its index and 3 significant digits."""
    if isinstance(block, str):
        return block
    table = block.reset_index()
    lines = [table.columns, ["---"] * table.shape[1], *table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)


def _plain(value: object) -> str:
    """On one line and without what would end a table's cell."""
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return " ".join(text.split()).replace("|", "\\|")
