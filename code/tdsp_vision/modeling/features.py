"""Vectors of a frozen network for many images, computed once: a cache that is keyed by content.

outputs/<dataset>/features/<network>-<size>-<digest>.npz holds `sha256` (n hex strings) and `features` [n, d] float32.
The digest covers the network with its weights, the size and the preprocessing; rows are found by the sha256 of the
image's bytes, so one changed image recomputes one row, and two datasets or runs never mix. Runs at the same time share
the work: one fills the cache, the others wait for it at `<network>….lock`. All of it may be deleted at any time.
"""

import hashlib
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from tdsp_vision.data.tables import file_sha256
from tdsp_vision.files import file_lock, whole_file
from tdsp_vision.modeling.batches import PREPROCESS_VERSION, image_batches
from tdsp_vision.paths import shown

CHUNK = 4096  # images between two writes of the cache; what a killed run can lose


def predict_files(model: keras.Model, files: list[Path], image_size: int, batch_size: int = 32) -> np.ndarray:
    """What a model, a featurizer or a classifier, makes of image files; memory holds a few batches.

    Args:
        model: from float32 [n, image_size, image_size, 3] to float32 [n, d].
        files: image files that can be decoded, one at least.
        batch_size: images per step; the result does not depend on it beyond rounding.

    Returns:
        float32 array [len(files), d], in the order of the files.
    """
    call, rows = as_graph(model), []
    with tqdm(total=len(files), desc="images", unit="image", disable=None) as progress:
        for images in image_batches(files, image_size, batch_size):
            rows.append(call(images).numpy())
            progress.update(len(images))
    return np.concatenate(rows)


@lru_cache(1)
def as_graph(model: keras.Model):
    """A model as a function of batches of any size, float32 [n, …] to float32 [n, d], in one graph.

    To make it takes a second, so that of the last model is kept. Keras' own `predict` makes a second one for the last,
    smaller batch.
    """
    signature = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
    return tf.function(lambda images: model(images, training=False), [signature])


class FeatureCache:
    """Features on disk for one network and size; see the module's contract.

    Args:
        folder: of the cache.
        featurizer: from float32 [n, image_size, image_size, 3] to float32 [n, d].

    Attributes:
        path: the `.npz` file.
        computed: images that the last call of `features` had to compute.
    """

    def __init__(self, folder: Path, featurizer: keras.Model, image_size: int):
        self.path = folder / f"{featurizer.name[:60]}-{image_size}-{network_digest(featurizer, image_size)}.npz"
        self.featurizer, self.image_size, self.computed = featurizer, image_size, 0

    def features(self, files: list[Path], expected=None) -> np.ndarray:
        """Float32 [len(files), d]: rows from the cache where the content is known, the others computed and kept.

        Args:
            files: image files.
            expected: sha256 of each, as the manifest has it; None compares nothing.

        Raises:
            ValueError: naming the first file whose content is not the expected one.
        """
        with ThreadPoolExecutor() as pool:
            digests = list(pool.map(file_sha256, files))
        wanted = digests if expected is None else expected
        changed = [file for file, digest, hoped in zip(files, digests, wanted, strict=True) if digest != hoped]
        if changed:
            these = f"{len(changed)} of {len(files)} images are not those that stage 1 wrote down"
            raise ValueError(
                f"{these}: {shown(changed[0])}; bring the originals back, or run the first notebook again."
            )
        # Who comes while another fills the cache waits and finds it full. The lock goes with the name of the drafts.
        with file_lock(self.path.parent / f"{self.path.stem[:40]}.lock"):
            stored = read_arrays(self.path, "its features are computed anew")
            known = dict(zip(stored["sha256"].tolist(), stored["features"], strict=True)) if stored else {}
            todo = {digest: file for digest, file in zip(digests, files, strict=True) if digest not in known}
            self.computed = len(todo)
            for start in range(0, len(todo), CHUNK):
                part = list(todo)[start : start + CHUNK]
                rows = predict_files(self.featurizer, [todo[digest] for digest in part], self.image_size)
                known |= dict(zip(part, rows, strict=True))
                arrays = {"sha256": np.array(list(known)), "features": np.stack(list(known.values()))}
                write_arrays(self.path, "this run goes on, and the next one computes its features again", arrays)
        return np.stack([known[digest] for digest in digests])


def read_arrays(path: Path, consequence: str) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote; {} where there is no file, or one that is damaged, with a warning and what follows."""
    for draft in path.parent.glob(f".{path.stem[:40]}.*"):
        draft.unlink()  # of a process that was killed while writing
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as stored:
            return dict(stored)
    except Exception as error:  # zipfile, zlib and numpy have no error in common
        warnings.warn(f"{shown(path)} is damaged ({error}); {consequence}.", stacklevel=3)
        return {}


def write_arrays(path: Path, consequence: str, arrays: dict[str, np.ndarray]) -> None:
    """Write named arrays to an `.npz` file, whole or, on a full disk, not at all, with a warning and what follows."""
    try:
        with whole_file(path) as draft, draft.open("wb") as file:
            np.savez(file, **arrays)
    except OSError as error:
        warnings.warn(f"{shown(path)} cannot be written ({error.strerror}); {consequence}.", stacklevel=3)


def network_digest(model: keras.Model, image_size: int) -> str:
    """Twelve hex digits of what a network makes of a file: its layers and weights, the size, the preprocessing."""
    layers = re.sub(r"_[0-9]+\b", "", model.to_json())  # Keras numbers names by what else was built before
    digest = hashlib.sha256(f"{layers} {image_size} {PREPROCESS_VERSION}".encode())
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()))
    return digest.hexdigest()[:12]
