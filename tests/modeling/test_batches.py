"""One preprocess everywhere, and batches in the order that was asked for."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tdsp_vision.modeling.batches import image_batches, preprocess


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


def _epochs(files, seed: int, count: int) -> list[list[int]]:
    """Order of the pictures in each epoch, with each picture checked against its number."""
    alone = [preprocess(tf.constant(file.read_bytes()), 16).numpy() for file in files]
    batches = image_batches(files, 16, 4, np.arange(len(files)), shuffle_seed=seed)
    orders = []
    for _ in range(count):
        order = []
        for images, numbers in batches:
            for image, number in zip(images.numpy(), numbers.numpy(), strict=True):
                np.testing.assert_array_equal(image, alone[number])
            order += numbers.numpy().tolist()
        orders.append(order)
    return orders


def test_shuffling_is_complete_anew_each_epoch_and_reproducible(pictures):
    files = pictures(20)
    first, second = _epochs(files, 3, 2)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != list(range(20)) and first != second
    assert _epochs(files, 3, 2) == [first, second]
    assert _epochs(files, 4, 1) != [first]


def test_unshuffled_epochs_are_the_same(pictures):
    batches = image_batches(pictures(5), 16, 2, np.arange(5))
    for _ in range(2):
        assert np.concatenate([t for _, t in batches]).tolist() == list(range(5))
