"""The folder of a served model, as TensorFlow Serving watches it; no TensorFlow is needed to look into it.

serving/<model>/<version>/     a SavedModel; its `assets.extra/model_info.json` says what no prediction carries
serving/<model>/models.config  which version is served: ModelServerConfig, a protocol buffer as text
serving/.<model>.last          the highest version number that was ever given, so that none is given twice; whoever
                               changes the folder above holds a lock on it

`model_info.json` holds `run_id, model_sha256, classes, positive_class, threshold, image_size, probe_scores`.
Source: https://www.tensorflow.org/tfx/serving/serving_config
"""

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from google.protobuf import text_format
from PIL import Image
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError
from tdsp_vision.files import file_lock, whole_folder, write_text

MODEL_INFO = "assets.extra/model_info.json"
CONFIG = "models.config"
MODELS = "/models"  # where the folder of served models lies inside a container


def versions_in(serving_folder: Path) -> list[int]:
    """Version numbers in ascending order; drafts start with a dot and do not count, here and in TensorFlow Serving."""
    names = [entry.name for entry in serving_folder.glob("*") if entry.is_dir()]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def version_folder(serving_folder: Path, version: int | None = None) -> Path:
    """Folder of an exported version, by default of the highest; ParameterError if there is none."""
    there = versions_in(serving_folder)
    number = max(there, default=1) if version is None else version
    if number not in there:
        listed = ", ".join(map(str, there)) or "none; the deployment notebook exports one"
        raise ParameterError(f"There is no version {number} in {paths.shown(serving_folder)}; there is {listed}.")
    return serving_folder / str(number)


@contextmanager
def new_version(serving_folder: Path) -> Iterator[Path]:
    """Yield a draft that appears whole as the next version when the block ends without an error.

    A number that was given once is never given again, also when its folder was deleted: a server that has loaded it
    would go on with what it remembers.
    """
    last = last_number(serving_folder)
    with file_lock(last):
        given = last.read_text(encoding="utf-8").strip()  # whatever was written into it by hand is no number
        number = max([*versions_in(serving_folder), int(given) if given.isdecimal() else 0]) + 1
        with whole_folder(serving_folder / str(number)) as draft:
            yield draft
        last.write_text(str(number), encoding="utf-8")


def last_number(serving_folder: Path) -> Path:
    """The file `.<model>.last`."""
    return serving_folder.parent / f".{serving_folder.name}.last"


def read_model_info(folder: Path) -> dict:
    """What `export.export_model` wrote beside a version; see the top of this file."""
    return json.loads((folder / MODEL_INFO).read_text(encoding="utf-8"))


def write_config(serving_folder: Path, version: int) -> None:
    """Tell the servers that watch `serving_folder` which version to serve.

    The highest version follows from TensorFlow Serving's default policy, which also takes up every later one as soon
    as it appears. Any other version is named, and stays until the next call.
    """
    config = ModelServerConfig()
    model = config.model_config_list.config.add(name=serving_folder.name, base_path=f"{MODELS}/{serving_folder.name}")
    model.model_platform = "tensorflow"
    if version == versions_in(serving_folder)[-1]:
        model.model_version_policy.latest.num_versions = 1
    else:
        model.model_version_policy.specific.versions.append(version)
    write_text(serving_folder / CONFIG, text_format.MessageToString(config))
    (serving_folder / CONFIG).chmod(0o644)  # the server in a container is another user


def probe_image() -> bytes:
    """A small picture of noise, the same on every call: what a version makes of it is written into its model_info."""
    encoded = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, [24, 32, 3], dtype=np.uint8)).save(encoded, "PNG")
    return encoded.getvalue()
