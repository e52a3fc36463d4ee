"""What the notebook of stage 1 does, without its pictures."""

from pathlib import Path

import pandas as pd

from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.manifest import duplicates_to_reject, mark_duplicates, write_dataset
from tdsp_vision.paths import DatasetPaths


def acquire(dataset: DatasetPaths, source: Path, name: str = "birds", labels: str = "", remove: bool = True):
    """Acquire the images of `source` into `dataset`; `name` is what the dataset says of its source. The manifest."""
    images, unusable = scan_folder(source, labels)
    marked = mark_duplicates(images)
    copies = duplicates_to_reject(marked, remove)
    rejected = pd.concat([unusable, copies], ignore_index=True)
    kept = marked[~marked.file.isin(copies.path)]
    return write_dataset(dataset, kept, rejected, source, {"source": name, "seed": 0})
