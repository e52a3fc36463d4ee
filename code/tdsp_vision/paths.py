"""The folder layout, known to this file only.

Relative folders hang below the workspace: the repository root, or the folder that `TDSP_WORKSPACE` names in the
environment. The working directory plays no part: papermill's is the caller's, nbval's the notebook's.
"""

import os
import re
from pathlib import Path

from tdsp_vision.errors import ParameterError

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {
    "data": ROOT / "code/01_data_acquisition_and_understanding/data_acquisition.ipynb",
    "model": ROOT / "code/02_modeling/modeling.ipynb",
    "deploy": ROOT / "code/03_deployment/deployment.ipynb",
}
SAMPLE_DATA = ROOT / "sample_data"


def workspace() -> Path:
    """Folder below which relative data and output folders lie (absolute)."""
    return Path(os.environ.get("TDSP_WORKSPACE") or ROOT).expanduser().resolve()


def resolve(path: str | Path) -> Path:
    """`path` as an absolute path; a relative one is taken from the workspace, `~` from the home folder."""
    return (workspace() / Path(path).expanduser()).resolve()


def shown(path: str | Path) -> str:
    """`path` as it is printed: relative to the workspace or the repository where it lies below one of them."""
    base = next((base for base in (workspace(), ROOT) if Path(path).is_relative_to(base)), None)
    return Path(path).relative_to(base).as_posix() if base else str(path)


def checked_name(kind: str, value: str) -> str:
    """`value`, if it can be one folder name; else a ParameterError that says what is allowed and names `kind`."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", value):
        allowed = "letters, digits, '.', '_' and '-', at most 100, and begin with none of '.' and '-'"
        raise ParameterError(f"{kind} is {value!r}; it becomes a folder name, so use {allowed}.")
    return value


class DatasetPaths:
    """Where one data set lies: `data/<name>/`; ParameterError where `name` can be no folder's name."""

    def __init__(self, data_dir: str, name: str):
        self.name = checked_name("DATASET_NAME", name)
        self.root = resolve(data_dir) / name
        self.images = self.root / "images"
        self.manifest = self.root / "manifest.csv"
        self.measures = self.root / "measures.csv"
        self.rejected = self.root / "rejected.csv"
        self.info = self.root / "dataset.json"
        self.corrections = self.root / "corrections.csv"
        self.downloads = self.root / "downloads"
        self.attribution = self.root / "ATTRIBUTION.md"
        self.report = self.root / "data_report.md"
        self.dictionary = self.root / "data_dictionary.md"
        self.figures = self.root / "figures"


class OutputPaths:
    """Where the results of one data set lie: `outputs/<dataset>/`; ParameterError as for `DatasetPaths`."""

    def __init__(self, output_dir: str, dataset: str):
        self.output_dir, self.dataset = output_dir, checked_name("DATASET_NAME", dataset)
        self.root = resolve(output_dir) / dataset
        self.runs = self.root / "runs"
        self.latest = self.root / "latest.txt"
        self.features = self.root / "features"
        self.augmented = self.root / "augmented"
        self.sweeps = self.root / "sweeps"
        self.training = self.root / "training"
        self.deployment = self.root / "deployment"
        self.notebooks = self.root / "notebooks"

    def serving(self, model_name: str) -> Path:
        """Folder of one served model; its versions are sub-folders `1`, `2`, …"""
        return self.root / "serving" / checked_name("MODEL_NAME", model_name)
