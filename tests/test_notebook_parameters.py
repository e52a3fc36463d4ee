"""Wrong parameters of the three notebooks: each stops in a validation cell, with a sentence that names it."""

import json
import math

import pytest

from tdsp_vision.parameters import ParameterError, declared_parameters
from tdsp_vision.paths import NOTEBOOKS

WRONG = {
    "data": {
        "SOURCE": ["smaple", "", 3, None],
        "SOURCE_PATH": [None, 3],
        "DATASET_NAME": ["", "../up", "a/b", ".hidden", "-dash", "a b", 7],
        "DATA_DIR": [None, 1],
        "IMAGES_PER_CLASS": [0, -5, "100", 2.5],
        "ISIC_API": [None],
        "ISIC_QUERIES": [{}, ["benign"], {"benign": 1}, "diagnosis_1:Benign"],
        "LICENSES": [[], "CC-0", [None]],
        "OPENVERSE_API": [3],
        "SEARCH_QUERIES": [{}, {"dotted": "dotted {item}"}, None],
        "SEARCH_ITEMS": [[], "vest", [1]],
        "ALLOW_SHORTFALL": ["no", 1],
        "ALLOW_PRIVATE_ADDRESSES": [None, 0],
        "REMOVE_DUPLICATES": ["true", 1, None],
        "NEAR_DUPLICATE_BITS": [-1, 65, 3.5, "10", True, math.nan],
        "SEED": [-1, 0.5, "0", None],
    },
    "model": {
        "DATASET_NAME": [7],
        "DATA_DIR": [None],
        "OUTPUT_DIR": [False],
        "POSITIVE_CLASS": [None, 1],
        "CLASSIFIER": ["smv", "", 1],
        "BACKBONE": ["resnet", "EfficientNet_Lite0"],
        "WEIGHTS": [None, True],
        "IMAGE_SIZE": [31, 0, "224", 224.5],
        "TEST_FRACTION": [0, 0.9, "0.25", math.nan, -0.1],
        "VALIDATION_FRACTION": [0, 1, None],
        "GROUP_BY": ["patients", True],
        "AUGMENT": ["flip", True],
        "AUGMENT_COPIES": [-1, "3", 1.5],
        "TEST_VIEWS": ["flip", 4],
        "SENSITIVITY": [-0.1, 1, "0.95", math.nan],
        "SVM_FEATURES": ["all"],
        "SVM_C": [[], [0.0], ["1"], 0.1, [math.inf]],
        "TRAINABLE_STAGES": [-1, "all", True],
        "EPOCHS": [0, -1, "abc", 2.5, True],
        "PATIENCE": [-1, None],
        "BATCH_SIZE": [0, "32"],
        "LEARNING_RATE": [-0.1, "0.1", math.inf],
        "SCHEDULE": ["linear", "", "[0.1]*-1", "[-0.1]*15", "__import__('os')", None],
        "LAYER_DECAY": [0, 1.1, "0.9"],
        "AVERAGE_EPOCHS": [-1.0, 1001.0, "1"],
        "COMPARE": [None, 3],
        "DROPOUT": [1, -0.1, "no"],
        "WEIGHT_DECAY": [-1, "x"],
        "LABEL_SMOOTHING": [1, -0.1],
        "FINE_LABELS": [None, 1],
        "LESSONS": ["no", 1],
        "PRECISION": ["bfloat16", None],
        "TENSORBOARD": ["no", 1],
        "RUN_NAME": [None, 13],
        "SEED": [-1, 2**32],
    },
    "deploy": {
        "DATASET_NAME": [None],
        "DATA_DIR": [1],
        "OUTPUT_DIR": [None],
        "RUN": [None, 3],
        "EXPERIMENT": [None, 1],
        "MODEL_NAME": [None, 1],
        "BACKEND": ["dokcer", "", None],
        "SERVING_IMAGE": [None, 2],
        "REPLICAS": [0, 33, "2"],
        "PORT": [-1, 65536, "8501", 80.5],
        "KEEP_RUNNING": ["yes", 1],
        "SAMPLE_COUNT": [0, 65, "8"],
        "SEED": [-1],
    },
}


