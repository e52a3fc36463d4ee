"""Finer labels as a second question in training: which melanoma, which nevus, beside malignant or benign.

A network that must also tell the kinds apart learns more of the subject from the same images (multitask learning,
Caruana 1997, doi 10.1023/A:1007379606734; diseases below two classes of skin lesions, Esteva et al. 2017, doi
10.1038/nature21056). The second head is for training only: the classifier that is kept ends in the classes alone.
Targets stand side by side, float [n, K + F]: one-hot classes, then one-hot fine labels, all 0 where unknown.
"""

import keras
import numpy as np
import pandas as pd


def fine_targets(manifest: pd.DataFrame, column: str) -> tuple[list[str], np.ndarray]:
    """Names of the fine labels (sorted) and float [n, F], one-hot; rows without a value are 0. No column: F is 0.

    Raises:
        ValueError: if the column holds fewer than two values.
    """
    if not column:
        return [], np.zeros((len(manifest), 0))
    values = manifest[column].where(manifest[column].notna(), "").astype(str)
    names = sorted(set(values) - {""})
    if len(names) < 2:
        raise ValueError(
            f"FINE_LABELS is {column!r}, and that column of manifest.csv holds {len(names)} value(s); "
            "two or more are needed, or '' for no finer labels."
        )
    return names, (values.to_numpy()[:, None] == np.array(names, dtype=object)).astype(float)


def with_fine_head(head: keras.Model, fine_labels: int, dropout: float) -> keras.Model:
    """`head` (features [n, d] to class scores [n, K]) and, beside it, one that asks for the fine labels.

    Returns:
        features [n, d] to [n, K + fine_labels], two softmaxes side by side; the layer "head" is `head`. With no
        fine labels its scores alone.
    """
    features = keras.Input(head.input_shape[1:])
    scores = head(features)
    if fine_labels:
        kept = keras.layers.Dropout(dropout, name="fine_dropout")(features)
        fine = keras.layers.Dense(fine_labels, activation="softmax", name="fine_scores", dtype="float32")(kept)
        scores = keras.layers.Concatenate(name="side_by_side", dtype="float32")([scores, fine])
    return keras.Model(features, scores, name="heads")


class TwoQuestions(keras.losses.Loss):
    """Cross-entropy of the classes plus that of the fine labels, where these are known; both count alike.

    For targets and scores [n, K + F]. With F = 0 it is Keras' categorical cross-entropy.

    Args:
        classes: K.
        label_smoothing: 0 to below 1, for both.
    """

    def __init__(self, classes: int, label_smoothing: float = 0.0):
        super().__init__(name="two_questions")
        self.classes, self.label_smoothing = classes, label_smoothing

    def call(self, y_true, y_pred):
        """Loss [n] of each image."""
        loss = self._entropy(y_true[:, : self.classes], y_pred[:, : self.classes])
        if y_pred.shape[1] == self.classes:
            return loss
        fine = y_true[:, self.classes :]
        return loss + keras.ops.sum(fine, axis=1) * self._entropy(fine, y_pred[:, self.classes :])

    def _entropy(self, targets, scores):
        return keras.losses.categorical_crossentropy(targets, scores, label_smoothing=self.label_smoothing)


def class_accuracy(classes: int) -> keras.metrics.Metric:
    """Metric "accuracy" of the first `classes` columns, whatever stands beside them."""

    def right(y_true, y_pred):
        return keras.metrics.categorical_accuracy(y_true[:, :classes], y_pred[:, :classes])

    return keras.metrics.MeanMetricWrapper(right, name="accuracy")
