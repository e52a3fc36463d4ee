"""A run's Keras model to a version of a served model, in the form TensorFlow Serving loads.

In: `runs/<run_id>/model.keras` (input float32 [n, S, S, 3], RGB, 0 to 255; output scores float32 [n, K], probabilities,
alone or as {"scores": …, "familiar": float32 [n, 1]}) and `metrics.json` (`classes, positive_class, image_size,
validation.threshold`).
Out: `serving/<model>/<version>/`, see `versions`: a SavedModel with three signatures, which take encoded images
(string [n]), pictures (float32 [n, S, S, 3]) or serialized tf.train.Example (string [n]) and give scores
float32 [n, K]; the first two also familiar float32 [n], where the model has it. Decoding, resizing and the decision are
inside of the graph. An image that cannot be decoded, or that has more pixels than `pixels` allows, gets zeros, an empty
label and valid = false; the others of its batch are scored as usual.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tdsp_vision import paths
from tdsp_vision.data.tables import file_sha256, read_json
from tdsp_vision.deployment import versions
from tdsp_vision.deployment.pixels import MAX_PIXELS, pixel_count
from tdsp_vision.deployment.session import ServedVersion
from tdsp_vision.files import write_json
from tdsp_vision.modeling.backbones import load_classifier
from tdsp_vision.modeling.batches import preprocess

AT_ONCE = 2  # images of one batch that are decoded side by side: the largest that are accepted take 0.3 GB each


def export_model(run_folder: Path, serving_folder: Path) -> Path:
    """The version of a served model that holds a run's model: the one that is there, else the next one, new.

    It appears whole and proven to load, or not at all.

    Args:
        run_folder: `outputs/<dataset>/runs/<run_id>`.
        serving_folder: `outputs/<dataset>/serving/<model>`.

    Returns:
        Folder of the version.

    Raises:
        FileNotFoundError: if the run has no `model.keras` or no `metrics.json`.
        ValueError: if the export scores differently from the model.
    """
    info = _model_info(run_folder)
    for number in reversed(versions.versions_in(serving_folder)):
        folder = serving_folder / str(number)
        try:
            known = versions.read_model_info(folder)
        except (OSError, ValueError):  # not whole: no run is known by it
            known = {}
        if {name: known.get(name) for name in info} == info:
            return folder
    with versions.new_version(serving_folder) as draft:
        _write_version(draft, run_folder, info)
    return versions.version_folder(serving_folder)


def verify_export(version: Path, model: keras.Model, image_bytes: list[bytes], tolerance: float = 1e-5) -> float:
    """Load a version the way TensorFlow Serving does (v1 loader, Session) and compare it with its Keras model.

    Loading in Python proves less: a SavedModel can load there and fail in a Session.

    Args:
        version: the exported version.
        model: the Keras model it was made from.
        image_bytes: encoded images, at least one; damaged ones must come back with zero scores.
        tolerance: largest difference of a score that counts as equal.

    Returns:
        The largest absolute difference between a served score and the Keras model's.

    Raises:
        ValueError: if the scores differ by more.
    """
    pictures, valid = decode_batch(tf.constant(image_bytes), versions.read_model_info(version)["image_size"])
    expected = _answers(model, pictures, valid)["scores"]
    answer = ServedVersion(version).run("serving_default", {"image_bytes": np.array(image_bytes, dtype=object)})
    largest = float(np.abs(answer["scores"] - expected).max())
    if not largest <= tolerance:  # written so that NaN fails as well
        raise ValueError(
            f"The export differs from the Keras model by {largest:.3g}; at most {tolerance:g} is allowed. "
            "Export the run again; do not serve this version."
        )
    return largest


def decode_batch(image_bytes: tf.Tensor, image_size: int) -> tf.Tensor:
    """Decode a batch of which any image may be damaged or too large.

    An error inside `tf.map_fn` fails the whole batch. A dataset can drop an error, so each image goes through a
    dataset of its own, which puts a blank in its place.

    Args:
        image_bytes: string [n], encoded images, n at least 1.
        image_size: side S of the pictures in pixels.

    Returns:
        Pictures float32 [n, S, S, 3] (zeros for a damaged one) and valid bool [n].
    """
    blank = (tf.zeros([image_size, image_size, 3]), False)
    result = (tf.TensorSpec([image_size, image_size, 3], tf.float32), tf.TensorSpec([], tf.bool))

    def read(content):
        check = tf.debugging.assert_less_equal(pixel_count(content), np.int64(MAX_PIXELS))
        with tf.control_dependencies([check]):
            return preprocess(tf.identity(content), image_size), True

    def read_or_blank(content):
        return _first(content, read, blank)

    return tf.map_fn(read_or_blank, image_bytes, fn_output_signature=result, parallel_iterations=AT_ONCE)


def _first(content: tf.Tensor, function, otherwise):
    """`function(content)`, or `otherwise` where it fails."""
    options = tf.data.Options()  # tuning and rewriting do not pay in a dataset that lives for one image
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    found = tf.data.Dataset.from_tensors(content).map(function).ignore_errors()
    found = found.concatenate(tf.data.Dataset.from_tensors(otherwise)).take(1)
    return found.with_options(options).get_single_element()


def _answers(model: keras.Model, images: tf.Tensor, valid: tf.Tensor) -> dict[str, tf.Tensor]:
    """Scores, and `familiar` [n] of a model that has it, by name; zeros where `valid`, bool [n], is false."""
    found = model(images, training=False)
    found = found if isinstance(found, dict) else {"scores": found}
    found = {name: tf.where(valid[:, tf.newaxis], values, 0.0) for name, values in found.items()}
    return found | ({"familiar": found["familiar"][:, 0]} if "familiar" in found else {})


def _labels(scores: tf.Tensor, info: dict) -> tf.Tensor:
    """Class names, string [n], for scores float32 [n, K]; the same rule as `modeling.metrics.decide`.

    With a positive class: that one from the threshold on, else the best other class. Without: the class whose
    score is highest relative to its share, the first one in a tie.
    """
    classes = tf.constant(info["classes"])
    if not info["positive_class"]:
        relative = tf.cast(scores, tf.float64) / tf.constant(info["threshold"], tf.float64)
        return tf.gather(classes, tf.argmax(relative, axis=1))
    positive = info["classes"].index(info["positive_class"])
    others = [index for index in range(len(info["classes"])) if index != positive]
    best_other = tf.gather(others, tf.argmax(tf.gather(scores, others, axis=1), axis=1))
    return tf.gather(classes, tf.where(scores[:, positive] >= info["threshold"], positive, best_other))


def _save(folder: Path, model: keras.Model, info: dict) -> None:
    """Write the SavedModel with its three signatures.

    No output's name ends in `_bytes`: TensorFlow Serving would write it in base64.
    """
    model = _without_fused_sums(model)
    size = info["image_size"]

    def serving_default(image_bytes):
        """Encoded images, also none at all."""
        count = tf.size(image_bytes)
        blank = tf.fill([tf.maximum(1 - count, 0)], "")  # convolutions do not accept an empty batch in every graph
        images, valid = decode_batch(tf.concat([image_bytes, blank], axis=0), size)
        answers = _answers(model, images, valid)
        answers |= {"label": tf.where(valid, _labels(answers["scores"], info), ""), "valid": valid}
        return {name: values[:count] for name, values in answers.items()}

    def float_images(images):
        answers = _answers(model, images, tf.fill([tf.shape(images)[0]], True))
        return answers | {"label": _labels(answers["scores"], info)}

    def classify(inputs):
        feature = {"image_bytes": tf.io.FixedLenFeature([], tf.string, default_value="")}
        scores = serving_default(tf.io.parse_example(inputs, feature)["image_bytes"])["scores"]
        return {"classes": tf.tile([info["classes"]], [tf.shape(scores)[0], 1]), "scores": scores}

    pictures = tf.TensorSpec([None, size, size, 3], tf.float32, name="images")
    inputs = {serving_default: tf.TensorSpec([None], tf.string, name="image_bytes"), float_images: pictures}
    inputs |= {classify: tf.TensorSpec([None], tf.string, name="inputs")}
    module = tf.Module()
    module.weights = [variable.value for variable in model.variables]
    signatures = {function.__name__: tf.function(function).get_concrete_function(s) for function, s in inputs.items()}
    tf.saved_model.save(module, str(folder), signatures=signatures)


class _Barrier(keras.layers.Layer):
    """Gives back what it gets, in an operation that TensorFlow does not optimize away."""

    def call(self, x):
        return tf.ensure_shape(x, x.shape)


def _without_fused_sums(model):
    """The same model, the same weights, where no sum is computed inside of the convolution or product before it.

    TensorFlow's CPU kernels would do that (oneDNN, seen in 2.21), and their sums keep pointers of one request where
    another one overwrites them: a server that answers two requests at once crashes within seconds.
    """

    def call(layer, x, *others, **options):
        x = [_Barrier()(summand) for summand in x] if isinstance(layer, keras.layers.Add) else x
        return layer(x, *others, **options)

    if not isinstance(model, keras.Model) or isinstance(model, keras.Sequential):
        return model  # a layer, or a chain, which adds nothing up
    return keras.models.clone_model(model, clone_function=_without_fused_sums, call_function=call)


def _write_version(draft: Path, run_folder: Path, info: dict) -> None:
    """Fill the folder of a new version; ValueError if it does not score as the run's model does."""
    model = load_classifier(run_folder / "model.keras")
    scores = model.output["scores"] if isinstance(model.output, dict) else model.output
    fits = model.input_shape[1] == info["image_size"] and scores.shape[-1] == len(info["classes"])
    rule = info["positive_class"] in info["classes"] and isinstance(info["threshold"], int | float)
    if not (fits and (rule or not info["positive_class"])):
        what = "classes, positive_class, threshold of validation or image_size"
        raise ValueError(f"metrics.json of run {run_folder.name} does not fit its model: {what}; train anew.")
    _save(draft, model, info)
    probe = preprocess(tf.constant(versions.probe_image()), info["image_size"])[tf.newaxis]
    scores = _answers(model, probe, tf.constant([True]))["scores"]
    write_json(draft / versions.MODEL_INFO, info | {"probe_scores": np.asarray(scores)[0].tolist()})
    verify_export(draft, model, [versions.probe_image(), b"not an image"])
    for path in [draft, *draft.rglob("*")]:  # the server in a container is another user than this one
        path.chmod(0o755 if path.is_dir() else 0o644)


def _model_info(run_folder: Path) -> dict:
    """Classes and decision rule of a run, and the hash of its model."""
    for needed in ("metrics.json", "model.keras"):
        if not (run_folder / needed).is_file():
            raise FileNotFoundError(f"{paths.shown(run_folder / needed)} is missing; finish modeling.ipynb first.")
    metrics = read_json(run_folder / "metrics.json")
    info = {name: metrics.get(name) for name in ("classes", "positive_class", "image_size")}
    info["threshold"] = metrics.get("validation", {}).get("threshold")
    return info | {"run_id": run_folder.name, "model_sha256": file_sha256(run_folder / "model.keras")}
