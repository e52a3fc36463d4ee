"""The one table of limits: type, range or words, and meaning of every parameter of the three notebooks.

The command line, sweeps, the form and the second cell of each notebook check values against this table and nothing
else. A new parameter is one line here and one in the notebook's cell tagged `parameters`, whose comment is the
meaning given here; a test holds the two together. A wrong name or value raises `ParameterError`, one sentence with
what was received and what is allowed. Light imports only: a wrong value is answered within a second.
"""

import ast
import difflib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, NoReturn, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, TypeAdapter, ValidationError, confloat, conlist

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError

CLASSIFIERS = ("svm", "dnn")
BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "alexnet")
BACKBONES += ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


def limit(meaning: str, low: float | None = None, high: float | None = None, **more):
    """A row of the table; `low` and `high` are included, `more` are other limits that pydantic's `Field` takes."""
    return Field(description=meaning, ge=low, le=high, **more)


Source = Literal["sample", "folder", "isic", "urls", "openverse"]
Split = Literal["auto", "given", "drawn"]
Group = Literal["auto", "patient", "lesion", "cluster", "none"]
Pipeline = Literal["none", "flips", "dermoscopy", "photos"]
Views = Literal["none", "mirror", "flips", "flips_and_rotations"]
Precision = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]
Texts = Annotated[list[str], Field(min_length=1)]
License = Literal["CC-0", "PDM", "CC-BY", "CC-BY-SA", "CC-BY-ND", "CC-BY-NC", "CC-BY-NC-SA", "CC-BY-NC-ND"]


class Everywhere(BaseModel):
    """What all three notebooks have."""

    DATASET_NAME: str = limit("folder below DATA_DIR; all three notebooks find the images by this name", min_length=1)
    DATA_DIR: str = limit("relative to the repository, or absolute")
    SEED: int = limit("of everything that is drawn at random", 0, 2**32 - 1)


class Data(Everywhere):
    """What images are looked at, and from where they come."""

    SOURCE: Source = limit("sample (drawn lesions, or sample_data/<DATASET_NAME>) or another source")
    SOURCE_PATH: str = limit("folder: its root; urls: a file with one address, a tab and a label per line")
    LABELS: str = limit('folder: a table of labels in, below or beside it; "" looks for one where it is flat')
    LABEL_COLUMN: str = limit("folder: the column of labels in that table; columns of 0 and 1 are found as well")
    IMAGES_PER_CLASS: int = limit("isic, openverse: how many images to fetch for each class", 1, 1_000_000)
    ISIC_API: str = limit("isic: the archive")
    ISIC_QUERIES: dict[str, str] = limit("isic: label and search", min_length=1)
    LICENSES: list[License] = limit("isic, openverse: allowed, such as CC-0, CC-BY, CC-BY-NC", min_length=1)
    OPENVERSE_API: str = limit("openverse: the search engine")
    SEARCH_QUERIES: dict[str, Texts] = limit("openverse: label and searches", min_length=1)
    SEARCH_ITEMS: Texts = limit("openverse: each takes the place of {item} in the searches")
    ALLOW_SHORTFALL: bool = limit("isic, openverse: True accepts fewer images than promised")
    ALLOW_PRIVATE_ADDRESSES: bool = limit("urls, openverse: True also fetches from this machine and its network")
    REMOVE_DUPLICATES: bool = limit("leave out images that repeat another one; False keeps them, in one group")


