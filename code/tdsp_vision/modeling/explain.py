"""Where in a picture the evidence lies: heat maps that add up to what decides, and a test that they can fail.

HiResCAM (Draelos and Carin 2020, arXiv:2011.08891): gradient times activation, place by place, summed over channels.
Where layers reach the scores by global average and dense layer only, as in the residual networks, EfficientNet-Lite0
and the SVM on pooled layers, the gradient is exact and so is the map: it tells where each summand of the score comes
from. Grad-CAM averages the gradient first and would, for the SVM, show one of many layers. In AlexNet, hidden dense
layers follow the last map, and the result is the usual approximation by the gradient at the picture.

What decides for class k is its logit minus the mean logit of the other classes, here its `contrast`: softmax does not
change if all logits rise together, so a logit alone explains nothing.

Arrays: images float32 [n, S, S, 3], RGB, 0 to 255; maps float32 [n, S, S], positive where a place speaks for the class.
"""

from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from scipy.stats import spearmanr
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.preprocessing import StandardScaler

POOLING = (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D, keras.layers.AdaptiveAveragePooling2D)
FAR = 5.0  # standard deviations; further away is as far
CHANGED = 0.5  # a rank correlation below it: another picture


def evidence_maps(model: keras.Model, images: np.ndarray, class_index: int | np.ndarray) -> np.ndarray:
    """How much each place of each picture speaks for (positive) or against (negative) a class.

    Args:
        model: from images to scores, its last layer a dense one, without averaged views (`backbones.classifier`).
        images: float32 [n, S, S, 3], a few dozen at most, since the layers of all are held at once.
        class_index: the class to explain, 0 to K - 1; or one for each image, int [n].

    Returns:
        float32 [n, S, S], contrast per pixel. Where the explained layers are averaged over the picture, a map adds
        up to the contrast minus its bias, whatever the size of the layers. Zeros where a network has no layers with
        maps, or hides them in a model of its own.
    """
    dense = model.layers[-1]
    explained = list({id(tensor): tensor for tensor in _last_maps(dense.input)}.values())
    if not explained:
        return np.zeros(images.shape[:3], np.float32)
    to_layers, to_features = keras.Model(model.input, explained), keras.Model(explained, dense.input)
    kernel = dense.kernel.numpy().astype(np.float32)
    n_classes = kernel.shape[1]
    contrast = (kernel * n_classes - kernel.sum(axis=1, keepdims=True)) / (n_classes - 1)
    wanted = contrast.T[np.broadcast_to(class_index, len(images))]
    layers = keras.tree.flatten(to_layers(images, training=False))
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(layers)
        value = tf.reduce_sum(tf.cast(to_features(layers, training=False), tf.float32) * wanted)
    maps = np.zeros(images.shape[:3], np.float32)
    for layer, slope in zip(layers, tape.gradient(value, layers), strict=True):
        evidence = tf.reduce_sum(tf.cast(layer, tf.float32) * tf.cast(slope, tf.float32), axis=-1)
        maps += _spread(evidence.numpy(), images.shape[1])
    return maps


def randomisation_check(model: keras.Model, images: np.ndarray, class_index, maps: np.ndarray, seed: int) -> str:
    """Do `maps` depend on what was learned? Compared with those of the same network with its weights shuffled.

    The sanity check of Adebayo et al. 2018 (arXiv:1810.03292). Maps that stay as they were (rank correlation 1), or
    only change sign (-1), show edges and not evidence.

    Args:
        model, images, class_index: as for `evidence_maps`; 8 to 16 images are enough. The model stays as it is.
        maps: what `evidence_maps` gave for them.
        seed: of the shuffling, within each layer's weights.

    Returns:
        a sentence with Spearman's rank correlation, mean over the images (0 where a map is the same everywhere).
    """
    rng, shuffled = np.random.default_rng(seed), keras.models.clone_model(model)
    shuffled.set_weights([rng.permutation(values.ravel()).reshape(values.shape) for values in model.get_weights()])
    both = zip(maps, evidence_maps(shuffled, images, class_index), strict=True)
    varying = [(one.ravel(), other.ravel()) for one, other in both if np.ptp(one) and np.ptp(other)]
    found = sum(spearmanr(*pair).statistic for pair in varying) / len(images)
    verdict = "they show what was learned" if abs(found) < CHANGED else "they show edges; do not rely on them"
    return f"With shuffled weights the maps correlate by {found:.2f} (ranks; limit {CHANGED}) with these: {verdict}."


def _last_maps(tensor) -> list:
    """The symbolic tensors [n, h, w, c] from which a vector is made: on each way back the first, before its pooling."""
    # Keras has no public name for what made a tensor; `layer.input` knows only a layer's first use.
    layer, node, _ = tensor._keras_history
    if len(tensor.shape) == 4 and not isinstance(layer, POOLING):
        return [tensor]
    if isinstance(layer, keras.Model):
        return []  # its maps are inside
    return [found for before in layer._inbound_nodes[node].input_tensors for found in _last_maps(before)]


def _spread(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps [n, h, w] enlarged to [n, side, side], linear between places, each keeping its sum."""
    down, across = (_shares(count, side) for count in maps.shape[1:])
    return down @ maps @ across.T


def _shares(count: int, side: int) -> np.ndarray:
    """[side, count]: how what lies at each of `count` places is shared out among `side` pixels; columns sum to 1."""
    centres = (np.arange(side) + 0.5) * count / side - 0.5
    shares = np.stack([np.interp(centres, np.arange(count), row) for row in np.eye(count)], axis=1)
    return (shares / shares.sum(axis=0)).astype(np.float32)


def nearest_training_images(features: np.ndarray, manifest: pd.DataFrame, train: np.ndarray, k: int = 5) -> Callable:
    """A function that finds the training images which look most like a given one to the frozen network.

    Euclidean distance of standardized features, cut off at 5 deviations: the space in which the linear SVM divides the
    classes. Each feature counts the same whatever its unit; cosine would forget how unusual an image is. It is given as
    root mean square over the features: two unrelated images are about 1.4 apart.

    Args:
        features: float [n, d], one row per row of the manifest.
        manifest: n rows with path and label.
        train: bool [n], the training side.
        k: how many at most.

    Returns:
        row number (0 to n - 1) -> columns path, label, distance of its neighbours, nearest first, itself left out.
    """
    # One wild feature hides nothing.
    space = np.clip(StandardScaler().fit(features[train]).transform(features), -FAR, FAR)

    def nearest(row: int) -> pd.DataFrame:
        distances = euclidean_distances(space[[row]], space)[0] / np.sqrt(space.shape[1])
        others = manifest[["path", "label"]].assign(distance=distances)[train & (np.arange(len(train)) != row)]
        return others.nsmallest(k, "distance")

    return nearest
