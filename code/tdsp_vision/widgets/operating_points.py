"""What each threshold does to the images of one class: the state behind `PrecisionRecallUI`, without any layout.

Arrays: labels are class names [n]; scores are float [n, K] probabilities, columns in the order of `classes`; truth is
bool [n] and score float [n], both of the class that is looked at. An image is called where score >= threshold, as
`modeling.metrics.decide` does. Pass the validation side: a threshold chosen on the test would spoil it.
"""

from html import escape

import numpy as np
import pandas as pd
import traitlets
from sklearn import metrics as sk

from tdsp_vision.modeling.metrics import choose_threshold, sensitivity_at

BEST = "highest balanced accuracy"
COUNTS = ["found", "missed", "false_alarms", "spared"]
FINE = 1000  # steps per axis: finer than the pixels of the figure


def operating_points(truth: np.ndarray, score: np.ndarray) -> pd.DataFrame:
    """Every decision that some threshold makes, one row each, fewest calls first; row 0 calls nothing.

    Columns: `score`, the lowest score that is called (infinity in row 0); `threshold`, 0 to 1, midway to the next
    lower one, as `choose_threshold` has it; the counts `found`, `missed`, `false_alarms`, `spared`; and `sensitivity`,
    `specificity`, `balanced_accuracy`, `precision`, the last one 0 where nothing is called, as in `evaluate`.

    Raises:
        ValueError: if all images are of the class, or none is.
    """
    truth, score = np.asarray(truth, bool), np.asarray(score, np.float64)
    inside, outside = int(truth.sum()), int((~truth).sum())
    if not inside or not outside:
        raise ValueError(
            f"There are {inside} images of the class and {outside} of others; a curve needs at least one of each. "
            "Take a larger validation side, or look at another class."
        )
    false_rate, true_rate, points = sk.roc_curve(truth, score, drop_intermediate=False)
    precision, _, _ = sk.precision_recall_curve(truth, score)
    found, alarms = np.rint(true_rate * inside).astype(int), np.rint(false_rate * outside).astype(int)
    upper, lower = np.append(1.0, points[1:]), np.append(points[1:], 0.0)
    middle = (upper + lower) / 2
    table = {"score": points, "threshold": np.where(middle > lower, middle, upper), "found": found}
    table |= {"missed": inside - found, "false_alarms": alarms, "spared": outside - alarms}
    table |= {"sensitivity": true_rate, "specificity": 1 - false_rate}
    table |= {"balanced_accuracy": (true_rate + 1 - false_rate) / 2, "precision": np.append(0.0, precision[-2::-1])}
    return pd.DataFrame(table)


def row_at(points: pd.DataFrame, threshold: float) -> int:
    """The row of `operating_points` that a threshold leads to."""
    return int(np.searchsorted(-points.score.to_numpy()[1:], -threshold, side="right"))


def preset_thresholds(
    labels: np.ndarray, scores: np.ndarray, classes: list[str], of_class: str
) -> dict[str, float | None]:
    """Thresholds by the words of their rule; None where only a threshold that finds nothing would obey the rule."""
    known = labels, scores, classes, of_class
    truth, score = labels == of_class, scores[:, classes.index(of_class)]
    presets = {BEST: choose_threshold(*known)}
    presets |= {f"sensitivity ≥ {share:.2f}": choose_threshold(*known, share) for share in (0.95, 0.90)}
    for share in (0.95, 0.90):
        reached = sensitivity_at(truth, score, share)
        presets[f"specificity ≥ {share:.2f}"] = choose_threshold(*known, reached) if reached else None
    return presets


def checked_threshold(threshold: float | None, positive_class: str) -> float | None:
    """The threshold, if it goes with the positive class: 0 to 1 with one, None without.

    Raises:
        ValueError: if it does not.
    """
    fits = threshold is not None and 0 <= threshold <= 1 if positive_class else threshold is None
    if not fits:
        raise ValueError(
            f"The threshold is {threshold} and the positive class {positive_class!r}; allowed is a number from 0 to 1 "
            "with a positive class, and None with ''."
        )
    return threshold


def roc_path(points: pd.DataFrame) -> np.ndarray:
    """Corners of the ROC curve, float [m, 3]: 1 - specificity, sensitivity, row of `points`."""
    return np.column_stack([1 - points.specificity, points.sensitivity, np.arange(len(points))])


