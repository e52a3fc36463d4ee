"""Cells of a notebook, run in this process: a tenth of the time that a kernel takes, and tests may look at names."""

import contextlib
import io
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
from draw_lesions import generate_sample

from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.manifest import mark_duplicates, write_dataset
from tdsp_vision.paths import NOTEBOOKS, DatasetPaths


def drawn_dataset(folder: Path, count: int) -> DatasetPaths:
    """The data set `drawn` in `folder/data`, of `count` drawings of each class less what repeats another one."""
    generate_sample(folder / "source", count)
    images, rejected = scan_folder(folder / "source")
    images = mark_duplicates(images)
    dataset, kept = DatasetPaths(str(folder / "data"), "drawn"), images[images.file == images.original]
    write_dataset(dataset, kept, rejected, folder / "source", {"source": "sample", "seed": 0})
    return dataset


def run_cells(stage: str, names: dict, settings: dict, first: str = "", last: str = "", leave_out: tuple = ()) -> str:
    """Run code cells in the namespace `names`, from and to those with these ids; what is printed, warnings included.

    Right after the cell of parameters those of `settings` are set.
    """
    names |= {"__name__": "__main__", "display": lambda *shown, **options: None}
    code = [cell for cell in nbformat.read(NOTEBOOKS[stage], 4).cells if cell.cell_type == "code"]
    ids = [cell.id for cell in code]
    part = code[ids.index(first) if first else 0 : ids.index(last) + 1 if last else len(code)]
    with contextlib.redirect_stdout(io.StringIO()) as printed, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for cell in part:
            if cell.id not in leave_out:
                exec(compile(cell.source, cell.id, "exec"), names)
            if "parameters" in cell.metadata.get("tags", []):
                assert set(settings) <= set(names)
                names |= settings
    plt.close("all")
    return printed.getvalue() + "\n".join(str(warning.message) for warning in warned)
