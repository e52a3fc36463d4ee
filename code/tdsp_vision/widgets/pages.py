"""Pages of a long list of images: which rows are visible, and the controls to turn pages.

`rows` are row numbers (0 to n - 1) of the data frame behind a widget, after its filters and in its order.
"""

import ipywidgets as widgets
import traitlets


class Pages(traitlets.HasTraits):
    """Rows, `size` of them on a page. Observe `visible`: it changes exactly when other rows are to be shown."""

    rows = traitlets.Tuple(help="ints, in the order in which they are shown")
    size = traitlets.Int(12, min=1, help="rows on a page")
    page = traitlets.Int(0, help="from 0; a number outside of what exists becomes the nearest that does")
    visible = traitlets.Tuple(help="the rows of this page; follows from the other three")

    @property
    def count(self) -> int:
        """Number of pages; one, if there are no rows."""
        return max(1, -(-len(self.rows) // self.size))

    def show(self, rows: tuple[int, ...]) -> None:
        """Take other rows and go to the first page."""
        with self.hold_trait_notifications():
            self.rows = rows
            self.page = 0

    def turn_to(self, row: int) -> None:
        """Go to the page with `row`; stay where that is not among the rows."""
        if row in self.rows:
            self.page = self.rows.index(row) // self.size

    @traitlets.validate("page")
    def _within(self, proposal) -> int:
        return min(max(proposal["value"], 0), self.count - 1)

    @traitlets.observe("rows", "size", "page")
    def _turn(self, _) -> None:
        self.page = self.page  # fewer rows may leave fewer pages
        self.visible = self.rows[self.page * self.size : (self.page + 1) * self.size]


def position(pages: Pages) -> str:
    """Where the page stands: "61–72 of 300", "7 of 9", or "nothing to show"."""
    if not pages.rows:
        return "nothing to show"
    first, last = pages.page * pages.size + 1, min((pages.page + 1) * pages.size, len(pages.rows))
    return f"{first}–{last} of {len(pages.rows)}" if last > first else f"{last} of {len(pages.rows)}"


def pager(pages: Pages) -> widgets.HBox:
    """Previous, next, position, page slider with a number to type; both ways linked with `pages`."""
    narrow = widgets.Layout(width="auto")
    back = widgets.Button(description="Previous", tooltip="Previous page", icon="arrow-left", layout=narrow)
    on = widgets.Button(description="Next", tooltip="Next page", icon="arrow-right", layout=narrow)
    slider = widgets.IntSlider(
        1, 1, 1, description="Page", tooltip="Page", continuous_update=False, layout=widgets.Layout(width="260px")
    )
    slider.style.description_width = "initial"
    where = widgets.Label()

    def follow(_=None):
        """Show where `pages` stands."""
        with slider.hold_trait_notifications():  # a smaller maximum would turn the page by itself
            slider.max, slider.value = pages.count, pages.page + 1
        slider.disabled = pages.count == 1
        back.disabled, on.disabled = pages.page == 0, pages.page == pages.count - 1
        where.value = position(pages)

    back.on_click(lambda _: setattr(pages, "page", pages.page - 1))
    on.on_click(lambda _: setattr(pages, "page", pages.page + 1))
    slider.observe(lambda change: setattr(pages, "page", change["new"] - 1), "value")
    pages.observe(follow, ["rows", "size", "page"])
    follow()
    back.tabbable = on.tabbable = True  # the slider's handle and number are reached by themselves
    return widgets.HBox(
        [back, on, where, slider], layout=widgets.Layout(flex_flow="row wrap", grid_gap="0 10px", align_items="center")
    )
