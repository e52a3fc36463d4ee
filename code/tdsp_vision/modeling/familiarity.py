"""Is this picture like those the model was trained on? A classifier names a class for a cat as readily as for a lesion.

In: features float32 [n, d] of a frozen or refined network. Out: `familiar`, float32 [n, 1]: the share of unseen images
of the same source that are less like the training images than this one. 1: typical; below 0.05: rarer than one image in
twenty; 0: farther away than any. It changes no label. What is measured is how far an image lies from the mean of the
training images, each feature in units of its own deviation, leaving out the few directions in which training images
vary most: being far out there is nothing unusual.

It sees that something differs, not what: other cameras and archives of the same subject can be as unusual as another
subject, and a picture that is plainer than the training images is less conspicuous than one with more in it.
"""

from collections.abc import Iterable

import keras
import numpy as np
from sklearn.utils.extmath import randomized_svd

from tdsp_vision.modeling.svm import Standardizer

DIRECTIONS = 8  # more find other subjects no better, and take longer
STEPS = 200  # of the distribution of distances, at most


def build_familiarity(features: np.ndarray, folds: Iterable[tuple[np.ndarray, np.ndarray]]) -> keras.Model:
    """A model of built-in layers from features to `familiar`, to be put beside a classifier's head.

    Args:
        features: float32 [n, d].
        folds: pairs of row numbers, of images to learn from and of unseen ones to compare with. A network that learned
            from its training images knows these too well, so there is one pair, training and validation; with a frozen
            network cross-validation in whole groups makes more of the same images.

    Returns:
        model from float32 [n, d] to float32 [n, 1], 0 to 1.

    Raises:
        ValueError: if there is no fold, or one has fewer than two images to learn from.
    """
    folds = list(folds)
    if not folds or min(len(learned) for learned, _ in folds) < 2:
        raise ValueError(
            f"Familiarity needs folds with two or more images to learn from; there are {len(folds)} folds, with "
            f"{[len(learned) for learned, _ in folds]} images."
        )
    unseen = [_distance(features[learned]).predict(features[others], verbose=0) for learned, others in folds]
    distance = _distance(features[np.unique(np.concatenate([learned for learned, _ in folds]))])
    share = _share_beyond(np.concatenate(unseen)[:, 0].astype(np.float64))
    return keras.Model(distance.input, share(distance.output), name="familiar")


def in_one_output(model: keras.Model) -> keras.Model:
    """A classifier with outputs `scores` and `familiar` as one with float32 [n, K + 1], familiar last.

    One that has scores only is returned as it is.
    """
    if not isinstance(model.output, dict):
        return model
    both = keras.layers.Concatenate()([model.output["scores"], model.output["familiar"]])
    return keras.Model(model.input, both, name=model.name)


def _distance(features: np.ndarray) -> keras.Model:
    """From features to the mean square of what is left of them outside of the main directions, float32 [n, 1]."""
    scaler = Standardizer().fit(features)
    count = min(DIRECTIONS, len(features) // 2, features.shape[1] - 1)
    main = randomized_svd(scaler.transform(features), count, random_state=0)[2]
    inputs = keras.Input(features.shape[1:], name="features")
    scale = keras.layers.Normalization(mean=scaler.mean_, variance=scaler.scale_**2, name="standardize")
    standardized = scale(inputs)
    along = keras.layers.Dense(count, use_bias=False, name="main_directions")
    # By Pythagoras: the square of the whole length is that along the main directions and that outside of them.
    squares = [keras.layers.Dot(1)([part, part]) for part in (standardized, along(standardized))]
    outside = keras.layers.Rescaling(1 / features.shape[1])(keras.layers.Subtract()(squares))
    along.set_weights([main.T])
    return keras.Model(inputs, outside, name="distance")


def _share_beyond(distances: np.ndarray) -> keras.Sequential:
    """Layers from a distance, float32 [n, 1], to the share of `distances` beyond it, interpolated, float32 [n, 1].

    The share falls from 1 to 0 in steps between quantiles: each a ramp, which is what Keras' `hard_sigmoid` is (0 up to
    -3, 1 from 3 on). The last one ends at twice the largest distance, so that what lies far out keeps its order.
    """
    count = min(len(distances), STEPS)
    knots = np.quantile(distances, np.linspace(0, 1, count))
    knots = np.append(knots, 2 * knots[-1])
    widths = np.maximum(np.diff(knots), 1e-6 * max(knots[-1], 1e-6))  # equal distances: a very steep ramp
    ramps = keras.layers.Dense(count, activation="hard_sigmoid", name="ramps")
    share = keras.layers.Dense(1, name="share")
    model = keras.Sequential([keras.Input((1,)), ramps, share], name="share_beyond")
    ramps.set_weights([6 / widths[None], -3 - 6 * knots[:-1] / widths])
    share.set_weights([np.full((count, 1), -1 / count), np.ones(1)])
    return model
