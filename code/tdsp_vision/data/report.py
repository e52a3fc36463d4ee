"""Write what is known of a data set as TDSP's data report and data dictionary: Markdown that renders anywhere.

data/<dataset>/data_report.md       counts, quality, class balance, relations to the target, open questions
data/<dataset>/data_dictionary.md   each column of the manifest: type, meaning, unit, share known, values
data/<dataset>/figures/*.png        the pictures that the report shows

All of it is computed. What only people can know (how the images were taken, who labelled them) stands there as a
question, never as an invented sentence.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from tdsp_vision.data.confounders import warnings_in_words
from tdsp_vision.data.dictionary import describe_columns
from tdsp_vision.data.manifest import copy_path
from tdsp_vision.data.plots import auc_intervals, class_shares, image_grid, measure_histograms
from tdsp_vision.data.quality import MEASURES, class_by, columns_to_compare, share_known
from tdsp_vision.data.tables import read_json
from tdsp_vision.files import whole_file, write_text
from tdsp_vision.paths import DatasetPaths

EXAMPLES = 12  # pictures of each class
SMALL_CLASS = 50  # images, below which a class can hardly be tested
MOST_NAMED = 50  # conflicts and look-alikes that are listed one by one
HEAD = """# Data report: {name}

Computed by the data acquisition notebook; `data_dictionary.md` explains the columns of `manifest.csv`, and
`rejected.csv` names every file that was left out."""
DICTIONARY = """# Data dictionary: {name}

The columns of `manifest.csv`, one row per image.

"""


def write_data_report(
    paths: DatasetPaths,
    manifest: pd.DataFrame,
    rejected: pd.DataFrame,
    measures: pd.DataFrame,
    found: pd.DataFrame,
    look_alikes: pd.DataFrame,
) -> Path:
    """Write `data_report.md`, `data_dictionary.md` and their figures into the dataset folder.

    Args:
        manifest, rejected: as `write_dataset` wrote them.
        measures: of `quality.measure_images`, one row per row of the manifest.
        found: of `confounders.predict_label_alone`.
        look_alikes: of `find_look_alikes`, by names in the source.

    Returns:
        the path of the report.

    Raises:
        ValueError: if there is not one row of measures for each row of the manifest.
    """
    if len(manifest) != len(measures):
        raise ValueError(f"the manifest has {len(manifest)} rows and the measures {len(measures)}; they must be equal.")
    manifest, measures = manifest.reset_index(drop=True), measures.reset_index(drop=True)
    look_alikes = _in_dataset(look_alikes, manifest)
    suspicions = warnings_in_words(found, measures, manifest.label)
    parts = [
        HEAD.format(name=paths.name),
        _source(read_json(paths.info), manifest),
        _quality(manifest, rejected, look_alikes, measures, paths),
        _target(manifest, paths),
        f"## Individual variables\n\nShare of images for which each is known.\n\n{_table(share_known(manifest))}",
        _relations(manifest, measures, found, suspicions, paths),
        _questions(manifest, rejected, look_alikes, suspicions),
    ]
    write_text(paths.report, "\n\n".join(parts) + "\n")
    dictionary = DICTIONARY.format(name=paths.name) + _table(describe_columns(manifest)) + "\n"
    write_text(paths.dictionary, dictionary)
    return paths.report


def _in_dataset(look_alikes: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Pairs of which both are in the manifest and which are not known duplicates, by their paths there."""
    pairs = look_alikes.assign(
        first=look_alikes["first"].map(copy_path),
        second=look_alikes.second.map(copy_path),
    )
    cluster = manifest.set_index("path").cluster
    pairs = pairs[pairs["first"].isin(cluster.index) & pairs.second.isin(cluster.index)]
    return pairs[[cluster[one] != cluster[other] for one, other in zip(pairs["first"], pairs.second, strict=True)]]


def _source(info: dict, manifest: pd.DataFrame) -> str:
    facts = [
        f"- Source: {info['source']}",
        f"- {len(manifest)} images of {manifest.label.nunique()} classes in {manifest.group.nunique()} groups (images "
        f"of one patient, lesion or picture); the largest group has {manifest.group.value_counts().max()}",
    ]
    licenses = manifest.license.replace("", "(unknown)").value_counts().rename_axis("license").rename("images")
    return "## General summary of the data\n\n" + "\n".join(facts) + f"\n\n### Licences\n\n{_table(licenses)}"


