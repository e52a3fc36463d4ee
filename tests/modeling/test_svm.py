"""The linear SVM and its calibration: right numbers for few and many classes, judged on what no fit has seen."""

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, log_loss

from tdsp_vision.modeling import svm as module
from tdsp_vision.modeling.calibration import calibrate, calibrated, cross_calibrated
from tdsp_vision.modeling.svm import build_svm, svm_as_dense, sweep_c


def _blobs(n: int, n_classes: int, distance: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of very different scales, float32 [n, 20], and targets."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % n_classes
    features = rng.normal(size=[n, 20]) + (rng.normal(size=[n_classes, 20]) * distance)[targets]
    return ((features + 5) * np.logspace(-3, 2, 20)).astype(np.float32), targets


def _error(scores: np.ndarray, targets: np.ndarray) -> float:
    """Expected calibration error over ten bins, by its definition."""
    sure, right = scores.max(axis=1), scores.argmax(axis=1) == targets
    bins = np.minimum((sure * 10).astype(int), 9)
    return sum(abs((sure - right)[bins == b].sum()) for b in range(10)) / len(targets)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_dense_layer_is_scikit_learns_decision(n_classes):
    x, y = _blobs(150, n_classes)
    svm = build_svm(0.01, 0).fit(x, y)
    kernel, bias = svm_as_dense(svm)
    margins, expected = x @ kernel + bias, svm.decision_function(x)
    np.testing.assert_allclose(margins if n_classes > 2 else margins[:, 1] - margins[:, 0], expected, atol=1e-5)
    np.testing.assert_array_equal(margins.argmax(axis=1), svm.predict(x))


def test_features_that_hardly_varied_or_never_do_not_drown_the_others():
    x, y = _blobs(120, 2)
    quiet = np.zeros((120, 2), np.float32)
    quiet[3, 0] = 1e-6  # one image of the training side
    svm = build_svm(0.01, 0).fit(np.concatenate([x, quiet], axis=1), y)
    seen = (np.concatenate([x, np.full((120, 2), value, np.float32)], axis=1) for value in (0, 0.05))
    still, loud = map(svm.decision_function, seen)
    assert np.abs(loud - still).max() < 0.1 * np.ptp(still)


def test_a_margin_comes_from_a_machine_that_saw_neither_the_image_nor_its_group():
    rng = np.random.default_rng(0)
    person = np.arange(60) // 3
    x = rng.normal(size=[20, 30])[person] + rng.normal(size=[60, 30]) * 0.01  # pictures of one person are alike
    y = rng.permutation(np.arange(20) % 2)[person]  # and the label is luck
    torn, whole = (sweep_c(x, y, groups, [1e-2], 0, 1) for groups in (np.arange(60), person))
    assert torn.table.auc_mean[0] > 0.95 and whole.table.auc_mean[0] < 0.85
    assert (torn.margins.argmax(axis=1) == y).mean() > 0.9 and (whole.margins.argmax(axis=1) == y).mean() < 0.8


def test_copies_are_learned_from_and_not_judged():
    x, y = _blobs(60, 2)
    groups = np.arange(60)
    copied = [np.concatenate([part, part]) for part in (x, y, groups)]
    sweep = sweep_c(*copied, [1e-3], 0, 1, originals=60)
    assert sweep.margins.shape == (60, 2)
    weighed = sweep_c(x, y, groups, [2e-3], 0, 1)  # every image twice weighs like twice the penalty
    np.testing.assert_allclose(sweep.margins, weighed.margins, atol=0.05 * np.ptp(weighed.margins))


@pytest.mark.parametrize("positive", [None, 1])
def test_larger_values_are_not_tried_once_one_is_worse_and_ends_are_said(monkeypatch, positive):
    worth, tried = {1e-5: 0.7, 1e-4: 0.8, 1e-3: 0.75, 1e-2: 0.9}, []

    def judged(*_):
        tried.append(1)
        value = list(worth.values())[len(tried) - 1]
        return {"auc_mean": value, "auc_deviation": 0, "log_loss": -value}

    monkeypatch.setattr(module, "_judged", judged)
    x, y = _blobs(40, 2)
    sweep = sweep_c(x, y, np.arange(40), list(worth)[::-1], 0, positive)
    assert sweep.c == 1e-4 and sweep.table.c.tolist() == [1e-5, 1e-4, 1e-3] and not sweep.remark
    tried.clear()
    assert "at the end of SVM_C; a larger one" in sweep_c(x, y, np.arange(40), [1e-5, 1e-4], 0, positive).remark
    tried.clear()
    assert not sweep_c(x, y, np.arange(40), [1e-4], 0, positive).remark


@pytest.mark.parametrize("worth_a_process", [1, 10**9])
def test_any_c_gives_scores_of_every_class_in_one_process_or_several(monkeypatch, worth_a_process):
    monkeypatch.setattr(module, "WORTH_A_PROCESS", worth_a_process)
    x, y = _blobs(90, 3)
    sweep = sweep_c(x, y, np.arange(90) // 2, [1e-9, 1e6], 0)
    scores = calibrated(sweep.margins, *calibrate(sweep.margins, y))
    assert balanced_accuracy_score(y, scores.argmax(axis=1)) > 0.8 and sweep.remark


def test_a_class_of_one_group_cannot_be_judged():
    x, y = _blobs(30, 3)
    with pytest.raises(ValueError, match="a class is a single group on the training side.*MIN_CLASS_SIZE"):
        sweep_c(x, y, np.where(y == 2, 100, np.arange(30)), [1e-2], 0)


@pytest.mark.parametrize(("n_classes", "each"), [(2, 20), (10, 20), (100, 5)])
def test_perfectly_separated_classes_are_called_and_believed(n_classes, each):
    targets = np.repeat(np.arange(n_classes), each)
    logits = 2.0 * np.eye(n_classes)[targets] - 1 + np.random.default_rng(0).normal(size=[len(targets), n_classes]) / 9
    scores = calibrated(logits, *calibrate(logits, targets))
    assert (scores.argmax(axis=1) == targets).all()
    assert scores.max(axis=1).mean() > 0.9 and scores.max() < 1


@pytest.mark.parametrize(("counts", "shift"), [((400, 100), 3.0), ((900, 60, 20, 20), 2.0)])
def test_offsets_give_rare_classes_their_share_and_no_more(counts, shift):
    rng = np.random.default_rng(1)
    targets = np.repeat(np.arange(len(counts)), counts)
    logits = rng.normal(size=[len(targets), len(counts)]) + shift * np.eye(len(counts))[targets]
    held = rng.random(len(targets)) < 0.5
    scores = calibrated(logits[held], *calibrate(logits[~held], targets[~held]))
    np.testing.assert_allclose(scores.mean(axis=0), np.bincount(targets[held]) / held.sum(), atol=0.03)
    assert _error(scores, targets[held]) < 0.06
    calibrated_right, plain_right = (found.argmax(axis=1) == targets[held] for found in (scores, logits[held]))
    assert calibrated_right.mean() >= plain_right.mean() - 0.01


def test_calibration_finds_a_known_slope_and_known_offsets():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=[6000, 3])
    truth = softmax(3 * logits + [1, 0, -1], axis=1)
    targets = (rng.random([6000, 1]) > truth.cumsum(axis=1)).sum(axis=1)
    slope, offsets = calibrate(logits * 0.01, targets)
    assert slope == pytest.approx(300, rel=0.08)
    np.testing.assert_allclose(offsets - offsets.mean(), [1, 0, -1], atol=0.15)


@pytest.mark.parametrize("logits", [np.zeros([6, 2]), -np.eye(2)[[1, 0, 1, 0, 1, 0]]])
def test_useless_logits_give_the_shares_of_the_classes_and_are_known(logits):
    targets = np.array([1, 0, 1, 0, 1, 0])
    with pytest.warns(UserWarning, match="say nothing about the classes"):
        slope, offsets = calibrate(logits, targets)
    np.testing.assert_allclose(calibrated(logits, slope, offsets), 0.5, atol=0.01)


def test_cross_calibration_is_what_a_calibration_without_the_group_says():
    rng = np.random.default_rng(0)
    targets = np.arange(40) % 2
    logits = rng.normal(size=[40, 2]) + np.eye(2)[targets]
    crossed = softmax(cross_calibrated(logits, targets, np.arange(40), 0), axis=1)
    fitted = calibrated(logits, *calibrate(logits, targets))
    assert log_loss(targets, crossed) > log_loss(targets, fitted)  # less flattering
    alone = cross_calibrated(logits, targets, targets, 0)  # each class one group: nothing can be left out
    np.testing.assert_allclose(softmax(alone, axis=1), fitted)