class Modeling(Everywhere):
    """What is trained, on which images, and how."""

    OUTPUT_DIR: str = limit("relative to the repository, or absolute")
    POSITIVE_CLASS: str = limit('the class that must not be missed; auto finds it by its name, "" means none')
    CLASSIFIER: Literal[CLASSIFIERS] = limit("svm (frozen network, linear SVM) | dnn (refine the network)")
    BACKBONE: str = limit("efficientnet_lite0 to 2, alexnet, resnet18 to 152, several joined by +")
    WEIGHTS: str = limit("imagenet (those of Lite come in packages, others are fetched) | none | a file")
    IMAGE_SIZE: int = limit("pixels; side of the square that is looked at; 0 as the network was trained", 0, 2048)
    SPLIT: Split = limit("auto (given where the manifest has a column split, else drawn) | given | drawn")
    MIN_CLASS_SIZE: int = limit("leave out classes of fewer groups (patients, lesions, single images)", 0, 10_000)
    TEST_FRACTION: float = limit("share of the images for the test", 0.05, 0.45)
    VALIDATION_FRACTION: float = limit("share for choices: calibration, threshold, best epoch", 0.05, 0.45)
    GROUP_BY: Group = limit("what must not be torn; auto: patient, lesion and near-duplicates")
    AUGMENT: Pipeline = limit("none | flips | dermoscopy | photos; the pipelines are shown below")
    AUGMENT_COPIES: int = limit("0 augments each epoch (dnn); 3 writes three by each pipeline, for svm too", 0, 100)
    TEST_VIEWS: Views = limit("none | mirror (mean of 2 views) | flips (4) | flips_and_rotations (8)")
    SENSITIVITY: float = limit("0: threshold of the best balanced accuracy; 0.95 finds 95 of 100", 0, 0.99)
    SVM_FEATURES: Literal["pooled", "last"] = limit("svm: pooled (averages of many layers) | last")
    SVM_C: list[confloat(ge=1e-9, le=1e6)] = limit("svm: penalties to try; small ones regularize more", min_length=1)
    FINE_LABELS: str = limit("dnn: a column with finer labels to learn beside the classes, as diagnosis_3")
    TRAINABLE_STAGES: int = limit("dnn: 0 refines the whole network; 2 its last two stages only", 0, 100)
    EPOCHS: int = limit("dnn: passes over the training images", 1, 10_000)
    PATIENCE: int = limit("dnn: stop after so many epochs without improvement; 0 never stops early", 0, 10_000)
    BATCH_SIZE: int = limit("dnn: images per step; 16 if memory is short", 1, 10_000)
    LEARNING_RATE: float = limit("dnn: peak of the rate, 0.0001 to 0.001 are sensible; 0 looks for one", 0, 1)
    SCHEDULE: str = limit("dnn: cosine | constant | a rate for each epoch, as in [0.05, 0.05, 0.005]")
    LAYER_DECAY: float = limit("dnn: each stage towards the input learns at this share of the next", 0.01, 1)
    DROPOUT: float = limit("dnn: share of the features dropped in each step; 0.5 against overfitting", 0, 0.99)
    WEIGHT_DECAY: float = limit("dnn: pull of the weights towards zero (AdamW)", 0, 1)
    LABEL_SMOOTHING: float = limit("dnn: how much of each label is shared out among all classes", 0, 0.99)
    PRECISION: Precision = limit("dnn: what training computes in; scores are float32 always")
    EXTERNAL: str = limit('a folder of other images of these classes, to judge the run on as well; "" for none')
    COMPARE: str = limit("previous (the newest run with the same test) | none | run ids with commas")
    RUN_NAME: str = limit('names the run folder; "" takes classifier and network')


class Deploying(Everywhere):
    """What is served, and how."""

    OUTPUT_DIR: str = limit("relative to the repository, or absolute")
    RUN: str = limit("latest | best (highest validation AUC) | a folder's name in outputs/<dataset>/runs")
    MODEL_NAME: str = limit('the name in the address of the service; "" takes DATASET_NAME')
    BACKEND: Literal["auto", "docker", "local"] = limit("auto (says what it took) | docker | local")
    SERVING_IMAGE: str = limit("docker: the image that the container is built on")
    REPLICAS: int = limit("of the cluster and compose files; one server on this machine", 1, 32)
    PORT: int = limit("of the service; 0 takes any free one; it answers on this machine only", 0, 65535)
    KEEP_RUNNING: bool = limit("True leaves the service up and says how to stop it")
    SAMPLE_COUNT: int = limit("test images in the example request", 1, 64)
    PARITY_COUNT: int = limit("images whose served scores are compared; 0 takes all", 0, 10_000_000)


LIMITS = {"data": Data.model_fields, "model": Modeling.model_fields, "deploy": Deploying.model_fields}


def read(stage: str, name: str, value: object, strict: bool = False) -> object:
    """`value` of a parameter, checked; text, as of a command line or YAML file, becomes what the parameter is.

    Args:
        strict: whether text is refused where no text is expected, as in a notebook; True is no number then, 1 one of
            either kind.

    Raises:
        ParameterError: one sentence with what was received and what is allowed.
    """
    field = LIMITS[stage][name]
    if isinstance(value, str) and get_origin(field.annotation) in (list, dict) and not strict:
        with suppress(yaml.YAMLError, RecursionError):  # such a text is no list or mapping either
            value = yaml.load(value, Loader=yaml.BaseLoader)
    try:
        return TypeAdapter(Annotated[field.annotation, field]).validate_python(value, strict=strict)
    except ValidationError as error:
        first = error.errors()[0]
        words = first["msg"][0].lower() + first["msg"][1:]
        raise ParameterError(f"{name} is {first['input']!r:.80}; {words}.") from None


def choices(field) -> tuple[str, ...]:
    """The texts to choose from for a row of the table; () where any text, number or list may be given."""
    if field.annotation is bool:
        return ("True", "False")
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def check_parameters(stage: str, values: Mapping[str, object]) -> None:
    """Refuse wrong values of a notebook's parameters; its second cell calls this with `globals()`.

    Args:
        stage: data, model or deploy.
        values: name -> value, at least for every parameter of the stage.

    Raises:
        ParameterError: one sentence on the first value that is wrong, alone or together with others.
    """
    for name in LIMITS[stage]:
        read(stage, name, values[name], strict=True)
    for name in {"DATASET_NAME", "RUN_NAME", "MODEL_NAME"} & set(LIMITS[stage]):
        paths.checked_name(name, values[name] or "none")
    for name in {"data": ["DATA_DIR"], "model": ["DATA_DIR", "OUTPUT_DIR"], "deploy": ["OUTPUT_DIR"]}[stage]:
        folder = paths.resolve(values[name]) / values["DATASET_NAME"]
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        if not (existing.is_dir() and os.access(existing, os.W_OK)):
            refuse(name, values[name], f"a folder that can be written, and {existing} cannot")
    _COMBINATIONS[stage](values)


