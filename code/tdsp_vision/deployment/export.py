"""A run's Keras model to a version of a served model, in the form TensorFlow Serving loads.

In: `runs/<run_id>/model.keras` (input float32 [n, S, S, 3], RGB, 0 to 255; outputs scores float32 [n, K],
probabilities, and familiar float32 [n, 1]) and `metrics.json` (`classes, positive_class, image_size,
validation.threshold`).
Out: `serving/<model>/<version>/`, see `versions`: a SavedModel with three signatures, which take encoded images
(string [n]), pictures (float32 [n, S, S, 3]) or serialized tf.train.Example (string [n]) and give scores
float32 [n, K]; the first two also familiar float32 [n]. Decoding, resizing and the decision are
inside of the graph. It reads JPEG and PNG, the two kinds that a data set holds; the client converts all others as
stage 1 does. An image of another kind, or that cannot be decoded, or has more pixels than `MAX_PIXELS`, gets zeros, an
empty label and valid = false; the others of its batch are scored as usual.
"""

from contextlib import suppress
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tdsp_vision.data.tables import file_sha256, read_json
from tdsp_vision.deployment import versions
from tdsp_vision.deployment.server import ServedVersion
from tdsp_vision.files import write_json
from tdsp_vision.modeling.backbones import load_classifier
from tdsp_vision.modeling.batches import preprocess
from tdsp_vision.paths import shown

AT_ONCE = 2  # images of one batch that are decoded side by side: the largest that are accepted take 0.3 GB each
MAX_PIXELS = 100_000_000  # of a JPEG; of any other image half as many: each takes at most 0.3 GB then


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
    if not (run_folder / "model.keras").is_file():
        raise FileNotFoundError(f"{shown(run_folder / 'model.keras')} is missing; name another run, or train anew.")
    metrics = read_json(run_folder / "metrics.json")
    info = {name: metrics[name] for name in ("classes", "positive_class", "image_size")} | {"run_id": run_folder.name}
    info |= {"threshold": metrics["validation"]["threshold"], "model_sha256": file_sha256(run_folder / "model.keras")}
    for number in reversed(versions.versions_in(serving_folder)):
        folder = serving_folder / str(number)
        with suppress(OSError, ValueError):  # not whole: no run is known by it
            known = versions.read_model_info(folder)
            if known == info | {"probe_scores": known.get("probe_scores")}:
                return folder
    with versions.new_version(serving_folder) as draft:
        model = load_classifier(run_folder / "model.keras")
        _check_fit(model, info)
        _save(draft, model, info)
        probe = preprocess(versions.probe_image(), info["image_size"])[tf.newaxis]
        scores = np.asarray(model(probe, training=False)["scores"])[0]
        write_json(draft / versions.MODEL_INFO, info | {"probe_scores": scores.tolist()})
        verify_export(draft, model, [versions.probe_image(), b"not an image"])
        for path in [draft, *draft.rglob("*")]:  # the server in a container is another user than this one
            path.chmod(0o755 if path.is_dir() else 0o644)
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
    size = versions.read_model_info(version)["image_size"]
    pictures, valid = tf.function(decode_batch)(tf.constant(image_bytes), size)  # one graph, and not one for each image
    expected = _answers(model(pictures, training=False), valid)["scores"]
    answer = ServedVersion(version).run("serving_default", {"image_bytes": np.array(image_bytes, dtype=object)})
    largest = float(np.abs(answer["scores"] - expected).max())
    if not largest <= tolerance:  # written so that NaN fails as well
        found = f"The export differs from the Keras model by {largest:.3g}; at most {tolerance:g} is allowed"
        raise ValueError(f"{found}. Export the run again; do not serve this version.")
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
    blank = tf.data.Dataset.from_tensors((tf.zeros([image_size, image_size, 3]), False))
    options = tf.data.Options()  # tuning and rewriting do not pay in a dataset that lives for one image
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False

    def read(content):  # an error for no bytes at all, which take the place of too many pixels
        return preprocess(tf.where(_pixels(content) <= MAX_PIXELS, content, ""), image_size), True

    def read_or_blank(content):
        picture = tf.data.Dataset.from_tensors(content).map(read).ignore_errors()
        return picture.concatenate(blank).take(1).with_options(options).get_single_element()

    return tf.map_fn(read_or_blank, image_bytes, fn_output_signature=blank.element_spec, parallel_iterations=AT_ONCE)


