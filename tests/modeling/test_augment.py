"""Augmented batches depend on their seed alone; augmented files carry label and group, and are written once."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from tdsp_vision.data.tables import read_csv
from tdsp_vision.modeling import augmented
from tdsp_vision.modeling.augment import augment_batch
from tdsp_vision.modeling.augmented import augment_files, before_and_after
from tdsp_vision.modeling.batches import as_uint8, preprocess
from tdsp_vision.modeling.imgaug_numpy2 import iaa

IMAGES = np.random.default_rng(0).integers(0, 256, [6, 20, 20, 3], np.uint8)


def _pipeline() -> iaa.Augmenter:
    """With all that imgaug's own seeding forgets: groups as the only child of another augmenter."""
    ordered = iaa.Sequential([iaa.Add((-50, 50)), iaa.Multiply((0.5, 2))], random_order=True)
    either = iaa.OneOf([iaa.Affine(rotate=(-90, 90)), iaa.AdditiveGaussianNoise(scale=20)])
    return iaa.Sequential([iaa.Fliplr(0.5), iaa.Sometimes(0.7, ordered), iaa.Sometimes(0.7, either)])


def test_a_batch_depends_on_its_images_and_its_seed_alone():
    pipeline, before = _pipeline(), IMAGES.copy()
    seeds = [[0, epoch, step] for epoch in range(3) for step in range(4)]
    first = [augment_batch(pipeline, IMAGES, seed) for seed in seeds]
    for seed, expected in reversed(list(zip(seeds, first, strict=True))):
        iaa.Fliplr(0.5)(images=IMAGES)  # moves imgaug's global random numbers on
        np.testing.assert_array_equal(augment_batch(_pipeline(), IMAGES, seed), expected)
    assert len({batch.tobytes() for batch in first}) == len(seeds)
    np.testing.assert_array_equal(IMAGES, before)


def test_threads_do_not_disturb_each_other():
    pipeline = _pipeline()
    alone = [augment_batch(pipeline, IMAGES, seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: augment_batch(pipeline, IMAGES, seed), range(40)))
    np.testing.assert_array_equal(together, alone)


def test_the_global_random_numbers_of_imgaug_are_left_alone():
    state = iaa.meta.iarandom.get_global_rng().state
    augment_batch(_pipeline(), IMAGES, 0)
    after = iaa.meta.iarandom.get_global_rng().state
    np.testing.assert_equal(after, state)


def test_one_of_several_pipelines_is_taken_for_each_image():
    pipeline = iaa.OneOf([iaa.Add(10), iaa.Sequential([iaa.Flipud(1.0), iaa.Fliplr(1.0)])])
    images = np.minimum(np.repeat(IMAGES[:1], 40, 0), 200)
    got = augment_batch(pipeline, images, 0)
    lighter = (got == images + 10).all((1, 2, 3))
    turned = (got == images[:, ::-1, ::-1]).all((1, 2, 3))
    assert (lighter ^ turned).all() and lighter.any() and turned.any()


@pytest.mark.parametrize(
    ("pipeline", "images", "message"),
    [
        ([iaa.Fliplr(0.5)], IMAGES, "put several into iaa.Sequential"),
        ("flips", IMAGES, "'flips'"),
        (iaa.Fliplr(0.5), IMAGES / 255, "float64"),
        (iaa.Fliplr(0.5), IMAGES[0], r"\[20, 20, 3\]"),
        (iaa.Crop(px=(1, 4), keep_size=False), IMAGES, "keep their size"),
    ],
)
def test_what_cannot_work_is_refused(pipeline, images, message):
    with pytest.raises(ValueError, match=message):
        augment_batch(pipeline, images, 0)


def test_an_empty_batch_stays_empty():
    assert augment_batch(_pipeline(), IMAGES[:0], 0).shape == (0, 20, 20, 3)


@pytest.fixture
def training(pictures, tmp_path) -> pd.DataFrame:
    """Forty pictures in `tmp_path`, in twenty groups: more than one batch."""
    names = [file.name for file in pictures(40)]
    groups = [f"g{number // 2}" for number in range(40)]
    return pd.DataFrame({"path": names, "label": ["a", "b"] * 20, "group": groups, "split": "train"})


PIPELINES = {"flips": iaa.Fliplr(0.5), "noise": iaa.AdditiveGaussianNoise(scale=20)}


def test_files_come_with_source_label_and_group(training, tmp_path):
    table = augment_files(PIPELINES, training, tmp_path, tmp_path / "out", 16, copies=3, seed=5)
    assert len(table) == 40 * 2 * 3 and table.path.is_unique
    assert (table.groupby(["source_path", "pipeline"]).size() == 3).all()
    joined = table.merge(training, left_on="source_path", right_on="path")
    assert len(joined) == len(table)
    assert (joined.label_x == joined.label_y).all() and (joined.group_x == joined.group_y).all()
    written = sorted(str(file) for file in (tmp_path / "out").rglob("*.png"))
    assert written == sorted(table.path)


