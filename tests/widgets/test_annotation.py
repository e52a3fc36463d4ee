"""AnnotationUI as a person uses it, without a browser: handlers are called, controls are set."""

import pandas as pd

from tdsp_vision.data.manifest import EXCLUDE
from tdsp_vision.widgets.annotation import CHANGED, AnnotationUI

ROBIN, WREN = "robin", "wren <i>"


def rows(ui):
    return [tile.row for tile in ui.tiles if tile.row is not None]


def test_it_opens_with_the_corrections_and_a_damaged_file_is_a_placeholder(root, manifest):
    ui = AnnotationUI(root, manifest, {"01.png": WREN, "02.png": EXCLUDE, "05.png": "owl", "06.png": ROBIN})
    assert rows(ui) == list(range(12))
    assert [tile.label.value for tile in ui.tiles[:3]] == [ROBIN, WREN, EXCLUDE]
    assert ui.tiles[0].label.options == ("owl", ROBIN, WREN, EXCLUDE)
    assert ui.corrections == {"01.png": WREN, "02.png": EXCLUDE, "05.png": "owl"}, "the fourth is no change"
    for tile, words in ((ui.tiles[3], "03.png cannot be shown"), (ui.tiles[4], "No such file")):
        assert words in tile.picture.value and "<img" not in tile.picture.value
    assert "was <b>robin</b>" in ui.tiles[1].picture.value


def test_decisions_are_counted_until_the_notebook_takes_them(root, manifest, press):
    ui = AnnotationUI(root, manifest)
    ui.tiles[0].label.value, ui.tiles[1].label.value = WREN, EXCLUDE
    assert ui.summary.value == "30 images: 1 relabelled, 1 excluded; 2 decisions not written yet: run the next cell"
    assert ui.corrections == {"00.png": WREN, "01.png": EXCLUDE}
    assert ui.summary.value == "30 images: 1 relabelled, 1 excluded"
    ui.pages.turn(2)
    press(ui.undo)
    assert ui.pages.page == 1 and ui.tiles[1].label.value == ROBIN, "the image of the step is shown"
    assert ui.summary.value.endswith("; 1 decision not written yet: run the next cell")
    press(ui.undo)
    press(ui.undo)  # a click that was on its way already
    assert ui.corrections == {}


def test_the_checked_images_get_a_known_or_new_label_in_one_step(root, manifest, press):
    ui = AnnotationUI(root, manifest)
    press(ui.give)
    assert "Check one image or more" in ui.summary.value
    ui.pages.turn(3)
    ui.all.value, ui.new.value = True, " Owl "
    press(ui.give)
    assert ui.corrections == dict.fromkeys(manifest.path[24:], "Owl")
    assert not ui.all.value and not any(tile.chosen.value for tile in ui.tiles) and ui.new.value == ""
    assert "Owl" in ui.find.options and ui.pages.page == 3, "to offer a label turns no page"
    ui.tiles[0].chosen.value, ui.new.value = True, "ROBIN"
    press(ui.give)
    assert ui.corrections["24.png"] == ROBIN, "other capitals are no new label"
    ui.all.value = True
    ui.pages.turn(1)
    assert not any(tile.chosen.value for tile in ui.tiles), "check marks do not follow to another page"
    press(ui.undo)
    press(ui.undo)
    assert ui.corrections == {} and ui.tiles[0].label.options == (ROBIN, WREN, EXCLUDE)


def test_images_stay_as_listed_and_filters_look_at_the_labels_as_they_are(root, manifest):
    ui = AnnotationUI(root, manifest.loc[[20, 7, *range(7)]], {"00.png": WREN})
    assert rows(ui) == list(range(9)) and "20.png" in ui.tiles[0].chosen.description
    ui.find.value = CHANGED
    assert rows(ui) == [2]
    ui.tiles[0].label.value = ROBIN
    assert rows(ui) == [2], "no image jumps away while labels change"
    ui.find.value = "Wren"
    assert rows(ui) == [0]
    ui.zoom(0)
    assert ui.tiles[0].zoom.description == "Back to the page"


def test_zoom_shows_all_that_is_known_and_leads_back(root, manifest, press):
    ui = AnnotationUI(root, manifest)
    ui.pages.turn(2)
    press(ui.tiles[3].zoom)
    assert rows(ui) == [15] and ui.pages.position.value == "16 of 30"
    assert "label <b>wren &lt;i&gt;</b>" in ui.tiles[0].picture.value and "age <b>" not in ui.tiles[0].picture.value
    ui.pages.turn(1)
    assert "age <b>50.0</b>" in ui.tiles[0].picture.value
    ui.tiles[0].label.value = WREN
    press(ui.tiles[0].zoom)
    assert rows(ui) == list(range(12)) and ui.corrections == {"00.png": WREN}


def test_ten_thousand_images_of_two_hundred_classes_open_with_the_files_of_one_page(root, monkeypatch):
    read = []
    monkeypatch.setattr("tdsp_vision.widgets.pictures.thumbnail", lambda path, side: read.append(path) or 1 / 0)
    labels = [f"class {number % 200}" for number in range(10_000)]
    many = pd.DataFrame({"path": [f"many/{number}.png" for number in range(10_000)], "label": labels})
    ui = AnnotationUI(root, many, {many.path[0]: EXCLUDE})
    assert set(read) == {root / path for path in many.path[:12]} and ui.tiles[0].label.value == EXCLUDE
    assert len(ui.new.options) == 201


def test_the_static_twin_shows_the_page(root, manifest):
    html = AnnotationUI(root, manifest)._repr_mimebundle_()["text/html"]
    assert html.count("<img") == 10 and "00.png\nrobin" in html and "03.png cannot be shown" in html
