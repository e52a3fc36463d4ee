"""Write the sample data: drawn lesions of two classes, with patients, lesions and a few planted errors.

Out, below one folder: `benign/*.jpg` and `malignant/*.jpg` (256 x 256 pixels) and `metadata.csv` with the
columns `path,patient_id,lesion_id,age,sex,site,license,attribution`; `path` is relative to the folder. The
same seed gives the same files. They are drawings: nothing learned from them says anything about skin.

A hidden number per lesion, its atypia, is higher for malignant lesions on average. It drives the four signs
of the ABCD rule (see `drawing`), each with noise of its own, so every sign overlaps between the classes and
all four together still do. Nothing else is drawn with knowledge of the class.
"""

import argparse
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from tdsp_vision import paths
from tdsp_vision.data.drawing import Signs, draw_lesion
from tdsp_vision.files import whole_file, write_text

CLASSES = ("benign", "malignant")
SIGNS = ("asymmetry", "border", "colours", "diameter")
METADATA_COLUMNS = ["path", "patient_id", "lesion_id", "age", "sex", "site", "license", "attribution"]
SITES = ("head/neck", "anterior torso", "posterior torso", "upper extremity", "lower extremity")
ATYPIA_GAP = 2.7  # between the means of the classes, in standard deviations of the atypia within a class
TWO_VIEWS = 1 / 8  # two-view lesions per image of a class
JPEG_QUALITY = 88
WRONG_LABELS = 2  # per class
SAVED_AGAIN, SMALLER = "near-duplicate, JPEG quality 80", "near-duplicate, 240 pixels"
# The planted copies: what they are, class of the original, whether they keep its patient and lesion ids.
COPIES = (
    ("exact duplicate", "benign", True),
    ("exact duplicate", "malignant", True),
    (SAVED_AGAIN, "benign", True),
    (SMALLER, "malignant", False),
    ("label conflict", "benign", False),
)
DEFAULT_SEED = 1  # the committed sample
FEWEST_FOR_PLANTING = 10


def generate_sample(
    folder: Path, images_per_class: int = 60, seed: int = DEFAULT_SEED, plant_errors: bool = True
) -> pd.DataFrame:
    """Draw the sample and write its images and `metadata.csv` below `folder`.

    Args:
        folder: made if missing; files of an earlier call with the same numbers are replaced.
        images_per_class: drawings per class, at least 1; planted copies come on top.
        seed: non-negative; the same seed gives the same pixels (and bytes, with the same Pillow).
        plant_errors: file 4 drawings under the wrong label and add 5 copies, see `plan_sample`.

    Returns:
        the table of `plan_sample`, one row per file written.

    Raises:
        ValueError: for numbers `plan_sample` refuses, or if `folder` holds images that are not in the plan.
    """
    folder = Path(folder)
    plan = plan_sample(images_per_class, seed, plant_errors)
    found = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg")}
    if strangers := sorted(found - set(plan["path"])):
        raise ValueError(
            f"{paths.shown(folder)} holds {len(strangers)} images that are not part of this sample, such as "
            f"{strangers[0]}; name an empty folder or remove them first."
        )
    drawn = {}
    for row in plan[plan["copy_of"] == ""].to_dict("records"):
        signs = Signs(*(row[name] for name in SIGNS))
        pixels = draw_lesion(signs, row["skin_tone"], [seed, 1, row["lesion"]], [seed, 2, row["image"]])
        drawn[row["path"]] = _jpeg(Image.fromarray(pixels))
    for row in plan[plan["copy_of"] != ""].to_dict("records"):
        drawn[row["path"]] = _copied(drawn[row["copy_of"]], row["planted"])
    for path, content in drawn.items():
        with whole_file(folder / path) as draft:
            draft.write_bytes(content)
    write_text(folder / "metadata.csv", plan[METADATA_COLUMNS].to_csv(index=False, lineterminator="\n"))
    return plan


def plan_sample(images_per_class: int = 60, seed: int = DEFAULT_SEED, plant_errors: bool = True) -> pd.DataFrame:
    """What `generate_sample` draws, without drawing it; the arguments are the same.

    Planted are 2 wrong labels in each class, on lesions that show the signs of their true class clearly, and
    the 5 `COPIES`; images_per_class must then be at least 10.

    Returns:
        one row per file, sorted by path: the columns of `metadata.csv` (ids are empty strings where they are
        missing), `label` (the class drawn; the folder in `path` is the class it is filed under), `planted`
        (empty, "wrong label" or the kind of copy), `copy_of` (path of the original, or empty), the four signs
        (0 to 1), `skin_tone` (0 to 1), and the numbers `lesion` and `image` that seed the drawing.

    Raises:
        ValueError: if `images_per_class` or `seed` is too small.
    """
    fewest = FEWEST_FOR_PLANTING if plant_errors else 1
    if images_per_class < fewest or seed < 0:
        raise ValueError(
            f"images_per_class is {images_per_class} and seed is {seed}; with plant_errors={plant_errors} at "
            f"least {fewest} images per class are needed, and the seed is 0 or more."
        )
    rng = np.random.default_rng([seed, 0])
    plan = _views(rng, _lesions(rng, images_per_class), images_per_class)
    plan["filed_as"], plan["planted"], plan["copy_of"] = plan["label"], "", -1
    if plant_errors:
        plan = _with_errors(rng, plan)
    numbers = rng.permutation(len(plan)) + 1  # so that neither class nor copies stand out by their number
    plan["path"] = [f"{label}/lesion_{n:04d}.jpg" for label, n in zip(plan["filed_as"], numbers, strict=True)]
    originals = plan[plan["copy_of"] < 0].set_index("image")["path"]
    plan["copy_of"] = plan["copy_of"].map(originals).fillna("")
    plan["license"], plan["attribution"] = "CC-0", "drawn by tdsp_vision.data.sample"
    order = [*METADATA_COLUMNS, "label", "planted", "copy_of", *SIGNS, "skin_tone", "lesion", "image"]
    return plan.sort_values("path", ignore_index=True)[order]


