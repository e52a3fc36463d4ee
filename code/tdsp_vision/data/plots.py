"""Pictures of pictures: a grid of image files with a line of text under each."""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from PIL import Image

from tdsp_vision.data.images import as_rgb

THUMBNAIL = 160  # pixels; the grid is read by people, so full resolution would only make the notebook heavy


def image_grid(files: list[Path], captions: list[str], columns: int = 6, title: str = "") -> Figure:
    """Draw image files in rows of `columns`, each with its caption; the whole picture is shown, in its own shape.

    Raises:
        ValueError: if there is not one caption per file.
    """
    if len(files) != len(captions):
        raise ValueError(f"image_grid got {len(files)} files and {len(captions)} captions; it needs one for each.")
    rows = max(1, -(-len(files) // columns))
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.75 * columns, 2.15 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, file, caption in zip(axes.flat, files, captions, strict=False):
        axis.imshow(thumbnail(file))
        axis.set_title(caption, fontsize=8, parse_math=False)  # a file name may hold $
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    plt.close(figure)
    return figure


def thumbnail(file: Path) -> Image.Image:
    """The picture, shrunk to at most `THUMBNAIL` pixels a side; RGB."""
    with Image.open(file) as image:
        image.draft("RGB", (THUMBNAIL, THUMBNAIL))
        image = as_rgb(image)
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    return image
