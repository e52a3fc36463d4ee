"""Write the sample data: drawn lesions of two classes, with patients, lesions and a few planted errors.

    python sample_data/draw_lesions.py [FOLDER]

Out, below one folder: `benign/*.jpg` and `malignant/*.jpg` (256 x 256 pixels) and `metadata.csv` with the
columns `path,patient_id,lesion_id,age,sex,site,license,attribution`; `path` is relative to the folder. The
same seed gives the same files. They are drawings: nothing learned from them says anything about skin.

A hidden number per lesion, its atypia, is higher for malignant lesions on average. It drives the four signs of the
ABCD rule of dermatoscopy (asymmetry, border, colours, diameter; Nachbar et al. 1994, doi
10.1016/S0190-9622(94)70061-3), each with noise of its own, so every sign overlaps between the classes and all four
together still do. Only these signs depend on the class; all else is drawn without knowing it, also what a camera adds
(light, hair, ruler, gel bubbles, dark corners): in many public collections such marks differ between the classes, and
a model learns the marks instead of the lesion. The lesion's seed fixes the lesion itself, the view's seed everything
that changes from one photo to the next.
"""

import argparse
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from tdsp_vision import paths
from tdsp_vision.files import whole_file, write_text

SIZE = 256  # side of a picture in pixels
CANVAS = 352  # side of the lesion's own frame: leaves room to turn and shift the largest lesion
SKIN_TONES = np.float32([[240, 208, 200], [233, 186, 166], [214, 162, 130], [176, 124, 92], [136, 92, 66]])
LESION_COLOURS = {
    "light brown": (142, 90, 62),
    "dark brown": (76, 43, 32),
    "black": (30, 22, 24),
    "red": (160, 70, 68),
    "blue-grey": (92, 94, 110),
    "white": (214, 182, 172),
}
EXTRA_COLOURS = {"dark brown": 0.33, "black": 0.26, "red": 0.2, "blue-grey": 0.11, "white": 0.1}  # how often
PATTERNS = ("network", "globules", "homogeneous")
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
ATTRIBUTION = "drawn by tdsp_vision.data.sample"  # where this file was when the committed sample was drawn
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
    plan["license"], plan["attribution"] = "CC-0", ATTRIBUTION
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


@dataclass(frozen=True)
class Signs:
    """How strongly a lesion shows each sign of the ABCD rule, 0 (not at all) to 1 (extremely)."""

    asymmetry: float
    border: float
    colours: float
    diameter: float

    def __post_init__(self):
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise ValueError(f"the sign {name} is {value!r}; it must lie between 0 and 1.")


def draw_lesion(signs: Signs, skin_tone: float, lesion_seed: list[int], view_seed: list[int]) -> np.ndarray:
    """One picture of one lesion.

    Args:
        signs: what distinguishes the classes, see `Signs`.
        skin_tone: 0 (lightest) to 1 (darkest).
        lesion_seed, view_seed: non-negative integers for `numpy.random.default_rng`; the same lesion seed
            with another view seed gives another photo of the same lesion.

    Returns:
        uint8 [256, 256, 3], RGB.

    Raises:
        ValueError: if `skin_tone` lies outside 0..1.
    """
    if not 0 <= skin_tone <= 1:
        raise ValueError(f"skin_tone is {skin_tone!r}; it must lie between 0 (lightest) and 1 (darkest).")
    lesion_rng, rng = np.random.default_rng(lesion_seed), np.random.default_rng(view_seed)
    skin = _skin(rng, skin_tone)
    colour, opacity = _placed(rng, *_lesion(lesion_rng, signs, skin_tone))
    image = skin + opacity[..., None] * (colour - skin)
    image = expose(rng, image)
    for add, probability in PROBABILITIES.items():
        if rng.random() < probability:
            image = add(rng, image)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.35, 0.9))
    image += rng.normal(0, rng.uniform(0.5, 4), (SIZE, SIZE, 1))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _noise(rng, size: int, cells: float) -> np.ndarray:
    """Smooth random field [size, size], mean 0 and variance 1, with about `cells` bumps along a side."""
    grid = rng.normal(size=(round(2 * cells) + 5,) * 2).astype(np.float32)
    grid = cv2.GaussianBlur(grid, (0, 0), 0.9)  # a bare grid would show its rows and columns
    field = cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    return (field - field.mean()) / field.std()


def _skin(rng, tone: float) -> np.ndarray:
    """Bare skin, float32 [256, 256, 3]: uneven colour, fine relief, a few faint vessels."""
    position = tone * (len(SKIN_TONES) - 1)
    base = [np.interp(position, range(len(SKIN_TONES)), SKIN_TONES[:, channel]) for channel in range(3)]
    relief = 2.5 * _noise(rng, SIZE, 5) + 2.5 * _noise(rng, SIZE, 28) + 2.5 * _noise(rng, SIZE, 80)
    vessels = np.exp(-((_noise(rng, SIZE, 11) / 0.13) ** 2)) * np.clip(_noise(rng, SIZE, 4), 0, 1)
    freckles = soft_step(_noise(rng, SIZE, 22) - 2.2, 0.25) * rng.uniform(0, 0.22)
    skin = np.float32(base) + relief[..., None] * np.float32([1, 1.1, 1.1])
    skin -= (rng.uniform(0, 14) * vessels)[..., None] * np.float32([0.3, 1, 0.8])
    return skin * (1 - freckles[..., None] * np.float32([0.6, 0.9, 1.1]))


