"""The folder layout: what hangs where, what a name may be, how a path is shown."""

from pathlib import Path

import pytest

from tdsp_vision import paths
from tdsp_vision.paths import DatasetPaths, OutputPaths, checked_name, resolve, shown


@pytest.fixture
def workspace(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("value", ["lesions", "ISIC_2019", "a", "7", "_x", "v1.0-rc.2", "a..", "x" * 100])
def test_names_that_can_be_a_folder(value):
    assert checked_name("DATASET_NAME", value) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        ".git",
        "-rf",
        "a/b",
        "../a",
        "/tmp",
        "a\\b",
        "a b",
        " a",
        "a\n",
        "a\0",
        "é",
        "日本",
        "a:b",
        "~",
        "x" * 101,
    ],
)
def test_names_that_cannot(value):
    with pytest.raises(ValueError, match="MODEL_NAME is ") as caught:
        checked_name("MODEL_NAME", value)
    assert repr(value) in str(caught.value) and "use letters, digits" in str(caught.value)
    for build in (
        lambda: DatasetPaths("data", value),
        lambda: OutputPaths("outputs", value),
        lambda: OutputPaths("outputs", "ok").serving(value),
    ):
        with pytest.raises(ValueError, match="it becomes a folder name"):
            build()


def test_relative_paths_hang_below_the_workspace_and_not_the_current_folder(workspace, tmp_path_factory, monkeypatch):
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert paths.workspace() == workspace
    assert resolve("data") == workspace / "data"
    assert resolve(Path("data/../x")) == workspace / "x"
    assert resolve("") == workspace
    assert resolve("/srv/photos") == Path("/srv/photos")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert resolve("~/photos") == Path("/home/somebody/photos")


@pytest.mark.parametrize("value", [None, ""])
def test_without_the_variable_the_repository_is_the_workspace(monkeypatch, value):
    monkeypatch.delenv("TDSP_WORKSPACE", raising=False)
    if value is not None:
        monkeypatch.setenv("TDSP_WORKSPACE", value)
    assert paths.workspace() == paths.ROOT == Path(__file__).resolve().parents[1]
    assert (paths.ROOT / "pyproject.toml").is_file()


def test_paths_are_shown_relative_to_the_workspace_or_the_repository(workspace):
    assert shown(workspace / "data/birds") == "data/birds"
    assert shown(paths.SAMPLE_DATA / "lesions") == "sample_data/lesions"
    assert shown("/srv/photos") == "/srv/photos"
    assert shown(workspace.parent / (workspace.name + "2")) == str(workspace.parent / (workspace.name + "2"))
    assert shown("already/relative") == "already/relative"
    for path in ("data/x", "/srv/x"):
        assert resolve(shown(resolve(path))) == resolve(path)


def test_every_name_of_the_contract_lies_where_it_says(workspace):
    dataset, output = DatasetPaths("data", "birds"), OutputPaths("outputs", "birds")
    below_data = {name: getattr(dataset, name) for name in ("images", "manifest", "rejected", "info", "corrections")}
    assert {name: shown(path) for name, path in below_data.items()} == {
        "images": "data/birds/images",
        "manifest": "data/birds/manifest.csv",
        "rejected": "data/birds/rejected.csv",
        "info": "data/birds/dataset.json",
        "corrections": "data/birds/corrections.csv",
    }
    below_output = {name: getattr(output, name) for name in ("runs", "latest", "features", "deployment")}
    assert {name: shown(path) for name, path in below_output.items()} == {
        "runs": "outputs/birds/runs",
        "latest": "outputs/birds/latest.txt",
        "features": "outputs/birds/features",
        "deployment": "outputs/birds/deployment",
    }
    assert shown(output.serving("wren")) == "outputs/birds/serving/wren"
    assert DatasetPaths("/srv", "birds").root == Path("/srv/birds")
