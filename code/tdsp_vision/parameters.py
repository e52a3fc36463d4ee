"""The one table of limits: type, range or words, and meaning of every parameter of the three notebooks.

The command line, sweeps, the form and the second cell of each notebook check values against this table and nothing
else. A new parameter is one line here and one in the notebook's cell tagged `parameters`, whose comment is the
meaning given here; a test holds the two together. A wrong name or value raises `ParameterError`, one sentence with
what was received and what is allowed. Light imports only: a wrong value is answered within a second.
"""

import ast
import difflib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import yaml

from tdsp_vision import paths
from tdsp_vision.errors import ParameterError

KINDS = {bool: "True or False", int: "a whole number", float: "a number", str: "text", list: "a list"}


@dataclass(frozen=True)
class Limit:
    """What one parameter may be: `low` and `high` are included, `each` limits the elements of a list or mapping."""

    kind: type
    meaning: str
    low: float | None = None
    high: float | None = None
    words: tuple[str, ...] = ()
    each: "Limit | None" = None

    @property
    def allowed(self) -> str:
        """The limits in words, as in `a whole number from 1 to 64`."""
        span = "" if self.low is None else f" from {self.low} to {self.high}"
        each = f", each {self.each.allowed}" if self.each else ""
        return " or ".join(map(repr, self.words)) or KINDS.get(self.kind, "a mapping") + span + each

    def check(self, name: str, value: object) -> None:
        """Refuse a `value` of another type (True is no number, 1 is a float), out of range, not finite, or empty."""
        fits = type(value) is self.kind or (self.kind is float and type(value) is int)
        fits = fits and (not self.words or value in self.words)
        fits = fits and (self.low is None or self.low <= value <= self.high)
        if not fits or (self.each and not value):
            refuse(name, value, self.allowed)
        if self.each:
            for key, element in value.items() if self.kind is dict else enumerate(value):
                self.each.check(f"{name}[{key!r}]", element)

    def read(self, name: str, value: object) -> object:
        """`value`, text from a command line or a YAML file (its lists and mappings as well), typed and checked."""
        try:
            typed = self._typed(value)
        except (ValueError, AttributeError, RecursionError, yaml.YAMLError):
            refuse(name, value, self.allowed)
        self.check(name, typed)
        return typed

    def _typed(self, value: object) -> object:
        if self.each:
            value = yaml.load(value, Loader=yaml.BaseLoader) if isinstance(value, str) else value
            if isinstance(value, list):
                return [self.each._typed(element) for element in value]
            return {key: self.each._typed(element) for key, element in value.items()}
        if self.kind is bool and isinstance(value, str):
            return yaml.safe_load(value)
        return self.kind(value) if isinstance(value, str) else value


TEXT = Limit(str, "")
LICENSES = ("CC-0", "PDM", "CC-BY", "CC-BY-SA", "CC-BY-ND", "CC-BY-NC", "CC-BY-NC-SA", "CC-BY-NC-ND")
LICENSE = Limit(str, "", words=LICENSES)
SEED = Limit(int, "of everything that is drawn at random", 0, 2**32 - 1)
DATASET_NAME = Limit(str, "folder below DATA_DIR; all three notebooks find the images by this name")
DATA_DIR = Limit(str, "relative to the repository, or absolute")
CLASSIFIERS = ("svm", "dnn")
BACKBONES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "alexnet")
BACKBONES += ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
SOURCES = ("sample", "folder", "isic", "urls", "openverse")
GROUPS = ("auto", "patient", "lesion", "cluster", "none")
SPLITS = ("auto", "given", "drawn")
PIPELINES = ("none", "flips", "dermoscopy", "photos")
VIEWS = ("none", "mirror", "flips", "flips_and_rotations")
PRECISIONS = ("auto", "float32", "mixed_bfloat16", "mixed_float16")

