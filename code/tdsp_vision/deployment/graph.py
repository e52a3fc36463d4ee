"""What the exported SavedModel does around the network: bytes to pictures, scores to labels, both in the graph.

In: encoded images (string [n]), pictures (float32 [n, S, S, 3], RGB, 0 to 255) or serialized tf.train.Example.
Out: scores float32 [n, K] (class probabilities), label string [n], valid bool [n]. An image that cannot be decoded
leaves zeros, an empty label and valid = false, and the other images of the batch are scored as usual.
"""

from dataclasses import dataclass

import keras
import tensorflow as tf

from tdsp_vision.modeling.batches import preprocess


@dataclass(frozen=True)
class Decision:
    """How scores become a label.

    Attributes:
        classes: names of the K classes, in the order of the model's outputs.
        positive_class: one of `classes`, or "" for a task without one.
        threshold: score from which an image is called positive; None for a task without a positive class.
    """

    classes: list[str]
    positive_class: str
    threshold: float | None

    def labels(self, scores: tf.Tensor) -> tf.Tensor:
        """Class names, string [n], for scores float32 [n, K]; the same rule as `modeling.metrics.decide`.

        With a positive class: that one from the threshold on, else the best other class. Without: the class with
        the highest score, the first one in a tie.
        """
        if not self.positive_class:
            return tf.gather(tf.constant(self.classes), tf.argmax(scores, axis=1))
        positive = self.classes.index(self.positive_class)
        others = [i for i in range(len(self.classes)) if i != positive]
        best_other = tf.gather(others, tf.argmax(tf.gather(scores, others, axis=1), axis=1))
        is_positive = scores[:, positive] >= self.threshold
        return tf.gather(tf.constant(self.classes), tf.where(is_positive, positive, best_other))


def decode_batch(image_bytes: tf.Tensor, image_size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Decode a batch of which any image may be damaged; the images are decoded in parallel.

    An error inside `tf.map_fn` fails the whole batch. A dataset can drop an error, so each image goes through a
    dataset of its own, which puts a blank in its place.

    Args:
        image_bytes: string [n], encoded images.
        image_size: side S of the pictures in pixels.

    Returns:
        Pictures float32 [m, S, S, 3] (zeros for a damaged one) and valid bool [m], with m = max(n, 1): an empty
        batch becomes one blank, because convolutions do not accept an empty batch in every graph.
    """
    shape = [image_size, image_size, 3]
    options = tf.data.Options()  # tuning and rewriting do not pay in a dataset that lives for one image
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False

    def picture_or_blank(encoded):
        blank = tf.data.Dataset.from_tensors((tf.zeros(shape), False))
        picture = tf.data.Dataset.from_tensors(encoded).map(lambda data: (preprocess(data, image_size), True))
        first = picture.ignore_errors().concatenate(blank).take(1).with_options(options)
        return first.get_single_element()

    padding = tf.fill([tf.maximum(1 - tf.size(image_bytes), 0)], "")
    result = (tf.TensorSpec(shape, tf.float32), tf.TensorSpec([], tf.bool))
    at_least_one = tf.concat([image_bytes, padding], axis=0)
    return tf.map_fn(picture_or_blank, at_least_one, fn_output_signature=result, parallel_iterations=16)


def add_endpoints(archive: keras.export.ExportArchive, model: keras.Model, decision: Decision, image_size: int) -> None:
    """Add the three signatures to an archive that tracks `model`.

    `serving_default`: `image_bytes` string [n] -> `scores`, `label`, `valid`.
    `float_images`: `images` float32 [n, S, S, 3] -> `scores`, `label`.
    `classify`: `inputs`, serialized tf.train.Example [n] with the feature `image_bytes` -> `classes` string [n, K],
    `scores`; an Example without the feature scores zeros. No output's name ends in `_bytes`: TensorFlow Serving
    would write such an output in base64.
    """

    def score_bytes(image_bytes):
        images, valid = decode_batch(image_bytes, image_size)
        scores = tf.where(valid[:, tf.newaxis], model(images, training=False), 0.0)
        count = tf.size(image_bytes)
        return scores[:count], valid[:count]

    def serving_default(image_bytes):
        scores, valid = score_bytes(image_bytes)
        return {"scores": scores, "label": tf.where(valid, decision.labels(scores), ""), "valid": valid}

    def float_images(images):
        scores = model(images, training=False)
        return {"scores": scores, "label": decision.labels(scores)}

    def classify(inputs):
        feature = tf.io.FixedLenFeature([], tf.string, default_value="")
        scores, _ = score_bytes(tf.io.parse_example(inputs, {"image_bytes": feature})["image_bytes"])
        return {"classes": tf.tile([decision.classes], [tf.shape(scores)[0], 1]), "scores": scores}

    strings = tf.TensorSpec([None], tf.string, name="image_bytes")
    archive.add_endpoint("serving_default", serving_default, [strings])
    pictures = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, name="images")
    archive.add_endpoint("float_images", float_images, [pictures])
    archive.add_endpoint("classify", classify, [tf.TensorSpec([None], tf.string, name="inputs")])