def precision_recall_path(points: pd.DataFrame) -> np.ndarray:
    """Corners of the steps whose area is the average precision, float [m, 3]: recall, precision, row of `points`.

    From one recall to the next the precision is the one *reached* there; a straight line between the two would promise
    what no threshold gives (Davis and Goadrich 2006). Row 0, where nothing is called, has no precision.
    """
    recall, precision = points.sensitivity.to_numpy(), points.precision.to_numpy()
    steps = np.column_stack([recall[:-1], recall[1:]]).ravel()
    return np.column_stack([steps, precision[1:].repeat(2), np.arange(1, len(points)).repeat(2)])


def thinned(path: np.ndarray) -> np.ndarray:
    """The path without corners that fall onto the one before, on a grid finer than the screen; both ends stay."""
    grid = np.rint(path[:, :2] * FINE)
    keep = np.append(True, (np.diff(grid, axis=0) != 0).any(axis=1))
    keep[-1] = True
    return path[keep]


def places_to_click(path: np.ndarray, n: int = 240) -> np.ndarray:
    """`n` places spread evenly along the path, float [n, 3], each with the nearest row."""
    length = np.append(0.0, np.hypot(*np.diff(path[:, :2], axis=0).T)).cumsum()
    at = np.linspace(0, length[-1], n)
    places = np.column_stack([np.interp(at, length, column) for column in path.T])
    places[:, 2] = np.rint(places[:, 2])
    return places


def numbers_in_words(point: pd.Series, threshold: float, name: str, other: str) -> str:
    """One row of `operating_points` as HTML: a sentence, the confusion matrix, and what follows from it."""
    name, other = escape(name), escape(other)
    found, missed, alarms, spared = (int(point[column]) for column in COUNTS)
    precision = f"{point.precision:.3f}" if found + alarms else "none, nothing is called"
    alarmed = f"{alarms} false alarm{'s' * (alarms != 1)}"
    shares = {"sensitivity (recall)": f"{point.sensitivity:.3f}", "specificity": f"{point.specificity:.3f}"}
    shares |= {"precision": precision, "balanced accuracy": f"{point.balanced_accuracy:.3f}"}
    head, cell = '<th style="padding:0 8px;text-align:left" scope', '<td style="padding:0 8px">'
    return (
        '<div style="line-height:1.6">'
        f"<b>At {threshold:.3f}</b> of {found + missed} {name} images <b>{found} are found, {missed} missed</b>; "
        f"<b>{alarmed}</b> among {alarms + spared} {other} images. "
        "Counted on the validation images; the test stays closed."
        '<div style="display:flex;flex-wrap:wrap;gap:0 24px;margin-top:6px"><table>'
        f'<tr>{head}="col">true class</th>{head}="col">called {name}</th>{head}="col">called {other}</th></tr>'
        f'<tr>{head}="row">{name}</th>{cell}{found} found</td>{cell}{missed} missed</td></tr>'
        f'<tr>{head}="row">{other}</th>{cell}{alarmed}</td>{cell}{spared} left alone</td></tr></table>'
        f"<div>{'<br>'.join(f'{words} <b>{share}</b>' for words, share in shares.items())}</div></div></div>"
    )


class Look(traitlets.HasTraits):
    """The class looked at, against the rest, and the threshold there (`at`, 0 to 1); the rest follows from the two.

    `points` and `presets` belong to the class. Another class brings its own best threshold with it.
    """

    of_class = traitlets.Unicode()
    at = traitlets.Float(min=0.0, max=1.0)

    def __init__(self, labels: np.ndarray, scores: np.ndarray, classes: list[str], of_class: str):
        """Raises `ValueError` as `operating_points` does."""
        super().__init__()
        self._known = np.asarray(labels, object), np.asarray(scores), list(classes)
        self.of_class = of_class

    @property
    def point(self) -> pd.Series:
        """The row of `points` at the threshold."""
        return self.points.iloc[row_at(self.points, self.at)]

    @traitlets.observe("of_class")
    def _take_class(self, change) -> None:
        labels, scores, classes = self._known
        self.truth, self.score = labels == change.new, scores[:, classes.index(change.new)]
        self.points = operating_points(self.truth, self.score)
        self.presets = preset_thresholds(*self._known, change.new)
        self.at = self.presets[BEST]
