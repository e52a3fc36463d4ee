"""The scores of one image as horizontal bars (bqplot)."""

from collections.abc import Sequence

import bqplot
import ipywidgets as widgets
import numpy as np

from tdsp_vision.data.plots import BLUE, GRAY, ORANGE

LONGEST = 22  # letters of a class name beside its bar


class ScoreChart:
    """A bar from 0 to 1 for each class, with its number; the true and the called class say so, in words and colour.

    Attributes:
        figure: to be placed in a layout.
        bars: their `y` are the scores.
        words: their `text` is what stands at the end of each bar.
    """

    def __init__(self, classes: Sequence[str]):
        self.classes = list(classes)
        nothing = np.zeros(len(self.classes))
        across, down = bqplot.LinearScale(min=0, max=1), bqplot.OrdinalScale(domain=self.classes[::-1])
        scales = {"x": down, "y": across}
        self.bars = bqplot.Bars(x=self.classes, y=nothing, scales=scales, orientation="horizontal")
        beside = {"scales": {"x": across, "y": down}, "apply_clip": False, "x_offset": 4}
        text = {"colors": [GRAY], "default_size": 12, "font_weight": "normal", "text": [""] * len(nothing)}
        self.words = bqplot.Label(x=nothing, y=self.classes, **beside, **text)
        short = {name: name if len(name) <= LONGEST else name[: LONGEST - 1] + "…" for name in self.classes}
        axes = [
            bqplot.Axis(scale=down, side="left", tick_labels=short, grid_lines="none"),
            bqplot.Axis(scale=across, label="score", tick_values=[0, 0.25, 0.5, 0.75, 1], tick_format=".2f"),
        ]
        room = {"top": 4, "bottom": 45, "left": 20 + 7 * max(map(len, short.values())), "right": 90}
        size = widgets.Layout(width="440px", max_width="100%", height=f"{60 + 28 * len(self.classes)}px")
        self.figure = bqplot.Figure(
            marks=[self.bars, self.words],
            axes=axes,
            fig_margin=room,
            min_aspect_ratio=0.05,
            max_aspect_ratio=20,
            layout=size,
        )

    def draw(self, scores: Sequence[float], label: str, predicted: str) -> None:
        """Show scores [K], 0 to 1, in the order of the classes, and which class is true and which was called."""
        said = {label: " true", predicted: " called"} if label != predicted else {label: " true, called"}
        colors = dict.fromkeys(self.classes, GRAY) | {predicted: ORANGE, label: BLUE}
        text = [f"{score:.2f}{said.get(name, '')}" for name, score in zip(self.classes, scores, strict=True)]
        with self.bars.hold_sync(), self.words.hold_sync():
            self.bars.y, self.bars.colors = np.asarray(scores, float), [colors[name] for name in self.classes]
            self.words.x, self.words.text = self.bars.y, text
