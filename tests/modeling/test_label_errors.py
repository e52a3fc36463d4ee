"""The ranking of doubtful labels: it finds what was planted, nothing vouches for itself, and bad input is named."""

import keras
import numpy as np
import pytest
from draw_lesions import plan_sample
from sklearn.metrics import roc_auc_score

from tdsp_vision.modeling.backbones import build_backbone, pooled_layers
from tdsp_vision.modeling.features import predict_files
from tdsp_vision.modeling.label_errors import suspicious_labels
from tdsp_vision.paths import SAMPLE_DATA

C = 0.0001


@pytest.fixture(scope="module")
def featurizer() -> keras.Model:
    return pooled_layers(build_backbone("efficientnet_lite0", 224))


def _blobs(n: int, n_classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of well-parted classes, float32 [n, 10], and targets."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % n_classes
    return (rng.normal(size=[n, 10]) + 3 * np.eye(10)[targets]).astype(np.float32), targets


def _flip(targets: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Targets of which a share got another class, and the row numbers of those."""
    rng, n_classes = np.random.default_rng(seed), targets.max() + 1
    flipped = rng.choice(len(targets), round(share * len(targets)), replace=False)
    wrong = targets.copy()
    wrong[flipped] = (wrong[flipped] + rng.integers(1, n_classes, len(flipped))) % n_classes
    return wrong, flipped


@pytest.mark.parametrize("n_classes", [2, 4])
def test_flipped_labels_come_first_and_the_right_one_is_suggested(n_classes):
    features, truth = _blobs(200, n_classes)
    given, flipped = _flip(truth, 0.05, 1)
    table = suspicious_labels(features, given, np.arange(200), 0.01, 0)
    assert table.columns.tolist() == ["image", "given", "self_confidence", "suggested", "rank"]
    assert sorted(table.image) == list(range(200)) and table["rank"].tolist() == list(range(1, 201))
    np.testing.assert_array_equal(table.given, given[table.image])
    assert table.self_confidence.between(0, 1).all() and table.self_confidence.is_monotonic_increasing
    assert np.isin(table.image[:10], flipped).mean() >= 0.8
    assert (table.suggested == truth[table.image]).mean() > 0.85
    assert table.equals(suspicious_labels(features, given, np.arange(200), 0.01, 0))


def test_a_second_view_cannot_vouch_for_a_wrong_label():
    """Random features of many dimensions are learned by heart: only whole groups keep the twin out."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=[60, 200]).astype(np.float32).repeat(2, axis=0)
    targets = rng.integers(0, 2, 60).repeat(2)
    together = suspicious_labels(features, targets, np.arange(60).repeat(2), 1.0, 0)
    torn = suspicious_labels(features, targets, np.arange(120), 1.0, 0)
    assert (torn.suggested == torn.given).mean() > 0.8
    assert (together.suggested == together.given).mean() < 0.65


def test_planted_labels_of_the_sample_are_found(featurizer):
    plan = plan_sample()
    plan = plan[plan.copy_of == ""].reset_index(drop=True)
    features = predict_files(featurizer, [SAMPLE_DATA / "lesions" / path for path in plan.path], 224, quiet=True)
    targets = plan.path.str.startswith("malignant").to_numpy(int)
    table = suspicious_labels(features, targets, plan.patient_id.to_numpy(), C, 0)
    planted = (plan.planted == "wrong label").to_numpy()[table.image]
    assert planted.sum() == 4
    assert roc_auc_score(planted, -table["rank"]) > 0.9  # measured 0.97: ranks 3, 6, 8 and 9 of 120
    assert (table.suggested != table.given)[planted].all()


def test_flipped_labels_of_real_photos_are_found(real_photos, featurizer):
    files = [path for label in ("ants", "bees") for path in sorted((real_photos / "ants_bees" / label).iterdir())[:100]]
    features = predict_files(featurizer, files, 224, quiet=True)
    given, flipped = _flip(np.repeat([0, 1], 100), 0.05, 0)
    table = suspicious_labels(features, given, np.arange(200), C, 0)
    assert np.isin(table.image[:10], flipped).mean() >= 0.4  # measured 0.6, chance is 0.05


def test_a_class_that_cannot_be_learned_is_named():
    features, truth = _blobs(40, 2)
    groups = np.where(truth == 0, 99, np.arange(40))
    with pytest.raises(ValueError, match=r"a class has 1 group\(s\).*add images of other cases"):
        suspicious_labels(features, truth, groups, 0.01, 0)
