"""Vectors of a frozen network for many images, computed once: a cache that is keyed by content.

outputs/<dataset>/features/<backbone>-<size>-<digest>.npz holds `sha256` (n hex strings) and `features` [n, d]
float32. The digest covers network, weights, size and preprocessing; rows are found by the sha256 of the image's
bytes, so one changed image recomputes one row, and two datasets or runs never mix.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from tdsp_vision.modeling.batches import PREPROCESS_VERSION, image_batches
from tdsp_vision.paths import whole_file

CHUNK = 4096  # images between two writes of the cache; what a killed run can lose


def predict_files(
    model: keras.Model, files: list[Path], image_size: int, batch_size: int = 32, quiet: bool | None = None
) -> np.ndarray:
    """What a model, a featurizer or a classifier, says of image files; streamed, so memory holds a few batches.

    Args:
        model: from float32 [n, image_size, image_size, 3] to float32 [n, d].
        files: image files.
        batch_size: images per step; the result does not depend on it beyond rounding.
        quiet: no progress bar; None hides it where the output is not a terminal or notebook.

    Returns:
        float32 array [len(files), d], in the order of the files.

    Raises:
        ValueError: naming the file, if one cannot be decoded.
    """
    forward = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
    batches = image_batches(files, image_size, batch_size)
    rows = np.empty((len(files), model.output_shape[-1]), np.float32)
    done = 0
    with tqdm(total=len(files), desc="images", unit="image", disable=quiet) as progress:
        for images in batches:
            rows[done : done + len(images)] = forward(images).numpy()
            done += len(images)
            progress.update(len(images))
    return rows


class FeatureCache:
    """Features on disk for one network, weights and size; see the module's contract.

    Attributes:
        path: the `.npz` file.
        computed: images that the last call of `features` had to compute.
    """

    def __init__(self, folder: Path, backbone: str, weights_digest: str, image_size: int, layers: str = "pooled"):
        key = [backbone, weights_digest, image_size, layers, PREPROCESS_VERSION]
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:12]
        self.path = folder / f"{backbone}-{image_size}-{digest}.npz"
        self.image_size = image_size
        self.computed = 0

    def features(self, featurizer: keras.Model, files: list[Path], quiet: bool | None = None) -> np.ndarray:
        """Float32 [len(files), d]: rows from the cache where the content is known, the others computed and kept."""
        digests = file_digests(files)
        known = self._read()
        missing = {digest: file for digest, file in zip(digests, files, strict=True) if digest not in known}
        self.computed = len(missing)
        todo = list(missing.items())
        for start in range(0, len(todo), CHUNK):
            part = todo[start : start + CHUNK]
            rows = predict_files(featurizer, [file for _, file in part], self.image_size, quiet=quiet)
            known |= dict(zip((digest for digest, _ in part), rows, strict=True))
            self._write(known)
        return np.stack([known[digest] for digest in digests])

    def _read(self) -> dict[str, np.ndarray]:
        if not self.path.is_file():
            return {}
        with np.load(self.path, allow_pickle=False) as stored:
            return dict(zip(stored["sha256"].tolist(), stored["features"], strict=True))

    def _write(self, known: dict[str, np.ndarray]) -> None:
        with whole_file(self.path) as draft, draft.open("wb") as file:
            np.savez(file, sha256=np.array(list(known)), features=np.stack(list(known.values())))


def file_digests(files: list[Path]) -> list[str]:
    """sha256 (hex) of the content of each file."""

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor() as pool:
        return list(pool.map(digest, files))
