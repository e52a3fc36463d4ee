"""Refine a pre-trained network: the parts that are wrong in ways one does not see. The recipe is in the notebook."""

import keras
import numpy as np
from sklearn.utils.class_weight import compute_class_weight


def freeze_batch_normalization(model: keras.Model) -> int:
    """Keep the means and variances of ImageNet in every batch normalization; returns how many were frozen.

    A batch of 32 pictures, out of a few hundred, estimates them badly: training then looks well and evaluation,
    which uses the running averages, does not. A frozen layer also normalizes in the same way in both (Keras
    guide "Transfer learning and fine-tuning").
    """
    frozen = 0
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            frozen += freeze_batch_normalization(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False
            frozen += 1
    return frozen


def class_weights(targets: np.ndarray) -> dict[int, float]:
    """A weight for each class, n / (K * n_class), for `fit`: the rarer a class, the more each of its images counts.

    Args:
        targets: int [n], 0 to K - 1.
    """
    classes = np.unique(targets)
    weights = compute_class_weight("balanced", classes=classes, y=targets)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))
