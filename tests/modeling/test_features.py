"""Features of files: right whatever is cached, and nothing is computed twice."""

import errno
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from tdsp_vision.modeling import features as module
from tdsp_vision.modeling.backbones import build_backbone, flip_average, pooled_layers
from tdsp_vision.modeling.batches import preprocess
from tdsp_vision.modeling.features import FeatureCache, file_digests, predict_files

SIZE = 32


def _direct(model, files) -> np.ndarray:
    return np.concatenate([model(preprocess(tf.io.read_file(str(f)), SIZE)[None], training=False) for f in files])


@pytest.fixture
def cache(tmp_path, tiny_network) -> FeatureCache:
    return FeatureCache(tmp_path / "features", tiny_network, SIZE)


@pytest.mark.parametrize("batch_size", [4, 32])
def test_predictions_do_not_depend_on_the_batch(small_backbone, pictures, batch_size):
    files = pictures(9)
    rows = predict_files(pooled_layers(small_backbone), files, SIZE, batch_size, quiet=True)
    assert rows.shape == (9, 2304) and rows.dtype == np.float32 and rows[:, -1280:].std() > 0.1
    np.testing.assert_allclose(rows, _direct(pooled_layers(small_backbone), files), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "missing", "folder"])
def test_an_unreadable_file_is_named(tiny_network, pictures, damage):
    files = pictures(7)
    bad, content = files[4], files[4].read_bytes()
    bad.unlink()
    if damage == "folder":
        bad.mkdir()
    elif damage != "missing":
        bad.write_bytes({"empty": b"", "text": b"<html></html>", "cut": content[: len(content) // 2]}[damage])
    with pytest.raises(ValueError, match=rf"{bad.name} cannot be read as an image \(.+\); replace or remove") as caught:
        predict_files(tiny_network, files, SIZE, 3, quiet=True)
    assert "node" not in str(caught.value) and "Op:" not in str(caught.value)


def test_the_second_call_computes_nothing(cache, tiny_network, pictures):
    files = pictures(5)
    first = cache.features(files, quiet=True)
    assert cache.computed == 5
    np.testing.assert_allclose(first, _direct(tiny_network, files), atol=1e-6)
    second = FeatureCache(cache.path.parent, tiny_network, SIZE)
    np.testing.assert_array_equal(second.features(files[::-1], quiet=True), first[::-1])
    assert second.computed == 0


def test_only_what_is_new_is_computed(cache, tiny_network, pictures):
    *files, spare, added = pictures(6)
    before = cache.features(files, quiet=True)
    shutil.copyfile(spare, files[1].with_suffix(".png"))
    files[1] = files[1].with_suffix(".png")
    changed = cache.features(files, quiet=True)
    assert cache.computed == 1
    np.testing.assert_array_equal(np.delete(changed, 1, 0), np.delete(before, 1, 0))
    np.testing.assert_allclose(changed, _direct(tiny_network, files), atol=1e-6)
    cache.features([files[3], files[0]], quiet=True)
    assert cache.computed == 0
    cache.features([*files, added], quiet=True)
    assert cache.computed == 1


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "other arrays"])
def test_a_damaged_cache_is_computed_anew_with_a_warning(cache, tiny_network, pictures, damage):
    files = pictures(3)
    good = cache.features(files, quiet=True)
    content, path = cache.path.read_bytes(), cache.path
    with np.load(path) as stored:
        arrays = dict(stored)
    if damage == "other arrays":
        np.savez(path, a=np.zeros(3))
    else:
        place = content.index(arrays["features"].tobytes()) + 5
        flipped = content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]
        path.write_bytes({"empty": b"", "cut": content[:-40], "flipped": flipped}[damage])
    with pytest.warns(UserWarning, match=f"{path.name} is damaged .* computed anew"):
        again = cache.features(files, quiet=True)
    assert cache.computed == 3
    np.testing.assert_allclose(again, good, atol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.features(files, quiet=True)
    assert cache.computed == 0


def test_the_key_is_the_network_its_weights_and_the_size_and_no_names(tmp_path):
    keras.utils.set_random_seed(0)
    one, other = (build_backbone("efficientnet_lite0", SIZE, "none") for _ in range(2))
    same = build_backbone("efficientnet_lite0", SIZE, "none")
    same.set_weights(one.get_weights())
    models = [one, other, pooled_layers(one), flip_average(one, "flips"), flip_average(one, "flips_and_rotations")]
    paths = [FeatureCache(tmp_path, model, SIZE).path for model in models]
    assert len({*paths, FeatureCache(tmp_path, one, SIZE + 1).path}) == len(models) + 1
    assert paths == [FeatureCache(tmp_path, model, SIZE).path for model in models]
    assert FeatureCache(tmp_path, pooled_layers(same), SIZE).path == paths[2]
    assert FeatureCache(tmp_path, flip_average(same, "flips"), SIZE).path == paths[3]


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
        cache.features(files, quiet=True)
    rows = cache.features(files, quiet=True)
    assert calls == [2, 2, 2, 2, 1] and cache.computed == 3
    np.testing.assert_allclose(rows, _direct(tiny_network, files), atol=1e-6)
    assert [path.name for path in cache.path.parent.glob("*.npz")] == [cache.path.name]


def test_threads_that_write_at_once_agree(tmp_path, tiny_network, pictures, monkeypatch):
    files = pictures(10)
    expected = _direct(tiny_network, files)
    monkeypatch.setattr(module, "CHUNK", 2)

    computed = []

    def compute(start: int) -> np.ndarray:
        cache = FeatureCache(tmp_path / "features", tiny_network, SIZE)
        rows = cache.features(files[start:] + files[:start], quiet=True)
        computed.append(cache.computed)
        return rows

    with ThreadPoolExecutor(4) as pool:
        for start, rows in enumerate(pool.map(compute, range(4))):
            np.testing.assert_allclose(rows, np.roll(expected, -start, 0), atol=1e-6)
    assert sorted(computed) == [0, 0, 0, 10]  # one did the work, the others waited for it
    cache = FeatureCache(tmp_path / "features", tiny_network, SIZE)
    np.testing.assert_allclose(cache.features(files, quiet=True), expected, atol=1e-6)
    assert cache.computed == 0


def test_images_that_changed_since_stage_1_stop_the_run(cache, pictures):
    files = pictures(4)
    written_down = file_digests(files)
    cache.features(files, written_down, quiet=True)
    shutil.copyfile(files[0], files[2])  # a test image over a training image
    with pytest.raises(ValueError, match=f"1 of 4 images are not those that stage 1 wrote down.*{files[2].name}"):
        cache.features(files, written_down, quiet=True)


def test_a_full_disk_costs_the_cache_and_not_the_run(cache, tiny_network, pictures, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    files = pictures(3)
    monkeypatch.setattr(module.np, "savez", full)
    with pytest.warns(UserWarning, match="cannot be kept in .*No space left on device.*this run goes on"):
        rows = cache.features(files, quiet=True)
    np.testing.assert_allclose(rows, _direct(tiny_network, files), atol=1e-6)
    assert not [path for path in cache.path.parent.iterdir() if path.suffix == ".npz"]
