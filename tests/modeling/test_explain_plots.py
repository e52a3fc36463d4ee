"""Which images are explained, and the figure that shows them."""

import matplotlib
import numpy as np
import pytest

from tdsp_vision.modeling.explain_plots import explanation_grid, surest

CLASSES = ["benign", "malignant"]


def _decisions(malignant_scores: list[float], labels: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    names = {"b": "benign", "m": "malignant"}
    score = np.array(malignant_scores)
    predicted = np.where(score >= 0.3, "malignant", "benign").astype(object)
    return np.array([names[letter] for letter in labels], object), predicted, np.column_stack([1 - score, score])


def test_surest_hits_and_misses_of_a_class_or_of_all():
    decisions = _decisions([0.9, 0.35, 0.1, 0.2, 0.95, 0.05, 0.6], "mmmmbbm")
    hits, misses = surest(*decisions, CLASSES, "malignant", count=2)
    assert (hits.tolist(), misses.tolist()) == ([0, 6], [2, 3])
    hits, misses = surest(*decisions, CLASSES, count=2)
    assert (hits.tolist(), misses.tolist()) == ([5, 0], [4, 2])
    hits, misses = surest(*_decisions([0.9, 0.8], "mm"), CLASSES, "malignant")
    assert (hits.tolist(), misses.tolist()) == ([0, 1], [])


@pytest.mark.parametrize("count", [1, 3, 5])
def test_photo_and_map_side_by_side_on_one_scale(count, tmp_path):
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, [count, 8, 8, 3]).astype(np.float32)
    maps = rng.normal(size=[count, 8, 8]).astype(np.float32)
    figure = explanation_grid(images, maps, [f"no. {n}, $5" for n in range(count)], "malignant", columns=3)
    drawn = [axis for axis in figure.axes if axis.images]
    photos, overlays = drawn[::2], drawn[1::2]
    assert [axis.get_title(loc="left") for axis in photos] == [f"no. {n}, $5" for n in range(count)]
    for image, evidence, photo, overlay in zip(images, maps, photos, overlays, strict=True):
        np.testing.assert_allclose(photo.images[0].get_array(), image / 255)
        np.testing.assert_array_equal(overlay.images[1].get_array(), evidence)
    limits = {axis.images[1].get_clim() for axis in overlays}
    assert len(limits) == 1 and sum(*limits) == 0
    bar = next(axis for axis in figure.axes if axis.get_label() == "<colorbar>")
    texts = [tick.get_text() for tick in bar.get_xticklabels()]
    assert texts == ["speaks against malignant", "0", "speaks for malignant"]
    figure.savefig(tmp_path / "figure.png")
    assert not matplotlib.pyplot.get_fignums()


def test_maps_without_any_evidence_are_drawn_too():
    figure = explanation_grid(np.zeros([1, 4, 4, 3]), np.zeros([1, 4, 4]), ["empty"], "cat")
    assert figure.axes[1].images[1].get_clim() == (-1, 1)


@pytest.mark.parametrize(("images", "maps", "captions"), [(0, 0, 0), (2, 1, 2), (2, 2, 3)])
def test_counts_must_agree(images, maps, captions):
    with pytest.raises(ValueError, match=f"got {images} images, {maps} maps and {captions} captions"):
        explanation_grid(np.zeros([images, 4, 4, 3]), np.zeros([maps, 4, 4]), ["x"] * captions, "cat")
