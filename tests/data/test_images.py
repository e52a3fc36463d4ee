"""What enters the manifest: whole images that TensorFlow decodes to the same pixels, upright, and nothing else."""

import io

import numpy as np
import pytest
import tensorflow as tf
import zoo
from PIL import Image
from PIL.Image import Transpose

from tdsp_vision.data import images
from tdsp_vision.data.images import RejectedImage, as_rgb, as_stored, read_image

KEPT, CONVERTED, REFUSED = zoo.whole_images() | zoo.odd_but_usable(), zoo.converted(), zoo.refused()
TURNS = dict(zip(range(2, 9), [Transpose(code) for code in (0, 3, 1, 5, 4, 6, 2)], strict=True))
JPEG_ROUNDING = 6  # values; two decoders round the same coefficients in different ways
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


def decoded(content: bytes) -> np.ndarray:
    """What the model sees."""
    return tf.io.decode_image(content, channels=3, expand_animations=False).numpy().astype(int)


@pytest.mark.parametrize("name", KEPT)
def test_whole_images_stay_as_they_are_and_the_model_sees_the_same_pixels(name):
    stored = as_stored(KEPT[name])
    assert stored.converted == ("turned upright" if name == "rotated_by_exif.jpg" else "")
    assert (stored.content is KEPT[name]) == (stored.converted == "")
    allowed = JPEG_ROUNDING * (3 if stored.converted else 1) if stored.content.startswith(b"\xff\xd8") else 0
    assert np.abs(decoded(stored.content) - stored.pixels).max() <= allowed


@pytest.mark.parametrize("name", CONVERTED)
def test_other_kinds_are_converted_once_and_look_the_same(name, tmp_path):
    content, how = CONVERTED[name]
    (tmp_path / name).write_bytes(content)
    facts, small = read_image(tmp_path / name)
    stored = as_stored(content)
    assert facts["converted"] == how and facts["sha256"] != facts["source_sha256"]
    assert as_stored(content).content == stored.content, "the same bytes on every call"
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(as_rgb(image)).astype(int)
    assert small.shape[:2] == (facts["height"], facts["width"]) == expected.shape[:2]
    assert np.abs(decoded(stored.content) - expected).mean() < (3 if how.endswith("JPEG") else 1e-9)


def test_twelve_bits_in_sixteen_are_not_nearly_black():
    bright = as_stored(zoo.encode(Image.fromarray(zoo.gray_ramp()), "PNG")).pixels
    assert np.abs(as_stored(CONVERTED["x_ray.png"][0]).pixels.astype(int) - bright).max() <= 1


@pytest.mark.parametrize("name", REFUSED)
def test_everything_else_is_refused_with_its_reason(name, tmp_path):
    content, reason = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RejectedImage, match=reason or "damaged") as caught:
        read_image(tmp_path / name)
    assert caught.value.kind in ("damaged", "format", "size")


@pytest.mark.parametrize("name", zoo.whole_images())
def test_no_cut_file_is_accepted(name):
    content = KEPT[name]
    places = {*range(1, 30, 4), *range(30, len(content), len(content) // 12), *range(len(content) - 14, len(content))}
    for place in sorted(places):
        with pytest.raises(RejectedImage):
            as_stored(content[:place])


def test_limits_hold_at_their_edge(tmp_path, monkeypatch):
    content = zoo.encode(zoo.picture(0, 32, 32), "PNG")
    (tmp_path / "a.png").write_bytes(content)
    for name, edge, reason in (("MAX_BYTES", len(content), "at most"), ("MAX_PIXELS", 32 * 32, "more than 1,023 ")):
        monkeypatch.setattr(images, name, edge)
        assert read_image(tmp_path / "a.png")[0]["width"] == 32
        monkeypatch.setattr(images, name, edge - 1)
        with pytest.raises(RejectedImage, match=reason):
            read_image(tmp_path / "a.png")
        monkeypatch.setattr(images, name, edge)


def oriented(number: int, kind: str, **options) -> bytes:
    exif = Image.Exif()
    exif[images.ORIENTATION] = number
    return zoo.encode(zoo.picture(4, 64, 40), kind, exif=exif, **options)


@pytest.mark.parametrize("number", range(1, 10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_picture_is_turned_as_its_camera_asks(number, kind):
    content = oriented(number, kind, **({"quality": 95} if kind == "JPEG" else {}))
    stored = as_stored(content)
    assert stored.converted == ("turned upright" if number in TURNS else "")
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    expected = expected.transpose(TURNS[number]) if number in TURNS else expected
    expected = np.asarray(expected).astype(int)
    assert np.abs(decoded(stored.content) - expected).mean() < (3 if kind == "JPEG" else 1e-9)
    with Image.open(io.BytesIO(stored.content)) as image:
        assert number not in TURNS or images.ORIENTATION not in image.getexif()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("note", [b"II*\0\xff\xff\xff\xff" + bytes(20), b"neither II nor MM"])
def test_damaged_notes_on_orientation_do_no_harm(kind, note):
    broken = zoo.encode(zoo.picture(), kind, exif=b"Exif\0\0" + note)
    assert (as_stored(broken).content is broken) == (kind != "WEBP")
