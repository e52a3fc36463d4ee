"""Features of files: right whatever is cached, and nothing is computed twice."""

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

from tdsp_vision.data.tables import file_sha256
from tdsp_vision.modeling import features as module
from tdsp_vision.modeling.backbones import build_backbone, flip_average, pooled_layers
from tdsp_vision.modeling.batches import preprocess
from tdsp_vision.modeling.features import FeatureCache, predict_files

SIZE = 32


def _direct(model, files) -> np.ndarray:
    return np.concatenate([model(preprocess(tf.io.read_file(str(f)), SIZE)[None], training=False) for f in files])


@pytest.fixture
def cache(tmp_path, tiny_network) -> FeatureCache:
    return FeatureCache(tmp_path / "features", tiny_network, SIZE)


def test_predictions_do_not_depend_on_the_batch(small_backbone, pictures):
    files = pictures(9)
    rows = predict_files(pooled_layers(small_backbone), files, SIZE, 4)
    assert rows.shape == (9, 2304) and rows.dtype == np.float32 and rows[:, -1280:].std() > 0.1
    np.testing.assert_allclose(rows, _direct(pooled_layers(small_backbone), files), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("content", [None, b"", b"<html></html>"])
def test_an_unreadable_file_is_named(tiny_network, pictures, content):
    files = pictures(7)
    bad = files[4]
    bad.write_bytes(bad.read_bytes()[:90] if content is None else content)
    with pytest.raises(ValueError, match=rf"{bad.name} cannot be read as an image \(.+\); replace or remove") as caught:
        predict_files(tiny_network, files, SIZE, 3)
    assert "node" not in str(caught.value) and "Op:" not in str(caught.value)


def test_only_what_is_new_is_computed(cache, tiny_network, pictures):
    *files, spare, added = pictures(6)
    before = cache.features(files)
    assert cache.computed == 4
    np.testing.assert_allclose(before, _direct(tiny_network, files), atol=1e-6)
    again = FeatureCache(cache.path.parent, tiny_network, SIZE)
    np.testing.assert_array_equal(again.features(files[::-1]), before[::-1])
    assert again.computed == 0
    shutil.copyfile(spare, files[1])  # a PNG named .png
    changed = cache.features([*files, added])
    assert cache.computed == 2
    np.testing.assert_allclose(changed, _direct(tiny_network, [*files, added]), atol=1e-6)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped"])
def test_a_damaged_cache_is_computed_anew_with_a_warning(cache, pictures, damage):
    files = pictures(3)
    good = cache.features(files)
    content, path = cache.path.read_bytes(), cache.path
    place = content.index(good.tobytes()) + 5
    flipped = content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :]
    path.write_bytes({"empty": b"", "cut": content[:-40], "flipped": flipped}[damage])
    draft = path.with_name(f".{path.stem[:40]}.0123456789ab.npz")
    draft.touch()  # of a process that was killed
    with pytest.warns(UserWarning, match=f"{path.name} is damaged .* computed anew"):
        again = cache.features(files)
    assert cache.computed == 3 and not draft.exists()
    np.testing.assert_allclose(again, good, atol=1e-6)


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
        cache.features(files)
    rows = cache.features(files)
    assert calls == [2, 2, 2, 2, 1] and cache.computed == 3
    np.testing.assert_allclose(rows, _direct(tiny_network, files), atol=1e-6)
    assert [path.name for path in cache.path.parent.glob("*.npz")] == [cache.path.name]


def test_threads_that_write_at_once_agree(tmp_path, tiny_network, pictures):
    files = pictures(10)
    expected = _direct(tiny_network, files)
    computed = []

    def compute(start: int) -> np.ndarray:
        cache = FeatureCache(tmp_path / "features", tiny_network, SIZE)
        rows = cache.features(files[start:] + files[:start])
        computed.append(cache.computed)
        return rows

    with ThreadPoolExecutor(4) as pool:
        for start, rows in enumerate(pool.map(compute, range(4))):
            np.testing.assert_allclose(rows, np.roll(expected, -start, 0), atol=1e-6)
    assert sorted(computed) == [0, 0, 0, 10]  # one did the work, the others waited for it


def test_images_that_changed_since_stage_1_stop_the_run(cache, pictures):
    files = pictures(4)
    written_down = [file_sha256(file) for file in files]
    cache.features(files, written_down)
    shutil.copyfile(files[0], files[2])  # a test image over a training image
    with pytest.raises(ValueError, match=f"1 of 4 images are not those that stage 1 wrote down.*{files[2].name}"):
        cache.features(files, written_down)


def test_a_full_disk_costs_the_cache_and_not_the_run(cache, tiny_network, pictures, monkeypatch):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    files = pictures(3)
    monkeypatch.setattr(module.np, "savez", full)
    with pytest.warns(UserWarning, match="cannot be written .No space left on device.; this run goes on"):
        rows = cache.features(files)
    np.testing.assert_allclose(rows, _direct(tiny_network, files), atol=1e-6)
    assert not [path for path in cache.path.parent.iterdir() if path.suffix == ".npz"]