def _check_source(values: Mapping[str, object]) -> None:
    name, source, path = values["DATASET_NAME"], values["SOURCE"], values["SOURCE_PATH"]
    if source == "sample" and name != "lesions" and not (paths.SAMPLE_DATA / name).is_dir():
        refuse("DATASET_NAME", name, f"a folder in {paths.SAMPLE_DATA}, or any name with SOURCE 'folder'")
    place, exists = paths.resolve(path), {"folder": Path.is_dir, "urls": Path.is_file}.get(source)
    if exists and not (path and exists(place)):
        refuse("SOURCE_PATH", path, f"a folder, for urls a file, and {place} is none; an absolute path is always clear")


def _check_training(values: Mapping[str, object]) -> None:
    for network in values["BACKBONE"].split("+"):
        if network not in BACKBONES and not network.startswith("keras_hub:"):
            refuse("BACKBONE", network, f"one of {', '.join(BACKBONES)}, or keras_hub:<preset>")
    places = {"WEIGHTS": ("'imagenet', 'none' or a file", Path.is_file), "EXTERNAL": ("'' or a folder", Path.is_dir)}
    for name, (allowed, exists) in places.items():
        if repr(values[name]) not in allowed and not exists(paths.resolve(values[name])):
            refuse(name, values[name], f"{allowed}, and {paths.resolve(values[name])} is none")
    if values["SCHEDULE"] not in ("cosine", "constant"):
        listed_rates(values["SCHEDULE"], values["EPOCHS"])
    if values["AUGMENT_COPIES"] and values["AUGMENT"] == "none":
        refuse("AUGMENT_COPIES", values["AUGMENT_COPIES"], "0 where AUGMENT is 'none'; name a pipeline for copies")
    if values["SENSITIVITY"] and not values["POSITIVE_CLASS"]:
        refuse("SENSITIVITY", values["SENSITIVITY"], "0 where POSITIVE_CLASS is ''; name the class to be found")


_COMBINATIONS = {"data": _check_source, "model": _check_training, "deploy": lambda values: None}


def listed_rates(schedule: str, epochs: int) -> list[float]:
    """The rates that a text such as "[0.05, 0.05, 0.005]" lists, one for each epoch.

    Raises:
        ParameterError: it lists anything but `epochs` numbers above 0 and up to 1.
    """
    try:
        return TypeAdapter(conlist(confloat(gt=0, le=1), min_length=epochs, max_length=epochs)).validate_json(schedule)
    except ValidationError:
        allowed = f"'cosine', 'constant' or a rate for each of {epochs} epochs, as in '[0.05, 0.05, 0.005]' for 3"
        refuse("SCHEDULE", schedule, allowed)


def defaults(notebook: Path) -> dict[str, object]:
    """Name and default of each parameter of `notebook` (.ipynb), in the order of its cell tagged `parameters`."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    (source,) = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return {line.targets[0].id: ast.literal_eval(line.value) for line in ast.parse(source).body}


def read_settings(file: Path) -> dict[str, object]:
    """Settings in a YAML file that maps parameter names to values, all as text: `0013` and `1:30` stay what they are.

    Raises:
        ParameterError: the file cannot be read, is not YAML, is not such a mapping, or has a name twice.
    """
    try:
        loader = yaml.BaseLoader(file.read_text(encoding="utf-8"))
        lines = getattr(loader.get_single_node(), "value", [])  # no node in an empty file
        pairs = [(str(key.value), loader.construct_object(value, deep=True)) for key, value in lines]
    except (OSError, yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        words = " ".join(str(error).split())
        raise ParameterError(f"{file} is no YAML that maps names to values, as in `EPOCHS: 3` ({words}).") from None
    return as_settings(pairs, str(file))


def as_settings(pairs: Sequence[tuple[str, object]], origin: str) -> dict[str, object]:
    """`pairs` as a dict; ParameterError where `origin`, such as a file, gives a name more than once."""
    if twice := {name for name, times in Counter(name for name, _ in pairs).items() if times > 1}:
        raise ParameterError(f"{min(twice)} is given more than once in {origin}; give it once.")
    return dict(pairs)


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of `names` (at least one) that is spelled most like `name`; case does not count."""
    return max(names, key=lambda other: difflib.SequenceMatcher(None, name.upper(), other.upper()).ratio())


def refuse(name: str, value: object, allowed: str) -> NoReturn:
    """Raise ParameterError: what was received for `name`, at most 80 letters of it, and what is allowed."""
    raise ParameterError(f"{name} is {value!r:.80}; allowed is {allowed}.") from None
