"""Features of files: right whatever is cached, and nothing is computed twice."""

import shutil
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pytest
import tensorflow as tf

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
