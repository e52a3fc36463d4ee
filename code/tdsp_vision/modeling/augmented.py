"""Augmented images outside training: written out as files on request, and shown beside the originals.

<folder>/<digest>/augmented.csv   path,source_path,label,group,pipeline   (paths relative to the two folders)
<folder>/<digest>/*.png           image_size x image_size, without loss

The digest covers the content of the images, their labels and groups, the pipelines, copies, seed and size: what is
there already is not made again, and what changed lies elsewhere. A copy has the group of its source, and only
images of the training side are copied.
"""

import hashlib
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from tdsp_vision.data.tables import file_sha256, read_csv, write_csv
from tdsp_vision.files import whole_folder
from tdsp_vision.modeling.augment import augment_batch
from tdsp_vision.modeling.batches import PREPROCESS_VERSION, as_uint8, image_batches
from tdsp_vision.modeling.imgaug_numpy2 import iaa
from tdsp_vision.paths import checked_name

BATCH = 32


def augment_files(
    pipelines: dict[str, iaa.Augmenter],
    images: pd.DataFrame,
    root: Path,
    folder: Path,
    image_size: int,
    copies: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Write `copies` augmented versions of each image by each pipeline as PNG files; skipped if they are there.

    Args:
        pipelines: name to augmenter; each is applied to each original, separately.
        images: the training side: path (below `root`), label and group; a column `split` is checked if there is one.
        root: folder of the data set.
        folder: where to write, see the module's contract.
        image_size: side of the images in pixels.
        copies: versions for each image and pipeline, from 1.
        seed: from 0; same images, pipelines and seed, same files.

    Returns:
        columns path (absolute), source_path (below `root`), label, group, pipeline; one row per file.

    Raises:
        ValueError: if an image is not of the training side, there is nothing to do, or a name cannot name a file.
    """
    _check(pipelines, images, copies)
    home = folder / _digest(pipelines, images, root, [image_size, copies, seed])
    if not home.exists():
        with whole_folder(home) as draft:
            write_csv(draft / "augmented.csv", _write(pipelines, images, root, draft, image_size, copies, seed))
    table = read_csv(home / "augmented.csv")
    return table.assign(path=[str(home / path) for path in table.path])


def _check(pipelines: dict[str, iaa.Augmenter], images: pd.DataFrame, copies: int) -> None:
    if "split" in images and set(images.split) - {"train"}:
        others = ", ".join(sorted(set(images.split) - {"train"}))
        raise ValueError(f"Images of {others} would be augmented; only those of the training side may be.")
    if not len(images) or not pipelines or copies < 1:
        raise ValueError(
            f"Nothing to write: {len(images)} images, {len(pipelines)} pipelines, copies {copies}; each must be >= 1."
        )
    for name in pipelines:
        checked_name("The name of a pipeline", name)


def _write(pipelines, images: pd.DataFrame, root: Path, draft: Path, image_size: int, copies: int, seed: int):
    """Write all files into `draft` and return their table; memory holds one batch."""
    rows = []
    batches = image_batches([root / path for path in images.path], image_size, BATCH)
    for step, batch in enumerate(batches):
        sources = images.iloc[step * BATCH : (step + 1) * BATCH]
        originals = as_uint8(batch).numpy()
        for number, (name, augmenter) in enumerate(pipelines.items()):
            for copy in range(copies):
                augmented = augment_batch(augmenter, originals, [seed, step, number, copy])
                for place, (picture, source) in enumerate(zip(augmented, sources.itertuples(), strict=True)):
                    file = f"{step * BATCH + place:06d}-{name}-{copy + 1}.png"
                    Image.fromarray(picture).save(draft / file, compress_level=1)
                    rows.append((file, source.path, source.label, source.group, name))
    return pd.DataFrame(rows, columns=["path", "source_path", "label", "group", "pipeline"])


def _digest(pipelines: dict[str, iaa.Augmenter], images: pd.DataFrame, root: Path, settings: list[int]) -> str:
    """Twelve hex digits that change with anything the files depend on."""
    files = [file_sha256(root / path) for path in images.path]
    rows = [files, *(images[column].astype(str).tolist() for column in ("path", "label", "group"))]
    return hashlib.sha256(
        json.dumps([rows, pipelines_digest(pipelines), settings, PREPROCESS_VERSION]).encode()
    ).hexdigest()[:12]


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


def before_and_after(
    files: list[Path], pipelines: dict[str, iaa.Augmenter], image_size: int, versions: int = 2, seed: int = 0
) -> Figure:
    """Each image as the network gets it without augmentation, then `versions` of what each pipeline makes of it.

    Args:
        files: image files, one row each.
        pipelines: name to augmenter.
        image_size: side of the images in pixels.
    """
    originals = np.concatenate([as_uint8(batch) for batch in image_batches(files, image_size, BATCH)])
    columns = {"before": originals}
    for number, (name, augmenter) in enumerate(pipelines.items()):
        for version in range(versions):
            columns[f"{name} {version + 1}"] = augment_batch(augmenter, originals, [seed, number, version])
    size = (1.5 * len(columns), 1.5 * len(files) + 0.3)
    figure, axes = plt.subplots(len(files), len(columns), figsize=size, squeeze=False, layout="constrained")
    for column, (title, pictures) in zip(axes.T, columns.items(), strict=True):
        column[0].set_title(title, fontsize=9, parse_math=False)
        for axis, picture in zip(column, pictures, strict=True):
            axis.imshow(picture)
            axis.axis("off")
    plt.close(figure)
    return figure