LIMITS = {
    "data": {
        "DATASET_NAME": DATASET_NAME,
        "SOURCE": Limit(str, "sample (drawn lesions, or sample_data/<DATASET_NAME>) or another source", words=SOURCES),
        "SOURCE_PATH": Limit(str, "folder: its root; urls: a file with one address, a tab and a label per line"),
        "LABELS": Limit(str, 'folder: a table of labels in, below or beside it; "" looks for one where it is flat'),
        "LABEL_COLUMN": Limit(str, "folder: the column of labels in that table; columns of 0 and 1 are found as well"),
        "DATA_DIR": DATA_DIR,
        "IMAGES_PER_CLASS": Limit(int, "isic, openverse: how many images to fetch for each class", 1, 1_000_000),
        "ISIC_API": Limit(str, "isic: the archive"),
        "ISIC_QUERIES": Limit(dict, "isic: label and search", each=TEXT),
        "LICENSES": Limit(
            list, "isic, openverse: licences that are allowed, such as CC-0, CC-BY, CC-BY-NC", each=LICENSE
        ),
        "OPENVERSE_API": Limit(str, "openverse: the search engine"),
        "SEARCH_QUERIES": Limit(dict, "openverse: label and searches", each=Limit(list, "", each=TEXT)),
        "SEARCH_ITEMS": Limit(list, "openverse: each takes the place of {item} in the searches", each=TEXT),
        "ALLOW_SHORTFALL": Limit(bool, "isic, openverse: True accepts fewer images than promised"),
        "ALLOW_PRIVATE_ADDRESSES": Limit(bool, "urls, openverse: True also fetches from this machine and its network"),
        "REMOVE_DUPLICATES": Limit(bool, "leave out images that repeat another one; False keeps them, in one group"),
        "SEED": SEED,
    },
    "model": {
        "DATASET_NAME": DATASET_NAME,
        "DATA_DIR": DATA_DIR,
        "OUTPUT_DIR": DATA_DIR,
        "POSITIVE_CLASS": Limit(str, 'the class that must not be missed; auto finds it by its name, "" means none'),
        "CLASSIFIER": Limit(str, "svm (frozen network, linear SVM) | dnn (refine the network)", words=CLASSIFIERS),
        "BACKBONE": Limit(str, "efficientnet_lite0 to 2, alexnet, resnet18 to 152, several joined by +"),
        "WEIGHTS": Limit(str, "imagenet (those of Lite come in packages, others are fetched) | none | a file"),
        "IMAGE_SIZE": Limit(int, "pixels; side of the square that is looked at; 0 as the network was trained", 0, 2048),
        "SPLIT": Limit(
            str, "auto (given where the manifest has a column split, else drawn) | given | drawn", words=SPLITS
        ),
        "MIN_CLASS_SIZE": Limit(int, "leave out classes of fewer groups (patients, lesions, single images)", 0, 10_000),
        "TEST_FRACTION": Limit(float, "share of the images for the test", 0.05, 0.45),
        "VALIDATION_FRACTION": Limit(float, "share for choices: calibration, threshold, best epoch", 0.05, 0.45),
        "GROUP_BY": Limit(str, "what must not be torn; auto: patient, lesion and near-duplicates", words=GROUPS),
        "AUGMENT": Limit(str, "none | flips | dermoscopy | photos; the pipelines are shown below", words=PIPELINES),
        "AUGMENT_COPIES": Limit(int, "0 augments anew in each epoch (dnn); 3 writes three copies, for svm too", 0, 100),
        "TEST_VIEWS": Limit(str, "none | mirror (mean of 2 views) | flips (4) | flips_and_rotations (8)", words=VIEWS),
        "SENSITIVITY": Limit(float, "0: threshold of the best balanced accuracy; 0.95 finds 95 of 100", 0, 0.99),
        "SVM_FEATURES": Limit(str, "svm: pooled (averages of many layers) | last", words=("pooled", "last")),
        "SVM_C": Limit(list, "svm: penalties to try; small ones regularize more", each=Limit(float, "", 1e-9, 1e6)),
        "FINE_LABELS": Limit(str, "dnn: a column with finer labels to learn beside the classes, as diagnosis_3"),
        "TRAINABLE_STAGES": Limit(int, "dnn: 0 refines the whole network; 2 its last two stages only", 0, 100),
        "EPOCHS": Limit(int, "dnn: passes over the training images", 1, 10_000),
        "PATIENCE": Limit(int, "dnn: stop after so many epochs without improvement; 0 never stops early", 0, 10_000),
        "BATCH_SIZE": Limit(int, "dnn: images per step; 16 if memory is short", 1, 10_000),
        "LEARNING_RATE": Limit(float, "dnn: peak of the rate, 0.0001 to 0.001 are sensible; 0 looks for one", 0, 1),
        "SCHEDULE": Limit(str, "dnn: cosine | constant | a rate for each epoch, as in [0.05]*7 + [0.005]*8"),
        "LAYER_DECAY": Limit(float, "dnn: each stage towards the input learns at this share of the next", 0.01, 1),
        "DROPOUT": Limit(float, "dnn: share of the features dropped in each step; 0.5 against overfitting", 0, 0.99),
        "WEIGHT_DECAY": Limit(float, "dnn: pull of the weights towards zero (AdamW)", 0, 1),
        "LABEL_SMOOTHING": Limit(float, "dnn: how much of each label is shared out among all classes", 0, 0.99),
        "PRECISION": Limit(str, "dnn: what training computes in; scores are float32 always", words=PRECISIONS),
        "TENSORBOARD": Limit(bool, "dnn: also write logs for TensorBoard"),
        "COMPARE": Limit(str, "previous (the newest run with the same test) | none | run ids with commas"),
        "RUN_NAME": Limit(str, 'names the run folder; "" takes classifier and network'),
        "SEED": SEED,
    },
    "deploy": {
        "DATASET_NAME": DATASET_NAME,
        "DATA_DIR": DATA_DIR,
        "OUTPUT_DIR": DATA_DIR,
        "RUN": Limit(str, "latest | best (highest validation AUC) | a folder's name in outputs/<dataset>/runs"),
        "MODEL_NAME": Limit(str, 'the name in the address of the service; "" takes DATASET_NAME'),
        "BACKEND": Limit(str, "auto (says what it took) | docker | local", words=("auto", "docker", "local")),
        "SERVING_IMAGE": Limit(str, "docker: the image that the container is built on"),
        "REPLICAS": Limit(int, "of the cluster and compose files; one server on this machine", 1, 32),
        "PORT": Limit(int, "of the service; 0 takes any free one; it answers on this machine only", 0, 65535),
        "KEEP_RUNNING": Limit(bool, "True leaves the service up and says how to stop it"),
        "SAMPLE_COUNT": Limit(int, "test images in the example request", 1, 64),
        "PARITY_COUNT": Limit(int, "images whose served scores are compared; 0 takes all", 0, 10_000_000),
        "SEED": SEED,
    },
}