def test_files_hold_what_the_network_would_have_seen(training, tmp_path):
    table = augment_files({"flips": PIPELINES["flips"]}, training, tmp_path, tmp_path / "out", 16)
    mirrored = 0
    for row in table.itertuples():
        original = as_uint8(preprocess(tf.io.read_file(str(tmp_path / row.source_path)), 16)).numpy()
        copy = preprocess(tf.io.read_file(row.path), 16).numpy()
        same, flipped = (copy == original).all(), (copy == original[:, ::-1]).all()
        assert same or flipped
        mirrored += flipped
    assert 8 <= mirrored <= 32


def test_what_is_there_is_not_written_again(training, tmp_path, monkeypatch):
    def options(**changes):
        return {"root": tmp_path, "folder": tmp_path / "out", "image_size": 16, "copies": 1, "seed": 5} | changes

    once = augment_files(PIPELINES, training, **options())
    with monkeypatch.context() as patch:
        patch.setattr(augmented, "_write", lambda *_: pytest.fail("written again"))
        again = augment_files({"flips": iaa.Fliplr(0.5), "noise": PIPELINES["noise"]}, training, **options())
    pd.testing.assert_frame_equal(once, again)
    for changes in ({"copies": 2}, {"seed": 6}, {"image_size": 15}):
        augment_files(PIPELINES, training, **options(**changes))
    augment_files({"flips": iaa.Fliplr(0.4)}, training, **options())
    augment_files(PIPELINES, training.assign(label="c"), **options())
    (tmp_path / training.path[0]).write_bytes((tmp_path / training.path[1]).read_bytes())
    augment_files(PIPELINES, training, **options())
    assert len(list((tmp_path / "out").iterdir())) == 7


def test_the_key_sees_parameters_that_the_text_of_an_augmenter_hides(training, tmp_path):
    def key(augmenter):
        return augmented._digest({"blur": augmenter}, training, tmp_path, [16, 1, 0])

    assert key(iaa.MotionBlur(k=3)) == key(iaa.MotionBlur(k=3))  # its text has an address in memory …
    assert key(iaa.MotionBlur(k=3)) != key(iaa.MotionBlur(k=9))  # … and does not have k


def test_an_interrupted_run_leaves_nothing(training, tmp_path):
    (tmp_path / training.path[39]).write_bytes(b"damaged")
    with pytest.raises(tf.errors.InvalidArgumentError):
        augment_files(PIPELINES, training, tmp_path, tmp_path / "out", 16)
    assert list((tmp_path / "out").iterdir()) == []


def test_only_the_training_side_is_augmented(training, tmp_path):
    split = ["test", "validation"] + ["train"] * 38
    with pytest.raises(ValueError, match="Images of test, validation"):
        augment_files(PIPELINES, training.assign(split=split), tmp_path, tmp_path / "out", 16)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("change", [{"copies": 0}, {"pipelines": {}}, {"pipelines": {"a/b": iaa.Fliplr(0.5)}}])
def test_nothing_to_write_and_bad_names_are_refused(training, tmp_path, change):
    options = {"pipelines": PIPELINES, "images": training, "root": tmp_path, "folder": tmp_path / "out"} | change
    with pytest.raises(ValueError, match="Nothing to write|'a/b'"):
        augment_files(image_size=16, **options)


def test_the_table_on_disk_names_files_beside_it(training, tmp_path):
    table = augment_files(PIPELINES, training[:2], tmp_path, tmp_path / "out", 16)
    home = next((tmp_path / "out").iterdir())
    stored = read_csv(home / "augmented.csv")
    assert list(stored) == ["path", "source_path", "label", "group", "pipeline"]
    assert [str(home / path) for path in stored.path] == table.path.tolist()


def test_before_and_after_shows_each_image_and_its_versions(pictures):
    files = pictures(3)
    figure = before_and_after(files, {"noise": PIPELINES["noise"], "same": iaa.Identity()}, 16, versions=2)
    grid = np.array([axis.images[0].get_array() for axis in figure.axes]).reshape(3, 5, 16, 16, 3)
    assert [axis.get_title() for axis in figure.axes[:5]] == ["before", "noise 1", "noise 2", "same 1", "same 2"]
    np.testing.assert_array_equal(grid[:, 0], grid[:, 3])
    assert (grid[:, 1] != grid[:, 2]).any() and (grid[:, 0] != grid[:, 1]).any()
    for row, file in zip(grid, files, strict=True):
        np.testing.assert_array_equal(row[0], as_uint8(preprocess(tf.io.read_file(str(file)), 16)))
