"""Settings: values from the command line or a YAML file take the type of a notebook's default, or are refused."""

import math

import pytest

from tdsp_vision.parameters import Parameter, ParameterError
from tdsp_vision.settings import read_settings, typed

QUERIES = {"benign": "diagnosis_1:Benign", "malignant": "diagnosis_1:Malignant"}


@pytest.mark.parametrize(
    ("default", "given", "expected"),
    [
        (False, "true", True),
        (False, "YES", True),
        (False, "On", True),
        (False, "1", True),
        (True, " off ", False),
        (True, "no", False),
        (True, "0", False),
        (True, False, False),
        (True, 0, False),
        (15, "3", 3),
        (15, "-3", -3),
        (15, "007", 7),
        (15, 3, 3),
        (0.5, "1e-4", 1e-4),
        (0.5, "1", 1.0),
        (0.5, 1, 1.0),
        (0.5, 0.25, 0.25),
        ("", "0000013", "0000013"),
        ("", "true", "true"),
        ("x", "", ""),
        ("x", "[1, 2]", "[1, 2]"),
        ([1.0], "[1e-4, 1e-3, 1]", [1e-4, 1e-3, 1.0]),
        ([1.0], ["1e-4", 1], [1e-4, 1.0]),
        ([1.0], "[]", []),
        ([1], "[1, 2]", [1, 2]),
        (["CC-0"], "[CC-BY, no, 0013, 'a, b']", ["CC-BY", "no", "0013", "a, b"]),
        ([], "[1, 0.5, a, true, {b: [null]}]", [1, 0.5, "a", True, {"b": [None]}]),
        (QUERIES, "{a: 1, b: yes}", {"a": "1", "b": "yes"}),
        (QUERIES, {"a": "x"}, {"a": "x"}),
        ({"a": ["x"]}, "{dog: ['dog {item}', hound]}", {"dog": ["dog {item}", "hound"]}),
        ({"a": 1}, "{b: 2}", {"b": 2}),
        ({}, "{b: 2, c: d}", {"b": 2, "c": "d"}),
    ],
)
def test_values_take_the_type_of_the_default(default, given, expected):
    value = typed(Parameter("X", default, "", 1), given)
    assert value == expected
    assert repr(value) == repr(expected)  # also tells 1 from True and from 1.0


@pytest.mark.parametrize(
    ("default", "given", "expected"),
    [
        (False, "maybe", "True or False"),
        (False, "", "True or False"),
        (False, 2, "True or False"),
        (False, None, "True or False"),
        (15, "abc", "a whole number"),
        (15, "15.5", "a whole number"),
        (15, "1e3", "a whole number"),
        (15, "true", "a whole number"),
        (15, "", "a whole number"),
        (15, "9" * 5000, "a whole number"),
        (15, True, "a whole number"),
        (15, 15.0, "a whole number"),
        (0.5, "abc", "a finite number"),
        (0.5, "nan", "a finite number"),
        (0.5, "-inf", "a finite number"),
        (0.5, "1e999", "a finite number"),
        (0.5, math.nan, "a finite number"),
        (0.5, 10**400, "a finite number"),
        (0.5, True, "a finite number"),
        ("x", 13, "put text in quotes"),
        ("x", True, "put text in quotes"),
        ("x", None, "put text in quotes"),
        ([1.0], "1e-4", "a list (of each: a finite number)"),
        ([1.0], "[1, abc]", "a list (of each: a finite number)"),
        ([1.0], "[.nan]", "a list (of each: a finite number)"),
        ([1.0], "[1, 2", "a list (of each: a finite number)"),
        ([1.0], "{a: 1}", "a list (of each: a finite number)"),
        ([1.0], 1.0, "a list (of each: a finite number)"),
        (["a"], ["a", 1], "put text in quotes"),
        ([], "[.nan]", "a list"),
        ([], "[2024-01-01]", "a list"),
        (QUERIES, "[a]", "a mapping"),
        (QUERIES, {"a": 1}, "put text in quotes"),
        (QUERIES, {1: "a"}, "a mapping"),
        ({"a": ["x"]}, "{dog: hound}", "a mapping with text as keys (of each: a list (of each: text))"),
    ],
)
def test_a_value_of_another_type_is_refused_in_one_sentence(default, given, expected):
    with pytest.raises(ParameterError) as refusal:
        typed(Parameter("X", default, "", 1), given)
    message = str(refusal.value)
    assert message.startswith("X is ")
    assert repr(given)[:77] in message
    assert expected in message
    assert message.endswith(f", such as {default!r}.")
    assert "\n" not in message


def test_a_settings_file_is_read_as_yaml(tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("EPOCHS: 3\nSVM_C: [1e-4, 1]\nRUN_NAME: '0013'\n")
    assert read_settings(file) == {"EPOCHS": 3, "SVM_C": ["1e-4", 1], "RUN_NAME": "0013"}
    file.write_text("# nothing yet\n")
    assert read_settings(file) == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"EPOCHS: [1", "not valid YAML"),
        (b"EPOCHS: 1\n\tX: 2", "not valid YAML"),
        (b"\xff\xfe\xfa", "not valid YAML"),
        (b"x: !!python/object/apply:os.getcwd []", "not valid YAML"),
        (b"- EPOCHS\n- 3", "has to map names to values"),
        (b"just words", "has to map names to values"),
        (b"3: EPOCHS", "has to map names to values"),
        (b"EPOCHS: 3\nSEED: 1\nEPOCHS: 4", "sets EPOCHS 2 times"),
    ],
)
def test_a_malformed_settings_file_is_refused_in_one_sentence(tmp_path, content, message):
    file = tmp_path / "settings.yaml"
    file.write_bytes(content)
    with pytest.raises(ParameterError, match=message) as refusal:
        read_settings(file)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_settings_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ParameterError, match="No such file"):
        read_settings(tmp_path / "missing.yaml")
    with pytest.raises(ParameterError, match="Is a directory"):
        read_settings(tmp_path)
