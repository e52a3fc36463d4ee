"""From image files to batches of tensors, by one `preprocess()` that training, evaluation and serving share.

`image_batches` is one pass in the order of the files (evaluation, features); `training_batches` is a whole training, in
which each epoch depends on its number and not on what ran before, so it can be resumed at any.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from tdsp_vision.modeling.imgaug_numpy2 import iaa

PREPROCESS_VERSION = 1  # part of the feature cache's key: count up when `preprocess` gives other values
BATCHES_AT_ONCE = 16  # in the making, at most: each holds memory, and imgaug keeps hardly two cores busy


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


def image_batches(files: list[Path], image_size: int, batch_size: int, *columns: np.ndarray) -> tf.data.Dataset:
    """Batches of preprocessed images, read from disk while the previous batch is being used.

    Args:
        files: image files.
        image_size: side of the images in pixels.
        batch_size: images per batch; the last one may be smaller.
        *columns: arrays [len(files), …], such as targets and sample weights; each element is then a tuple of images
            and a batch of each.

    Returns:
        dataset of float32 [b, image_size, image_size, 3], 0 to 255, in the order of the files. Memory does not grow
        with the number of images.
    """
    paths = tf.constant([str(file) for file in files])
    dataset = tf.data.Dataset.from_tensor_slices((paths, *map(tf.constant, columns)))

    def load(path, *values):
        image = _read(path, image_size)
        return (image, *values) if values else image

    dataset = dataset.map(load, num_parallel_calls=os.cpu_count(), deterministic=True)
    return _without_autotune(dataset.batch(batch_size).prefetch(2))


def _read(path: tf.Tensor, image_size: int) -> tf.Tensor:
    return preprocess(tf.io.read_file(path), image_size)


def training_batches(
    files: list[Path],
    targets: np.ndarray,
    image_size: int,
    batch_size: int,
    seed: int,
    epochs: int,
    first_epoch: int = 0,
    augmenter: "iaa.Augmenter | None" = None,
) -> tf.data.Dataset:
    """The batches of epochs `first_epoch` to `epochs` - 1, one after the other, made while the network trains.

    For `fit(batches, initial_epoch=first_epoch, epochs=epochs, steps_per_epoch=-(-len(files) // batch_size))`.
    Order and augmentation of a batch depend only on (seed, epoch, step): a resumed training sees what an undisturbed
    one would have seen. Memory grows neither with images nor with epochs: numbers are shuffled, never pixels.

    Args:
        targets: array [len(files), …]; the last batch of each epoch may be smaller than `batch_size`.
        seed: from 0; shuffles each epoch anew, reproducibly, and seeds the augmentation.
        epochs, first_epoch: as `epochs` and `initial_epoch` in `fit`.
        augmenter: pipeline of imgaug; its images are uint8, so values are rounded to whole numbers before.

    Returns:
        dataset of float32 [b, image_size, image_size, 3], 0 to 255, and targets [b, …].

    Raises:
        ValueError: if there is not one target per file, or the augmenter does not fit (see `augment_batch`).
    """
    if not len(files) or len(files) != len(targets):
        raise ValueError(f"training_batches got {len(files)} files and {len(targets)} targets; it needs one for each.")
    read, augment = partial(_read, image_size=image_size), _augmentation(augmenter, image_size, seed)
    paths, targets = tf.constant([str(file) for file in files]), tf.constant(targets)

    def load(epoch, step, rows):
        images = tf.map_fn(read, tf.gather(paths, rows), fn_output_signature=tf.float32)
        return augment(images, epoch, step), tf.gather(targets, rows)

    at_once = min(os.cpu_count(), BATCHES_AT_ONCE)
    dataset = tf.data.Dataset.range(first_epoch, epochs).flat_map(partial(_steps, len(files), batch_size, seed))
    return _without_autotune(dataset.map(load, num_parallel_calls=at_once, deterministic=True).prefetch(2))


def _steps(count: int, batch_size: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """(epoch, step, numbers of the images) for each batch of one epoch."""
    return rows_of_epoch(count, batch_size, seed, epoch).enumerate().map(lambda step, rows: (epoch, step, rows))


def rows_of_epoch(count: int, batch_size: int, seed: int, epoch: tf.Tensor) -> tf.data.Dataset:
    """Numbers of the images, int32 [b], batch by batch of one epoch, in an order that (seed, epoch) alone decide."""
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed=[seed, epoch], alg="philox")
    return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)


def as_uint8(images: tf.Tensor) -> tf.Tensor:
    """Images of 0 to 255 as whole numbers, uint8 of the same shape."""
    return tf.saturate_cast(tf.round(images), tf.uint8)


def _augmentation(augmenter: "iaa.Augmenter | None", image_size: int, seed: int) -> Callable:
    """From (images, epoch, step) to images, float32 [b, S, S, 3]; imgaug is Python and runs outside the graph."""
    if augmenter is None:
        return lambda images, epoch, step: images
    from tdsp_vision.modeling.augment import augment_batch  # here, so that serving does not load imgaug

    # Tried at once: in a thread of the pipeline an error would come late and inside another one.
    augment_batch(augmenter, np.zeros([2, image_size, image_size, 3], np.uint8), 0)

    def call(images, epoch, step):
        return augment_batch(augmenter, images, [seed, int(epoch), int(step)])

    def augment(images, epoch, step):
        augmented = tf.numpy_function(call, [as_uint8(images), epoch, step], tf.uint8)
        return tf.cast(tf.ensure_shape(augmented, images.shape), tf.float32)

    return augment


def _without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Autotune's thread takes up to a second to end, in each pass over the images."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
