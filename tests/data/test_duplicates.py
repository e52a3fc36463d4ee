"""Copies and look-alikes: found in sets of every kind of picture, and never more than the pictures justify."""

import io
import re

import numpy as np
import pandas as pd
import pytest
import zoo
from PIL import Image, ImageDraw, ImageEnhance
from PIL.Image import Transpose

from tdsp_vision.data.duplicates import connected_groups, find_duplicates, miniature
from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.manifest import duplicates_to_reject, mark_duplicates


def saved(image: Image.Image, quality: int) -> Image.Image:
    return Image.open(io.BytesIO(zoo.encode(image, "JPEG", quality=quality))).convert("RGB")


def families(pictures: list[Image.Image]) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Numbers of the copies, numbers of copies and look-alikes together, and the sentences."""
    small = [np.asarray(picture.convert("RGB").resize((picture.width, picture.height))) for picture in pictures]
    copies, alike, sentences = find_duplicates(np.stack([miniature(one) for one in small]))
    pairs = np.concatenate([np.argwhere(copies[:, None] == copies), alike])
    return copies, connected_groups(len(small), pairs), sentences


CHANGES = {  # the first three make copies, the others look-alikes
    "saved again": lambda one: saved(one, 50),
    "half as large": lambda one: one.resize((one.width // 2, one.height // 2)),
    "a thumbnail": lambda one: saved(one.resize((100, 75)), 70),
    "brighter": lambda one: ImageEnhance.Brightness(one).enhance(1.3),
    "darker": lambda one: ImageEnhance.Brightness(one).enhance(0.75),
    "cropped": lambda one: one.crop((6, 4, one.width - 2, one.height - 3)),
    "mirrored": lambda one: one.transpose(Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda one: one.transpose(Transpose.ROTATE_180),
    "turned": lambda one: one.transpose(Transpose.ROTATE_90),
    "mirrored and cropped": lambda one: saved(one.transpose(Transpose.FLIP_LEFT_RIGHT).crop((4, 4, 197, 146)), 80),
}


def test_what_was_made_of_a_photo_is_found_and_no_two_photos_are_taken_for_one():
    photos = [zoo.photo(seed) for seed in range(60)]
    copies, groups, _ = families(photos + [change(photos[n]) for n, change in enumerate(CHANGES.values())])
    assert (groups[: len(CHANGES)] == groups[60:]).all() and len(set(groups)) == 60
    assert (copies[: len(CHANGES)] == copies[60:]).tolist() == [True] * 3 + [False] * 7


def plain_pages():
    """Small marks on a white page: each a path of a few strokes, as letters or digits."""
    for seed in range(80):
        rng, page = np.random.default_rng(seed), Image.new("RGB", (200, 200), "white")
        points = [tuple(point) for point in rng.integers(84, 116, (4, 2)).tolist()]
        ImageDraw.Draw(page).line(points, fill="black", width=3)
        yield page


def fixed_camera():
    """One part on one table in one light; it lies a little elsewhere each time, and the sensor adds noise."""
    table = np.random.default_rng(1).normal(150, 9, (120, 160))
    for seed in range(60):
        rng = np.random.default_rng(100 + seed)
        image = Image.fromarray(table.clip(0, 255).astype(np.uint8)).convert("RGB")
        x, y = rng.integers(-4, 5, 2).tolist()
        ImageDraw.Draw(image).rectangle([60 + x, 40 + y, 100 + x, 80 + y], fill=(90, 92, 99), outline=(30, 30, 30))
        yield Image.fromarray((np.asarray(image) + rng.normal(0, 3, (120, 160, 3))).clip(0, 255).astype(np.uint8))


def icons():
    """Four shapes in six colors each, on white: the shape alone makes no copy."""
    for shape in ("ellipse", "rectangle", "polygon", "arc"):
        for color in ("red", "green", "blue", "orange", "black", "magenta"):
            icon = Image.new("RGB", (120, 120), "white")
            draw = ImageDraw.Draw(icon)
            if shape == "polygon":
                draw.polygon([(60, 20), (100, 95), (20, 95)], fill=color)
            elif shape == "arc":
                draw.arc([20, 20, 100, 100], 20, 300, fill=color, width=14)
            else:
                getattr(draw, shape)([25, 25, 95, 95], fill=color)
            yield icon


def products():
    """A product in the middle of a white page, each of its own form and pattern."""
    for seed in range(50):
        page, rng = Image.new("RGB", (200, 200), "white"), np.random.default_rng(seed)
        width, height = rng.integers(60, 120, 2).tolist()
        page.paste(zoo.photo(seed, width, height), (100 - width // 2, 100 - height // 2))
        yield page


@pytest.mark.parametrize("kind", [plain_pages, fixed_camera, icons, products])
def test_different_pictures_on_one_background_stay_and_can_be_split(kind):
    pictures = list(kind())
    copies, groups, _ = families(pictures)
    assert len(set(copies)) == len(pictures), "none is left out"
    assert len(set(groups)) > 0.85 * len(pictures) and np.bincount(groups).max() <= 3


def test_likeness_that_would_tie_a_set_together_is_not_used_and_that_is_said():
    """Five letters, each written sixteen times by a hand that is not quite steady."""
    pages = []
    for seed in range(80):
        letter, rng = np.random.default_rng(seed % 5).integers(80, 120, (5, 2)), np.random.default_rng(100 + seed)
        points = [tuple(point) for point in (letter + rng.integers(-2, 3, (5, 2))).tolist()]
        pages.append(Image.new("RGB", (200, 200), "white"))
        ImageDraw.Draw(pages[-1]).line(points, fill="black", width=5)
    copies, groups, sentences = families(pages)
    assert len(set(copies)) == 80 and np.bincount(groups).max() <= 12
    assert re.search("of 80 images look much alike without being copies.* It was not used", sentences[0])


def test_one_color_none_and_a_single_picture():
    plain = [Image.new("RGB", (60, 60), color) for color in ("white", "black", "red", "green")]
    assert len(set(families(plain)[1])) == 4
    assert len(families(plain[:1])[0]) == 1 and len(find_duplicates(np.empty((0, 2496), np.uint8))[0]) == 0


def test_real_photos_of_one_lesion_are_grouped_and_others_are_not(real_photos):
    images, _ = scan_folder(real_photos / "isic2019_256")
    marked = mark_duplicates(images)
    assert (marked.file == marked.original).all()
    pairs = {frozenset(name.split("/")[1][:12] for name in pair) for pair in marked.attrs["look_alikes"]}
    known = ["0027673 0028114", "0025020 0026106", "0000164 0014795", "0026401 0030370", "0026652 0027101"]
    assert pairs == {frozenset(f"ISIC_{number}" for number in pair.split()) for pair in known}


def table(**columns) -> pd.DataFrame:
    """Images a, b, … as `scan_folder` gives them, of far-apart photos unless `shows` names the same number."""
    count = len(next(iter(columns.values())))
    shows = columns.pop("shows", range(count))
    rows = pd.DataFrame({"file": [f"x/{name}.png" for name in "abcdefghijkl"[:count]], "label": "x"})
    rows = rows.assign(width=100, height=80, bytes=1000, converted="", source_sha256=[f"{n}" for n in range(count)])
    rows["miniature"] = [miniature(np.asarray(zoo.photo(number))) for number in shows]
    return rows.assign(**columns)


def together(images: pd.DataFrame) -> set[str]:
    """The groups, each as the letters of its files."""
    return {"".join(name[2] for name in names) for _, names in mark_duplicates(images).groupby("group").file}


def test_groups_join_patients_lesions_and_copies_through_each_other():
    patients = ["p1", "p1", None, None, None, "p7", None]
    lesions = [None, "l1", "l1", None, None, None, "p7"]  # the same text as a patient's id is another thing
    images = table(patient_id=patients, lesion_id=lesions, shows=[0, 1, 2, 2, 4, 5, 6])
    assert together(images) == {"abcd", "e", "f", "g"}
    assert together(images.drop(columns="lesion_id")) == {"ab", "cd", "e", "f", "g"}
    images.index = [7, 7, 3, 1, 0, 0, 2]
    assert together(images.drop(columns="patient_id")) == {"a", "bcd", "e", "f", "g"}
    assert together(table(patient_id=[np.nan, None, pd.NA, "p"])) == set("abcd"), "missing ids join nothing"


def test_names_of_exporters_join_what_was_made_of_one_picture_of_a_label():
    mark, other = "0123456789abcdef" * 2, "12345678-1234-1234-1234-123456789abc"
    names = [f"x/one_jpg.rf.{mark}.jpg", f"x/deep/one_jpg.rf.{mark[::-1]}.jpg", f"y/one_jpg.rf.{mark}.jpg"]
    names += [f"x/two_{other}.png", f"x/two_{other[::-1].replace('-', '')}.png", "x/one.jpg"]
    images = table(file=names, label=["x", "x", "y", "x", "x", "x"])
    groups = mark_duplicates(images).group
    assert groups[0] == groups[1] and groups.nunique() == 5


def test_the_copy_with_most_pixels_then_bytes_then_the_first_name_is_kept():
    images = table(shows=[0, 0, 0, 3, 4, 5, 6], width=[90, 100, 100, 1, 1, 1, 1], bytes=[9000, 1000, 2000, 1, 1, 1, 1])
    marked = mark_duplicates(images)
    assert marked.original[:3].tolist() == ["x/c.png"] * 3
    assert duplicates_to_reject(marked.iloc[3:]).empty and duplicates_to_reject(marked, remove=False).empty


def test_copies_under_two_labels_are_all_left_out():
    images = table(shows=[0, 0, 0, *range(3, 12)], label=["wren", "wren", "robin"] + ["robin"] * 9)
    rejected = duplicates_to_reject(mark_duplicates(images))
    assert rejected.path.tolist() == ["x/a.png", "x/b.png", "x/c.png"] and set(rejected.kind) == {"label conflict"}
    assert rejected.reason[2] == "duplicate of x/a.png, x/b.png; LABEL CONFLICT: robin against wren"


def test_more_than_a_fifth_stops_the_run_but_small_editions_do_not():
    shows, width = [0, 1, 2, 0, 1, 2, 6, 7, 8, 9], [100, 100, 100, 99, 99, 99, 100, 100, 100, 100]
    with pytest.raises(ValueError, match="3 of 10 images would be left out as copies.*x/d.png repeats x/a.png.*False"):
        duplicates_to_reject(mark_duplicates(table(shows=shows, width=width)))
    assert len(duplicates_to_reject(mark_duplicates(table(shows=shows, width=[100] * 3 + [40] * 3 + [100] * 4)))) == 3
