"""The sample data: the committed files are what the generator draws, and they hold what their README says."""

import re

import draw_lesions as sample
import imagehash
import numpy as np
import pandas as pd
import pytest
from draw_lesions import Signs, draw_lesion
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict

from tdsp_vision.paths import SAMPLE_DATA

COMMITTED = SAMPLE_DATA / "lesions"
README = (SAMPLE_DATA / "README.md").read_text(encoding="utf-8")
NEAR_DUPLICATE_BITS = 10


@pytest.fixture(scope="module")
def regenerated(tmp_path_factory):
    """The default sample, drawn again by the command of the README: (folder, plan)."""
    folder = tmp_path_factory.mktemp("sample") / "lesions"
    sample.main([str(folder)])
    return folder, sample.plan_sample()


@pytest.fixture(scope="module")
def metadata():
    return pd.read_csv(COMMITTED / "metadata.csv", keep_default_na=False)


@pytest.fixture(scope="module")
def distances(metadata):
    """Bits in which the dHashes of any two committed images differ, by path."""
    bits = [imagehash.dhash(_opened(COMMITTED / path), hash_size=16).hash.ravel() for path in metadata["path"]]
    different = (np.array(bits)[:, None] != np.array(bits)[None]).sum(axis=-1)
    return pd.DataFrame(different, metadata["path"], metadata["path"])


def _opened(path):
    with Image.open(path) as image:
        return image.convert("RGB")


def _pixels(path):
    return np.asarray(_opened(path), np.int16)


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


def test_counts_and_sizes(metadata, regenerated):
    _, plan = regenerated
    assert list(metadata.columns) == sample.METADATA_COLUMNS
    assert metadata["path"].tolist() == [path for path in _files(COMMITTED) if path.endswith(".jpg")]
    assert metadata["path"].str.split("/").str[0].value_counts().to_dict() == {"benign": 62, "malignant": 63}
    assert plan[plan["copy_of"] == ""]["label"].value_counts().to_dict() == {"benign": 60, "malignant": 60}
    sizes = pd.Series([_opened(COMMITTED / path).size for path in metadata["path"]]).value_counts().to_dict()
    assert sizes == {(256, 256): 124, (240, 240): 1}
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*.*")) < 2_500_000
    patients = plan[plan["patient_id"] != ""].groupby("patient_id")
    assert patients["lesion"].nunique().between(1, 4).all() and patients["label"].nunique().max() == 2
    assert (plan.groupby(plan["lesion_id"])["patient_id"].nunique() == 1).all()
    views = plan.loc[plan["copy_of"] == "", "lesion"].value_counts()
    numbers = {"files": len(plan), "lesions": len(views), "patients": patients.ngroups, "twice": (views == 2).sum()}
    assert numbers == {"files": 125, "lesions": 106, "patients": 41, "twice": 14}
    assert "106 lesions of 41 patients" in README and "14 lesions were drawn twice" in README
    assert "`benign` (62 files) and `malignant` (63 files)" in README and "holds 125 images" in README


def test_the_readme_lists_what_is_planted(regenerated):
    _, plan = regenerated
    rows = re.findall(r"^\| `(\w+/\w+\.jpg)` \| (.+?) \| (?:`(.+?)` )?\|$", README, re.MULTILINE)
    planted = plan.loc[plan["planted"] != "", ["path", "planted", "copy_of"]]
    assert rows == [tuple(row) for row in planted.to_numpy()]
    kinds = planted["planted"].str.split(",").str[0].value_counts().to_dict()
    assert kinds == {"wrong label": 4, "exact duplicate": 2, "near-duplicate": 2, "label conflict": 1}


def test_planted_copies_are_copies(regenerated, distances, metadata):
    _, plan = regenerated
    ids = metadata.set_index("path")[["patient_id", "lesion_id"]]
    for copy in plan[plan["copy_of"] != ""].itertuples():
        same_bytes = (COMMITTED / copy.path).read_bytes() == (COMMITTED / copy.copy_of).read_bytes()
        assert same_bytes == (not copy.planted.startswith("near-duplicate")), copy.path
        assert distances.loc[copy.path, copy.copy_of] <= NEAR_DUPLICATE_BITS, copy.path
        same_folder = copy.path.split("/")[0] == copy.copy_of.split("/")[0]
        assert same_folder == (copy.planted != "label conflict"), copy.path
        assert ids.loc[copy.path].tolist() in (ids.loc[copy.copy_of].tolist(), ["", ""])
    assert (metadata["patient_id"] == "").sum() == (metadata["lesion_id"] == "").sum() == 2


