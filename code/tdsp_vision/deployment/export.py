"""A run's Keras model to a version of a served model, in the form TensorFlow Serving loads.

In: `runs/<run_id>/model.keras` (input float32 [n, S, S, 3], RGB, 0 to 255; output float32 [n, K], probabilities) and
`metrics.json` (`dataset, classes, positive_class, image_size, validation.threshold`).
Out: `serving/<model>/<version>/`: a SavedModel with the signatures of `graph.add_endpoints`, and beside it
`assets.extra/model_info.json` with the classes and the decision rule, which no prediction carries.
"""

import logging
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tdsp_vision import paths
from tdsp_vision.data.tables import read_json
from tdsp_vision.deployment.graph import Decision, add_endpoints
from tdsp_vision.deployment.session import ServedVersion
from tdsp_vision.deployment.versions import versions_in
from tdsp_vision.files import whole_folder, write_json
from tdsp_vision.modeling.batches import preprocess

MODEL_INFO = "assets.extra/model_info.json"
SIGNATURES = {  # name: (inputs, outputs)
    "serving_default": ({"image_bytes"}, {"scores", "label", "valid"}),
    "float_images": ({"images"}, {"scores", "label"}),
    "classify": ({"inputs"}, {"classes", "scores"}),
}


def export_model(run_folder: Path, serving_folder: Path) -> Path:
    """Write the next version of a served model; it appears whole and proven to load, or not at all.

    Args:
        run_folder: `outputs/<dataset>/runs/<run_id>`.
        serving_folder: folder of the served model; versions `1`, `2`, … lie in it.

    Returns:
        Folder of the new version, one above the highest there.

    Raises:
        FileNotFoundError: if the run has no `model.keras` or no `metrics.json`.
        ValueError: if `metrics.json` and the model do not fit each other, or the export scores differently.
    """
    info = _model_info(run_folder)
    model = _load_model(run_folder, info)
    decision = Decision(info["classes"], info["positive_class"], info["threshold"])
    archive = keras.export.ExportArchive()
    archive.track(model)
    add_endpoints(archive, model, decision, info["image_size"])
    version = serving_folder / str(max(versions_in(serving_folder), default=0) + 1)
    with whole_folder(version) as draft:
        logging.getLogger("tensorflow").setLevel(logging.WARNING)  # "Assets written to" names the draft, twice
        archive.write_out(draft, verbose=False)
        write_json(draft / MODEL_INFO, info)
        noise = np.random.default_rng(0).integers(0, 256, [24, 32, 3], dtype=np.uint8)
        verify_export(draft, model, [tf.io.encode_png(noise).numpy(), b"not an image"])
    return version


def read_model_info(version_folder: Path) -> dict:
    """What `export_model` wrote beside a version: `classes, positive_class, threshold, image_size, run_id`."""
    return read_json(version_folder / MODEL_INFO)


def verify_export(version_folder: Path, model: keras.Model, image_bytes: list[bytes], tolerance: float = 1e-5) -> float:
    """Load a version the way TensorFlow Serving does (v1 loader, Session) and compare it with its Keras model.

    Loading in Python proves less: a SavedModel can load there and fail in a Session.

    Args:
        version_folder: the exported version.
        model: the Keras model it was made from.
        image_bytes: encoded images, at least one; damaged ones must come back as invalid with zero scores.
        tolerance: largest difference of a score that counts as equal.

    Returns:
        The largest absolute difference between a served score and the Keras model's.

    Raises:
        ValueError: naming what differs: a signature, which images are valid, or the scores.
    """
    size = read_model_info(version_folder)["image_size"]
    pictures = [_picture_or_none(encoded, size) for encoded in image_bytes]
    readable = np.array([picture is not None for picture in pictures])
    batch = np.stack([np.zeros([size, size, 3], np.float32) if p is None else p for p in pictures])
    expected = np.asarray(model(batch, training=False))
    with ServedVersion(version_folder) as served:
        _check_signatures(served)
        answer = served.run("serving_default", {"image_bytes": np.array(image_bytes, dtype=object)})
        scores = {
            "float_images": served.run("float_images", {"images": batch})["scores"],
            "classify": served.run("classify", {"inputs": _examples(image_bytes)})["scores"],
            "serving_default": answer["scores"],
        }
    if not np.array_equal(answer["valid"], readable):
        raise ValueError(f"The export reads {answer['valid'].tolist()} as images, not {readable.tolist()}.")
    return _largest_difference(scores, expected, readable, tolerance)


