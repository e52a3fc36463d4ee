"""Small pictures and pages."""

from PIL import Image

from tdsp_vision.widgets.pictures import Pages, gallery, picture, thumbnail


def test_a_picture_is_whole_upright_and_read_once(tmp_path):
    photo, exif = Image.new("RGB", (400, 100)), Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    photo.save(tmp_path / "a.jpg", exif=exif)
    assert thumbnail(tmp_path / "a.jpg", 160).size == (40, 160)
    (tmp_path / "a.jpg").unlink()
    assert "<img" in picture(tmp_path / "a.jpg", "a", 160)


def test_words_from_files_are_text_and_not_markup(root):
    html = gallery(root, ["00.png", "03.png"], ['<b> "x"', "<script>"])
    assert 'alt="00.png\n&lt;b&gt; &quot;x&quot;"' in html and "<script>" not in html and html.count("<img") == 1


def test_a_page_that_does_not_exist_becomes_the_nearest_and_no_button_is_ever_off(press):
    pages = Pages(12, print)
    pages.show(tuple(range(30)))
    back, forward, *_ = pages.children
    for page, found, position in ((-1, 1, "1–12 of 30"), (2, 2, "13–24 of 30"), (99, 3, "25–30 of 30")):
        pages.number.value = page
        assert (pages.page, pages.number.value, pages.position.value) == (found, found, position)
    press(forward)
    assert pages.page == 3 and not forward.disabled
    press(back)
    assert pages.visible == tuple(range(12, 24)) and pages.number.value == 2
