"""ResultsUI: one image at a time with all its scores, what spoke for a class, and the training images it resembles.

predictions: path, label, predicted and score_<class> for each class, perhaps familiar; its index, whole numbers, each
once, are the rows by which images are named: in the modeling notebook those of the manifest. Image files are read below
`root`, of the image in view only, and nothing is written. `judged`, `select` and `nearest_training_images` need no
front end.
"""

from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd
from matplotlib import colormaps
from PIL import Image
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from tdsp_vision.widgets import pictures

SHOWN = ("all", "correct", "wrong")
ORDERS = {"most wrong first": ("loss", False), "least familiar first": ("familiar", True)}  # column, ascending
SIDE, NEIGHBOUR = 300, 110  # pixels; of the picture that is looked at, and of one that resembles it
BARS = 10  # scores that are shown; of more classes the highest, and what is named
FAR = 5.0  # standard deviations; further away is as far


def judged(predictions: pd.DataFrame, classes: list[str]) -> pd.DataFrame:
    """`predictions` with three more columns.

    Returns:
        a copy with correct (bool); confidence (0 to 1), the score of the class that was called, which need not be
        the highest one; loss (0 to 36, no unit), -log of the true class's score: cross-entropy.
    """
    scores, rows = predictions[[f"score_{name}" for name in classes]].to_numpy(float), np.arange(len(predictions))
    own, called = (pd.Index(classes).get_indexer(predictions[column]) for column in ("label", "predicted"))
    return predictions.assign(
        correct=own == called,
        confidence=scores[rows, called],
        loss=-np.log(scores[rows, own].clip(np.finfo(float).eps, 1)),  # a score of 0 has no logarithm
    )


def select(
    table: pd.DataFrame, shown: str = "all", label: str = "", order: str = "most wrong first"
) -> tuple[int, ...]:
    """Row numbers of `table`, which comes from `judged`, that are left, in one of `ORDERS`.

    Args:
        shown: all, correct or wrong.
        label: a true class; "" for all.
    """
    keep = (shown == "all") | (table.correct == (shown == "correct"))
    left = table[keep & ((label == "") | (table.label == label))]
    column, ascending = ORDERS[order]
    return tuple(left[column].sort_values(ascending=ascending, kind="stable").index.tolist())


def nearest_training_images(
    features: np.ndarray, manifest: pd.DataFrame, train: np.ndarray, k: int = 5
) -> Callable[[int], pd.DataFrame]:
    """A function that finds the training images which look most like a given one to the frozen network.

    Euclidean distance of standardized features, cut off at 5 deviations: the space in which the linear SVM divides the
    classes. Each feature counts the same whatever its unit; cosine would forget how unusual an image is. It is given as
    root mean square over the features: two unrelated images are about 1.4 apart.

    Args:
        features: float [n, d], one row per row of the manifest.
        manifest: n rows with path and label.
        train: bool [n], the training side.
        k: how many at most.

    Returns:
        row number (0 to n - 1) -> columns path, label, distance of its neighbours, nearest first, itself left out.
    """
    scaler = StandardScaler().fit(features[train])
    space = np.clip(scaler.transform(features), -FAR, FAR)  # one wild feature hides nothing
    rows = np.flatnonzero(train)
    search = NearestNeighbors(n_neighbors=min(k + 1, len(rows)), algorithm="brute").fit(space[rows])

    def nearest(row: int) -> pd.DataFrame:
        distances, places = search.kneighbors(space[[row]])
        alike = manifest.iloc[rows[places[0]]][["path", "label"]]
        alike["distance"] = distances[0] / np.sqrt(space.shape[1])
        return alike[rows[places[0]] != row].head(k)

    return nearest


def heat_picture(photo: Image.Image, evidence: np.ndarray) -> Image.Image:
    """A photo in gray with the evidence on it, red for and blue against (ColorBrewer 2.0).

    Args:
        evidence: float [S, S], positive where a place speaks for the class. It is stretched to the photo's shape, as
            the network squeezed the photo; colors end at the 99.5th percentile of this map.
    """
    limit = float(np.percentile(np.abs(evidence), 99.5)) or 1.0
    colored = Image.fromarray(colormaps["RdBu_r"](evidence / (2 * limit) + 0.5, bytes=True)[..., :3])
    return Image.blend(photo.convert("L").convert("RGB"), colored.resize(photo.size), 0.6)


def score_chart(scores: pd.Series, label: str, predicted: str, threshold: dict[str, float]) -> str:
    """Scores by class, 0 to 1, as horizontal bars in HTML; true and called class say so in words and color.

    Args:
        threshold: class to the score from which on it is called; a line across its bar.
    """
    words = {label: " true", predicted: " called"} if label != predicted else {label: " true, called"}
    words |= {name: f"{words.get(name, '')} from {at:.3f}" for name, at in threshold.items()}
    shown = [name for name in scores.index if name in words or name in scores.nlargest(BARS).index]
    lines = []
    for name, score in scores[shown].items():
        color = pictures.BLUE if name == label else pictures.ORANGE if name == predicted else pictures.GRAY
        at, line = 100 * threshold.get(name, 2), "var(--jp-ui-font-color0, black)"
        mark = f"linear-gradient(to right, transparent {at}%, {line} {at}% {at + 0.7}%, transparent {at + 0.7}%)"
        bar = f"linear-gradient(to right, {color} {score:.2%}, var(--jp-layout-color2, #ddd) {score:.2%})"
        text = f"<span>{escape(name)}</span>", f"<span>{score:.3f}{words.get(name, '')}</span>"
        lines.append(f'{text[0]}<div style="height:16px;background:{mark}, {bar}"></div>{text[1]}')
    rest = f"{len(scores) - len(shown)} classes with lower scores are left out" * (len(shown) < len(scores))
    grid = "display:grid;grid-template-columns:minmax(3em,auto) minmax(110px,1fr) auto;gap:6px 8px;align-items:center"
    return f'<div style="{grid}">{"".join(lines)}</div>{rest}'


