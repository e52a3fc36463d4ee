"""What do age, sex and site predict without the picture, and what would they add to it? Asked, and not used as input.

A model that sees pictures only may owe its score to what the metadata say as well: an old patient's back looks old.
"""

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from tdsp_vision.data.quality import columns_to_compare
from tdsp_vision.modeling.metrics import SMALLEST, auc_with_interval, paired_auc_difference


def metadata_alone(
    manifest: pd.DataFrame,
    scores: np.ndarray,
    train: np.ndarray,
    validation: np.ndarray,
    test: np.ndarray,
    classes: list[str],
    positive_class: str,
    seed: int,
) -> dict | None:
    """AUC of the metadata alone on the test, and how much higher the model's is with them beside it.

    Gradient boosting learns the label from the metadata of the training side; a logistic regression on the validation
    side weighs its answer against the model's scores. Both are then judged on the test.

    Args:
        manifest: [n] rows with label, group and metadata (numbers, text; values may be missing).
        scores: float [n, K], of the model, on validation by a calibration that did not see the image.
        train, validation, test: bool [n].
        positive_class: one class against the rest; "" for the mean over the classes.
        seed: of the boosting.

    Returns:
        columns (names), auc and auc_ci of the metadata alone, difference (AUC of both together minus the model's) and
        difference_ci, [low, high] or None; plain values. None where the manifest has no metadata to compare.
    """
    columns = columns_to_compare(manifest)
    if not columns:
        return None
    known = manifest[columns].replace("", None)
    texts = {name: "category" for name in columns if not pd.api.types.is_numeric_dtype(known[name])}
    known, labels = known.astype(texts), manifest.label.to_numpy(dtype=object)
    forest = HistGradientBoostingClassifier(
        max_iter=60, max_depth=3, categorical_features="from_dtype", random_state=seed
    )
    with threadpool_limits(1, "openmp"):  # threads that wait for each other cost more than these few rows
        alone = forest.fit(known[train], labels[train]).predict_proba(known)
    evidence = np.log(np.concatenate([scores, alone], axis=1).clip(SMALLEST, 1))
    weighed = LogisticRegression(max_iter=1000).fit(evidence[validation], labels[validation])
    both = weighed.predict_proba(evidence[test])
    about = [classes.index(name) for name in ([positive_class] if positive_class else classes)]
    truths, groups = labels[test, None] == np.array(classes, dtype=object)[about], manifest.group.to_numpy()[test]
    area, interval = auc_with_interval(truths, alone[test][:, about], groups)
    difference, low, high = paired_auc_difference(truths, scores[test][:, about], both[:, about], groups)
    found = {"columns": columns, "auc": area, "auc_ci": interval, "difference": difference}
    return found | {"difference_ci": None if low is None else [low, high]}
