"""Augmentation by pipelines of imgaug, `iaa`: of one batch, of files on request, and to look at.

imgaug's last release, 0.4.0, is older than NumPy 2: import `iaa` from here. An augmenter of imgaug carries its random
numbers with it and moves on with every call; here each call works on a copy that is seeded for its batch, so the same
seed gives the same pictures in any thread. Pictures are uint8 [b, S, S, 3], RGB.
"""

import hashlib
import importlib
import json
import re
import types
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from tdsp_vision.data.tables import file_sha256
from tdsp_vision.files import whole_folder
from tdsp_vision.modeling.batches import PREPROCESS_VERSION, as_uint8, image_batches
from tdsp_vision.paths import checked_name

BATCH = 32


def _import_augmenters() -> types.ModuleType:
    """`imgaug.augmenters`, which reads `np.sctypes` while imported and `np.complex` later; NumPy 2 has neither."""
    kinds = {"float": "efdg", "int": "bhil", "uint": "BHIL"}
    np.sctypes = {kind: [np.dtype(code).type for code in codes] for kind, codes in kinds.items()}
    try:
        augmenters = importlib.import_module("imgaug.augmenters")
    finally:
        del np.sctypes
    numpy = types.ModuleType("numpy")
    numpy.__getattr__, numpy.complex = partial(getattr, np), complex
    importlib.import_module("imgaug.parameters").np = numpy
    return augmenters


iaa = _import_augmenters()
RNG = importlib.import_module("imgaug.random").RNG


def augment_batch(augmenter: iaa.Augmenter, images: np.ndarray, seed) -> np.ndarray:
    """What the augmenter makes of a batch: the same for the same images and seed.

    Args:
        augmenter: one augmenter of imgaug, or several as one (`iaa.Sequential`, `iaa.OneOf`). It is not changed.
        images: uint8 [b, h, w, 3]; not changed.
        seed: a non-negative integer or several, for `numpy.random.SeedSequence`.

    Returns:
        uint8 [b, h, w, 3].

    Raises:
        ValueError: if `augmenter` is no augmenter, or the images change their size.
    """
    if not isinstance(augmenter, iaa.Augmenter):
        raise ValueError(f"The pipeline is {augmenter!r}; it must be one augmenter: put several into iaa.Sequential.")
    own = augmenter.deepcopy()
    _seed(own, np.random.SeedSequence(seed))
    rows = own.augment_images(list(images))  # as a list: images that come back in different sizes raise no error
    if other := {row.shape for row in rows} - {images.shape[1:]}:
        turned = f"The pipeline {augmenter.name} turned images of {images.shape[1:]} into {sorted(other)}"
        raise ValueError(f"{turned}; they must keep their size: use keep_size=True, or end with iaa.Resize.")
    return np.stack(rows)


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


def augment_files(
    pipelines: dict[str, iaa.Augmenter], files: list[Path], folder: Path, image_size: int, copies: int, seed: int
) -> tuple[list[Path], np.ndarray]:
    """Write `copies` versions of each image by each pipeline as PNG files, unless they are there.

    They lie in `folder/<digest>`, which covers the content of the images, the pipelines, copies, seed and size.

    Args:
        pipelines: name to augmenter; each is applied to each original, separately.
        files: the images to learn from, never those of the test.

    Returns:
        the new files, and the number of each one's original in `files`, int.
    """
    settings = [pipelines_digest(pipelines), image_size, copies, seed, PREPROCESS_VERSION]
    digest = hashlib.sha256(json.dumps([*map(file_sha256, files), *settings]).encode()).hexdigest()[:12]
    versions = [(checked_name("The name of a pipeline", name), copy) for name in pipelines for copy in range(copies)]
    made = [(row, name, copy) for row in range(len(files)) for name, copy in versions]
    home = folder / digest
    if not home.exists():
        with whole_folder(home) as draft:
            for step, batch in enumerate(image_batches(files, image_size, BATCH)):
                for number, (name, copy) in enumerate(versions):
                    pictures = augment_batch(pipelines[name], as_uint8(batch).numpy(), [seed, step, number])
                    for row, picture in enumerate(pictures, step * BATCH):
                        Image.fromarray(picture).save(draft / f"{row:06}-{name}-{copy}.png", compress_level=1)
    return [home / f"{row:06}-{name}-{copy}.png" for row, name, copy in made], np.array([row for row, *_ in made], int)


def pipelines_digest(pipelines: dict[str, iaa.Augmenter]) -> str:
    """sha256 (hex) of names and augmenters, to tell whether two runs augmented alike.

    The text of an augmenter leaves out some of its parameters (`keep_size` of a crop), so what it does to an image
    of noise counts too; addresses in memory, which some texts contain, do not.
    """
    noise = np.random.default_rng(0).integers(0, 256, [8, 64, 64, 3], np.uint8)
    digest = hashlib.sha256()
    for name, augmenter in pipelines.items():
        digest.update(f"{name} {re.sub(r' at 0x[0-9a-f]+', '', repr(augmenter))} ".encode())
        digest.update(augment_batch(augmenter, noise, 0).tobytes())
    return digest.hexdigest()


def before_and_after(files: list[Path], pipelines: dict[str, iaa.Augmenter], image_size: int, seed: int = 0) -> Figure:
    """Each image (a row) as the network gets it without augmentation, and what each pipeline makes of it."""
    originals = np.concatenate([as_uint8(batch) for batch in image_batches(files, image_size, BATCH)])
    columns = [originals, *(augment_batch(augmenter, originals, seed) for augmenter in pipelines.values())]
    border = [(0, 0), (image_size // 30,) * 2, (image_size // 30,) * 2, (0, 0)]
    columns = [np.pad(column, border, constant_values=255) for column in columns]
    figure, axis = plt.subplots(figsize=(1.5 * len(columns), 1.5 * len(files) + 0.3), layout="constrained")
    axis.imshow(np.concatenate([np.concatenate(list(column)) for column in columns], axis=1))
    centers = (np.arange(len(columns)) + 0.5) * columns[0].shape[2]
    axis.set(xticks=centers, xticklabels=["before", *pipelines], yticks=[])
    axis.xaxis.tick_top()
    plt.close(figure)
    return figure
