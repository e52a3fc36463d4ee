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
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from tdsp_vision.data.tables import file_sha256
from tdsp_vision.files import file_lock, whole_file
from tdsp_vision.modeling.batches import PREPROCESS_VERSION, image_batches, preprocess
from tdsp_vision.paths import shown

CHUNK = 4096  # images between two writes of the cache; what a killed run can lose


def predict_files(
    model: keras.Model, files: list[Path], image_size: int, batch_size: int = 32, quiet: bool | None = None
) -> np.ndarray:
    """What a model, a featurizer or a classifier, makes of image files; memory holds a few batches.

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
    rows = np.empty((len(files), model.output_shape[-1]), np.float32)
    if not len(files):
        return rows
    # One trace for batches of any size; Keras' own `predict` has a second one for the last, smaller batch.
    signature = tf.TensorSpec(model.inputs[0].shape, model.inputs[0].dtype)
    call = tf.function(lambda images: model(images, training=False), [signature])
    done = 0
    with tqdm(total=len(files), desc="images", unit="image", disable=quiet) as progress:
        try:
            for images in image_batches(files, image_size, batch_size):
                rows[done : done + len(images)] = call(images)
                done += len(images)
                progress.update(len(images))
        except tf.errors.OpError:
            _name_bad_file(files[done:], image_size)
            raise
    return rows


def _name_bad_file(files: list[Path], image_size: int) -> None:
    """Raise a ValueError that names the first file that cannot be read or decoded; return if there is none."""
    for file in files:
        try:
            preprocess(tf.io.read_file(str(file)), image_size)
        except tf.errors.OpError as error:
            reason = re.sub(r"^\{\{.*?\}\} | \[Op:.*", "", error.message)  # without names of operations
            raise ValueError(f"{shown(file)} cannot be read as an image ({reason}); replace or remove it.") from error


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
        self.featurizer, self.image_size = featurizer, image_size
        self.computed = 0

    def features(self, files: list[Path], expected=None, quiet: bool | None = None) -> np.ndarray:
        """Float32 [len(files), d]: rows from the cache where the content is known, the others computed and kept.

        Args:
            files: image files.
            expected: sha256 of each, as the manifest has it; None compares nothing.

        Raises:
            ValueError: if a file cannot be decoded, or its content is not the expected one.
        """
        digests = file_digests(files)
        wanted = digests if expected is None else list(expected)
        changed = [file for file, digest, hoped in zip(files, digests, wanted, strict=True) if digest != hoped]
        if changed:
            raise ValueError(
                f"{len(changed)} of {len(files)} images are not those that stage 1 wrote down, the first of them "
                f"{shown(changed[0])}: bring the originals back, or run the first notebook again."
            )
        # Who comes while another fills the cache waits and finds it full. The lock goes with the name of the drafts.
        name = self.path.name[:40]
        with file_lock(self.path.parent / f"{name}.lock"):
            for draft in self.path.parent.glob(f".{name}.*"):
                draft.unlink()  # of a process that was killed while writing
            known = self._filled(dict(zip(digests, files, strict=True)), quiet)
        return np.stack([known[digest] for digest in digests])

    def _filled(self, wanted: dict[str, Path], quiet: bool | None) -> dict[str, np.ndarray]:
        """The cache's rows by sha256, once those of the `wanted` images are among them."""
        known = self._read()
        todo = [(digest, file) for digest, file in wanted.items() if digest not in known]
        self.computed = len(todo)
        for start in range(0, len(todo), CHUNK):
            part = todo[start : start + CHUNK]
            rows = predict_files(self.featurizer, [file for _, file in part], self.image_size, quiet=quiet)
            known |= dict(zip((digest for digest, _ in part), rows, strict=True))
            self._write(known)
        return known

    def _read(self) -> dict[str, np.ndarray]:
        if not self.path.is_file():
            return {}
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                known = dict(zip(stored["sha256"].tolist(), stored["features"], strict=True))
            return known
        except Exception as error:  # whatever is wrong with it (zipfile, zlib, numpy), the features can be computed
            warnings.warn(f"{shown(self.path)} is damaged ({error}); its features are computed anew.", stacklevel=4)
            return {}

    def _write(self, known: dict[str, np.ndarray]) -> None:
        """Keep the rows; a full disk costs the cache and not the run."""
        try:
            with whole_file(self.path) as draft, draft.open("wb") as file:
                np.savez(file, sha256=np.array(list(known)), features=np.stack(list(known.values())))
        except OSError as error:
            message = f"The features cannot be kept in {shown(self.path.parent)} ({error.strerror})"
            warnings.warn(f"{message}; this run goes on, and the next one computes them again.", stacklevel=4)


def network_digest(model: keras.Model, image_size: int) -> str:
    """Twelve hex digits of what a network makes of a file: its layers and weights, the size, the preprocessing."""
    layers = re.sub(r"_[0-9]+\b", "", model.to_json())  # Keras numbers names by what else was built before
    digest = hashlib.sha256(f"{layers} {image_size} {PREPROCESS_VERSION}".encode())
    for weight in model.weights:
        digest.update(np.ascontiguousarray(weight.numpy()))
    return digest.hexdigest()[:12]


def file_digests(files: list[Path]) -> list[str]:
    """sha256 (hex) of the content of each file."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(file_sha256, files))
