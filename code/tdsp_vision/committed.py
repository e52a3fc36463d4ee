"""What `make notebooks` adds to nbconvert: of a widget, which needs its kernel, its static twin stays in a notebook."""

from nbconvert.preprocessors import Preprocessor

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class StaticOutputs(Preprocessor):
    """Leaves of each output with a widget its HTML."""

    def preprocess_cell(self, cell, resources, index):
        """What nbconvert calls for each cell, executed already; see `nbconvert.preprocessors.Preprocessor`."""
        for output in cell.get("outputs", []):
            if WIDGET_VIEW in output.get("data", {}):
                output.data = {kind: content for kind, content in output.data.items() if kind == "text/html"}
        return cell, resources
