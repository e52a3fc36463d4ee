"""AnnotationUI: look at images, correct labels, drop images. It decides nothing by itself and writes nothing.

    annotation = AnnotationUI(dataset.root, manifest, read_corrections(dataset))
    write_corrections(dataset, annotation.corrections)      # in the next cell

Loading is in `thumbnails`, the state in `annotation_state` and `pages`; here is the layout.
"""

from pathlib import Path

import ipywidgets as widgets
import numpy as np
import pandas as pd

from tdsp_vision.widgets.annotation_bars import Filters, History, Many
from tdsp_vision.widgets.annotation_state import Annotation, summary
from tdsp_vision.widgets.annotation_tiles import Tile, Zoom
from tdsp_vision.widgets.pages import Pages, pager
from tdsp_vision.widgets.thumbnails import thumbnail


class AnnotationUI(widgets.VBox):
    """Images with a label to choose for each. Filters and order apply when they are chosen, not while labels change."""

    def __init__(
        self,
        root: Path,
        manifest: pd.DataFrame,
        corrections: dict[str, str] | None = None,
        suspicion: np.ndarray | None = None,
        page_size: int = 12,
    ):
        """Show the first page.

        Args:
            root: folder that `manifest.path` is relative to.
            manifest: path, label as given (`load_manifest(dataset, corrected=False)`), and what the zoom shows.
            corrections: path to label, to start from; EXCLUDE drops an image.
            suspicion: float [n], 0 to 1, of each row: 1 minus the out-of-fold score of its label; NaN if unknown.
                Above 0.5 an image is among those of "only suspicious".
            page_size: images on a page.

        Raises:
            ValueError: if a correction is of an image that is not in the manifest, `suspicion` has not one value from
                0 to 1 for each row, or an image file cannot be read.
        """
        self.root, self.state = Path(root), Annotation(manifest, corrections or {}, suspicion)
        self.pages = Pages(size=page_size, rows=self.state.find())
        self.tiles = [Tile(self.state, self.root) for _ in range(page_size)]
        self.zoom = Zoom(self.state, self.root, self.pages)
        self.grid = widgets.GridBox(self.tiles)
        self.grid.layout = widgets.Layout(grid_template_columns="repeat(auto-fill, minmax(140px, 1fr))", grid_gap="6px")
        self.filters, self.many = Filters(self.state, self.pages), Many(self.state, self.tiles)
        self.history = History(self.state, self.pages)
        self.overview = widgets.VBox([self.filters, pager(self.pages), self.grid, self.many])
        super().__init__([self.overview, self.zoom, self.history])
        for tile in self.tiles:
            tile.zoom.on_click(lambda _, tile=tile: self.open_zoom(tile))
        self.zoom.back.on_click(self.close_zoom)
        self.pages.observe(self.fill, "visible")
        self.state.observe(self.refresh, ["steps", "choices"])
        self.fill()

    @property
    def corrections(self) -> dict[str, str]:
        """Path to label of each image whose label is not the given one; EXCLUDE drops the image."""
        return self.state.corrections

    def fill(self, _=None) -> None:
        """Show the visible page, and read its images, no others."""
        rows = self.pages.visible
        pictures = [thumbnail(self.root / self.state.manifest.path[row]) for row in rows]  # before anything changes
        for tile, row, picture in zip(self.tiles, rows, pictures, strict=False):
            tile.show(row, picture)
        for tile in self.tiles[len(rows) :]:
            tile.show(None)
        self.many.choose(False)

    def refresh(self, _=None) -> None:
        """Show the labels as they are now."""
        for tile in (*self.tiles, self.zoom.tile):
            tile.refresh()

    def open_zoom(self, tile: Tile) -> None:
        """Show the image of a tile in place of the page."""
        self.zoom.open_image(tile.row)
        self.overview.layout.display = "none"
        self.zoom.back.focus()

    def close_zoom(self, _=None) -> None:
        """Go back to the page, to the image that was shown; a second press finds it closed."""
        if self.zoom.at is None:
            return
        row = self.pages.rows[self.zoom.at]
        self.pages.turn_to(row)
        self.overview.layout.display = None
        self.zoom.close_image()
        self.tiles[self.pages.visible.index(row)].zoom.focus()

    def __repr__(self) -> str:
        return f"AnnotationUI: {summary(self.state)}"