def _lesions(rng, images_per_class: int) -> pd.DataFrame:
    """One row per lesion, classes mixed, dealt out to patients of one to four lesions."""
    count = images_per_class - int(images_per_class * TWO_VIEWS)
    table = pd.DataFrame({"label": rng.permutation(np.repeat(CLASSES, count))})
    table["lesion"] = np.arange(len(table))
    sizes = rng.integers(1, 5, len(table))
    patient = np.repeat(np.arange(len(table)), sizes)[: len(table)]
    table["patient_id"] = [f"P{number + 1:03d}" for number in patient]
    table["lesion_id"] = [f"L{number + 1:03d}" for number in table["lesion"]]
    table["age"] = np.clip(np.rint(rng.normal(52, 15, len(table)) / 5) * 5, 20, 85).astype(int)[patient]
    table["sex"] = rng.choice(["female", "male"], len(table))[patient]
    table["skin_tone"] = rng.beta(1.2, 1.8, len(table))[patient]
    table["site"] = rng.choice(SITES, len(table))
    mean = np.where(table["label"] == CLASSES[1], ATYPIA_GAP / 2, -ATYPIA_GAP / 2)
    atypia = mean + rng.normal(size=len(table))
    for name in SIGNS:
        table[name] = 1 / (1 + np.exp(-1.1 * (atypia + rng.normal(size=len(table)))))
    return table


def _views(rng, lesions: pd.DataFrame, images_per_class: int) -> pd.DataFrame:
    """One row per drawing: every lesion once, some of each class a second time."""
    twice = int(images_per_class * TWO_VIEWS)
    again = [rng.choice(lesions.index[lesions["label"] == label], twice, replace=False) for label in CLASSES]
    views = pd.concat([lesions, lesions.loc[np.concatenate(again)]], ignore_index=True)
    views["image"] = np.arange(len(views))
    return views


def _with_errors(rng, plan: pd.DataFrame) -> pd.DataFrame:
    """The plan with wrong labels on clear-cut lesions and with copies, all of lesions that have one view."""
    free = plan[~plan["lesion"].duplicated(keep=False)]
    typical = free[list(SIGNS)].mean(axis=1).sort_values().index
    benign, malignant = ([i for i in typical if free["label"][i] == label] for label in CLASSES)
    for wrong, filed_as in ((benign[:WRONG_LABELS], CLASSES[1]), (malignant[-WRONG_LABELS:], CLASSES[0])):
        plan.loc[wrong, "filed_as"], plan.loc[wrong, "planted"] = filed_as, "wrong label"
    right = free[plan.loc[free.index, "planted"] == ""]
    originals = {label: iter(rng.permutation(right.index[right["label"] == label])) for label in CLASSES}
    copies = plan.loc[[next(originals[label]) for _, label, _ in COPIES]].copy()
    copies["planted"], copies["copy_of"] = [kind for kind, _, _ in COPIES], copies["image"]
    copies.loc[[not keeps_ids for _, _, keeps_ids in COPIES], ["patient_id", "lesion_id"]] = ""
    copies.loc[copies["planted"] == "label conflict", "filed_as"] = CLASSES[1]
    return pd.concat([plan, copies], ignore_index=True)


def _jpeg(image: Image.Image, quality: int = JPEG_QUALITY) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _copied(original: bytes, kind: str) -> bytes:
    """The bytes of a planted copy: the same, or the picture saved again with small changes."""
    image = Image.open(BytesIO(original))
    if kind == SAVED_AGAIN:
        return _jpeg(image, quality=80)
    if kind == SMALLER:
        return _jpeg(image.resize((240, 240)))
    return original


def main(arguments: list[str] | None = None) -> None:
    """Command line: `python -m tdsp_vision.data.sample [FOLDER]`; `arguments` stand in for `sys.argv[1:]`."""
    parser = argparse.ArgumentParser(prog="python -m tdsp_vision.data.sample", description="Draw the sample data.")
    parser.add_argument("folder", nargs="?", type=Path, default=paths.SAMPLE_DATA / "lesions")
    folder = parser.parse_args(arguments).folder
    plan = generate_sample(folder)
    print(f"{paths.shown(folder)}: {len(plan)} images and metadata.csv")


if __name__ == "__main__":
    main()
