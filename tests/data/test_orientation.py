"""Pictures that EXIF asks to turn: upright in the dataset, whatever the format, and everything else byte for byte."""

import hashlib
import io
import struct

import numpy as np
import pytest
import tensorflow as tf
import zoo
from acquire import acquire
from PIL import Image, ImageCms, ImageDraw, ImageOps

from tdsp_vision.data.images import inspect_image
from tdsp_vision.data.manifest import load_manifest
from tdsp_vision.data.orientation import read_orientation, upright
from tdsp_vision.data.plots import thumbnail
from tdsp_vision.modeling.batches import preprocess

WIDTH, HEIGHT = 160, 96
# How a camera that was held so stores the upright picture: the opposite of what the tag asks for (EXIF 2.32, 4.6.4).
STORED = {
    1: lambda pixels: pixels,
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: np.swapaxes(pixels, 0, 1),
    6: lambda pixels: np.rot90(pixels, 1),
    7: lambda pixels: np.swapaxes(pixels[::-1, ::-1], 0, 1),
    8: lambda pixels: np.rot90(pixels, -1),
}
NAMES = dict(enumerate(["0", "mirrored", "180", "mirrored 180", "mirrored 270", "90", "mirrored 90", "270"], 1))
KINDS = {"jpg": ("JPEG", {"quality": 97, "subsampling": 0}), "png": ("PNG", {}), "webp": ("WEBP", {"lossless": True})}


def arrow() -> np.ndarray:
    """uint8 [HEIGHT, WIDTH, 3]: a bright arrow that points right, with a red flag on its upper side only."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), (30, 60, 50))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((16, 40, 110, 56), (230, 230, 210))
    pen.polygon([(110, 16), (148, 48), (110, 80)], (230, 230, 210))
    pen.rectangle((24, 8, 56, 36), (220, 40, 30))
    return np.asarray(picture)


def exif(orientation: int, order: str = "<") -> bytes:
    """An EXIF block with a maker, the orientation, a resolution unit, and the maker's name behind them."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 3)
    entries = struct.pack(order + "HHII", 271, 2, 6, 50) + struct.pack(order + "HHIHH", 274, 3, 1, orientation, 0)
    entries += struct.pack(order + "HHIHH", 296, 3, 1, 2, 0)
    return b"Exif\0\0" + head + entries + struct.pack(order + "I", 0) + b"Maker\0"


def photo(ending: str, orientation: int, **options) -> bytes:
    kind, quality = KINDS[ending]
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](arrow())))
    return zoo.encode(stored, kind, exif=exif(orientation), **quality, **options)


def as_seen_by_the_model(content: bytes) -> np.ndarray:
    return tf.io.decode_image(content, channels=3, expand_animations=False).numpy()


@pytest.mark.parametrize("ending", KINDS)
@pytest.mark.parametrize("orientation", STORED)
def test_the_stored_picture_is_upright_for_every_reader_and_nothing_is_turned_twice(
    source, put, dataset, ending, orientation
):
    original = photo(ending, orientation)
    put(f"arrow/1.{ending}", original)
    put("other/1.png", 5)
    row = acquire(dataset, source).set_index("label").loc["arrow"]
    stored = (dataset.root / row.path).read_bytes()
    difference = np.abs(as_seen_by_the_model(stored).astype(int) - arrow())
    assert difference.mean() < (1.5 if ending == "jpg" else 1e-9)
    small = preprocess(tf.constant(stored), 32).numpy()
    assert np.abs(small - tf.image.resize(arrow(), (32, 32), method="area").numpy()).mean() < 2
    with Image.open(io.BytesIO(stored)) as image:
        assert image.getexif().get(274) == 1
        assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), np.asarray(image))
    assert (row.turned, row.width, row.height) == (NAMES[orientation], WIDTH, HEIGHT)
    assert row.sha256 == hashlib.sha256(stored).hexdigest()
    assert row.source_sha256 == hashlib.sha256(original).hexdigest()
    assert (stored == original) == (orientation == 1)
    assert (source / f"arrow/1.{ending}").read_bytes() == original


