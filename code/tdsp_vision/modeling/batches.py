"""From image files to batches of tensors, by one `preprocess()` that training, evaluation and serving share."""

import os
from functools import partial
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
    image = _decode(image_bytes, image_size)
    larger = tf.reduce_all(tf.shape(image)[:2] >= image_size)
    size = [image_size, image_size]
    # Averaging areas is the cheapest way down that does not alias, and no way up.
    resized = tf.cond(
        larger,
        lambda: tf.image.resize(image, size, method="area"),
        lambda: tf.image.resize(image, size, method="bilinear", antialias=True),
    )
    return tf.ensure_shape(resized, [image_size, image_size, 3])


def _decode(image_bytes: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode to uint8 [h, w, 3]; a JPEG more than twice as large as needed at 1/2, 1/4 or 1/8 of its size.

    JPEG stores frequencies, so its decoder can leave out those that the resizing would remove (ITU-T T.81), in a
    fraction of the time; the result is never smaller than `image_size`.
    """

    def decode_jpeg():
        times = tf.reduce_min(tf.io.extract_jpeg_shape(image_bytes)[:2]) // image_size
        steps = tf.reduce_sum(tf.cast(times >= [2, 4, 8], tf.int32))
        return tf.switch_case(
            steps, [partial(tf.io.decode_jpeg, image_bytes, channels=3, ratio=ratio) for ratio in (1, 2, 4, 8)]
        )

    def decode_other():
        return tf.io.decode_image(image_bytes, channels=3, expand_animations=False)

    return tf.cond(tf.io.is_jpeg(image_bytes), decode_jpeg, decode_other)


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

    dataset = dataset.map(load, num_parallel_calls=os.cpu_count(), deterministic=True)
    options = tf.data.Options()
    options.autotune.enabled = False  # its thread takes up to a second to end, in each pass over the images
    return dataset.batch(batch_size).prefetch(2).with_options(options)
