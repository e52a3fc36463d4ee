"""AnnotationUI as a person uses it, without a browser: handlers are called, controls are set."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tdsp_vision.data.corrections import EXCLUDE
from tdsp_vision.widgets import annotation
from tdsp_vision.widgets.annotation import AnnotationUI

PATHS = [f"images/{label}/{number:02}.png" for label in ("robin", "wren") for number in range(15)]


def press(button) -> None:
    """Click; `Button.click` would only log an exception."""
    for callback in button._click_handlers.callbacks:
        callback(button)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Folder of 15 robins and 15 wrens."""
    root = tmp_path_factory.mktemp("birds")
    for number, path in enumerate(PATHS):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), (8 * number, 0, 0)).save(root / path)
    return root


@pytest.fixture
def manifest() -> pd.DataFrame:
    """Given labels; 29 of 30 images have a licence."""
    labels = [path.split("/")[1] for path in PATHS]
    table = pd.DataFrame({"path": PATHS, "label": labels, "group": range(30), "width": 40, "height": 40})
    return table.assign(license=["CC-0"] * 29 + [""], age=[np.nan] * 29 + [50])


@pytest.fixture
def make(root, manifest):
    """`make(corrections, suspicion)`: the widget on the thirty birds."""
    return lambda *args: AnnotationUI(root, manifest, *args)


def rows(ui: AnnotationUI) -> list[int]:
    return [tile.row for tile in ui.tiles if tile.row is not None]


def test_it_opens_on_the_first_page_with_the_labels_as_corrected_before(make):
    ui = make({PATHS[1]: "wren", PATHS[2]: EXCLUDE, PATHS[3]: "robin", PATHS[4]: "owl"})
    assert rows(ui) == list(range(12))
    assert [tile.label.value for tile in ui.tiles[:5]] == ["robin", "wren", EXCLUDE, "robin", "owl"]
    assert ui.tiles[0].label.options == ("owl", "robin", "wren", EXCLUDE)
    assert ui.corrections == {PATHS[1]: "wren", PATHS[2]: EXCLUDE, PATHS[4]: "owl"}, "the fourth is no change"
    assert repr(ui) == "AnnotationUI: 30 images: 2 relabelled, 1 excluded"
    assert [tile.chosen.description for tile in ui.tiles[:2]] == ["00.png", "01.png"]


def test_relabelling_and_back_to_the_given_label(make):
    ui = make()
    ui.tiles[0].label.value = "wren"
    ui.pages.page = 2
    ui.tiles[5].label.value = EXCLUDE
    assert ui.corrections == {PATHS[0]: "wren", PATHS[29]: EXCLUDE}
    assert "was wren" in ui.tiles[5].picture.value and "dashed" in ui.tiles[5].layout.border_top
    ui.tiles[5].label.value = "wren"
    assert ui.corrections == {PATHS[0]: "wren"}


def test_turning_pages_and_new_labels_decide_nothing(make):
    ui = make({PATHS[0]: "wren"})
    for page in (1, 2, 0):
        ui.pages.page = page
    assert rows(ui) == list(range(12)) and ui.tiles[0].label.value == "wren"
    ui.many.new.value = "  owl "
    press(ui.many.add)
    assert ui.tiles[3].label.options == ("owl", "robin", "wren", EXCLUDE) == ui.many.label.options
    assert ui.many.label.value == "owl" and ui.many.new.value == ""
    assert ui.corrections == {PATHS[0]: "wren"} and not any(ui.state.can)


def test_adding_a_label_keeps_the_filter_and_the_page(make):
    ui = make()
    ui.filters.label.value = "wren"
    ui.pages.page = 1
    ui.many.new.value = "owl"
    press(ui.many.add)
    assert ui.filters.label.value == "wren" and rows(ui) == [27, 28, 29]
    assert ui.filters.label.options == ("any", "owl", "robin", "wren", EXCLUDE)


def test_an_empty_label_cannot_be_added_and_an_unknown_one_not_given(make):
    ui = make()
    assert ui.many.add.disabled
    ui.many.new.value = "owl"
    assert not ui.many.add.disabled
    ui.many.new.value = "  "
    assert ui.many.add.disabled
    with pytest.raises(ValueError, match="the label is 'owl'; allowed are robin, wren, EXCLUDE"):
        ui.state.relabel([0], "owl")


def test_several_at_once_are_one_step(make):
    ui = make()
    for number in (1, 3):
        ui.tiles[number].chosen.value = True
    ui.many.label.value = EXCLUDE
    press(ui.many.relabel)
    assert ui.corrections == {PATHS[1]: EXCLUDE, PATHS[3]: EXCLUDE}
    assert not any(tile.chosen.value for tile in ui.tiles)
    press(ui.history.undo)
    assert ui.corrections == {} and [tile.label.value for tile in ui.tiles] == ["robin"] * 12


def test_all_on_this_page_are_those_that_are_there(make):
    ui = make()
    ui.pages.page = 2
    ui.many.all.value = True
    ui.many.label.value = "robin"
    press(ui.many.relabel)
    assert ui.corrections == dict.fromkeys(PATHS[24:], "robin")
    assert not ui.many.all.value


def test_check_marks_do_not_follow_to_another_page(make):
    ui = make()
    ui.many.all.value = True
    ui.pages.page = 1
    assert not ui.many.all.value and not any(tile.chosen.value for tile in ui.tiles)


