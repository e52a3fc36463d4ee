"""The folder layout: what hangs where, what a name may be, how a path is shown."""

from pathlib import Path

import pytest

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError
from tdsp_vision.paths import DatasetPaths, OutputPaths, checked_name, resolve, shown


@pytest.mark.parametrize("value", ["lesions", "7", "_x", "v1.0-rc.2", "x" * 100])
def test_names_that_can_be_a_folder(value):
    assert checked_name("DATASET_NAME", value) == value


@pytest.mark.parametrize("value", ["", "..", ".git", "-rf", "../a", "/tmp", "a\\b", "a b", "a\n", "é", "~", "x" * 101])
def test_names_that_cannot(value):
    for build in (
        lambda: DatasetPaths("data", value),
        lambda: OutputPaths("outputs", value),
        lambda: OutputPaths("outputs", "ok").serving(value),
    ):
        with pytest.raises(ParameterError, match="_NAME is .*; it becomes a folder name") as caught:
            build()
        assert repr(value) in str(caught.value)


@pytest.mark.parametrize("value", ["", "~/a workspace", "relative"])
def test_relative_paths_hang_below_the_workspace_and_not_the_current_folder(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("TDSP_WORKSPACE", value)
    here = {"": paths.ROOT, "~/a workspace": Path("/home/somebody/a workspace"), "relative": tmp_path / "relative"}[
        value
    ]
    assert paths.workspace() == here
    found = [resolve(path) for path in ("data", "data/../x", "", "/srv/photos", "~/photos")]
    assert found == [here / "data", here / "x", here, Path("/srv/photos"), Path("/home/somebody/photos")]
    assert shown(here / "data/birds") == "data/birds" and shown("/srv/photos") == "/srv/photos"
    assert shown(paths.SAMPLE_DATA / "lesions") == "sample_data/lesions"
    beside = here.with_name(here.name + "2")
    assert shown(beside) == str(beside)