def cells(stage: str) -> list[dict]:
    return [c for c in json.loads(NOTEBOOKS[stage].read_text())["cells"] if c["cell_type"] == "code"]


def validation_source(stage: str) -> str:
    """The cells that follow the parameters cell for as long as they check something, as one piece of code."""
    sources, found = [], False
    for cell in cells(stage):
        source = "".join(cell["source"])
        if "parameters" in cell["metadata"].get("tags", []):
            found = True
        elif found and ("require_" in source or "ParameterError" in source) and "load_manifest" not in source:
            sources.append(source)
        elif found:
            return "\n".join(sources)
    raise AssertionError(f"{stage}: no validation cell")


def defaults(stage: str) -> dict:
    return {name: parameter.default for name, parameter in declared_parameters(NOTEBOOKS[stage]).items()}


@pytest.mark.parametrize("stage", WRONG)
def test_defaults_pass_the_validation(stage):
    exec(validation_source(stage), defaults(stage))


@pytest.mark.parametrize("stage", WRONG)
def test_every_parameter_is_in_the_table(stage):
    assert set(WRONG[stage]) == set(defaults(stage))


@pytest.mark.parametrize(
    ("stage", "name", "value"),
    [(stage, name, value) for stage, names in WRONG.items() for name, values in names.items() for value in values],
)
def test_a_wrong_value_is_named(stage, name, value):
    with pytest.raises(ValueError, match="allowed|letters") as caught:
        exec(validation_source(stage), defaults(stage) | {name: value})
    message = str(caught.value)
    assert message.startswith(name) and "\n" not in message
    if name != "DATASET_NAME":
        assert isinstance(caught.value, ParameterError)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"AUGMENT_COPIES": 2}, "AUGMENT_COPIES is 2 and AUGMENT 'none'; name a pipeline, or write no copies"),
        (
            {"TRAINABLE_STAGES": 2, "AUGMENT": "flips"},
            "TRAINABLE_STAGES is 2 and AUGMENT 'flips'; .* set AUGMENT_COPIES",
        ),
        ({"SCHEDULE": "[0.1]*7", "EPOCHS": 8}, "SCHEDULE is .* has 7 rates, but EPOCHS is 8; write one for each"),
    ],
)
def test_values_that_do_not_go_together_are_named(values, words):
    with pytest.raises(ParameterError, match=words):
        exec(validation_source("model"), defaults("model") | values)


def test_values_that_go_together_pass():
    values = {"TRAINABLE_STAGES": 2, "AUGMENT": "flips", "AUGMENT_COPIES": 3, "LEARNING_RATE": 0, "EPOCHS": 8}
    exec(validation_source("model"), defaults("model") | values | {"SCHEDULE": "[0.1]*7 + [0.01]"})


def test_the_notebook_allows_what_the_package_knows():
    """The validation cell writes its words out, so that a wrong one is refused before TensorFlow is loaded."""
    from tdsp_vision.deployment.backends import BACKENDS, SERVING_IMAGE
    from tdsp_vision.modeling.backbones import BACKBONES
    from tdsp_vision.modeling.precision import PRECISIONS
    from tdsp_vision.modeling.tta import VIEWS

    for name, known in (("BACKBONE", BACKBONES), ("PRECISION", PRECISIONS), ("TEST_VIEWS", VIEWS)):
        for value in known:
            exec(validation_source("model"), defaults("model") | {name: value})
        with pytest.raises(ParameterError) as caught:
            exec(validation_source("model"), defaults("model") | {name: "no such word"})
        assert all(repr(value) in str(caught.value) for value in known)
    for value in BACKENDS:
        exec(validation_source("deploy"), defaults("deploy") | {"BACKEND": value})
    assert defaults("deploy")["SERVING_IMAGE"] == SERVING_IMAGE
