"""How much of the second notebook's time goes to your images? Its seconds against those of featurizing and fitting.

    python benchmarks/overhead.py [--images 1000 --images 4000] [--labels 2]

The photos, 400 x 500 pixels, are drawn. Stage 1 and stage 2 run headless with their defaults; of stage 2 the seconds
of all cells are added up, less those of the imports, which are timed in a process of their own.
"""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from pathlib import Path

import click
import nbformat
from stage1 import draw

from tdsp_vision.data.tables import read_json
from tdsp_vision.paths import NOTEBOOKS, OutputPaths
from tdsp_vision.runner import run_notebook


@click.command()
@click.option("--images", multiple=True, default=[1000, 4000])
@click.option("--labels", default=2)
def main(images: tuple[int, ...], labels: int) -> None:
    """Print one line per number of images."""
    imports = seconds_of_imports()
    for count in images:
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TDSP_WORKSPACE"] = folder
            source, outputs = Path(folder, "source"), OutputPaths("outputs", "drawn")
            for label in range(labels):
                (source / f"label_{label}").mkdir(parents=True)
            with ProcessPoolExecutor() as pool:
                list(pool.map(draw, [source / f"label_{n % labels}" / f"{n}.jpg" for n in range(count)], chunksize=50))
            parameters = {"DATASET_NAME": "drawn", "SOURCE": "folder", "SOURCE_PATH": str(source)}
            run_notebook(NOTEBOOKS["data"], parameters, Path(folder, "data.ipynb"))
            run_notebook(NOTEBOOKS["model"], {"DATASET_NAME": "drawn"}, Path(folder, "model.ipynb"))
            (metrics,) = map(read_json, outputs.runs.glob("*/metrics.json"))
            cells = seconds_of_cells(Path(folder, "model.ipynb")) - imports
        work = metrics["seconds"]["featurize"] + metrics["seconds"]["train"]
        print(
            f"{count} photos: {cells:.1f} s without {imports:.1f} s of imports; featurizing and fitting {work:.1f} s; "
        )
        print(f"ratio {cells / work:.2f}", flush=True)


def seconds_of_cells(notebook: Path) -> float:
    """What the cells of an executed notebook took, as papermill noted it."""
    moments = [cell.metadata.get("papermill", {}) for cell in nbformat.read(notebook, 4).cells]
    spans = [(m["start_time"], m["end_time"]) for m in moments if m.get("start_time") and m.get("end_time")]
    return sum((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds() for start, end in spans)


def seconds_of_imports() -> float:
    """All imports of the second notebook, in a new process whose files have been read before."""
    cells = [cell.source for cell in nbformat.read(NOTEBOOKS["model"], 4).cells if cell.cell_type == "code"]
    lines = [line for source in cells for line in source.splitlines() if line.startswith(("import ", "from "))]
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