def test_all_eight_are_one_picture_and_a_second_run_changes_no_file(source, put, dataset):
    for orientation in STORED:
        put(f"arrow/{orientation}.jpg", photo("jpg", orientation))
    put("other/1.png", 5)
    written = acquire(dataset, source, max_bits=10)
    assert written.path.tolist() == ["images/arrow/1.jpg", "images/other/1.png"]
    (source / "arrow/1.jpg").unlink()
    acquire(dataset, source, max_bits=10)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in dataset.images.rglob("*.*")}
    written = acquire(dataset, source, max_bits=10)
    assert {path: (path.stat().st_ino, path.read_bytes()) for path in dataset.images.rglob("*.*")} == before
    loaded = load_manifest(dataset)
    assert loaded.turned.tolist() == written.turned.tolist() == ["mirrored", "0"]
    stored = dataset.root / written.path[0]
    stored.write_bytes(b"half")
    acquire(dataset, source, max_bits=10)
    assert stored.read_bytes() == before[stored][1], "a damaged copy is turned again, to the same bytes"


@pytest.mark.parametrize("subsampling, kept", [(0, 0), (1, 0), (2, 2)])
def test_a_jpeg_keeps_its_profile_its_exif_and_its_chroma(subsampling, kept):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    stored = Image.fromarray(np.ascontiguousarray(STORED[6](arrow())))
    content = zoo.encode(stored, "JPEG", exif=exif(6, ">"), icc_profile=profile, subsampling=subsampling)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        turned, name = upright(content, image)
    with Image.open(io.BytesIO(turned)) as image:
        assert image.info["icc_profile"] == profile
        assert image.info["exif"] == exif(1, ">") and image.getexif()[271] == "Maker"
        assert image.layer[0][1:3] == ((2, 2) if kept == 2 else (1, 1))
    assert name == "90"


def _in_mode(mode: str) -> Image.Image:
    return zoo.picture().quantize(32) if mode == "P" else zoo.with_alpha(zoo.picture()).convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_kind_of_png_is_turned_without_loss(tmp_path, mode):
    stored = Image.fromarray(zoo.gray_ramp()) if mode == "I;16" else _in_mode(mode)
    content = zoo.encode(stored, "PNG", exif=exif(6))
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        turned, _ = upright(content, image)
    with Image.open(io.BytesIO(turned)) as image:
        assert image.mode == stored.mode
        assert np.array_equal(np.asarray(image), np.rot90(np.asarray(stored), -1))
    (tmp_path / "turned.png").write_bytes(turned)
    assert inspect_image(tmp_path / "turned.png").turned == "0"


@pytest.mark.parametrize("kind", ["L", "CMYK"])
def test_gray_and_print_colors_of_a_jpeg_stay(kind):
    stored = zoo.picture().convert(kind)
    content = zoo.encode(stored, "JPEG", exif=exif(3), quality=97)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        turned, _ = upright(content, image)
    before, after = as_seen_by_the_model(content).astype(int), as_seen_by_the_model(turned).astype(int)
    assert np.abs(after - before[::-1, ::-1]).mean() < 2
    with Image.open(io.BytesIO(turned)) as image:
        assert image.mode == kind


def test_of_a_jpeg_with_two_pictures_the_first_is_turned():
    first, second = Image.fromarray(arrow()), zoo.picture(3, WIDTH, HEIGHT)
    content = zoo.encode(first, "MPO", save_all=True, append_images=[second], exif=exif(3))
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "MPO"
        image.load()
        turned, name = upright(content, image)
    assert name == "180"
    assert np.abs(as_seen_by_the_model(turned).astype(int) - arrow()[::-1, ::-1]).mean() < 4


UNUSABLE = [exif(9), exif(0), exif(6)[:24], exif(6)[:9], b"Exif\0\0", b"", b"Exif\0\0XX*\0" * 9]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
@pytest.mark.parametrize("block", UNUSABLE)
def test_a_tag_that_says_nothing_usable_leaves_the_file_alone(put, block):
    assert read_orientation(block)[0] in (0, 9)
    content = zoo.encode(zoo.picture(), "JPEG", exif=block)
    with Image.open(io.BytesIO(content)) as image:
        image.load()
        assert upright(content, image) == (content, "0")
    assert thumbnail(put("x/1.jpg", content)).size == (zoo.WIDTH, zoo.HEIGHT)


def test_a_thumbnail_shows_the_picture_upright_before_it_is_turned_in_the_dataset(put):
    for ending in KINDS:
        small = np.asarray(thumbnail(put(f"x/1.{ending}", photo(ending, 8)))).astype(int)
        assert small.shape == arrow().shape and np.abs(small - arrow()).mean() < 2
