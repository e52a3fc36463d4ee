"""The table of limits: wrong values are named, text is typed, and table and notebooks say the same."""

import ast
import io
import json
import math
import tokenize
from typing import Literal, get_origin

import pytest
from annotated_types import Ge, Le

from tdsp_vision.errors import ParameterError
from tdsp_vision.parameters import LIMITS, check_parameters, choices, defaults, listed_rates, read, read_settings
from tdsp_vision.paths import NOTEBOOKS

STAGES = list(LIMITS)
OTHER_KINDS = {
    bool: ["true", 1, None, 0.0],
    int: ["15", 2.5, True, None, math.nan],
    float: ["0.1", True, None, math.nan, math.inf],
    str: [None, 3, True, ["a"]],
    list: [[], "a", None, {"a": 1}, [None]],
    dict: [{}, "a", ["a"], {"a": 1}],
}


def kinds(stage: str) -> dict[str, type]:
    """The type of each parameter; of a row that lists words, str."""
    types = {name: get_origin(field.annotation) or field.annotation for name, field in LIMITS[stage].items()}
    return {name: str if kind is Literal else kind for name, kind in types.items()}


def parameters_cell(stage: str) -> str:
    cells = json.loads(NOTEBOOKS[stage].read_text(encoding="utf-8"))["cells"]
    (source,) = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    return source


@pytest.mark.parametrize("stage", STAGES)
def test_table_and_notebook_hold_the_same_parameters_types_and_meanings(stage):
    source = parameters_cell(stage)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {t.start[0]: t.string.removeprefix("# ") for t in tokens if t.type == tokenize.COMMENT}
    meanings = {line.targets[0].id: comments.get(line.end_lineno) for line in ast.parse(source).body}
    assert meanings == {name: field.description for name, field in LIMITS[stage].items()}
    check_parameters(stage, defaults(NOTEBOOKS[stage]))
    assert {name: type(value) for name, value in defaults(NOTEBOOKS[stage]).items()} == kinds(stage)


def test_the_second_cell_of_each_notebook_checks_all_of_them():
    for stage, notebook in NOTEBOOKS.items():
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        assert f'check_parameters("{stage}", globals())' in code[1]


@pytest.mark.parametrize("stage", STAGES)
def test_every_parameter_refuses_what_its_limits_exclude(stage):
    """Derived from the table: other kinds, just outside of a range, a word that is none, a wrong element."""
    good = defaults(NOTEBOOKS[stage])
    for name, kind in kinds(stage).items():
        field, wrong = LIMITS[stage][name], list(OTHER_KINDS[kind])
        step = 1 if kind is int else 0.001
        wrong += [each.ge - step for each in field.metadata if isinstance(each, Ge)]
        wrong += [each.le + step for each in field.metadata if isinstance(each, Le)]
        if kind is str and choices(field):
            wrong += ["", choices(field)[0].upper(), choices(field)[0] + "x"]
        for value in wrong:
            with pytest.raises(ParameterError, match="; [a-z]") as refusal:
                check_parameters(stage, good | {name: value})
            assert str(refusal.value).startswith(name) and "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("stage", "values", "words"),
    [
        ("data", {"DATASET_NAME": "../up"}, "DATASET_NAME is '../up'; it becomes a folder name"),
        ("data", {"LICENSES": ["CC BY"]}, r"LICENSES is 'CC BY'; input should be 'CC-0', 'PDM'"),
        ("data", {"DATASET_NAME": "bird"}, "DATASET_NAME is 'bird'; allowed is a folder in"),
        (
            "data",
            {"SOURCE": "urls", "SOURCE_PATH": "."},
            r"SOURCE_PATH is '\.'; allowed is .* for urls a file",
        ),
        ("model", {"BACKBONE": "alexnet+resnet19"}, "BACKBONE is 'resnet19'; allowed is one of efficientnet_lite0, "),
        ("model", {"WEIGHTS": "/no/such/file"}, "WEIGHTS is .* is none"),
        ("model", {"AUGMENT_COPIES": 2}, "AUGMENT_COPIES is 2; allowed is 0 where AUGMENT is 'none'"),
        ("model", {"SCHEDULE": "[0.1, 0.1]", "EPOCHS": 8}, "SCHEDULE is .*or a rate for each of 8 epochs"),
        ("model", {"RUN_NAME": "a/b"}, "RUN_NAME is 'a/b'"),
    ],
)
def test_values_that_are_wrong_together_or_as_names_are_refused(stage, values, words):
    with pytest.raises(ParameterError, match=words):
        check_parameters(stage, defaults(NOTEBOOKS[stage]) | values)


@pytest.mark.parametrize("schedule", ["linear", "", "[]", "[0.1]", "[-0.1, 1]", "[x, 1]", "[0.1, 1e999]", "[0.1]*2"])
def test_a_schedule_is_words_or_rates(schedule):
    with pytest.raises(ParameterError, match="SCHEDULE is .*'cosine', 'constant' or a rate"):
        listed_rates(schedule, 2)
    assert listed_rates("[0.1, 1e-3]", 2) == [0.1, 0.001]


@pytest.mark.parametrize(
    ("stage", "name", "text", "value"),
    [
        ("deploy", "KEEP_RUNNING", "YES", True),
        ("model", "EPOCHS", "0013", 13),
        ("model", "DROPOUT", "0", 0.0),
        ("model", "RUN_NAME", "0000013", "0000013"),
        ("model", "SVM_C", "[1e-4, 1]", [1e-4, 1.0]),
        ("data", "SEARCH_ITEMS", "[ant, no, 0013, 'a, b']", ["ant", "no", "0013", "a, b"]),
        ("data", "SEARCH_QUERIES", "{a: ['a {item}', b]}", {"a": ["a {item}", "b"]}),
    ],
)
def test_text_takes_the_type_of_the_parameter(stage, name, text, value):
    assert repr(read(stage, name, text)) == repr(value)  # also tells 1 from True and from 1.0


@pytest.mark.parametrize("text", ["1e3", "15.5", "true", "", "9" * 5000, "1:30", "0x10", None, [1]])
def test_text_of_another_type_is_refused_in_one_sentence(text):
    with pytest.raises(ParameterError, match="^EPOCHS is .*; .*(integer|whole number)"):
        read("model", "EPOCHS", text)


@pytest.mark.parametrize("text", ["[1, 2", "1", "[1, nan]", "[]", "[" * 3000])
def test_text_that_is_no_list_of_numbers_is_refused_in_one_sentence(text):
    with pytest.raises(ParameterError, match=r"^SVM_C is .*; .*(list|YAML|less than)"):
        read("model", "SVM_C", text)


def test_a_settings_file_means_what_it_says(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("SEED: 0013\nEPOCHS: 010\nRUN_NAME: 0013\nSVM_C: [1e-4, 1]\nDROPOUT: 0\n")
    typed = {name: read("model", name, value) for name, value in read_settings(file).items()}
    assert typed == {"SEED": 13, "EPOCHS": 10, "RUN_NAME": "0013", "SVM_C": [1e-4, 1.0], "DROPOUT": 0}
    file.write_text("# nothing yet\n")
    assert read_settings(file) == {}
