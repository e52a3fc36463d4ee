"""Small pictures and pages."""

import pytest
from PIL import Image

from tdsp_vision.widgets.pictures import Pages, gallery, pager, picture, thumbnail


def test_a_picture_is_whole_upright_and_read_once(tmp_path):
    photo, exif = Image.new("RGB", (400, 100)), Image.Exif()
    exif[274] = 6  # to be turned by 90 degrees clockwise
    photo.save(tmp_path / "a.jpg", exif=exif)
    assert thumbnail(tmp_path / "a.jpg", 160).size == (40, 160)
    (tmp_path / "a.jpg").unlink()
    assert "<img" in picture(tmp_path / "a.jpg", "a", 160)


def test_words_from_files_are_text_and_not_markup(root):
    html = gallery([root / "00.png", root / "03.png"], ['<b> "x"', "<script>"])
    assert 'alt="&lt;b&gt; &quot;x&quot;"' in html and "<script>" not in html and html.count("<img") == 1


@pytest.mark.parametrize(
    ("page", "found", "position"), [(-1, 1, "1–12 of 30"), (2, 2, "13–24 of 30"), (99, 3, "25–30 of 30")]
)
def test_a_page_that_does_not_exist_becomes_the_nearest(page, found, position):
    pages = Pages(rows=tuple(range(30)), size=12)
    pages.page = page
    assert (pages.page, pages.position, pages.count) == (found, position, 3)


def test_who_listens_hears_of_other_rows_once_and_of_the_same_ones_never():
    pages, seen = Pages(rows=tuple(range(30)), size=12, page=2), []
    pages.observe(lambda change: seen.append(change["new"]), "visible")
    pages.show(tuple(range(50, 90)))
    pages.rows = tuple(range(50, 70))
    assert seen == [tuple(range(50, 62))] and pages.page == 1
    pages.turn_to(69, 1)
    assert pages.visible == (69,) and pages.position == "20 of 20"
    pages.show(())
    assert (pages.visible, pages.count, pages.position) == ((), 1, "nothing to show")


def test_the_controls_lead_and_follow_and_none_is_ever_off(press):
    pages = Pages(rows=tuple(range(30)), size=12)
    back, forward, position, number = pager(pages).children
    press(back)
    assert (pages.page, number.value, position.value) == (3, 3, "25–30 of 30")
    press(forward)
    number.value = 2
    assert pages.visible == tuple(range(12, 24)) and not back.disabled
    for wanted in (99, 98):
        number.value = wanted
        assert number.value == pages.page == 3
    pages.turn_to(20, 1)
    pages.turn_to(20, 12)
    assert (pages.page, number.value) == (2, 2)
    pages.show((1, 2))
    assert number.value == 1