def check_parameters(stage: str, values: Mapping[str, object]) -> None:
    """Refuse wrong values of a notebook's parameters; its second cell calls this with `globals()`.

    Args:
        stage: data, model or deploy.
        values: name -> value, at least for every parameter of the stage.

    Raises:
        ParameterError: one sentence on the first value that is wrong, alone or together with others.
    """
    for name, limit in LIMITS[stage].items():
        limit.check(name, values[name])
    paths.checked_name("DATASET_NAME", values["DATASET_NAME"])
    for name in ("RUN_NAME", "MODEL_NAME"):
        if values.get(name) and name in LIMITS[stage]:
            paths.checked_name(name, values[name])
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
    place = paths.resolve(path)
    if source == "folder" and not (path and place.is_dir()):
        refuse("SOURCE_PATH", path, f"a folder with images, and {place} is none; an absolute path is always clear")
    if source == "urls" and not (path and place.is_file()):
        refuse("SOURCE_PATH", path, f"a file with addresses, and {place} is none; an absolute path is always clear")


def _check_training(values: Mapping[str, object]) -> None:
    for network in values["BACKBONE"].split("+"):
        if not network.startswith("keras_hub:"):
            Limit(str, "", words=BACKBONES).check("BACKBONE", network)
    weights = values["WEIGHTS"]
    if weights not in ("imagenet", "none") and not paths.resolve(weights).exists():
        refuse("WEIGHTS", weights, f"'imagenet', 'none' or a path, and {paths.resolve(weights)} does not exist")
    if values["SCHEDULE"] not in ("cosine", "constant"):
        rates = listed_rates(values["SCHEDULE"])
        if len(rates) != values["EPOCHS"]:
            refuse("SCHEDULE", values["SCHEDULE"], f"one rate for each of {values['EPOCHS']} epochs, not {len(rates)}")
    if values["AUGMENT_COPIES"] and values["AUGMENT"] == "none":
        refuse("AUGMENT_COPIES", values["AUGMENT_COPIES"], "0 where AUGMENT is 'none'; name a pipeline for copies")
    if values["SENSITIVITY"] and not values["POSITIVE_CLASS"]:
        refuse("SENSITIVITY", values["SENSITIVITY"], "0 where POSITIVE_CLASS is ''; name the class to be found")


_COMBINATIONS = {"data": _check_source, "model": _check_training, "deploy": lambda values: None}


def listed_rates(schedule: str) -> list[float]:
    """The rates that a text such as "[0.05]*7 + [0.005]" stands for, one for each epoch.

    Raises:
        ParameterError: it is anything but lists of numbers above 0, joined by `+` and repeated by `*`.
    """
    rates = []
    for part in schedule.split("+"):
        found = re.fullmatch(r"\s*\[([\d.eE, -]+)\]\s*(?:\*\s*(\d{1,4}))?\s*", part)
        try:
            rates += [float(rate) for rate in found[1].split(",")] * int(found[2] or 1)
        except (TypeError, ValueError):
            rates.append(0)
    if min(rates, default=0) <= 0 or max(rates) == math.inf:
        refuse("SCHEDULE", schedule, "'cosine', 'constant' or a rate for each epoch, as in '[0.05]*7 + [0.005]*8'")
    return rates


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
    except OSError as error:
        raise ParameterError(f"{file} cannot be read: {error.strerror}.") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
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


def short(value: object) -> str:
    """`value` as it is quoted in a message: its repr, at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def refuse(name: str, value: object, allowed: str) -> NoReturn:
    """Raise ParameterError: what was received for `name`, and what is allowed, in one sentence."""
    raise ParameterError(f"{name} is {short(value)}; allowed is {allowed}.") from None
