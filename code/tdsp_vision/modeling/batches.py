"""From image files to batches of tensors, by one `preprocess()` that training, evaluation and serving share.

`image_batches` is one pass in the order of the files (evaluation, features); `training_batches` is shuffled anew in
each pass, and augmented. Memory does not grow with the number of images.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import tensorflow as tf

PREPROCESS_VERSION = 1  # part of the feature cache's key: count up when `preprocess` gives other values
BATCHES_AT_ONCE = 16  # in the making, at most: each holds memory, and imgaug keeps hardly two cores busy
# On GPUs it rounds factors to three digits, and scores would differ from served ones.
tf.config.experimental.enable_tensor_float_32_execution(False)


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
    resize = partial(tf.image.resize, image, [image_size, image_size])
    # Averaging areas is the cheapest way down that does not alias, and no way up.
    resized = tf.cond(larger, partial(resize, method="area"), partial(resize, method="bilinear", antialias=True))
    return tf.ensure_shape(resized, [image_size, image_size, 3])


def _decode(image_bytes: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode to uint8 [h, w, 3]; a JPEG more than twice as large as needed at 1/2, 1/4 or 1/8 of its size.

    JPEG stores frequencies, so its decoder can leave out those that the resizing would remove (ITU-T T.81), in a
    fraction of the time; the result is never smaller than `image_size`.
    """

    def decode_jpeg():
        times = tf.reduce_min(tf.io.extract_jpeg_shape(image_bytes)[:2]) // image_size
        steps = tf.reduce_sum(tf.cast(times >= [2, 4, 8], tf.int32))
        decode = partial(tf.io.decode_jpeg, image_bytes, channels=3)
        return tf.switch_case(steps, [partial(decode, ratio=ratio) for ratio in (1, 2, 4, 8)])

    decode_other = partial(tf.io.decode_image, image_bytes, channels=3, expand_animations=False)
    return tf.cond(tf.io.is_jpeg(image_bytes), decode_jpeg, decode_other)


def _read(path: tf.Tensor, image_size: int) -> tf.Tensor:
    return preprocess(tf.io.read_file(path), image_size)


def image_batches(files: list[Path], image_size: int, batch_size: int, *columns) -> tf.data.Dataset:
    """Batches of preprocessed images in the order of the files, read while the batch before is being used.

    Args:
        files: image files.
        image_size: side of the images in pixels.
        batch_size: images per batch; the last one may be smaller.
        *columns: arrays [len(files), …] or dictionaries of such arrays, as answers; each element is then a tuple of
            images and a batch of each.

    Returns:
        dataset of float32 [b, image_size, image_size, 3], 0 to 255.
    """
    dataset = tf.data.Dataset.from_tensor_slices(([str(file) for file in files], *columns))

    def load(path, *values):
        image = _read(path, image_size)
        return (image, *values) if values else image

    dataset = dataset.map(load, num_parallel_calls=os.cpu_count(), deterministic=True)
    return _without_autotune(dataset.batch(batch_size).prefetch(2))


def training_batches(
    files: list[Path], answers, image_size: int, batch_size: int, seed: int, augment: Callable | None = None
) -> tf.data.Dataset:
    """As `image_batches`, in another order in each pass, and augmented.

    Args:
        answers: array [len(files), …] or dictionary of such arrays; each element is images and a batch of it.
        seed: of order and augmentation: same seed, same passes.
        augment: from images, uint8 [b, S, S, 3], and a seed to such images, as `augment.augment_batch` with a
            pipeline; values are rounded to whole numbers before.

    Raises:
        ValueError: what `augment` raises.
    """
    dataset = tf.data.Dataset.from_tensor_slices(([str(file) for file in files], answers))
    dataset = dataset.shuffle(len(files), seed, reshuffle_each_iteration=True).batch(batch_size)
    dataset = tf.data.Dataset.zip(dataset, tf.data.Dataset.random(seed, rerandomize_each_iteration=True))

    def load(batch, batch_seed):
        """Read, and where wanted augment, the images of one batch."""
        paths, answers = batch
        images = tf.map_fn(partial(_read, image_size=image_size), paths, fn_output_signature=tf.float32)
        if augment:  # imgaug is Python and runs outside the graph
            augmented = tf.numpy_function(augment, [as_uint8(images), batch_seed], tf.uint8)
            images = tf.cast(tf.ensure_shape(augmented, images.shape), tf.float32)
        return images, answers

    at_once = min(os.cpu_count(), BATCHES_AT_ONCE)
    return _without_autotune(dataset.map(load, num_parallel_calls=at_once, deterministic=True).prefetch(2))


def as_uint8(images: tf.Tensor) -> tf.Tensor:
    """Images of 0 to 255 as whole numbers, uint8 of the same shape."""
    return tf.saturate_cast(tf.round(images), tf.uint8)


def _without_autotune(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Autotune's thread takes up to a second to end, in each pass over the images."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)