def test_undo_and_redo_show_the_image_they_are_about(make):
    ui = make()
    assert ui.history.undo.disabled and ui.history.redo.disabled
    ui.tiles[0].label.value = "wren"
    ui.pages.page = 2
    press(ui.history.undo)
    assert ui.pages.page == 0 and ui.corrections == {} and ui.history.undo.disabled
    press(ui.history.undo)  # a second click that was already on its way
    press(ui.history.redo)
    assert ui.corrections == {PATHS[0]: "wren"} and ui.tiles[0].label.value == "wren"
    press(ui.history.undo)
    ui.tiles[1].label.value = EXCLUDE
    assert ui.history.redo.disabled, "a new decision takes the place of what was undone"
    assert "1 excluded" in ui.history.summary.value


def test_filters_look_at_the_labels_as_they_are_now(make):
    ui = make({PATHS[0]: "wren", PATHS[20]: EXCLUDE})
    ui.filters.label.value = "robin"
    assert ui.pages.rows == tuple(range(1, 15))
    ui.filters.label.value = EXCLUDE
    assert rows(ui) == [20]
    ui.filters.label.value, ui.filters.only.value = "any", "only changed"
    assert rows(ui) == [0, 20]
    ui.tiles[0].label.value = "robin"
    assert rows(ui) == [0, 20], "no image jumps away while labels change"


def test_suspicious_labels_come_first_and_alone(make):
    suspicion = np.full(30, 0.1)
    suspicion[[7, 20, 3]] = 0.9, 0.95, 0.5
    suspicion[:3] = np.nan
    ui = make({}, suspicion)
    ui.filters.order.value = True
    assert ui.pages.rows[:4] == (20, 7, 3, 4) and ui.pages.rows[-3:] == (0, 1, 2)
    ui.filters.only.value = "only suspicious"
    assert rows(ui) == [20, 7]
    assert "score 0.05" in ui.tiles[0].picture.value


def test_without_scores_nothing_about_suspicion_is_offered(make):
    ui = make()
    assert ui.filters.only.options == ("all", "only changed")
    assert [name for name, _ in ui.filters.order.options] == ["as listed"]


@pytest.mark.parametrize("suspicion", [np.zeros(29), np.full(30, 1.5), np.full(30, -0.1)])
def test_scores_that_do_not_fit_are_refused(make, suspicion):
    with pytest.raises(ValueError, match=r"it needs \(30,\), one value from 0 to 1"):
        make({}, suspicion)


def test_a_correction_of_an_image_that_is_gone_is_not_shown(make):
    assert make({"images/owl/1.png": "wren"}).corrections == {}


def test_zoom_shows_what_is_known_steps_on_and_leads_back(make):
    ui = make({}, np.full(30, 0.25))
    ui.pages.page = 1
    press(ui.tiles[11].zoom)
    assert ui.zoom.layout.display is None and ui.overview.layout.display == "none"
    for text in (PATHS[23], "40 × 40 pixels", "CC-0", "0.750"):
        assert text in ui.zoom.details.value
    assert ">age<" not in ui.zoom.details.value, "what is not known is not listed"
    press(ui.zoom.steps[1])
    assert ui.zoom.where.value == "image 25 of 30" and rows(ui)[0] == 24
    ui.zoom.tile.label.value = "robin"
    assert ui.corrections == {PATHS[24]: "robin"}
    press(ui.history.undo)
    assert ui.zoom.tile.label.value == "wren"
    ui.pages.page = 0  # an undo of an image elsewhere turns the page behind the zoom
    press(ui.zoom.back)
    press(ui.zoom.back)  # as an impatient hand does
    assert ui.zoom.layout.display == "none" and ui.overview.layout.display is None
    assert ui.tiles[0].row == 24


def test_names_are_shown_and_not_run(root, manifest):
    ui = AnnotationUI(root, manifest.assign(label="<b>"), {PATHS[0]: "<script>"})
    ui.open_zoom(ui.tiles[0])
    assert "was &lt;b&gt;" in ui.tiles[0].picture.value
    assert "&lt;b&gt;" in ui.zoom.details.value and "<b>" not in ui.zoom.details.value


def test_only_the_files_of_the_page_are_read_of_ten_thousand(root, monkeypatch):
    read = []
    monkeypatch.setattr(annotation, "thumbnail", lambda path: read.append(path) or b"")
    many = pd.DataFrame({"path": [f"images/robin/{number}.png" for number in range(10_000)], "label": "robin"})
    ui = AnnotationUI(root, many, {many.path[9_999]: EXCLUDE}, np.linspace(0, 1, 10_000))
    assert read == [root / path for path in many.path[:12]]
    ui.filters.order.value = True
    assert read[12:] == [root / path for path in many.path[:-13:-1]]
    assert ui.tiles[0].label.value == EXCLUDE and len(read) == 24


def test_a_file_that_is_gone_is_named(root, manifest):
    manifest.loc[20, "path"] = "images/wren/gone.png"
    ui = AnnotationUI(root, manifest)
    with pytest.raises(ValueError, match="gone.png cannot be shown"):
        ui.pages.page = 1
    assert rows(ui) == list(range(12)), "each tile still says what it shows"
