"""Which labels are probably wrong: those that a classifier which never saw the image finds hard to believe."""

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from tdsp_vision.modeling.calibration import calibrate, calibrated
from tdsp_vision.modeling.svm import build_svm, svm_margins


def suspicious_labels(
    features: np.ndarray, targets: np.ndarray, groups: np.ndarray, c: float, seed: int, folds: int = 5
) -> pd.DataFrame:
    """All images, most suspicious label first, by the probability that its own label gets (self-confidence).

    A linear SVM scores each fold after learning from the others, so a wrong label cannot vouch for itself; whole
    groups share a fold, so neither can a second view of the same lesion. Ranking by out-of-fold self-confidence:
    Northcutt et al. 2021, "Confident learning", arXiv:1911.00068.

    A rank is a reason to look, not to change: hard images with right labels stand at the top as well. That counts
    double for test images. Their labels corrected by the model's opinion flatter the model; so pass the whole dataset
    for cleaning it, look at each picture, and correct what a person sees is wrong, on all sides alike.

    Args:
        features: float32 [n, d], of a frozen network.
        targets: int [n], 0 to K - 1.
        groups: [n], what must stay together.
        c: penalty of the SVM; small ones (0.0001) bend less to wrong labels.
        seed: of the folds and the solver.
        folds: at most this many; fewer where a class has fewer groups.

    Returns:
        image (row number in `features`), given (int, its label), self_confidence (0 to 1, calibrated probability
        of that label), suggested (int, the label with the highest probability), rank (1 is the most suspicious).

    Raises:
        ValueError: if a class has too few groups to be learned in each fold.
    """
    margins = _out_of_fold_margins(features, targets, groups, c, seed, folds)
    scores = calibrated(margins, *calibrate(margins, targets))  # with class shares: a rare label needs more evidence
    table = pd.DataFrame({"image": np.arange(len(targets)), "given": targets})
    table["self_confidence"] = scores[table.image, targets]
    table["suggested"] = scores.argmax(axis=1)
    table = table.sort_values("self_confidence", kind="stable", ignore_index=True)
    return table.assign(rank=table.index + 1)


def _out_of_fold_margins(features, targets, groups, c: float, seed: int, folds: int) -> np.ndarray:
    n_classes = int(targets.max()) + 1
    fewest = min(len(np.unique(groups[targets == k])) for k in range(n_classes))
    splitter = StratifiedGroupKFold(max(2, min(folds, fewest)), shuffle=True, random_state=seed)
    margins = np.empty((len(targets), n_classes))
    for train, held_out in splitter.split(features, targets, groups):
        if len(np.unique(targets[train])) < n_classes:
            raise ValueError(
                f"Labels cannot be checked by cross-validation in whole groups: a class has {fewest} group(s), which "
                "leaves nothing to learn it from; add images of other cases."
            )
        svm = build_svm(c, seed).fit(features[train], targets[train])
        margins[held_out] = svm_margins(svm, features[held_out])
    return margins
