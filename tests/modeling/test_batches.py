"""Batches and augmentation: every image as `preprocess` makes it, shuffled and changed as the seed says."""

from functools import partial

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tdsp_vision.files import whole_folder
from tdsp_vision.modeling import augment
from tdsp_vision.modeling.augment import augment_batch, augment_files, before_and_after, iaa, pipelines_digest
from tdsp_vision.modeling.batches import as_uint8, image_batches, preprocess, training_batches

CHANGES = iaa.Sequential([iaa.Fliplr(0.5), iaa.Sometimes(0.5, iaa.OneOf([iaa.Add((-40, 40)), iaa.Multiply((0.5, 2))]))])


def _alone(files) -> np.ndarray:
    return np.stack([preprocess(tf.constant(file.read_bytes()), 16) for file in files])


def test_batches_keep_order_columns_and_values(pictures):
    files = pictures(7)
    columns = (np.arange(7), {"scores": np.eye(7), "fine": np.zeros([7, 0])})
    batches = list(image_batches(files, 16, 3, *columns))
    assert [len(images) for images, *_ in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([images for images, *_ in batches]), _alone(files))
    np.testing.assert_array_equal(np.concatenate([named["scores"] for *_, named in batches]), np.eye(7))


@pytest.mark.parametrize("size", [(30, 20), (300, 200), (16, 16), (7, 40)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_preprocess_keeps_the_whole_picture(tmp_path, size, kind):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, [2, 3, 3], dtype=np.uint8)).resize(size, Image.Resampling.NEAREST)
    picture.save(tmp_path / "p", kind, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {}))
    found = preprocess(tf.constant((tmp_path / "p").read_bytes()), 16).numpy()
    expected = np.asarray(picture.convert("RGB").resize((16, 16), Image.Resampling.BOX), float)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
    assert found.shape == (16, 16, 3) and found.dtype == np.float32 and found.min() >= 0 and found.max() <= 255
    assert np.abs(found - expected).mean() < 12


def _pass(files, seed: int, augment=None):
    return training_batches(files, np.arange(len(files)), 16, 4, seed, augment)


def test_each_pass_has_every_image_once_in_an_order_of_its_own(pictures):
    files = pictures(10)
    batches, again = _pass(files, 3), _pass(files, 3)
    orders = [np.concatenate([numbers for _, numbers in batches]).tolist() for _ in range(3)]
    assert all(sorted(order) == list(range(10)) for order in orders) and len(set(map(tuple, orders))) == 3
    assert orders == [np.concatenate([numbers for _, numbers in again]).tolist() for _ in range(3)]
    for images, numbers in batches:
        np.testing.assert_array_equal(images, _alone(files)[numbers.numpy()])


def test_augmentation_differs_from_pass_to_pass_and_image_to_image_and_repeats_with_its_seed(pictures):
    file = pictures(1)[0]
    noise = partial(augment_batch, iaa.AdditiveGaussianNoise(scale=20))
    batches, again = _pass([file] * 4, 0, noise), _pass([file] * 4, 0, noise)
    seen = [image.numpy().tobytes() for _ in range(3) for images, _ in batches for image in images]
    assert len(set(seen)) == 12
    assert seen == [image.numpy().tobytes() for _ in range(3) for images, _ in again for image in images]


def test_a_batch_depends_on_its_images_and_its_seed_alone():
    images = np.random.default_rng(0).integers(0, 256, [6, 20, 20, 3], np.uint8)
    before = images.copy()
    first = augment_batch(CHANGES, images, 5)
    CHANGES(images=images)  # random numbers drawn elsewhere change nothing
    np.testing.assert_array_equal(augment_batch(CHANGES, images, 5), first)
    np.testing.assert_array_equal(images, before)
    assert (augment_batch(CHANGES, images, 6) != first).any()


def test_what_cannot_work_is_refused():
    with pytest.raises(ValueError, match="must be one augmenter"):
        augment_batch([iaa.Fliplr(1)], np.zeros([1, 9, 9, 3], np.uint8), 0)
    with pytest.raises(ValueError, match="must keep their size"):
        augment_batch(iaa.Crop(px=1, keep_size=False), np.zeros([1, 9, 9, 3], np.uint8), 0)


def test_noise_that_reads_what_numpy_dropped_works():
    images = np.full([1, 32, 32, 3], 128, np.uint8)
    assert (augment_batch(iaa.Clouds(), images, 0) != images).any()
    assert not hasattr(np, "sctypes")


def test_copies_hold_what_the_network_would_have_seen_and_are_written_once(pictures, tmp_path, monkeypatch):
    files = pictures(5)
    pipelines = {"mirror": iaa.Fliplr(1.0), "turned": iaa.Rot90(1)}
    copies, originals = augment_files(pipelines, files, tmp_path / "copies", 16, 2, 0)
    assert originals.tolist() == [row for row in range(5) for _ in range(4)] and len(set(copies)) == 20
    plain = as_uint8(_alone(files)).numpy()
    for file, row in zip(copies, originals, strict=True):
        expected = plain[row][:, ::-1] if "mirror" in file.name else np.rot90(plain[row], -1)
        np.testing.assert_array_equal(np.asarray(Image.open(file)), expected)
    monkeypatch.setattr(augment, "augment_batch", augment_batch)
    monkeypatch.setattr(augment, "whole_folder", lambda _: pytest.fail("written again"))
    assert augment_files(pipelines, files, tmp_path / "copies", 16, 2, 0)[0] == copies
    monkeypatch.setattr(augment, "whole_folder", whole_folder)
    other = augment_files(pipelines, files, tmp_path / "copies", 16, 2, 1)[0]
    assert other[0].parent != copies[0].parent


def test_the_digest_sees_parameters_that_the_text_of_an_augmenter_hides():
    crops = [iaa.Crop(px=(0, 4), keep_size=True), iaa.Crop(px=(0, 4), keep_size=True, sample_independently=False)]
    assert len({pipelines_digest({"crop": crop}) for crop in crops}) == 2
    assert pipelines_digest({"a": iaa.Fliplr(0.5)}) == pipelines_digest({"a": iaa.Fliplr(0.5)})


def test_before_and_after_shows_each_image_and_each_pipeline(pictures, strict_figures):
    axis = before_and_after(pictures(2), {"mirror": iaa.Fliplr(1.0)}, 16).axes[0]
    sheet = np.asarray(axis.images[0].get_array())
    assert [label.get_text() for label in axis.get_xticklabels()] == ["before", "mirror"]
    np.testing.assert_array_equal(sheet[:, 16:], sheet[:, :16][:, ::-1])
