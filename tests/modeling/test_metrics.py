"""Every number of metrics.json against scikit-learn or a count by hand; honest intervals; the best thresholds."""

import json

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from tdsp_vision.modeling.metrics import (
    auc_interval,
    choose_threshold,
    decide,
    evaluate,
    paired_auc_difference,
)

TWO, THREE, MANY = ["benign", "malignant"], ["a", "b", "c"], [f"c{k:03}" for k in range(200)]
KEYS = {
    *("accuracy", "balanced_accuracy", "precision", "recall", "f1", "auc", "average_precision", "ece"),
    *("sensitivity", "specificity", "threshold"),
    *("auc_ci", "intervals", "no_interval", "per_class", "confusion_matrix", "n"),
}


def _pairs(score) -> np.ndarray:
    return np.column_stack([1 - np.asarray(score), score])


def _case(classes: list[str], n: int = 90, seed: int = 0, skill: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Labels of unequal frequency and float32 scores that know something about them."""
    rng = np.random.default_rng(seed)
    targets = np.minimum(rng.integers(0, len(classes) + 1, n), len(classes) - 1)
    targets[: len(classes)] = np.arange(len(classes))
    logits = rng.normal(size=[n, len(classes)]) + skill * np.eye(len(classes))[targets]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.array(classes, dtype=object)[targets], scores.astype(np.float32)


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (TWO, ""), (THREE, "b"), (THREE, "")])
def test_the_numbers_are_scikit_learns(classes, positive):
    labels, scores = _case(classes)
    threshold = choose_threshold(labels, scores, classes, positive)
    block = evaluate(labels, scores, classes, positive, threshold)
    predicted = decide(scores, classes, positive, threshold)
    about = [positive] if positive else classes
    average = {"labels": about, "average": "macro", "zero_division": 0}
    ranked = [(labels == name, scores[:, classes.index(name)]) for name in about]
    expected = {
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted),
        "precision": sk.precision_score(labels, predicted, **average),
        "recall": sk.recall_score(labels, predicted, **average),
        "f1": sk.f1_score(labels, predicted, **average),
        "auc": np.mean([sk.roc_auc_score(*one) for one in ranked]),
        "average_precision": np.mean([sk.average_precision_score(*one) for one in ranked]),
    }
    assert {name: block[name] for name in expected} == pytest.approx(expected)
    assert block["confusion_matrix"] == sk.confusion_matrix(labels, predicted, labels=classes).tolist()
    report = sk.classification_report(labels, predicted, output_dict=True, zero_division=0)
    for name in classes:
        row = block["per_class"][name]
        found = {"precision": row["precision"], "recall": row["recall"], "f1-score": row["f1"], "support": row["n"]}
        assert found == pytest.approx(report[name])
        assert row["specificity"] == pytest.approx((predicted[labels != name] != name).mean())
    if positive:
        assert block["sensitivity"] == block["recall"]
    else:
        assert block["sensitivity"] is block["specificity"] is None
        assert threshold == pytest.approx([(labels == name).mean() for name in classes])


def test_the_error_of_calibration_is_about_the_surest_class():
    labels = np.array(["malignant", "malignant", "benign", "benign", "malignant"], dtype=object)
    block = evaluate(labels, _pairs([0.95, 0.91, 0.89, 0.35, 0.65]), TWO, "malignant", 0.5)
    assert block["ece"] == pytest.approx(2 / 5 * (1 - (0.95 + 0.91) / 2) + 1 / 5 * 0.89 + 2 / 5 * (1 - 0.65))
    assert "ece" not in block["intervals"]  # a bootstrap of it misses its own estimate


@pytest.mark.parametrize(("classes", "positive"), [(TWO, "malignant"), (TWO, ""), (THREE, "c"), (THREE, "")])
@pytest.mark.parametrize("skill", [-3.0, 0.0, 30.0])
def test_the_block_has_the_agreed_keys_and_is_plain_json(classes, positive, skill):
    labels, scores = _case(classes, 40, skill=skill)
    block = evaluate(labels, scores, classes, positive, choose_threshold(labels, scores, classes, positive))
    assert set(block) == KEYS and list(block["per_class"]) == classes
    assert json.loads(json.dumps(block, allow_nan=False)) == block
    for name, (low, high) in block["intervals"].items():  # also where nothing was wrong, or everything
        assert 0 <= low <= block[name] <= high <= 1 and high - low > 0.02, name


def test_two_hundred_classes_take_memory_for_their_images_only():
    """An array of K² columns would hold 800 million numbers here."""
    import tracemalloc

    labels, scores = _case(MANY, 20_000, skill=3.0)
    tracemalloc.start()
    block = evaluate(labels, scores, MANY, "", [1 / 200] * 200, np.arange(20_000) // 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6
    assert block["top5_accuracy"] == pytest.approx(sk.top_k_accuracy_score(labels, scores, k=5, labels=MANY))
    low, high = block["intervals"]["top5_accuracy"]
    assert block["accuracy"] < low < block["top5_accuracy"] < high
    assert "top5_accuracy" not in evaluate(*_case(THREE), THREE, "", [0.25, 0.25, 0.5])


def test_intervals_count_groups_and_not_images():
    labels, scores = _case(TWO, 40)
    copies, groups = (labels.repeat(5), scores.repeat(5, axis=0)), np.arange(40).repeat(5)  # five copies of each
    single, whole = (
        evaluate(*case, TWO, "malignant", 0.5, g) for case, g in (((labels, scores), None), (copies, groups))
    )
    for name, interval in single["intervals"].items():
        assert whole["intervals"][name] == pytest.approx(interval), name
    assert np.ptp(evaluate(*copies, TWO, "malignant", 0.5)["auc_ci"]) < 0.6 * np.ptp(whole["auc_ci"])


@pytest.mark.parametrize(("patients", "interval"), [(1, False), (4, False), (5, True)])
def test_a_class_of_few_patients_has_no_interval_and_a_sentence_says_so(patients, interval):
    labels = np.array(["benign"] * 100 + ["malignant"] * 100, object)
    groups = np.append(np.arange(100), 100 + np.arange(100) % patients)
    block = evaluate(labels, _pairs(np.linspace(0, 1, 200)), TWO, "malignant", 0.5, groups)
    assert (block["auc_ci"] is not None) == (block["intervals"]["sensitivity"] is not None) == interval
    assert block["intervals"]["accuracy"]  # of all images
    if not interval:
        assert f"the images of malignant (100) count as {patients} independent case" in block["no_interval"]
        assert "below 5 cases of a class an interval says nothing" in block["no_interval"]
    assert (block["no_interval"] is None) == interval


def test_the_interval_of_an_auc_keeps_its_promise_with_few_positives():
    """The true AUC of two normals d apart is Phi(d / sqrt 2); 95 of 100 intervals should hold it, here of 400."""
    rng, true = np.random.default_rng(0), 0.8556
    for positives in (1, 2, 5, 20):
        held = 0
        for _ in range(400):
            score = np.append(rng.normal(1.5, 1, positives), rng.normal(size=40))
            low, high = auc_interval(sk.roc_auc_score(np.arange(positives + 40) < positives, score), positives, 40)
            held += low <= true <= high
        assert 365 <= held <= 398, positives


@pytest.mark.parametrize("n_classes", [2, 5])
def test_the_intervals_of_means_over_classes_keep_their_promise(n_classes):
    classes, held = [f"c{k}" for k in range(n_classes)], {"auc": 0, "balanced_accuracy": 0}
    rule = [1 / n_classes] * n_classes
    true = evaluate(*_case(classes, 20_000, seed=1), classes, "", rule)
    for seed in range(150):
        found = evaluate(*_case(classes, 120, seed=seed + 2), classes, "", rule)["intervals"]
        held = {name: count + (found[name][0] <= true[name] <= found[name][1]) for name, count in held.items()}
    assert all(135 <= count <= 150 for count in held.values()), held


def _two_models(seed: int, groups: int, size: int = 1):
    """Truth and the scores of two models, the second better, in groups of `size` like images."""
    rng = np.random.default_rng(seed)
    truth = np.arange(groups) % 2 == 0
    shared, own = rng.normal(size=groups) + truth, rng.normal(size=[2, groups])
    return (part.repeat(size) for part in (truth, shared + own[0], shared + 0.8 * truth + own[1]))


def test_a_paired_difference_holds_the_truth_counts_groups_and_turns_round():
    truth, first, second = _two_models(1, 40_000)
    true, held = paired_auc_difference(truth, first, second)[0], 0
    assert true == pytest.approx(sk.roc_auc_score(truth, second) - sk.roc_auc_score(truth, first))
    for seed in range(150):
        truth, first, second = _two_models(seed + 2, 30, size=4)
        difference, (low, high) = paired_auc_difference(truth, first, second, np.arange(120) // 4)
        held += low <= true <= high
        turned, interval = paired_auc_difference(truth, second, first, np.arange(120) // 4)
        assert (turned, *interval) == pytest.approx((-difference, -high, -low))
    assert 135 <= held <= 150


def test_where_nothing_is_known_about_a_difference_it_has_no_interval():
    truth, score, _ = _two_models(0, 60)
    assert paired_auc_difference(truth, score, score * 2) == (0, None)
    assert paired_auc_difference(truth, score, -score, np.where(truth, 0, np.arange(60)))[1] is None


SCORES = st.sampled_from([0.0, 1e-30, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), SCORES), min_size=2), st.sampled_from([None, 0.05, 0.5, 0.9, 1.0]))
@example([(True, np.nextafter(0.75, 1)), (False, 0.75), (True, 5e-324), (False, 0.0)], None)
def test_the_threshold_is_the_best_there_is(rows, wanted):
    """By balanced accuracy, or the highest that finds the wanted share of the positive images."""
    truth = np.array([True, False] + [t for t, _ in rows])
    labels = np.array(TWO, dtype=object)[truth.astype(int)]
    for dtype in (np.float32, np.float64):
        score = np.array([0.6, 0.4] + [s for _, s in rows], dtype)
        scores = np.column_stack([1 - score, score])
        threshold = choose_threshold(labels, scores, TWO, "malignant", wanted)
        called = decide(scores, TWO, "malignant", threshold) == "malignant"
        assert 0 <= threshold <= 1 and isinstance(threshold, float)
        if wanted:
            stricter = score > score[called].min()
            assert called[truth].mean() >= wanted - 1e-9 > stricter[truth].mean()
        else:
            possible = [(score[truth] >= c).mean() - (score[~truth] >= c).mean() for c in [*np.unique(score), 2]]
            assert called[truth].mean() - called[~truth].mean() == pytest.approx(max(possible))


def test_decisions():
    scores = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3], [0.2, 0.4, 0.4], [0.4, 0.4, 0.2]])
    assert decide(scores, THREE, "", [1 / 3] * 3).tolist() == ["a", "b", "b", "a"]
    assert decide(scores, THREE, "", [0.4, 0.35, 0.25]).tolist() == ["a", "b", "c", "b"]
    assert choose_threshold(np.array(["c", "b", "a"]), scores[:3], THREE, "b") == pytest.approx(0.5)  # midway
    assert choose_threshold(np.array(["a", "a", "b"]), scores, THREE, "") == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert decide(scores, THREE, "c", 0.3).tolist() == ["a", "c", "c", "a"]
    assert decide(scores, THREE, "b", 0.9).tolist() == ["a", "c", "c", "a"]
    assert decide(scores, THREE, "b", 0.0).tolist() == ["b"] * 4


@pytest.mark.parametrize("shares", [(0.66, 0.1, 0.08, 0.06, 0.04, 0.03, 0.02, 0.01), (0.9, 0.1)])
def test_without_a_positive_class_rare_classes_are_found_as_well_as_by_equal_weights(shares):
    """Calibrated scores say the frequent class nearly always; logits without the shares are the plain margins."""
    rng, classes = np.random.default_rng(0), [f"c{k}" for k in range(len(shares))]
    targets = rng.choice(len(shares), 20_000, p=shares)
    margins = rng.normal(size=[20_000, len(shares)]) + 1.5 * np.eye(len(shares))[targets]
    scores = np.exp(1.5 * margins) * shares  # Bayes' rule
    scores /= scores.sum(axis=1, keepdims=True)
    labels, first = np.array(classes, object)[targets], np.arange(20_000) < 10_000
    threshold = choose_threshold(labels[first], scores[first], classes, "")
    block = evaluate(labels[~first], scores[~first], classes, "", threshold)
    plain, highest = (np.array(classes, object)[values.argmax(axis=1)][~first] for values in (margins, scores))
    assert block["ece"] < 0.02
    assert block["balanced_accuracy"] > sk.balanced_accuracy_score(labels[~first], plain) - 0.01
    assert block["balanced_accuracy"] > sk.balanced_accuracy_score(labels[~first], highest) + 0.1
