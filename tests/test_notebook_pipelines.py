"""The augmentation pipelines as the modeling notebook defines them make the claims that its text makes, and no more."""

import json
from functools import partial

import numpy as np
import pytest

from tdsp_vision.paths import NOTEBOOKS

SIZE, SEEDS = 32, 40


def pipelines(name: str) -> dict:
    """The variables of the notebook's two cells that define pipelines, with AUGMENT at `name`."""
    found = {"AUGMENT": name, "AUGMENT_COPIES": 0, "CLASSIFIER": "dnn", "partial": partial}
    cells = [c for c in json.loads(NOTEBOOKS["model"].read_text())["cells"] if c["cell_type"] == "code"]
    sources = ["".join(cell["source"]) for cell in cells]
    chosen = [source for source in sources if "iaa.Fliplr" in source or source.startswith("PIPELINES")]
    assert len(chosen) == 2
    for source in chosen:
        exec(source.split("before_and_after(files")[0], found)
    return found


def seen(name: str, picture: np.ndarray) -> np.ndarray:
    """What training with AUGMENT at `name` sees of a picture, int [SEEDS, SIZE, SIZE, 3]."""
    augment = pipelines(name)["AS_ONE"]
    return np.concatenate([augment(picture[None], seed) for seed in range(SEEDS)]).astype(int)


def half_bright(axis: int) -> np.ndarray:
    """A picture whose first half along the axis (0 down, 1 across) is bright."""
    picture = np.full([SIZE, SIZE, 3], 60, np.uint8)
    picture[(slice(None),) * axis + (slice(SIZE // 2),)] = 190
    return picture


def turned_over(name: str, axis: int) -> float:
    """Share of the versions in which the other half is bright."""
    rows = seen(name, half_bright(axis)).mean(axis=(2 - axis, 3))
    return (rows[:, : SIZE // 2].mean(axis=1) < rows[:, SIZE // 2 :].mean(axis=1)).mean()


def test_photos_are_mirrored_and_never_stand_on_their_head():
    assert turned_over("photos", axis=0) == 0
    assert 0.2 < turned_over("photos", axis=1) < 0.8


@pytest.mark.parametrize("name", ["flips", "dermoscopy"])
def test_lesions_have_no_up_and_no_left(name):
    for axis in (0, 1):  # a quarter of the versions; half of them lie on their side
        assert 0.05 < turned_over(name, axis) < 0.5


def test_none_changes_nothing_and_flips_no_value():
    picture = np.random.default_rng(0).integers(0, 256, [SIZE, SIZE, 3], np.uint8)
    assert pipelines("none")["AS_ONE"] is None and not pipelines("none")["PIPELINES"]
    flipped = seen("flips", picture)
    assert (np.sort(flipped.reshape(SEEDS, -1)) == np.sort(picture.ravel())).all()
    assert len(np.unique(flipped.reshape(SEEDS, -1), axis=0)) == 8  # all quarter turns and mirrors of a square
