"""Heat maps beside the photos that they explain, for the images on which a classifier was surest, right and wrong.

Arrays as in `explain`: images float32 [n, S, S, 3], RGB, 0 to 255; maps float32 [n, S, S], positive speaks for.
"""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

FOR_AND_AGAINST = "RdBu_r"  # red for, blue against: told apart by colour-blind people (ColorBrewer 2.0)


def surest(
    labels: np.ndarray,
    predicted: np.ndarray,
    scores: np.ndarray,
    classes: list[str],
    positive_class: str = "",
    count: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """Which images were called rightly with the highest score, and which wrongly.

    Args:
        labels, predicted: class names [n].
        scores: float [n, K], columns in the order of `classes`.
        positive_class: only images of this class, its hits and misses; "" for images of all classes.
        count: at most this many of each.

    Returns:
        hits, misses: int [up to count], row numbers, the surest first.
    """
    called = np.array([classes.index(name) for name in predicted], int)
    order = np.argsort(-scores[np.arange(len(called)), called], kind="stable")
    asked = labels == positive_class if positive_class else np.ones(len(labels), bool)
    right = labels == predicted
    return order[(asked & right)[order]][:count], order[(asked & ~right)[order]][:count]


def explanation_grid(
    images: np.ndarray, maps: np.ndarray, captions: list[str], class_name: str, columns: int = 4, title: str = ""
) -> Figure:
    """Each photo and, to its right, its map on the photo in gray, `columns` such pairs in a row.

    All maps share one scale, so a pale one means weak evidence; the strongest 0.5 % of all places are cut off.

    Args:
        captions: one per image, say true class, predicted class and score.
        class_name: what the maps speak for or against, for the colour bar.

    Raises:
        ValueError: if there are not as many maps and captions as images, or no images.
    """
    if not len(images) or {len(images), len(maps), len(captions)} != {len(images)}:
        raise ValueError(
            f"explanation_grid got {len(images)} images, {len(maps)} maps and {len(captions)} captions; "
            "it needs at least one image, and one map and one caption for each."
        )
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, 2 * columns, figsize=(3.3 * columns, 2.1 * rows + 0.8), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    limit = float(np.percentile(np.abs(maps), 99.5)) or 1.0
    for photo, overlay, image, evidence, caption in zip(
        axes.flat[::2], axes.flat[1::2], images, maps, captions, strict=False
    ):
        photo.imshow(image / 255)
        photo.set_title(caption, loc="left", fontsize=8, parse_math=False)
        overlay.imshow(image.mean(axis=-1), cmap="gray", vmin=0, vmax=255)
        colored = overlay.imshow(evidence, cmap=FOR_AND_AGAINST, vmin=-limit, vmax=limit, alpha=0.6)
    bar = figure.colorbar(colored, ax=axes, orientation="horizontal", shrink=0.5, aspect=40)
    bar.set_ticks([-limit, 0, limit], labels=[f"speaks against {class_name}", "0", f"speaks for {class_name}"])
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, parse_math=False)
    plt.close(figure)
    return figure
