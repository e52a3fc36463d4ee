"""The sample data: the committed files are what the generator draws, and they hold what their README says."""

import re

import draw_lesions as sample
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from tdsp_vision.paths import SAMPLE_DATA

COMMITTED = SAMPLE_DATA / "lesions"
README = (SAMPLE_DATA / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    """The default sample, drawn again by the command of the README: (folder, plan)."""
    folder = tmp_path_factory.mktemp("sample") / "lesions"
    sample.main([str(folder)])
    return folder, sample.plan_sample()


@pytest.fixture(scope="module")
def metadata():
    return pd.read_csv(COMMITTED / "metadata.csv", keep_default_na=False)


def _pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.int16)


def _files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_generator_draws_the_committed_files(regenerated):
    folder, _ = regenerated
    assert _files(folder) == _files(COMMITTED)
    assert (folder / "metadata.csv").read_bytes() == (COMMITTED / "metadata.csv").read_bytes()
    for path in folder.glob("*/*.jpg"):
        drawn, committed = _pixels(path), _pixels(COMMITTED / path.relative_to(folder))
        difference = np.abs(drawn - committed)
        # Another processor or JPEG library rounds a few values differently; another picture differs far more.
        assert difference.mean() < 0.5, path
        assert np.percentile(difference, 99) <= 4, path


def test_counts_are_those_of_the_readme(metadata, regenerated):
    _, plan = regenerated
    assert list(metadata.columns) == sample.METADATA_COLUMNS
    assert metadata["path"].tolist() == [path for path in _files(COMMITTED) if path.endswith(".jpg")]
    files = metadata["path"].str.split("/").str[0].value_counts()
    views = plan.loc[plan["copy_of"] == "", "lesion"].value_counts()
    patients = plan[plan["patient_id"] != ""].groupby("patient_id").ngroups
    assert f"{len(views)} lesions of {patients} patients" in README
    assert f"{sum(views == 2)} lesions were drawn twice" in README
    assert f"`benign` ({files.benign} files) and `malignant` ({files.malignant} files)" in README
    assert f"holds {len(plan)} images" in README and len(plan) == len(metadata)
    assert (plan.groupby("lesion_id")["patient_id"].nunique() == 1).all()


def test_the_readme_lists_what_is_planted(regenerated):
    _, plan = regenerated
    rows = re.findall(r"^\| `(\w+/\w+\.jpg)` \| (.+?) \| (?:`(.+?)` )?\|$", README, re.MULTILINE)
    planted = plan.loc[plan["planted"] != "", ["path", "planted", "copy_of"]]
    assert rows == [tuple(row) for row in planted.to_numpy()]
    kinds = planted["planted"].str.split(",").str[0].value_counts().to_dict()
    assert kinds == {"wrong label": 4, "exact duplicate": 2, "near-duplicate": 2, "label conflict": 1}


def test_metadata_does_not_give_the_class_away(metadata):
    # Many patients would let a dependence show; the committed 41 would hide it behind chance.
    plan = sample.plan_sample(2000, seed=5, plant_errors=False)
    malignant = plan["label"] == "malignant"
    assert plan["path"].str.split("/").str[0].tolist() == plan["label"].tolist()
    numbers = [plan[name].str.extract(r"(\d+)")[0].astype(int) for name in ("path", "patient_id", "lesion_id")]
    for values in (*numbers, plan["age"], plan["skin_tone"]):
        assert abs(roc_auc_score(malignant, values) - 0.5) < 0.04
    for name in ("sex", "site"):
        assert (malignant.groupby(plan[name]).mean() - 0.5).abs().max() < 0.06, name
    assert metadata["license"].eq("CC-0").all() and metadata["attribution"].nunique() == 1
    assert metadata["path"].str.fullmatch(r"(benign|malignant)/lesion_\d{4}\.jpg").all()


def test_brightness_colour_and_file_size_say_little_about_the_class(metadata):
    malignant = metadata["path"].str.startswith("malignant")
    means = pd.DataFrame([_pixels(COMMITTED / path).mean(axis=(0, 1)) for path in metadata["path"]])
    means["brightness"] = means.mean(axis=1)
    means["bytes"] = [(COMMITTED / path).stat().st_size for path in metadata["path"]]
    for name, values in means.items():
        assert 0.35 < roc_auc_score(malignant, values) < 0.65, name


def test_a_folder_with_other_images_is_left_alone(tmp_path):
    stranger = tmp_path / "benign" / "holiday.jpg"
    stranger.parent.mkdir()
    stranger.write_bytes(b"mine")
    with pytest.raises(ValueError, match="holiday.jpg"):
        sample.generate_sample(tmp_path)
    assert _files(tmp_path) == ["benign/holiday.jpg"]
