"""Pages: which rows are visible, and controls that follow and lead."""

import pytest

from tdsp_vision.widgets.pages import Pages, pager, position


def listening(pages: Pages) -> list:
    seen = []
    pages.observe(lambda change: seen.append(change["new"]), "visible")
    return seen


def press(button) -> None:
    """Click; `Button.click` would only log an exception."""
    for callback in button._click_handlers.callbacks:
        callback(button)


def test_a_page_shows_its_share_and_the_last_one_the_rest():
    pages = Pages(rows=tuple(range(100, 130)), size=12)
    assert (pages.count, pages.visible) == (3, tuple(range(100, 112)))
    pages.page = 2
    assert (pages.visible, position(pages)) == (tuple(range(124, 130)), "25–30 of 30")


@pytest.mark.parametrize("wanted, found", [(-1, 0), (1, 1), (99, 2)])
def test_a_page_that_does_not_exist_becomes_the_nearest(wanted, found):
    pages = Pages(rows=tuple(range(30)), size=12)
    pages.page = wanted
    assert pages.page == found


def test_a_row_is_found_on_its_page():
    pages = Pages(rows=tuple(range(100, 130)), size=12)
    pages.turn_to(129)
    assert pages.page == 2
    pages.turn_to(5)
    assert pages.page == 2


def test_fewer_rows_or_larger_pages_never_leave_an_empty_page():
    pages = Pages(rows=tuple(range(30)), size=12, page=2)
    pages.rows = tuple(range(13))
    assert (pages.page, pages.visible) == (1, (12,))
    pages.size = 20
    assert (pages.page, pages.visible) == (0, tuple(range(13)))
    pages.rows = ()
    assert (pages.count, pages.page, pages.visible, position(pages)) == (1, 0, (), "nothing to show")


def test_who_listens_hears_of_other_rows_once_and_of_the_same_ones_never():
    pages = Pages(rows=tuple(range(30)), size=12, page=2)
    seen = listening(pages)
    pages.show(tuple(range(50, 90)))
    assert seen == [tuple(range(50, 62))] and pages.page == 0
    pages.rows = tuple(range(50, 70))
    assert len(seen) == 1, "the first page shows what it did before"


def test_the_controls_lead_and_follow():
    pages = Pages(rows=tuple(range(30)), size=12)
    back, on, where, slider = pager(pages).children
    assert (slider.value, slider.max, back.disabled, on.disabled) == (1, 3, True, False)
    press(on)
    assert (pages.page, slider.value, where.value, back.disabled) == (1, 2, "13–24 of 30", False)
    slider.value = 3
    assert (pages.page, on.disabled) == (2, True)
    press(back)
    assert (pages.page, slider.value) == (1, 2)
    pages.rows = (1, 2)
    assert (slider.value, slider.max, slider.disabled, where.value) == (1, 1, True, "1–2 of 2")
    pages.rows = tuple(range(1000))
    pages.page = 80
    assert (slider.value, slider.max) == (81, 84)
