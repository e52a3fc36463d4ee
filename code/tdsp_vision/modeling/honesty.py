"""What else could explain a good number, and is the test large enough to claim it? Asked in every run.

In: blocks of `evaluate`, and the measures of `quality.measure_images`, which know nothing of shapes. Out: how far the
best of them comes alone, and sentences for whoever reads the result.
"""

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from tdsp_vision.data.confounders import TOGETHER, predict_label_alone
from tdsp_vision.modeling.intervals import mean_auc
from tdsp_vision.modeling.metrics import auc_of_class

FEWEST = 100  # images of each class in a test; fewer validate poorly (Collins et al. 2016, doi 10.1002/sim.6787)
WIDEST = 0.1  # of an interval of the AUC


def best_confounder(
    measures: pd.DataFrame,
    labels: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    positive_class: str,
    seed: int,
) -> dict:
    """The measure that predicts the label best on the training side, alone, and its AUC on the test.

    Measure and direction are chosen on the training side; "all together" is gradient boosting, judged there by
    cross-validation over groups. So the number on the test has no more luck than the model's own.

    Args:
        measures: [n] rows, a number in each column.
        labels: class names [n].
        groups: [n], what belongs together.
        train, test: bool [n].
        positive_class: one class against the rest; "" for the mean over the classes.
        seed: of the boosting and the bootstrap.

    Returns:
        measure, direction ("larger in malignant"), training_auc, auc, auc_ci [low, high]; plain values.
    """
    labels = np.asarray(labels, dtype=object)
    if positive_class and len(set(labels)) > 2:
        labels = np.where(labels == positive_class, positive_class, f"not {positive_class}")
    classes = sorted(set(labels[train]))
    groups = np.asarray(groups)
    known = predict_label_alone(measures[train], pd.Series(labels[train]), pd.Series(groups[train]), seed, resamples=1)
    best = known.iloc[0]
    scores = _scores(best.measure, measures, labels, train, classes, seed)[test]
    truths = labels[test][:, None] == np.array(classes, dtype=object)
    area, interval = mean_auc(truths, scores, groups[test], seed)
    found = {"measure": best.measure, "direction": best.direction, "training_auc": float(best.auc)}
    return found | {"auc": area, "auc_ci": interval}


def claim_warnings(block: dict, confounder: dict | None = None, wanted_sensitivity: float | None = None) -> list[str]:
    """Sentences on what the test is too small or too weak to show; none where there is nothing to say.

    Args:
        block: `test` of `metrics.json`, from `evaluate`.
        confounder: from `best_confounder`.
        wanted_sensitivity: that the threshold was chosen for.
    """
    sentences, (low, high) = [], block["auc_ci"]
    counts = {name: row["n"] for name, row in block["per_class"].items()}
    scarce = [f"{count} of {name}" for name, count in counts.items() if count < FEWEST]
    interval = f"{low:.2f} to {high:.2f}"
    if scarce:
        sentences.append(
            f"The test has few images ({', '.join(scarce)}); below {FEWEST} of a class, numbers move a lot."
        )
    if low <= 0.5:
        sentences.append(f"The 95 % interval of the AUC, {interval}, reaches down to 0.5: nothing has been shown yet.")
    if high - low > WIDEST:
        sentences.append(
            f"The 95 % interval of the AUC, {interval}, is {high - low:.2f} wide: another test could say otherwise."
        )
    most = max(counts.values()) / block["n"]
    # With a positive class the threshold gives accuracy away for sensitivity, and rightly so.
    if block["sensitivity"] is None and block["intervals"]["accuracy"][0] <= most:
        sentences.append(
            f"Always naming the most frequent class is right in {most:.0%}, the model in {block['accuracy']:.0%}: by "
            "accuracy it has not been shown to do better."
        )
    if confounder and low <= confounder["auc"]:
        sentences.append(
            f"The best confounder, `{confounder['measure']}`, reaches an AUC of {confounder['auc']:.2f} on the test, "
            f"and the model {block['auc']:.2f} ({interval}): it has not been shown to see more than that."
        )
    if wanted_sensitivity is not None and block["sensitivity"] < wanted_sensitivity:
        sentences.append(
            f"The threshold reaches a sensitivity of {wanted_sensitivity:.2f} on validation and of "
            f"{block['sensitivity']:.2f} on the test."
        )
    return sentences


def _scores(name: str, measures: pd.DataFrame, labels: np.ndarray, train: np.ndarray, classes: list[str], seed: int):
    """Float [n, K] for all images, learned on the training side: the measure with its sign, or a boosted forest."""
    if name == TOGETHER:
        model = HistGradientBoostingClassifier(max_iter=60, max_depth=3, random_state=seed)
        with threadpool_limits(1, "openmp"):  # as in `data.confounders`
            return model.fit(measures[train].to_numpy(), labels[train]).predict_proba(measures.to_numpy())
    values, once = measures[name].to_numpy(float), np.ones((1, int(train.sum())))
    aucs = np.array([auc_of_class(labels[train] == one, values[train], once).item() for one in classes])
    return values[:, None] * np.where(aucs >= 0.5, 1, -1)
