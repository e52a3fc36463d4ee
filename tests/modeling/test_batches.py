"""One preprocess everywhere, and batches in the order that was asked for."""

import io
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tdsp_vision.modeling.batches import image_batches, preprocess, training_batches
from tdsp_vision.modeling.imgaug_numpy2 import iaa

CHANGES = iaa.Sequential(
    [iaa.Fliplr(0.5), iaa.Sometimes(0.5, iaa.OneOf([iaa.Add((-60, 60)), iaa.Affine(rotate=(-90, 90))]))]
)


def _encoded(array: np.ndarray, kind: str = "PNG", mode: str | None = None) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(stream, kind)
    return stream.getvalue()


def test_eager_graph_and_pipeline_agree_exactly(pictures):
    files = pictures(4)
    inside = np.concatenate(list(image_batches(files, 24, 3)))
    graph = tf.function(lambda data: preprocess(data, 24))
    for file, row in zip(files, inside, strict=True):
        eager = preprocess(tf.constant(file.read_bytes()), 24)
        assert eager.shape == (24, 24, 3) and eager.dtype == tf.float32
        np.testing.assert_array_equal(eager, row)
        np.testing.assert_array_equal(eager, graph(tf.constant(file.read_bytes())))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "1"])
def test_any_colour_mode_becomes_three_channels_from_0_to_255(mode):
    array = np.zeros([30, 40, 3], np.uint8)
    array[:, 20:] = 255
    got = preprocess(tf.constant(_encoded(array, mode=mode)), 20).numpy()
    assert got.shape == (20, 20, 3) and got.dtype == np.float32
    assert got.min() >= 0 and got.max() <= 255
    assert got[:, :8].max() < 1 and got[:, 12:].min() > 254


def test_channels_are_red_green_blue():
    got = preprocess(tf.constant(_encoded(np.tile(np.uint8([250, 100, 10]), [9, 12, 1]))), 8)
    np.testing.assert_allclose(got, np.tile([250, 100, 10], [8, 8, 1]), atol=0.01)


def test_the_right_size_is_left_alone():
    array = np.random.default_rng(0).integers(0, 256, [16, 16, 3], dtype=np.uint8)
    np.testing.assert_array_equal(preprocess(tf.constant(_encoded(array)), 16), array)


def test_shrinking_averages_and_does_not_pick_pixels():
    checks = np.indices([64, 64]).sum(0) % 2 * 255
    got = preprocess(tf.constant(_encoded(np.repeat(checks[..., None], 3, -1).astype(np.uint8))), 8).numpy()
    assert np.abs(got - 127.5).max() < 8  # without antialiasing, all 0 or all 255


@pytest.mark.parametrize("size", [(33, 40), (64, 70), (150, 129), (270, 600), (40, 600), (20, 300)])
def test_a_jpeg_of_any_size_looks_like_its_antialiased_self(size):
    coarse = np.random.default_rng(0).integers(0, 256, [5, 5, 3]).astype(np.float32)
    array = tf.image.resize(coarse, size, method="bicubic").numpy().clip(0, 255).astype(np.uint8)
    got = preprocess(tf.constant(_encoded(array, "JPEG")), 32).numpy()
    expected = tf.image.resize(array, [32, 32], antialias=True).numpy()
    assert np.abs(got - expected).mean() < 5
    assert abs(got.mean() - expected.mean()) < 1.5


def test_the_whole_picture_is_kept():
    array = np.zeros([20, 80, 3], np.uint8)
    array[:, :10] = 255
    got = preprocess(tf.constant(_encoded(array)), 16).numpy()
    assert got[:, 0].min() > 200 and got[:, 4:].max() < 60


@pytest.mark.parametrize("data", [b"", b"text", _encoded(np.zeros([40, 40, 3], np.uint8), "JPEG")[:300]])
def test_damaged_bytes_raise(data):
    with pytest.raises(tf.errors.InvalidArgumentError):
        preprocess(tf.constant(data), 8)


def test_order_targets_and_the_last_batch(pictures):
    files = pictures(7)
    targets = np.arange(7)
    batches = list(image_batches(files, 16, 3, targets))
    assert [len(images) for images, _ in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([t for _, t in batches]), targets)
    alone = [preprocess(tf.constant(file.read_bytes()), 16) for file in files]
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), alone)
    assert batches[0][0].dtype == tf.float32


def test_targets_may_be_rows(pictures):
    targets = np.eye(5, 3, dtype=np.float32)
    got = np.concatenate([t for _, t in image_batches(pictures(5), 16, 2, targets)])
    np.testing.assert_array_equal(got, targets)


def test_unshuffled_epochs_are_the_same(pictures):
    batches = image_batches(pictures(5), 16, 2, np.arange(5))
    for _ in range(2):
        assert np.concatenate([t for _, t in batches]).tolist() == list(range(5))


