"""What an annotation is, without any front end: labels as given and as they are now, every step back and forward.

Rows are numbers, 0 to n - 1, of the manifest (path, label, …) as it was given.
"""

import numpy as np
import pandas as pd
import traitlets

from tdsp_vision.data.corrections import EXCLUDE, corrected_labels, corrections_table

ALL, CHANGED, SUSPICIOUS = "all", "only changed", "only suspicious"
SUSPICION = 0.5  # above it the label is called suspicious: other labels together look more likely than this one


class Annotation(traitlets.HasTraits):
    """Labels of n images while a person corrects them. Observe `steps` and `choices` to see what changes."""

    choices = traitlets.Tuple(help="labels that an image may get, in order; EXCLUDE is the last")
    steps = traitlets.Int(0, help="counts up with every change of labels")

    def __init__(self, manifest: pd.DataFrame, corrections: dict[str, str], suspicion: np.ndarray | None):
        """Start from corrections that exist; see `AnnotationUI` for the arguments and errors."""
        super().__init__()
        self.manifest = manifest.reset_index(drop=True)
        self.given = self.manifest.label.to_numpy(dtype=object)
        self.now = corrected_labels(self.manifest, corrections).to_numpy(dtype=object)
        self.suspicion = _checked(suspicion, len(manifest))
        self.choices = (*sorted({*self.given, *self.now} - {EXCLUDE}), EXCLUDE)
        self._done, self._undone = [], []

    @property
    def corrections(self) -> dict[str, str]:
        """Path to label of each image whose label is not the given one; EXCLUDE drops the image."""
        table = corrections_table(self.manifest, dict(zip(self.manifest.path, self.now, strict=True)))
        return dict(zip(table.path, table.now, strict=True))

    def find(self, label: str | None = None, only: str = ALL, suspicious_first: bool = False) -> tuple[int, ...]:
        """Rows whose label now is `label` (None: any), of those `only` all, changed or suspicious ones."""
        keep = np.ones(len(self.now), bool) if label is None else self.now == label
        if only == CHANGED:
            keep &= self.now != self.given
        if only == SUSPICIOUS:
            keep &= self.suspicion > SUSPICION
        rows = np.flatnonzero(keep)
        if suspicious_first:
            rows = rows[np.argsort(-self.suspicion[rows], kind="stable")]  # what has no score comes last
        return tuple(rows.tolist())

    def relabel(self, rows: list[int], label: str) -> None:
        """Give `rows` one label: one step, which `undo` takes back as a whole; no step if all have it already.

        Raises:
            ValueError: if `label` is not one of `choices`.
        """
        if label not in self.choices:
            raise ValueError(f"the label is {label!r}; allowed are {', '.join(self.choices)}; `add_choice` adds one.")
        rows = np.array([row for row in rows if self.now[row] != label], dtype=int)
        if len(rows):
            self._done.append((rows, self.now[rows]))
            self._undone.clear()
            self.now[rows] = label
            self.steps += 1

    def add_choice(self, label: str) -> str:
        """Allow one more label, without the spaces around it; an empty or known one adds nothing. Returns it."""
        label = label.strip()
        if label and label not in self.choices:
            self.choices = (*sorted({*self.choices, label} - {EXCLUDE}), EXCLUDE)
        return label

    def undo(self) -> list[int]:
        """Take the last step back; its rows, none if there is no step."""
        return self._turn_back(self._done, self._undone)

    def redo(self) -> list[int]:
        """Do again what `undo` took back; its rows, none if there is nothing."""
        return self._turn_back(self._undone, self._done)

    @property
    def can(self) -> tuple[bool, bool]:
        """Whether there is a step to undo, and one to redo."""
        return bool(self._done), bool(self._undone)

    def _turn_back(self, source: list, target: list) -> list[int]:
        if not source:
            return []
        rows, labels = source.pop()
        target.append((rows, self.now[rows]))
        self.now[rows] = labels
        self.steps += 1
        return rows.tolist()


def summary(state: Annotation) -> str:
    """How many labels are not the given ones, in words."""
    changed, excluded = (state.now != state.given).sum(), (state.now == EXCLUDE).sum()
    return f"{len(state.now)} images: {changed - excluded} relabelled, {excluded} excluded"


def _checked(suspicion: np.ndarray | None, count: int) -> np.ndarray:
    if suspicion is None:
        return np.full(count, np.nan)
    suspicion = np.asarray(suspicion, dtype=float)
    outside = (suspicion < 0) | (suspicion > 1)
    if suspicion.shape != (count,) or outside.any():
        raise ValueError(
            f"suspicion has the shape {suspicion.shape} and {outside.sum()} values outside of 0 to 1; it needs "
            f"({count},), one value from 0 to 1 (or NaN) for each row of the manifest."
        )
    return suspicion