def _lesion(rng, signs: Signs, skin_tone: float) -> tuple[np.ndarray, np.ndarray]:
    """The lesion in its own frame of CANVAS x CANVAS: colour (0 to 255, 3 channels) and opacity (0 to 1)."""
    radius = 31 + 44 * signs.diameter + rng.normal(0, 2)
    x, y = np.meshgrid(*[np.arange(CANVAS, dtype=np.float32) - CANVAS / 2] * 2)
    inside = _outline(rng, signs, radius, x, y)  # pixels to the border, positive inside
    softness = (10 - 7.5 * signs.border) * (1 + 0.3 * _noise(rng, CANVAS, 3) * signs.border)
    shape = soft_step(inside, np.maximum(softness, 1.5))
    depth = np.clip(inside / radius, 0, 1)
    direction = rng.uniform(0, 2 * np.pi)
    lopsided = (x * np.cos(direction) + y * np.sin(direction)) / radius * 1.2 * signs.asymmetry
    colour = _pigment(rng, signs, depth, lopsided)
    texture = _texture(rng, 1 + 0.9 * lopsided)
    colour = colour * (1 + texture[..., None] * np.float32([0.8, 1, 1])) * (1 - 0.12 * skin_tone)
    density = rng.uniform(0.78, 0.95) + 0.07 * _noise(rng, CANVAS, 9) + 0.12 * depth - 0.12 * texture
    return colour, shape * np.clip(density, 0.35, 1)