def _largest_difference(
    scores: dict[str, np.ndarray], expected: np.ndarray, readable: np.ndarray, tolerance: float
) -> float:
    """Largest difference of any signature from `expected` float32 [n, K]; ValueError above the tolerance."""
    masked = np.where(readable[:, np.newaxis], expected, 0.0)  # what a damaged image must score, except as pixels
    wanted = {name: expected if name == "float_images" else masked for name in scores}
    largest = {name: float(np.abs(got - wanted[name]).max()) for name, got in scores.items()}
    for name, difference in largest.items():
        if not difference <= tolerance:  # written so that NaN fails as well
            raise ValueError(
                f"Signature {name!r} differs from the Keras model by {difference:.3g}; "
                f"at most {tolerance:g} is allowed. Export the run again; do not serve this version."
            )
    return max(largest.values())


def _check_signatures(served: ServedVersion) -> None:
    """Raise ValueError unless the version offers exactly the inputs and outputs it must."""
    for name, (inputs, outputs) in SIGNATURES.items():
        found = served.signatures.get(name)
        if found is None or set(found.inputs) != inputs or set(found.outputs) != outputs:
            raise ValueError(f"Signature {name!r} must map {inputs} to {outputs}; the export has {found}.")


def _picture_or_none(encoded: bytes, size: int) -> np.ndarray | None:
    """`preprocess(encoded)` as an array, None where TensorFlow says that the bytes are no whole image."""
    try:
        return preprocess(tf.constant(encoded), size).numpy()
    except tf.errors.InvalidArgumentError:
        return None


def _examples(image_bytes: list[bytes]) -> np.ndarray:
    """Serialized tf.train.Example, object [n], each with the feature `image_bytes`."""
    lists = [tf.train.BytesList(value=[encoded]) for encoded in image_bytes]
    features = [tf.train.Features(feature={"image_bytes": tf.train.Feature(bytes_list=item)}) for item in lists]
    examples = [tf.train.Example(features=item).SerializeToString() for item in features]
    return np.array(examples, dtype=object)


def _model_info(run_folder: Path) -> dict:
    """Classes and decision rule of a run, checked; the content of `model_info.json`."""
    file = run_folder / "metrics.json"
    if not file.is_file():
        raise FileNotFoundError(f"{paths.shown(file)} is missing; finish modeling.ipynb for this run first.")
    metrics = read_json(file)
    missing = {"classes", "positive_class", "image_size", "validation"} - set(metrics)
    if missing:
        raise ValueError(f"{paths.shown(file)} has no {', '.join(sorted(missing))}; run modeling.ipynb again.")
    classes, positive = metrics["classes"], metrics["positive_class"]
    if positive and positive not in classes:
        raise ValueError(f"{paths.shown(file)}: positive_class is {positive!r}, classes are {classes}.")
    threshold = metrics["validation"].get("threshold")
    if positive and threshold is None:
        raise ValueError(f"{paths.shown(file)} has no threshold for {positive!r}; run modeling.ipynb again.")
    return {
        "classes": classes,
        "positive_class": positive,
        "threshold": threshold,
        "image_size": metrics["image_size"],
        "run_id": run_folder.name,
    }


def _load_model(run_folder: Path, info: dict) -> keras.Model:
    """The run's Keras model, if its input and output fit `info`."""
    file = run_folder / "model.keras"
    if not file.is_file():
        raise FileNotFoundError(f"{paths.shown(file)} is missing; finish modeling.ipynb for this run first.")
    model = keras.saving.load_model(file, compile=False)
    size, count = info["image_size"], len(info["classes"])
    if model.output_shape[-1] != count or tuple(model.input_shape[1:]) != (size, size, 3):
        raise ValueError(
            f"{paths.shown(file)} maps {model.input_shape} to {model.output_shape}; metrics.json speaks of "
            f"{count} classes and images of {size} x {size} x 3. Run modeling.ipynb again."
        )
    return model
