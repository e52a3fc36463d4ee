"""Is this picture like those the model was trained on? A classifier names a class for a cat as readily as for a lesion.

In: features float32 [n, d] of a frozen or refined network. Out: `familiar`, float32: the share of unseen images of the
same source that are less like the training images than this one. 1: typical; below `UNFAMILIAR`: rarer than one image
in twenty; 0: farther away than any. It changes no label. What is measured is how far an image lies from the mean of the
training images, each feature in units of its own deviation, leaving out the few directions in which training images
vary most: being far out there is nothing unusual.

It sees that something differs, not what: other cameras and archives of the same subject can be as unusual as another
subject, and a picture that is plainer than the training images is less conspicuous than one with more in it.
"""

import keras
import numpy as np
from sklearn.utils.extmath import randomized_svd

from tdsp_vision.modeling.splits import group_folds
from tdsp_vision.modeling.svm import Standardizer

UNFAMILIAR = 0.05
DIRECTIONS = 8  # more find other subjects no better, and take longer
STEPS = 200  # of the distribution of distances, at most


def with_familiar(model: keras.Model, features: np.ndarray, groups, learning, choosing, seed: int) -> tuple:
    """A classifier with a second output, and what that output says of each image.

    Args:
        model: from images to scores, its last layer a dense one on the features (`backbones.classifier`).
        features: float32 [n, d], of all images, as that layer gets them.
        groups: [n], what belongs together.
        learning, choosing: bool [n]. Distances of unseen images are those of `choosing`. A refined network knows the
            images that it learned from too well, so the two are apart; with a frozen network they are the same
            images, and cross-validation in whole groups makes each of them an unseen one.
        seed: of the folds.

    Returns:
        model of built-in layers to {"scores": float32 [n, K], "familiar": float32 [n, 1]}; familiar, float32 [n].
    """
    rows, others = np.flatnonzero(learning), np.flatnonzero(choosing)
    folds = [(rows, others)]
    if (learning & choosing).any():
        folds = [(rows[a], rows[b]) for a, b in group_folds(np.zeros(len(rows), int), groups[rows], seed)]
    unseen = np.concatenate([_distance(features[rest])(features[fold]).numpy() for rest, fold in folds])
    distance = _distance(features[rows])
    familiar = keras.Model(distance.input, _share_beyond(unseen[:, 0])(distance.output), name="familiar")
    outputs = {"scores": model.output, "familiar": familiar(model.layers[-1].input)}
    return keras.Model(model.input, outputs, name=model.name), familiar(features).numpy()[:, 0]


def _distance(features: np.ndarray) -> keras.Model:
    """From features to the mean square of what is left of them outside of the main directions, float32 [n, 1]."""
    scaler = Standardizer().fit(features)
    count = min(DIRECTIONS, len(features) // 2, features.shape[1] - 1)
    main = randomized_svd(scaler.transform(features), count, n_iter=2, random_state=0)[2]
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
    knots = np.quantile(distances.astype(np.float64), np.linspace(0, 1, count))
    knots = np.append(knots, 2 * knots[-1])
    widths = np.maximum(np.diff(knots), 1e-6 * max(knots[-1], 1e-6))  # equal distances: a very steep ramp
    ramps = keras.layers.Dense(count, activation="hard_sigmoid", name="ramps")
    share = keras.layers.Dense(1, name="share")
    model = keras.Sequential([keras.Input((1,)), ramps, share], name="share_beyond")
    ramps.set_weights([6 / widths[None], -3 - 6 * knots[:-1] / widths])
    share.set_weights([np.full((count, 1), -1 / count), np.ones(1)])
    return model
