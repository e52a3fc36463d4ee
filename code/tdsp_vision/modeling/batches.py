"""From image files to batches of tensors, by one `preprocess()` that training, evaluation and serving share."""

from pathlib import Path

import numpy as np
import tensorflow as tf

PREPROCESS_VERSION = 1  # part of the feature cache's key: count up when `preprocess` gives other values


def preprocess(image_bytes: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode one image and resize it to a square.

    Args:
        image_bytes: scalar string tensor, an encoded JPEG, PNG, BMP, GIF (first frame) or WebP.
        image_size: side of the result in pixels.

    Returns:
        float32 tensor [image_size, image_size, 3], RGB, 0 to 255; the whole picture is kept and its aspect
        ratio is not, so a lesion at the rim is never cut off.

    Raises:
        tf.errors.InvalidArgumentError: if the bytes are not a whole image.
    """
    image = tf.io.decode_image(image_bytes, channels=3, expand_animations=False)
    return tf.image.resize(image, [image_size, image_size], method="bilinear", antialias=True)


def image_batches(
    files: list[Path],
    image_size: int,
    batch_size: int,
    targets: np.ndarray | None = None,
    shuffle_seed: int | None = None,
) -> tf.data.Dataset:
    """Batches of preprocessed images, read from disk while the previous batch is being used.

    Args:
        files: image files.
        image_size: side of the images in pixels.
        batch_size: images per batch; the last one may be smaller.
        targets: optional array [len(files), …]; then each element is a pair (images, targets).
        shuffle_seed: shuffles the whole list anew in each epoch, reproducibly; None keeps the order.

    Returns:
        dataset of float32 [b, image_size, image_size, 3], 0 to 255. Memory does not grow with the number of
        images: paths are shuffled, never pixels.
    """
    parts = (tf.constant([str(file) for file in files]),) + (() if targets is None else (tf.constant(targets),))
    dataset = tf.data.Dataset.from_tensor_slices(parts)
    if shuffle_seed is not None:
        dataset = dataset.shuffle(len(files), seed=shuffle_seed, reshuffle_each_iteration=True)

    def load(path, *target):
        image = preprocess(tf.io.read_file(path), image_size)
        return (image, *target) if target else image

    dataset = dataset.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return dataset.batch(batch_size).prefetch(2)
