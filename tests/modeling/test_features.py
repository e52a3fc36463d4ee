"""Features of files: right whatever is cached, and nothing is computed twice."""

import multiprocessing
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from tdsp_vision.modeling import features as module
from tdsp_vision.modeling.backbones import build_backbone, pooled_layers
from tdsp_vision.modeling.batches import preprocess
from tdsp_vision.modeling.features import FeatureCache, file_digests, predict_files

SIZE = 32


def _direct(model, files) -> np.ndarray:
    return np.concatenate([model(preprocess(tf.io.read_file(str(f)), SIZE)[None], training=False) for f in files])


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(tmp_path / "features", "tiny", "digest", SIZE)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 32])
def test_predictions_do_not_depend_on_the_batch(small_backbone, pictures, batch_size):
    files = pictures(9)
    rows = predict_files(pooled_layers(small_backbone), files, SIZE, batch_size, quiet=True)
    assert rows.shape == (9, 2304) and rows.dtype == np.float32 and rows[:, -1280:].std() > 0.1
    np.testing.assert_allclose(rows, _direct(pooled_layers(small_backbone), files), rtol=1e-4, atol=1e-4)


def test_no_files_give_no_rows(tiny_network):
    assert predict_files(tiny_network, [], SIZE).shape == (0, 4)


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "missing", "folder"])
@pytest.mark.parametrize("place", [0, 4, 6])
def test_an_unreadable_file_is_named(tiny_network, pictures, damage, place):
    files = pictures(7)
    bad, content = files[place], files[place].read_bytes()
    bad.unlink()
    if damage == "folder":
        bad.mkdir()
    elif damage != "missing":
        bad.write_bytes({"empty": b"", "text": b"<html></html>", "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(ValueError, match=rf"{bad.name} cannot be read as an image \(.+\); replace or remove") as caught:
        predict_files(tiny_network, files, SIZE, 3, quiet=True)
    assert "node" not in str(caught.value) and "Op:" not in str(caught.value)


def test_an_error_of_the_network_is_not_blamed_on_a_file(pictures):
    @keras.saving.register_keras_serializable("tests")
    class Fails(keras.layers.Layer):
        def call(self, x):
            with tf.control_dependencies([tf.debugging.assert_less(tf.reduce_max(x), -1.0)]):
                return tf.identity(x)

    inputs = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(Fails()(inputs)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        predict_files(model, pictures(2), SIZE, quiet=True)


def test_the_second_call_computes_nothing(cache, tiny_network, pictures):
    files = pictures(5)
    first = cache.features(tiny_network, files, quiet=True)
    assert cache.computed == 5
    np.testing.assert_allclose(first, _direct(tiny_network, files), atol=1e-6)
    second = FeatureCache(cache.path.parent, "tiny", "digest", SIZE)
    np.testing.assert_array_equal(second.features(tiny_network, files[::-1], quiet=True), first[::-1])
    assert second.computed == 0


def test_only_what_is_new_is_computed(cache, tiny_network, pictures):
    *files, spare, added = pictures(6)
    before = cache.features(tiny_network, files, quiet=True)
    shutil.copyfile(spare, files[1].with_suffix(".png"))
    files[1] = files[1].with_suffix(".png")
    changed = cache.features(tiny_network, files, quiet=True)
    assert cache.computed == 1
    np.testing.assert_array_equal(np.delete(changed, 1, 0), np.delete(before, 1, 0))
    np.testing.assert_allclose(changed, _direct(tiny_network, files), atol=1e-6)
    cache.features(tiny_network, [files[3], files[0]], quiet=True)
    assert cache.computed == 0
    cache.features(tiny_network, [*files, added], quiet=True)
    assert cache.computed == 1
    files[0].unlink()
    with pytest.raises(FileNotFoundError, match=files[0].name):
        cache.features(tiny_network, files, quiet=True)


def test_equal_content_is_computed_once(cache, tiny_network, pictures):
    files = pictures(2)
    twin = shutil.copyfile(files[0], files[0].with_name("twin.jpg"))
    rows = cache.features(tiny_network, [files[0], twin, files[1]], quiet=True)
    assert cache.computed == 2
    np.testing.assert_array_equal(rows[0], rows[1])
    assert file_digests([files[0], twin])[0] == file_digests([twin])[0]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped", "other arrays", "pickled", "uneven"])
def test_a_damaged_cache_is_computed_anew_with_a_warning(cache, tiny_network, pictures, damage):
    files = pictures(3)
    good = cache.features(tiny_network, files, quiet=True)
    content, path = cache.path.read_bytes(), cache.path
    with np.load(path) as stored:
        arrays = dict(stored)
    if damage == "other arrays":
        np.savez(path, a=np.zeros(3))
    elif damage == "pickled":
        np.savez(path, **arrays | {"network": np.array({"a": 1}, dtype=object)})
    elif damage == "uneven":
        np.savez(path, **arrays | {"features": arrays["features"][:2]})
    else:
        place = content.index(arrays["features"].tobytes()) + 5
        flipped = content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]
        path.write_bytes({"empty": b"", "text": b"no npz", "cut": content[:-40], "flipped": flipped}[damage])
    with pytest.warns(UserWarning, match=f"{path.name} is damaged .* computed anew"):
        again = cache.features(tiny_network, files, quiet=True)
    assert cache.computed == 3
    np.testing.assert_allclose(again, good, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.features(tiny_network, files, quiet=True)
    assert cache.computed == 0


def test_each_part_of_the_key_counts(tmp_path):
    keys = [("a", "x", 32, "pooled"), ("b", "x", 32, "pooled"), ("a", "y", 32, "pooled")]
    keys += [("a", "x", 33, "pooled"), ("a", "x", 32, "last")]
    assert len({FeatureCache(tmp_path, *key).path for key in keys}) == len(keys)
    assert FeatureCache(tmp_path, *keys[0]).path == FeatureCache(tmp_path, *keys[0]).path


def test_another_network_under_the_same_key_is_never_answered_from_the_cache(tmp_path, pictures):
    files = pictures(2)
    for seed in (0, 1):
        keras.utils.set_random_seed(seed)
        backbone = build_backbone("efficientnet_lite0", SIZE, "none")
        cache = FeatureCache(tmp_path / "features", "efficientnet_lite0", "none", SIZE)
        for featurizer in (backbone, pooled_layers(backbone)):
            rows = cache.features(featurizer, files, quiet=True)
            assert cache.computed == 2
            np.testing.assert_allclose(rows, _direct(featurizer, files), rtol=1e-4, atol=1e-6)


def test_a_killed_run_goes_on_after_its_last_chunk(cache, tiny_network, pictures, monkeypatch):
    files, calls = pictures(7), []
    whole = predict_files

    def dies_at_the_third(model, part, *args, **kwargs):
        calls.append(len(part))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return whole(model, part, *args, **kwargs)

    monkeypatch.setattr(module, "CHUNK", 2)
    monkeypatch.setattr(module, "predict_files", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        cache.features(tiny_network, files, quiet=True)
    rows = cache.features(tiny_network, files, quiet=True)
    assert calls == [2, 2, 2, 2, 1] and cache.computed == 3
    np.testing.assert_allclose(rows, _direct(tiny_network, files), atol=1e-6)
    assert [path.name for path in cache.path.parent.iterdir()] == [cache.path.name]


def test_a_damaged_image_keeps_the_chunks_before_it(cache, tiny_network, pictures, monkeypatch):
    files = pictures(5)
    good = files[4].read_bytes()
    files[4].write_bytes(b"damaged")
    monkeypatch.setattr(module, "CHUNK", 2)
    with pytest.raises(ValueError, match=files[4].name):
        cache.features(tiny_network, files, quiet=True)
    files[4].write_bytes(good)
    cache.features(tiny_network, files, quiet=True)
    assert cache.computed == 1


def test_threads_that_write_at_once_agree(tmp_path, tiny_network, pictures, monkeypatch):
    files = pictures(10)
    expected = _direct(tiny_network, files)
    monkeypatch.setattr(module, "CHUNK", 2)

    def compute(start: int) -> np.ndarray:
        cache = FeatureCache(tmp_path / "features", "tiny", "digest", SIZE)
        return cache.features(tiny_network, files[start:] + files[:start], quiet=True)

    with ThreadPoolExecutor(4) as pool:
        for start, rows in enumerate(pool.map(compute, range(4))):
            np.testing.assert_allclose(rows, np.roll(expected, -start, 0), atol=1e-6)
    cache = FeatureCache(tmp_path / "features", "tiny", "digest", SIZE)
    np.testing.assert_allclose(cache.features(tiny_network, files, quiet=True), expected, atol=1e-6)
    assert cache.computed == 0


def _write_many(folder, start: int) -> None:
    cache = FeatureCache(folder, "tiny", "digest", SIZE)
    for count in range(start, 200, 2):
        known = {f"{n:064d}": np.full(8, n, np.float32) for n in range(count)}
        cache._write(known, "network")


def test_processes_that_write_at_once_leave_a_whole_file(tmp_path):
    cache = FeatureCache(tmp_path / "features", "tiny", "digest", SIZE)
    _write_many(cache.path.parent, 198)
    processes = [
        multiprocessing.get_context("fork").Process(target=_write_many, args=(cache.path.parent, start))
        for start in (2, 3)
    ]
    for process in processes:
        process.start()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        while any(process.is_alive() for process in processes):
            known = cache._read("network")
            assert known and all((row == int(digest)).all() for digest, row in known.items())
    assert [process.exitcode for process in processes] == [0, 0]
    assert list(cache.path.parent.iterdir()) == [cache.path]