def in_words(row: pd.Series) -> str:
    """What is known of one row of `judged`, as HTML."""
    called = f"true class <b>{escape(row.label)}</b>, called <b>{escape(row.predicted)}</b>"
    numbers = f"confidence {row.confidence:.3f}, loss {row.loss:.2f}"
    numbers += f", familiar {row.familiar:.3f}" if "familiar" in row else ""
    return f"{called}: {'right' if row.correct else 'wrong'}; {numbers}<br>{escape(row.path)}"


class ResultsUI(pictures.Panel):
    """Step through predictions, the most confidently wrong or the least familiar first; `pages.rows` are those that the
    filters leave.

    Args:
        root: folder of the dataset, below which `path` lies.
        predictions: path, label, predicted, score_<class>, perhaps familiar, by row number.
        classes: names, in the order of the bars.
        explain: (row number, class number) -> float [S, S], positive where a place speaks for the class. Called only
            for the image in view, while a heat map is asked for.
        neighbours: row number -> columns path, label, distance; see `nearest_training_images`. Called only for the
            image in view.
        threshold: class to the score from which on it is called, drawn on its bar; the class "" counts for nothing.
    """

    def __init__(
        self, root: Path, predictions: pd.DataFrame, classes: list[str], explain=None, neighbours=None, threshold=None
    ):
        self.root, self.table, self.classes = Path(root), judged(predictions, classes), classes
        self.explain, self.neighbours = explain, neighbours
        self.threshold = {name: score for name, score in (threshold or {}).items() if name}
        self.shown = pictures.control(widgets.Dropdown, "Show", options=SHOWN)
        labels = [("all", ""), *((name, name) for name in classes)]
        self.label = pictures.control(widgets.Dropdown, "True class", options=labels)
        orders = list(ORDERS) if "familiar" in predictions else list(ORDERS)[:1]
        self.order = pictures.control(widgets.Dropdown, "Order", options=orders)
        heats = [("off", -1), *((f"for {name}", number) for number, name in enumerate(classes))]
        self.heat = pictures.control(widgets.Dropdown, "Heat map", options=heats)
        self.pages = pictures.Pages(size=1)
        self.about, self.alike = widgets.HTML(), widgets.HTML()
        self.picture, self.map = (widgets.HTML(layout={"width": f"{SIDE}px", "max_width": "100%"}) for _ in range(2))
        self.chart = widgets.HTML(layout={"flex": "1 1 280px", "max_width": "480px"})
        chosen = [self.shown, self.label, self.order, *([self.heat] if explain else [])]
        beside = pictures.wrapping([self.picture, self.map, self.chart], "flex-start")
        super().__init__([pictures.wrapping([*chosen, self.pages]), self.about, beside, self.alike])
        for control in (self.shown, self.label, self.order):
            control.observe(self._choose, "value")
        self.pages.observe(self._draw, "visible")
        self.heat.observe(self._draw, "value")
        self._choose()
        self._draw()

    def static_html(self) -> str:
        """The image in view; beside it, where there is room, its scores and its neighbours."""
        sides = (self.picture.value, self.chart.value + self.alike.value)
        boxes = "".join(f'<div style="flex: 1 1 300px">{side}</div>' for side in sides)
        return f'{self.about.value}<div style="display: flex; flex-wrap: wrap; gap: 16px">{boxes}</div>'

    def _choose(self, _=None) -> None:
        """Follow the filters, and start at the first image that they leave."""
        self.pages.show(select(self.table, self.shown.value, self.label.value, self.order.value))

    def _draw(self, _=None) -> None:
        """Show the image in view; where there is none, say so."""
        self.picture.value = self.map.value = self.chart.value = self.alike.value = ""
        self.about.value = "No image fits these filters."
        for row in map(self.table.loc.__getitem__, self.pages.visible):
            scores = row[[f"score_{name}" for name in self.classes]].set_axis(self.classes).astype(float)
            self.about.value = in_words(row)
            self.picture.value = pictures.picture(self.root / row.path, f"{row.label}: {row.path}", SIDE)
            self.chart.value = score_chart(scores, row.label, row.predicted, self.threshold)
            self.alike.value = self._neighbours(row) if self.neighbours else ""
            if self.heat.value >= 0:
                self.map.value = "computing the heat map …"
                self.map.value = self._heat_map(row)
        self.map.layout.display = None if self.map.value else "none"

    def _heat_map(self, row: pd.Series) -> str:
        """The photo under its heat map, and what the colors mean; of an image that cannot be read, the error."""
        name = self.classes[self.heat.value]
        try:
            photo = pictures.thumbnail(self.root / row.path, SIDE)
            drawn = heat_picture(photo, self.explain(int(row.name), self.heat.value))
        except Exception as error:
            return pictures.alert(f"{type(error).__name__}: {error}")
        words = f"red speaks for {name}, blue against it; scaled to this picture"
        return f"{pictures.picture(drawn, f'heat map for {name}', SIDE)}{escape(words)}"

    def _neighbours(self, row: pd.Series) -> str:
        """Training images with label and distance."""
        found = self.neighbours(int(row.name))
        captions = [f"{near.label}\ndistance {near.distance:.2f}" for near in found.itertuples()]
        same = f"{(found.label == row.label).sum()} of {len(found)} have the label {escape(row.label)}, too"
        shown = pictures.gallery([self.root / path for path in found.path], captions, NEIGHBOUR)
        return f"<b>Nearest training images</b>: {same}{shown}"
