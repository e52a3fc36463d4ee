"""What `make notebooks` adds to nbconvert: of a widget, which needs its kernel, its static twin stays in a notebook."""

from nbconvert.preprocessors import Preprocessor


class StaticOutputs(Preprocessor):
    """Leaves of each output with a widget its HTML."""

    def preprocess_cell(self, cell, resources, index):
        """What nbconvert calls for each cell, executed already; see `nbconvert.preprocessors.Preprocessor`."""
        for output in cell.get("outputs", []):
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                output.data = {kind: content for kind, content in output.data.items() if kind == "text/html"}
        cell.get("outputs", [])[:] = [output for output in cell.get("outputs", []) if output.get("data", True)]
        return cell, resources
