"""Augmentation of one batch: a pipeline of imgaug, uint8 images [b, S, S, 3] and a seed in, such images out.

The pipeline itself is written in the notebook, from the augmenters of `imgaug_numpy2.iaa`. An augmenter of imgaug
carries its random numbers with it and moves on with every call, so what a batch becomes would depend on all calls
before it, and threads would race for it. Here each call works on a copy of its own that is seeded for this batch.
"""

from collections.abc import Sequence

import numpy as np

from tdsp_vision.modeling.imgaug_numpy2 import RNG, iaa


def augment_batch(augmenter: iaa.Augmenter, images: np.ndarray, seed: int | Sequence[int]) -> np.ndarray:
    """What the augmenter makes of a batch: the same for the same images and seed, in any thread and at any time.

    Copying and seeding cost about 1 ms, so that batches are cheap and single images are not.

    Args:
        augmenter: one augmenter of imgaug, or several as one: `iaa.Sequential` (one after the other), `iaa.OneOf`
            (each image goes through one of them). It is not changed.
        images: uint8 [b, h, w, 3], RGB; not changed.
        seed: non-negative integers, for `numpy.random.SeedSequence`.

    Returns:
        uint8 [b, h, w, 3].

    Raises:
        ValueError: if `augmenter` is no augmenter, `images` is not such an array, or the images change their size.
    """
    if not isinstance(augmenter, iaa.Augmenter):
        raise ValueError(f"The pipeline is {augmenter!r}; it must be one augmenter: put several into iaa.Sequential.")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"The images are {images.dtype} {list(images.shape)}; imgaug gets uint8 [b, h, w, 3].")
    own = augmenter.deepcopy()
    _seed(own, np.random.SeedSequence(seed))
    rows = own.augment_images(list(images))  # as a list: images that come back in different sizes raise no error
    shapes = {row.shape for row in rows}
    if shapes - {images.shape[1:]}:
        raise ValueError(
            f"The pipeline {augmenter.name} turned images of {list(images.shape[1:])} into {sorted(map(list, shapes))};"
            " they must keep their size: use keep_size=True, or end the pipeline with iaa.Resize."
        )
    return np.stack(rows) if len(rows) else images.copy()


def _seed(augmenter: iaa.Augmenter, source: np.random.SeedSequence) -> None:
    """Seed an augmenter and all inside it, in place.

    imgaug's own `seed_` passes over an `iaa.OneOf` or `iaa.Sequential` that is the only child of an `iaa.Sometimes`, a
    blend and the like: it takes it for a plain list. That one would go on with imgaug's global random numbers.
    """
    augmenter.random_state = RNG(source)
    members = []
    for children in augmenter.get_children_lists():
        alone = isinstance(children, iaa.Augmenter) and children is not augmenter
        members += [children] if alone else children
    for member, own in zip(members, source.spawn(len(members)), strict=True):
        _seed(member, own)