def _training(files, seed=3, **options) -> list[tuple[np.ndarray, np.ndarray]]:
    """All batches of 4 of a training, as (images, numbers of the pictures)."""
    batches = training_batches(files, np.arange(len(files)), 16, 4, seed, **options)
    return [(images.numpy(), numbers.numpy()) for images, numbers in batches]


def _assert_same(first, second):
    assert len(first) == len(second)
    for (images, numbers), (other_images, other_numbers) in zip(first, second, strict=True):
        np.testing.assert_array_equal(numbers, other_numbers)
        np.testing.assert_array_equal(images, other_images)


def test_each_epoch_of_a_training_has_every_image_once_in_an_order_of_its_own(pictures):
    files = pictures(10)
    alone = np.stack([preprocess(tf.constant(file.read_bytes()), 16) for file in files])
    batches = _training(files, epochs=3)
    assert [len(numbers) for _, numbers in batches] == [4, 4, 2] * 3
    orders = [np.concatenate([numbers for _, numbers in batches[3 * e : 3 * e + 3]]).tolist() for e in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len({tuple(order) for order in [*orders, range(10)]}) == 4
    for images, numbers in batches:
        np.testing.assert_array_equal(images, alone[numbers])


@pytest.mark.parametrize("augmenter", [None, CHANGES], ids=["plain", "augmented"])
@pytest.mark.parametrize("processors", [1, 8])
def test_a_resumed_training_sees_what_an_undisturbed_one_would_have_seen(pictures, monkeypatch, augmenter, processors):
    files = pictures(10)
    undisturbed = _training(files, epochs=4, augmenter=augmenter)
    CHANGES(images=np.zeros([1, 9, 9, 3], np.uint8))  # random numbers drawn elsewhere change nothing
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    _assert_same(_training(files, epochs=4, first_epoch=2, augmenter=augmenter), undisturbed[6:])


def test_augmentation_differs_from_epoch_to_epoch_image_to_image_and_seed_to_seed(pictures):
    file = pictures(1)[0]
    noise = iaa.AdditiveGaussianNoise(scale=20)
    batches = _training([file] * 4, epochs=3, augmenter=noise) + _training([file] * 4, 4, epochs=1, augmenter=noise)
    pictures_seen = {image.tobytes() for images, _ in batches for image in images}
    assert len(pictures_seen) == 16


def test_augmentation_works_on_whole_numbers_of_the_preprocessed_image(pictures):
    files = pictures(5)
    for images, numbers in _training(files, seed=2**32 - 1, epochs=1, augmenter=iaa.Identity()):
        expected = [np.rint(preprocess(tf.constant(files[number].read_bytes()), 16)) for number in numbers]
        np.testing.assert_array_equal(images, expected)
        assert images.dtype == np.float32


def _small_network() -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = [keras.Input((16, 16, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(2)]
    network = keras.Sequential(layers)
    network.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse")
    return network


def test_fit_takes_each_batch_once_and_in_order(pictures):
    files, targets = pictures(7), np.eye(7, 2, dtype=np.float32)
    batches = training_batches(files, targets, 16, 3, 0, 3, augmenter=CHANGES)
    by_fit, by_hand = _small_network(), _small_network()
    held_out = image_batches(files, 16, 3, targets)
    by_fit.fit(batches, epochs=3, steps_per_epoch=3, validation_data=held_out, shuffle=False, verbose=0)
    for images, rows in batches:
        by_hand.train_on_batch(images, rows)
    for weights, others in zip(by_fit.get_weights(), by_hand.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, others)


def test_fit_stopped_and_resumed_ends_with_the_same_weights(pictures):
    files, targets = pictures(7), np.eye(7, 2, dtype=np.float32)
    whole, parts = _small_network(), _small_network()
    for network, ranges in ((whole, [(0, 4)]), (parts, [(0, 1), (1, 4)])):
        for first, last in ranges:
            batches = training_batches(files, targets, 16, 3, 0, last, first, CHANGES)
            network.fit(batches, initial_epoch=first, epochs=last, steps_per_epoch=3, shuffle=False, verbose=0)
    for weights, others in zip(whole.get_weights(), parts.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, others)


def test_training_refuses_what_cannot_work(pictures):
    files = pictures(3)
    with pytest.raises(ValueError, match="3 files and 2 targets"):
        training_batches(files, np.arange(2), 16, 4, 0, 1)
    with pytest.raises(ValueError, match="0 files"):
        training_batches([], np.arange(0), 16, 4, 0, 1)
    with pytest.raises(ValueError, match="one augmenter"):
        training_batches(files, np.arange(3), 16, 4, 0, 1, augmenter=[iaa.Fliplr(0.5)])
    with pytest.raises(ValueError, match="keep their size"):
        training_batches(files, np.arange(3), 16, 4, 0, 1, augmenter=iaa.Crop(px=1, keep_size=False))


def test_a_damaged_file_stops_the_training(pictures):
    files = pictures(3)
    files[1].write_bytes(b"text")
    with pytest.raises(tf.errors.InvalidArgumentError):
        _training(files, epochs=1)