def _pixels(content: tf.Tensor) -> tf.Tensor:
    """How many pixels an encoded image unfolds to by its header, int64 []; 2 ** 40 for a kind that is not read.

    A PNG of 31 kB can take gigabytes when it is decoded, and TensorFlow Serving has no Python that could look at it
    first. A JPEG is decoded at a fraction of its size where that is enough, so all other pixels count twice.
    Source: PNG specification, 11.2.2.
    """

    def jpeg():
        return tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.int64))

    def png():
        size = tf.io.decode_raw(content, tf.int32, little_endian=False, fixed_length=24)[4:]  # the last two of six
        is_png = tf.strings.substr(content, 0, 8) == b"\x89PNG\r\n\x1a\n"
        return tf.where(is_png, 2 * tf.reduce_prod(tf.cast(size, tf.int64)), np.int64(2**40))

    return tf.cond(tf.io.is_jpeg(content), jpeg, png)


def _answers(found: dict[str, tf.Tensor], valid: tf.Tensor) -> dict[str, tf.Tensor]:
    """What a model says, as scores [n, K] and familiar [n] by name; zeros where `valid`, bool [n], is false."""
    found = {name: tf.where(valid[:, tf.newaxis], values, 0.0) for name, values in found.items()}
    return found | {"familiar": found["familiar"][:, 0]}


def _labels(scores: tf.Tensor, info: dict) -> tf.Tensor:
    """Class names, string [n], for scores float32 [n, K]; the same rule as `modeling.metrics.decide`.

    With a positive class: that one from the threshold on, else the best other class. Without: the class whose
    score is highest relative to its share, the first one in a tie.
    """
    scores, threshold = tf.cast(scores, tf.float64), tf.constant(info["threshold"], tf.float64)  # as `decide` computes
    if info["positive_class"]:
        decided = 3 * tf.cast(scores >= threshold, tf.float64) - 1  # above or below all others
        scores = tf.where([name == info["positive_class"] for name in info["classes"]], decided, scores)
    else:
        scores /= threshold
    return tf.gather(info["classes"], tf.argmax(scores, axis=1))


def _save(folder: Path, model: keras.Model, info: dict) -> None:
    """Write the SavedModel with its three signatures.

    The weights are constants of its graph: TensorFlow's CPU kernels (oneDNN) bring constants into the order they
    compute in once, and variables anew in each request. So they may take 2 GB, which a graph's file holds at most.
    No output's name ends in `_bytes`: TensorFlow Serving would write it in base64.
    """
    model = _without_fused_sums(model)
    size, pictures = info["image_size"], tf.TensorSpec([None, *model.input_shape[1:]], tf.float32, name="images")

    weights = [(variable, variable.value.numpy()) for variable in model.variables]

    @tf.function(input_signature=[pictures])
    def network(images):
        with keras.StatelessScope([(variable, tf.constant(value)) for variable, value in weights]):
            return model(images, training=False)

    def serving_default(image_bytes):
        images, valid = decode_batch(image_bytes, size)
        answers = _answers(network(images), valid)
        return answers | {"label": tf.where(valid, _labels(answers["scores"], info), ""), "valid": valid}

    def float_images(images):
        answers = _answers(network(images), tf.fill([tf.shape(images)[0]], True))
        return answers | {"label": _labels(answers["scores"], info)}

    def classify(inputs):
        feature = {"image_bytes": tf.io.FixedLenFeature([], tf.string, default_value="")}
        scores = serving_default(tf.io.parse_example(inputs, feature)["image_bytes"])["scores"]
        return {"classes": tf.tile([info["classes"]], [tf.shape(scores)[0], 1]), "scores": scores}

    inputs = {serving_default: tf.TensorSpec([None], tf.string, name="image_bytes"), float_images: pictures}
    inputs |= {classify: tf.TensorSpec([None], tf.string, name="inputs")}
    signatures = {function.__name__: tf.function(function).get_concrete_function(s) for function, s in inputs.items()}
    tf.saved_model.save(tf.Module(), str(folder), signatures=signatures)


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


def _check_fit(model: keras.Model, info: dict) -> None:
    """ValueError where what `metrics.json` says cannot be about this model."""
    numbers = [info["threshold"]] if info["positive_class"] else info["threshold"] or []
    # Keras sorts outputs by name: familiar, then the scores.
    sizes = (len(model.outputs), model.input_shape[1], model.outputs[-1].shape[-1])
    known = sizes == (2, info["image_size"], len(info["classes"])) and info["positive_class"] in ["", *info["classes"]]
    if not (known and numbers and all(isinstance(value, int | float) for value in numbers)):
        found = f"metrics.json of run {info['run_id']} does not fit its model"
        raise ValueError(f"{found}: classes, positive_class, threshold of validation or image_size; train anew.")
