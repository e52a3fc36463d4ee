"""How well a number alone predicts the label, and what is said about it."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tdsp_vision.data.confounders import TOGETHER, predict_label_alone, warnings_in_words


def example(count: int = 200, classes: str = "ab", seed: int = 0):
    """Measures, labels and groups: `clear` grows with the class, `inverse` falls, `noise` does neither."""
    rng = np.random.default_rng(seed)
    codes = np.arange(count) % len(classes)
    labels = pd.Series([classes[code] for code in codes], index=rng.permutation(count))
    shift = 1.5 * codes
    values = {"clear": shift + rng.normal(size=count), "inverse": rng.normal(size=count) - shift}
    measures = pd.DataFrame(values | {"noise": rng.normal(size=count), "constant": 1.0})
    return measures, labels, pd.Series(np.arange(count))


def test_auc_is_that_of_scikit_learn_and_best_comes_first():
    measures, labels, groups = example()
    found = predict_label_alone(measures, labels, groups, resamples=200).set_index("measure")
    truth = labels.to_numpy() == "b"
    for name in measures:
        auc = roc_auc_score(truth, measures[name])
        assert found.auc[name] == pytest.approx(max(auc, 1 - auc))
    assert found.auc.is_monotonic_decreasing
    assert found.direction[["clear", "inverse", "constant"]].tolist() == [
        "larger in b", "larger in a", "no difference"
    ]  # fmt: skip
    assert ((found.low <= found.auc) & (found.auc <= found.high)).all()
    assert found.low["clear"] > 0.7 and found.low["noise"] < 0.5
    assert found.loc["constant", ["auc", "low", "high"]].tolist() == [0.5, 0.5, 0.5]
    assert found.auc[TOGETHER] > 0.85


def test_more_classes_are_averaged_one_against_the_rest():
    measures, labels, groups = example(300, "abc")
    found = predict_label_alone(measures, labels, groups, resamples=100).set_index("measure")
    aucs = [roc_auc_score(labels.to_numpy() == name, measures.clear) for name in "abc"]
    assert found.auc["clear"] == pytest.approx(np.mean([max(auc, 1 - auc) for auc in aucs]))
    assert found.direction["clear"] in ("larger in c", "smaller in a")
    assert found.low["clear"] > 0.6 and found.low["noise"] < 0.55


def test_images_of_one_patient_are_not_counted_as_independent():
    measures, labels, _ = example(20)
    measures, labels = pd.concat([measures[["noise"]]] * 10), pd.concat([labels] * 10)
    together = pd.Series(np.tile(np.arange(20), 10))
    apart = pd.Series(np.arange(200))
    width = {}
    for name, groups in (("together", together), ("apart", apart)):
        row = predict_label_alone(measures, labels, groups).set_index("measure").loc["noise"]
        width[name] = row.high - row.low
    assert width["together"] > 2 * width["apart"]


def test_the_same_seed_gives_the_same_table_and_few_groups_no_model():
    measures, labels, groups = example()
    once, again = (predict_label_alone(measures, labels, groups, seed=3, resamples=50) for _ in range(2))
    assert once.equals(again)
    few = predict_label_alone(measures, labels, groups % 4, resamples=50)
    assert TOGETHER not in set(few.measure) and few.auc.notna().all()


def test_sentences_only_for_what_is_clear():
    measures, labels, groups = example()
    sentences = warnings_in_words(predict_label_alone(measures, labels, groups, resamples=200), measures, labels)
    assert len(sentences) == 3
    clear = next(line for line in sentences if line.startswith("`clear`"))
    assert "larger in b and alone predicts the label: AUC 0." in clear and "medians: a " in clear
    assert not any("noise" in line or "constant" in line for line in sentences)
    few = slice(0, 30)
    found = predict_label_alone(measures[few], labels[few], groups[few], resamples=50)
    assert found.low.max() > 0.55 and warnings_in_words(found, measures[few], labels[few]) == []
