"""What the notebook of stage 1 does, without its pictures."""

from pathlib import Path

import pandas as pd

from tdsp_vision.data.folder import scan_folder
from tdsp_vision.data.manifest import duplicates_to_reject, mark_duplicates, write_dataset
from tdsp_vision.paths import DatasetPaths


def acquire(dataset: DatasetPaths, source: Path, name: str = "birds", max_bits: int = 0) -> pd.DataFrame:
    """Acquire the images of `source` into `dataset`; `name` is what the dataset says of its source."""
    images, rejected = scan_folder(source, quiet=True)
    images = mark_duplicates(images, max_bits)
    rejected = pd.concat([rejected, duplicates_to_reject(images)])
    return write_dataset(dataset, images[images.file == images.original], rejected, source, {"source": name, "seed": 0})
