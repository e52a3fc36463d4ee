"""The second look finds crops that a dHash does not, and names no pairs of different pictures."""

import numpy as np
import pandas as pd
import zoo
from PIL import Image, ImageEnhance

from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.lookalikes import find_look_alikes
from tdsp_vision.data.manifest import mark_duplicates


def pattern(seed: int) -> Image.Image:
    """Smooth random blotches, 300 x 300, inside of the same dark rim."""
    rng = np.random.default_rng(seed)
    blotches = Image.fromarray(rng.integers(90, 220, (40, 40, 3), np.uint8)).resize(
        (300, 300), Image.Resampling.BICUBIC
    )
    rim = np.hypot(*np.mgrid[-1:1:300j, -1:1:300j]) > 1.1
    return Image.fromarray(np.where(rim[..., None], 0, np.asarray(blotches)).astype(np.uint8))


def test_a_crop_in_other_colors_is_found_and_different_pictures_are_not(source, put):
    crop = ImageEnhance.Color(pattern(2).crop((5, 3, 296, 294))).enhance(0.6)
    pictures = {"a/1.png": pattern(0), "a/2.png": pattern(1), "b/1.png": pattern(2), "b/2.png": crop}
    for name, picture in pictures.items():
        put(name, zoo.encode(picture, "PNG"))
    images, _ = scan_folder(source, quiet=True)
    assert mark_duplicates(images, 10).group.nunique() == 4, "the dHash does not find it"
    found = find_look_alikes(source, images.file, quiet=True)
    assert found[["first", "second"]].to_numpy().tolist() == [["b/1.png", "b/2.png"]]
    assert 0.7 < found.correlation[0] < 1
    marked = mark_duplicates(images, 10, found)
    assert marked.group.nunique() == 3 and marked.group[2] == marked.group[3]
    assert (marked.file == marked.original).all(), "they are kept together, not left out"


def test_plain_pictures_and_none_at_all_give_no_pairs(source, put):
    for name, color in (("a/1.png", "white"), ("b/1.png", "black"), ("b/2.png", "white")):
        put(name, zoo.encode(Image.new("RGB", (90, 70), color), "PNG"))
    assert find_look_alikes(source, ["a/1.png", "b/1.png", "b/2.png"], quiet=True).empty
    assert list(find_look_alikes(source, [], quiet=True)) == ["first", "second", "correlation"]


def test_many_pairs_over_several_blocks_are_each_named_once(source, put, monkeypatch):
    monkeypatch.setattr("tdsp_vision.data.lookalikes.BLOCK", 2)
    names = [f"a/{number}.png" for number in range(7)]
    for number, name in enumerate(names):
        put(name, zoo.encode(pattern(number % 3), "PNG"))
    found = find_look_alikes(source, names, quiet=True)
    expected = {
        (one, other) for i, one in enumerate(names) for j, other in enumerate(names) if i < j and i % 3 == j % 3
    }
    assert len(found) == len(expected) and set(zip(found["first"], found.second, strict=True)) == expected


def test_real_photos_of_one_lesion_that_no_threshold_on_the_dhash_finds(real_photos, dataset):
    folder = real_photos / "isic2019_256"
    known = {("ISIC_0027673_MEL", "ISIC_0028114_MEL"), ("ISIC_0025020_MNV", "ISIC_0026106_MNV")}
    known |= {("ISIC_0000164_MEL", "ISIC_0014795_downsampled_MEL")}
    files = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.jpg"))
    found = find_look_alikes(folder, files, quiet=True)
    stems = pd.DataFrame({side: found[side].str.split("/").str[1].str[:-4] for side in ("first", "second")})
    assert set(stems.itertuples(index=False, name=None)) == known
