"""Refine the last stages only: what the frozen ones say of each image is computed once and read from disk.

<folder>/<backbone>-<size>-<layer>-<digest>.npy holds float32 [n, h, w, c], the output of the last frozen layer for n
images in their order. The digest covers the content of the images, the frozen weights, precision, size and
preprocessing. A file is written whole or not at all and may be deleted at any time.
"""

import hashlib
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tqdm.auto import tqdm

from tdsp_vision.files import whole_file
from tdsp_vision.modeling.backbones import stage_ends
from tdsp_vision.modeling.batches import rows_of_epoch
from tdsp_vision.modeling.features import file_digests, network_digest, predict_files

PIECE = 64_000_000  # bytes of activations in memory at a time
BATCH = 32


def split_backbone(backbone: keras.Model, trainable_stages: int) -> tuple[keras.Model, keras.Model]:
    """Cut a network before its last stages; the two parts are made of its own layers, so they share its weights.

    Args:
        backbone: from `build_backbone`.
        trainable_stages: number of stages behind the cut, from 1.

    Returns:
        frozen: model from images [n, S, S, 3] to the output of a stage.
        rest: model from there to the features; `rest(frozen(x))` is `backbone(x)`.

    Raises:
        ValueError: if the network has no such number of stages.
    """
    ends = stage_ends(backbone)
    if not 0 < trainable_stages < len(ends):
        raise ValueError(
            f"TRAINABLE_STAGES is {trainable_stages}; {backbone.name} has {len(ends)} stages: allowed are 0 (all of "
            f"them, from images) and 1 to {len(ends) - 1} (the last ones, from cached activations)."
        )
    cut = backbone.get_layer(ends[-trainable_stages - 1]).output
    frozen = keras.Model(backbone.input, cut, name=f"{backbone.name}_frozen")
    return frozen, keras.Model(cut, backbone.output, name=f"{backbone.name}_rest")


def cached_activations(
    frozen: keras.Model, files: list[Path], image_size: int, folder: Path, quiet: bool | None = None
) -> np.ndarray:
    """Output of the frozen part for each file, computed once; memory holds a small piece of it.

    Args:
        frozen: from `split_backbone`.
        files: image files, at least one.
        folder: of the cache; one file takes n * 4 bytes for each number of the output.
        quiet: no progress bar; None hides it where the output is not a terminal or notebook.

    Returns:
        read-only array on disk (`numpy.memmap`), float32 [len(files), h, w, c], in the order of the files.

    Raises:
        ValueError: naming the file, if one cannot be decoded.
    """
    last = frozen.layers[-1]
    key = " ".join([network_digest(frozen, image_size), *file_digests(files)])
    digest = hashlib.sha256(key.encode()).hexdigest()[:12]
    path = folder / f"{frozen.name.removesuffix('_frozen')}-{image_size}-{last.name}-{digest}.npy"
    if not path.is_file():
        with whole_file(path) as draft:
            _compute(frozen, files, image_size, draft, quiet)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _compute(frozen: keras.Model, files: list[Path], image_size: int, path: Path, quiet: bool | None) -> None:
    shape = frozen.output_shape[1:]
    flat = keras.Model(frozen.input, keras.layers.Flatten(dtype="float32")(frozen.output))
    piece = max(1, PIECE // (4 * int(np.prod(shape)) * BATCH)) * BATCH
    stored = np.lib.format.open_memmap(path, "w+", np.float32, (len(files), *shape))
    with tqdm(total=len(files), desc="activations", unit="image", disable=quiet) as progress:
        for start in range(0, len(files), piece):
            part = files[start : start + piece]
            rows = predict_files(flat, part, image_size, BATCH, quiet=True)
            stored[start : start + len(part)] = rows.reshape(-1, *shape)
            progress.update(len(part))
    stored.flush()


def activation_batches(
    activations: np.ndarray, targets: np.ndarray, batch_size: int, seed: int, epochs: int, first_epoch: int = 0
) -> tf.data.Dataset:
    """As `training_batches`, in the same order, with activations in place of images (so without augmentation).

    Args:
        activations: from `cached_activations`.
        targets: array [n, …].

    Returns:
        dataset of float32 [b, h, w, c] and targets [b, …] of the epochs `first_epoch` to `epochs` - 1.
    """
    steps = partial(rows_of_epoch, len(activations), batch_size, seed)
    return _read(tf.data.Dataset.range(first_epoch, epochs).flat_map(steps), activations, targets)


def activations_in_order(activations: np.ndarray, batch_size: int, *columns: np.ndarray) -> tf.data.Dataset:
    """As `image_batches`: one pass in the order of the files, float32 [b, h, w, c] and a batch of each column."""
    rows = tf.data.Dataset.range(len(activations), output_type=tf.int32).batch(batch_size)
    return _read(rows, activations, *columns)


def _read(rows: tf.data.Dataset, activations: np.ndarray, *columns: np.ndarray) -> tf.data.Dataset:
    columns = [tf.constant(column) for column in columns]

    def load(rows):
        read = tf.numpy_function(lambda rows: activations[rows], [rows], tf.float32, stateful=False)
        return tf.ensure_shape(read, (None, *activations.shape[1:])), *(tf.gather(column, rows) for column in columns)

    options = tf.data.Options()
    options.autotune.enabled = False  # its thread takes up to a second to end, in each pass
    return rows.map(load, num_parallel_calls=2, deterministic=True).prefetch(2).with_options(options)