def test_wrong_labels_are_clear_cut(regenerated):
    _, plan = regenerated
    wrong = plan[plan["planted"] == "wrong label"]
    filed_as = wrong["path"].str.split("/").str[0]
    assert (filed_as != wrong["label"]).all()
    assert filed_as.value_counts().to_dict() == {"benign": 2, "malignant": 2}
    strength = wrong[list(sample.SIGNS)].mean(axis=1)
    assert np.where(wrong["label"] == "malignant", strength, 1 - strength).min() > 0.9
    others = plan[~plan["planted"].isin(["wrong label", "label conflict"])]
    assert (others["path"].str.split("/").str[0] == others["label"]).all()


def test_no_other_two_drawings_look_like_duplicates(regenerated, distances):
    _, plan = regenerated
    drawings = plan.loc[plan["copy_of"] == "", "path"]
    between = distances.loc[drawings, drawings].to_numpy()[np.triu_indices(len(drawings), 1)]
    assert between.min() > NEAR_DUPLICATE_BITS


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


def test_signs_separate_the_classes_with_overlap():
    plan = sample.plan_sample(600, seed=3, plant_errors=False)
    malignant = plan["label"] == "malignant"
    signs = plan[list(sample.SIGNS)]
    each = [roc_auc_score(malignant, values) for _, values in signs.items()]
    assert 0.8 < min(each) <= max(each) < 0.95
    scores = cross_val_predict(LogisticRegression(), signs, malignant, method="decision_function")
    assert max(each) < roc_auc_score(malignant, scores) < 0.98


def test_brightness_colour_and_file_size_say_little_about_the_class(metadata):
    malignant = metadata["path"].str.startswith("malignant")
    means = pd.DataFrame([_pixels(COMMITTED / path).mean(axis=(0, 1)) for path in metadata["path"]])
    means["brightness"] = means.mean(axis=1)
    means["bytes"] = [(COMMITTED / path).stat().st_size for path in metadata["path"]]
    for name, values in means.items():
        assert 0.35 < roc_auc_score(malignant, values) < 0.65, name


def test_seeds_and_views_change_the_picture():
    signs = Signs(0.5, 0.5, 0.5, 0.5)
    first = draw_lesion(signs, 0.3, [7, 1, 0], [7, 2, 0])
    assert first.dtype == np.uint8 and first.shape == (256, 256, 3)
    np.testing.assert_array_equal(first, draw_lesion(signs, 0.3, [7, 1, 0], [7, 2, 0]))
    for other in (([8, 1, 0], [7, 2, 0]), ([7, 1, 0], [7, 2, 1])):
        changed = np.abs(first.astype(int) - draw_lesion(signs, 0.3, *other)) > 8
        assert changed.mean() > 0.05
    assert sample.plan_sample(12, seed=1)["path"].tolist() != sample.plan_sample(12, seed=2)["path"].tolist()


def test_a_small_sample_without_errors_can_be_written_twice(tmp_path):
    plan = sample.generate_sample(tmp_path, images_per_class=2, seed=4, plant_errors=False)
    before = {path: (tmp_path / path).read_bytes() for path in _files(tmp_path)}
    assert len(before) == len(plan) + 1 == 5 and (plan["planted"] == "").all()
    sample.generate_sample(tmp_path, images_per_class=2, seed=4, plant_errors=False)
    assert {path: (tmp_path / path).read_bytes() for path in _files(tmp_path)} == before


def test_a_folder_with_other_images_is_left_alone(tmp_path):
    stranger = tmp_path / "benign" / "holiday.jpg"
    stranger.parent.mkdir()
    stranger.write_bytes(b"mine")
    with pytest.raises(ValueError, match="holiday.jpg"):
        sample.generate_sample(tmp_path)
    assert _files(tmp_path) == ["benign/holiday.jpg"]


@pytest.mark.parametrize(("count", "seed", "planted"), [(0, 0, False), (9, 0, True), (20, -1, True)])
def test_numbers_out_of_range_are_refused(count, seed, planted):
    with pytest.raises(ValueError, match=f"images_per_class is {count} and seed is {seed}"):
        sample.plan_sample(count, seed, planted)


def test_signs_and_skin_tone_out_of_range_are_refused():
    with pytest.raises(ValueError, match="border is 1.2"):
        Signs(0.5, 1.2, 0.5, 0.5)
    with pytest.raises(ValueError, match="skin_tone is -0.1"):
        draw_lesion(Signs(0, 0, 0, 0), -0.1, [0], [0])