def _outline(rng, signs: Signs, radius: float, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (approximate, pixels) to a noisy outline r(theta) = radius * (1 + harmonics)."""
    theta, distance = np.arctan2(y, x), np.hypot(x, y)
    border = np.ones_like(theta)
    for order in range(1, 15):
        if order == 2:  # an ellipse is symmetric: any lesion may be one
            amplitude = rng.uniform(0.02, 0.14)
        elif order <= 4:
            amplitude = (0.02 + 0.22 * signs.asymmetry) / order**0.7 * rng.uniform(0.6, 1.3)
        else:
            amplitude = (0.03 + 0.26 * signs.border) / order * rng.uniform(0.3, 1.5)
        border += amplitude * np.cos(order * theta + rng.uniform(0, 2 * np.pi))
    ragged = (1 + 3.6 * signs.border) * (_noise(rng, CANVAS, 24) + 0.6 * _noise(rng, CANVAS, 60))
    return radius * np.clip(border, 0.4, 1.6) - distance + ragged


def _pigment(rng, signs: Signs, depth: np.ndarray, lopsided: np.ndarray) -> np.ndarray:
    """Colour of the lesion without texture: a brown ground and one patch for each further colour."""
    ground = np.float32(LESION_COLOURS["light brown"])
    core = np.float32(LESION_COLOURS["dark brown"])
    ground, core = (shade * np.exp(rng.normal(0, 0.12) + rng.normal(0, 0.03, 3)) for shade in (ground, core))
    centre = rng.uniform(0.1, 0.9) * soft_step(depth - rng.uniform(0.15, 0.6) + 0.5 * lopsided, 0.25)
    mix = np.clip(centre + 0.13 * _noise(rng, CANVAS, 12), 0, 1)
    colour = ground + mix[..., None] * (core - ground)
    extra = int(np.floor(4.2 * signs.colours + rng.uniform(0, 0.8)))
    names = rng.choice(list(EXTRA_COLOURS), len(EXTRA_COLOURS), replace=False, p=list(EXTRA_COLOURS.values()))
    for name in names[:extra]:
        field = _noise(rng, CANVAS, rng.uniform(7, 14)) + 0.35 * _noise(rng, CANVAS, 40) + 2 * lopsided
        patch = soft_step(field + 0.8 * depth - rng.uniform(0.9, 1.4), 0.6) * rng.uniform(0.6, 0.9)
        colour += patch[..., None] * (np.float32(LESION_COLOURS[name]) + rng.normal(0, 4, 3) - colour)
    return colour


def _texture(rng, strength: np.ndarray) -> np.ndarray:
    """Relative brightness changes of the lesion's pattern, about -0.4 to 0.2; darker is negative."""
    pattern = PATTERNS[rng.integers(len(PATTERNS))]
    contrast = rng.uniform(0.15, 0.38) * np.clip(strength, 0.1, 2)
    grain = 0.05 * _noise(rng, CANVAS, 90)
    field = _noise(rng, CANVAS, rng.uniform(34, 50))
    if pattern == "network":  # dark lines where the field crosses zero enclose lighter holes
        return contrast * (0.4 - np.exp(-((field / 0.45) ** 2))) + grain
    if pattern == "globules":
        return -contrast * soft_step(field - 1.1, 0.3) + grain
    return 0.06 * _noise(rng, CANVAS, 14) + grain


def _placed(rng, colour: np.ndarray, opacity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lesion turned, zoomed and shifted into the picture's frame of 256 x 256."""
    zoom, angle, mirror = rng.uniform(0.9, 1.1), rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    cos, sin = np.cos(angle) / zoom, np.sin(angle) / zoom
    turn = np.array([[cos * mirror, -sin * mirror], [sin, cos]])
    target = SIZE / 2 + np.clip(rng.normal(0, 11, 2), -26, 26)
    matrix = np.hstack([turn, (CANVAS / 2 - turn @ target)[:, None]])
    layers = np.dstack([colour, opacity]).astype(np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    layers = cv2.warpAffine(layers, matrix, (SIZE, SIZE), flags=flags)
    return layers[..., :3], layers[..., 3]


def soft_step(values: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """0 far below zero, 1 far above, with a transition about `width` wide; same shape as `values`."""
    return 0.5 + 0.5 * np.tanh(values / width)


def expose(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Light from one side, white balance and exposure, which evens out most of the mean brightness."""
    x, y = np.meshgrid(*[np.linspace(-1, 1, SIZE, dtype=np.float32)] * 2)
    angle, slope, falloff = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.14), rng.uniform(0, 0.16)
    light = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y) - falloff * (x**2 + y**2)
    image = image * light[..., None] * np.exp(rng.normal(0, [0.025, 0.025, 0.045]))
    image *= (rng.uniform(175, 225) / image.mean()) ** 0.9
    return (300 * (1 - np.exp(-image / 200)) ** 1.25).astype(np.float32)


def add_hair(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Thin curved hairs across the picture, each with its own darkness."""
    steps = np.linspace(0, 1, 24)[:, None]
    for _ in range(rng.integers(1, 8)):
        start, bend, end = rng.uniform(-40, SIZE + 40, (3, 2))
        bend = (start + end) / 2 + 0.35 * (bend - SIZE / 2)
        curve = (1 - steps) ** 2 * start + 2 * steps * (1 - steps) * bend + steps**2 * end
        mask = np.zeros((SIZE, SIZE), np.uint8)
        points = np.rint(curve * 16).astype(np.int32)[None]
        cv2.polylines(mask, points, False, 255, 1 + int(rng.random() < 0.35), cv2.LINE_AA, shift=4)
        image = _painted(image, mask, rng.uniform(0.4, 0.8), (58, 40, 34))
    return image


def add_ruler(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Tick marks along one edge, every fifth longer."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    spacing, edge = rng.uniform(7, 12), rng.uniform(10, 22)
    for tick in range(int(rng.uniform(90, 200) / spacing)):
        length = 10 if tick % 5 == 0 else 5
        at = 24 + tick * spacing
        ends = np.rint(np.array([[at, edge], [at + 0.4, edge + length]]) * 16).astype(np.int32)
        cv2.line(mask, ends[0], ends[1], 255, 1, cv2.LINE_AA, shift=4)
    return _painted(image, np.rot90(mask, rng.integers(4)), rng.uniform(0.5, 0.8), (40, 40, 48))


def add_bubbles(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Gel bubbles: a faint bright ring with a highlight."""
    for _ in range(rng.integers(1, 9)):
        centre, radius = rng.integers(8, SIZE - 8, 2), int(rng.integers(2, 8))
        mask = np.zeros((SIZE, SIZE), np.uint8)
        cv2.circle(mask, centre, radius, 150, 1, cv2.LINE_AA)
        cv2.circle(mask, centre - radius // 2, max(radius // 4, 1), 255, -1, cv2.LINE_AA)
        image = _painted(image, mask, rng.uniform(0.4, 0.8), (250, 246, 244))
    return image


def add_dark_corners(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """The round rim of the dermatoscope's lens."""
    x, y = np.meshgrid(*[np.arange(SIZE, dtype=np.float32)] * 2)
    centre = SIZE / 2 + rng.normal(0, 4, 2)
    outside = np.hypot(x - centre[0], y - centre[1]) - rng.uniform(122, 165)
    return image * (1 - 0.95 * soft_step(outside, rng.uniform(2, 9)))[..., None]


def _painted(image: np.ndarray, mask: np.ndarray, opacity: float, colour: tuple) -> np.ndarray:
    return image + opacity * (mask[..., None] / np.float32(255)) * (np.float32(colour) - image)


PROBABILITIES = {add_hair: 0.35, add_ruler: 0.25, add_bubbles: 0.3, add_dark_corners: 0.25}


def main(arguments: list[str] | None = None) -> None:
    """The command line above; `arguments` stand in for `sys.argv[1:]`."""
    parser = argparse.ArgumentParser(description="Draw the sample data.")
    parser.add_argument("folder", nargs="?", type=Path, default=paths.SAMPLE_DATA / "lesions")
    folder = parser.parse_args(arguments).folder
    plan = generate_sample(folder)
    print(f"{paths.shown(folder)}: {len(plan)} images and metadata.csv")


if __name__ == "__main__":
    main()
