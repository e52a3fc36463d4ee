"""The folder layout, known to this file only.

Relative folders hang below the workspace: the repository root, or the folder that `TDSP_WORKSPACE` names in the
environment. The working directory plays no part: papermill's is the caller's, nbval's the notebook's.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = {
    "data": ROOT / "code/01_data_acquisition_and_understanding/data_acquisition.ipynb",
    "model": ROOT / "code/02_modeling/modeling.ipynb",
    "deploy": ROOT / "code/03_deployment/deployment.ipynb",
}
SAMPLE_DATA = ROOT / "sample_data"


def workspace() -> Path:
    """Folder below which relative data and output folders lie (absolute)."""
    return Path(os.environ.get("TDSP_WORKSPACE") or ROOT).resolve()


def resolve(path: str | Path) -> Path:
    """`path` as an absolute path; a relative one is taken from the workspace, `~` from the home folder."""
    return (workspace() / Path(path).expanduser()).resolve()


def shown(path: str | Path) -> str:
    """`path` as it is printed: relative to the workspace or the repository where it lies below one of them."""
    base = next((base for base in (workspace(), ROOT) if Path(path).is_relative_to(base)), None)
    return Path(path).relative_to(base).as_posix() if base else str(path)


def checked_name(kind: str, value: str) -> str:
    """`value`, if it can be one folder name; else a ValueError that says what is allowed and names `kind`."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", value):
        raise ValueError(
            f"{kind} is {value!r}; it becomes a folder name, so use letters, digits, '.', '_' and '-' "
            "(at most 100, not starting with '.' or '-')."
        )
    return value


@dataclass(frozen=True)
class DatasetPaths:
    """Where one dataset lies: `data/<name>/`."""

    data_dir: str
    name: str

    def __post_init__(self):
        checked_name("DATASET_NAME", self.name)

    @property
    def root(self) -> Path:
        return resolve(self.data_dir) / self.name

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.csv"

    @property
    def rejected(self) -> Path:
        return self.root / "rejected.csv"

    @property
    def info(self) -> Path:
        return self.root / "dataset.json"

    @property
    def corrections(self) -> Path:
        return self.root / "corrections.csv"

    @property
    def downloads(self) -> Path:
        return self.root / "downloads"

    @property
    def attribution(self) -> Path:
        return self.root / "ATTRIBUTION.md"

    @property
    def report(self) -> Path:
        return self.root / "data_report.md"

    @property
    def dictionary(self) -> Path:
        return self.root / "data_dictionary.md"

    @property
    def figures(self) -> Path:
        return self.root / "figures"


@dataclass(frozen=True)
class OutputPaths:
    """Where the results of one dataset lie: `outputs/<dataset>/`."""

    output_dir: str
    dataset: str

    def __post_init__(self):
        checked_name("DATASET_NAME", self.dataset)

    @property
    def root(self) -> Path:
        return resolve(self.output_dir) / self.dataset

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def latest(self) -> Path:
        return self.root / "latest.txt"

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def augmented(self) -> Path:
        return self.root / "augmented"

    @property
    def sweeps(self) -> Path:
        return self.root / "sweeps"

    @property
    def training(self) -> Path:
        return self.root / "training"

    @property
    def deployment(self) -> Path:
        return self.root / "deployment"

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    def serving(self, model_name: str) -> Path:
        """Folder of one served model; its versions are sub-folders `1`, `2`, …"""
        return self.root / "serving" / checked_name("MODEL_NAME", model_name)