def _quality(manifest, rejected, look_alikes, measures, paths) -> str:
    copies = rejected.reason.str.startswith("duplicate of")
    conflicts = rejected.reason.str.contains("LABEL CONFLICT", regex=False)
    labels_of = manifest.groupby("cluster").label.nunique()
    turned = (manifest.turned != "0").sum() if "turned" in manifest else 0
    lines = [
        f"- {len(rejected)} files left out, {copies.sum()} of them as duplicates, {(~copies).sum()} for other reasons",
        f"- {conflicts.sum()} of the duplicates left out had another label than the image that stayed",
        f"- {manifest.cluster.duplicated().sum()} duplicates kept; {(labels_of > 1).sum()} clusters have two labels",
        f"- {len(look_alikes)} pairs of different pictures that may show the same thing",
        f"- {turned} images turned upright, as their EXIF asked; all others are copies byte for byte",
    ]
    others = rejected.reason[~copies].str.split(":").str[0].value_counts().rename_axis("reason").rename("files")
    text = "## Data quality summary\n\n" + "\n".join(lines)
    text += f"\n\n{_table(others)}" if len(others) else ""
    spread = measures.describe(percentiles=[0.05, 0.5, 0.95]).T[["min", "5%", "50%", "95%", "max"]]
    meaning = "\n".join(f"- `{name}`: {text}" for name, text in MEASURES.items())
    figure = _figure(paths, "measures", measure_histograms(measures, manifest.label), "Measures by class")
    return f"{text}\n\n### Measures\n\n{meaning}\n\n{_table(spread.rename_axis('measure'))}\n\n{figure}"


def _target(manifest, paths) -> str:
    counts = manifest.groupby("label").agg(images=("path", "size"), groups=("group", "nunique"))
    counts["share"] = counts.images / len(manifest)
    text = (
        f"## Target variable\n\nThe target is `label`. Always answering `{counts.images.idxmax()}` is right in "
        f"{counts.share.max():.1%} of the images: the accuracy to beat.\n\n{_table(counts)}"
    )
    for number, (label, rows) in enumerate(manifest.groupby("label"), start=1):
        rows = rows.sample(min(EXAMPLES, len(rows)), random_state=0)
        grid = image_grid([paths.root / path for path in rows.path], [_short(Path(path).name) for path in rows.path])
        text += "\n\n" + _figure(paths, f"examples_{number}", grid, f"Examples of {label}")
    return text


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:12]}…{name[-11:]}"


def _relations(manifest, measures, found, suspicions, paths) -> str:
    text = (
        "## Variable ranking\n\nHow well each measure alone predicts the label, without a look at shapes (AUC; "
        f"0.5 is guessing).\n\n{_table(found.set_index('measure'))}\n\n"
        + _figure(paths, "confounders", auc_intervals(found), "AUC of each measure alone")
        + "\n\n"
    )
    text += "\n".join(f"- {line}" for line in suspicions) or "No interval lies clearly above 0.5."
    text += "\n\n## Relationship between explanatory variables and target variable"
    columns = columns_to_compare(manifest)
    for number, column in enumerate(columns, start=1):
        table = class_by(manifest, column)
        text += f"\n\n### {column}\n\n{_table(table)}\n\n"
        text += _figure(paths, f"class_by_{number}", class_shares(table, column), f"Class by {column}")
    return text if columns else text + "\n\nNo metadata column can be compared with the label."


def _questions(manifest, rejected, look_alikes, suspicions) -> str:
    asked = ["Who gave the labels, and how were they confirmed?", "How and with which devices were the images taken?"]
    if unknown := int((manifest.license == "").sum()):
        asked.append(f"What licence do the {unknown} images have for which none is known?")
    known = {"patient_id", "lesion_id"} & set(manifest.dropna(axis="columns", how="all"))
    if not known:
        asked.append("Do several images show one patient or one object? There is no `patient_id` and no `lesion_id`.")
    for label, count in manifest.label.value_counts().items():
        if count < SMALL_CLASS:
            asked.append(f"Are {count} images of {label} enough to test a model on this class?")
    conflicts = rejected[rejected.reason.str.contains("LABEL CONFLICT", regex=False)]
    asked += [f"Which label is right? {row.path}: {row.reason}" for row in conflicts.head(MOST_NAMED).itertuples()]
    pairs = look_alikes.head(MOST_NAMED).rename(columns={"first": "one"})
    asked += [
        f"Do {row.one} and {row.second} show the same? (detail correlates by {row.correlation:.2f})"
        for row in pairs.itertuples()
    ]
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
    return "\n".join("| " + " | ".join(_plain(_cell(value)) for value in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """On one line and without what would end a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")
