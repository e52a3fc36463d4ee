"""Bytes of small pictures: whole, upright, never enlarged, and read once."""

import io

import pytest
from PIL import Image

from tdsp_vision.widgets.thumbnails import as_html, thumbnail


def shown(path, side: int = 160) -> Image.Image:
    return Image.open(io.BytesIO(thumbnail(path, side)))


@pytest.mark.parametrize("size, small", [((400, 100), (160, 40)), ((100, 400), (40, 160)), ((48, 40), (48, 40))])
def test_the_whole_picture_is_shown_in_its_own_shape_and_not_enlarged(tmp_path, size, small):
    Image.new("RGB", size, "red").save(tmp_path / "a.png")
    assert shown(tmp_path / "a.png").size == small


def test_a_photo_taken_sideways_stands_upright(tmp_path):
    photo, exif = Image.new("RGB", (80, 40)), Image.Exif()
    photo.paste("white", (0, 0, 40, 40))  # left half
    exif[274] = 6  # to be turned by 90 degrees clockwise
    photo.save(tmp_path / "a.jpg", exif=exif)
    upright = shown(tmp_path / "a.jpg")
    assert upright.size == (40, 80)
    assert upright.getpixel((20, 10)) > (200, 200, 200) and upright.getpixel((20, 70)) < (50, 50, 50)


def test_a_picture_is_read_once(tmp_path):
    Image.new("RGB", (40, 40), "red").save(tmp_path / "a.png")
    first = thumbnail(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    assert thumbnail(tmp_path / "a.png") is first


def test_what_cannot_be_read_is_named_with_what_to_do(tmp_path):
    (tmp_path / "a.jpg").write_text("a web page")
    with pytest.raises(ValueError, match=r"a\.jpg cannot be shown \(cannot identify .*\); run the data acquisition"):
        thumbnail(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"b\.jpg cannot be shown \(No such file or directory\)"):
        thumbnail(tmp_path / "b.jpg")


def test_html_holds_the_picture_and_a_text_for_the_blind():
    found = as_html(b"abc", 'a "name" <of> a file', 120)
    assert 'src="data:image/jpeg;base64,YWJj"' in found and "height:120px" in found
    assert 'alt="a &quot;name&quot; &lt;of&gt; a file"' in found
