"""Parameters: what a notebook declares, and the checks with which a notebook refuses wrong values."""

import json
import math

import pytest

from tdsp_vision.parameters import (
    DeclarationError,
    Parameter,
    ParameterError,
    declared_parameters,
    nearest,
    require_between,
    require_each,
    require_one_of,
    require_type,
)


def notebook(folder, *sources, tags=("parameters",)):
    cells = [{"cell_type": "code", "metadata": {"tags": list(tags)}, "source": s} for s in sources]
    path = folder / "some.ipynb"
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    return path


def test_declared_parameters_keep_order_defaults_and_comments(tmp_path):
    source = [
        "# a line of its own\n",
        'NAME = "a # b"  # text; "" means none\n',
        "RATES = [1e-4, -2.0]  # tried in order\n",
        "QUERIES = {\n",
        '    "a": ["x"],\n',
        "}  # at the end\n",
        "COUNT: int = -3\n",
    ]
    assert list(declared_parameters(notebook(tmp_path, source)).values()) == [
        Parameter("NAME", "a # b", 'text; "" means none', 2),
        Parameter("RATES", [1e-4, -2.0], "tried in order", 3),
        Parameter("QUERIES", {"a": ["x"]}, "at the end", 4),
        Parameter("COUNT", -3, "", 7),
    ]


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "0 cells are tagged"),
        (["A = 1", "B = 2"], "2 cells are tagged"),
        (["A = 1\nA = 2"], "assigns A twice"),
        (["A = 1\nB = A"], "line 2, is not `NAME = literal`"),
        (["A = len('x')"], "is not `NAME = literal`"),
        (["A = None"], "is not `NAME = literal`"),
        (["A = (1, 2)"], "is not `NAME = literal`"),
        (["A = B = 1"], "is not `NAME = literal`"),
        (["A, B = 1, 2"], "is not `NAME = literal`"),
        (["A += 1"], "is not `NAME = literal`"),
        (["A: int"], "is not `NAME = literal`"),
        (["import os"], "is not `NAME = literal`"),
        (["A = "], "not valid Python"),
    ],
)
def test_an_unusable_parameters_cell_is_refused(tmp_path, sources, message):
    with pytest.raises(DeclarationError, match=message):
        declared_parameters(notebook(tmp_path, *sources))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"cells": [1]}', '{"cells": [{"metadata": "x"}]}', "\xff"])
def test_a_file_that_is_no_notebook_is_refused(tmp_path, text):
    path = tmp_path / "some.ipynb"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DeclarationError, match="not a Jupyter notebook"):
        declared_parameters(path)
    with pytest.raises(DeclarationError, match="no such notebook"):
        declared_parameters(tmp_path / "missing.ipynb")


def test_nearest_ignores_case():
    names = ["EPOCHS", "SEED", "SVM_C"]
    assert [nearest(name, names) for name in ("EPOCS", "epochs", "svmc", "sed")] == [
        "EPOCHS",
        "EPOCHS",
        "SVM_C",
        "SEED",
    ]


@pytest.mark.parametrize(
    ("check", "value", "limits"),
    [
        (require_type, True, [bool]),
        (require_type, 3, [float]),
        (require_type, {}, [dict]),
        (require_one_of, "svm", [["svm", "dnn"]]),
        (require_one_of, 224, [(224, 300)]),
        (require_between, 1, [1, 10]),
        (require_between, 10, [1, 10]),
        (require_between, 10**9, [1]),
        (require_between, 0.5, [0.0, 0.5]),
        (require_between, 0, [0.0, 0.5]),
        (require_each, [1, 2], [require_between, 1, 2]),
        (require_each, {"a": "x"}, [require_type, str]),
    ],
)
def test_checks_let_right_values_pass(check, value, limits):
    check("X", value, *limits)


@pytest.mark.parametrize(
    ("check", "value", "limits", "message"),
    [
        (require_type, "true", [bool], "X is 'true'; allowed is True or False."),
        (require_type, 1, [bool], "X is 1; allowed is True or False."),
        (require_type, True, [int], "X is True; allowed is a whole number."),
        (require_type, "15", [int], "X is '15'; allowed is a whole number."),
        (require_type, True, [float], "X is True; allowed is a finite number."),
        (require_type, math.inf, [float], "X is inf; allowed is a finite number."),
        (require_type, 13, [str], "X is 13; allowed is text."),
        (require_type, "[1]", [list], "X is '[1]'; allowed is a list."),
        (require_type, {1: 2}, [dict], "X is {1: 2}; allowed is a mapping with text as keys."),
        (
            require_one_of,
            "smaple",
            [["sample", "folder"]],
            "X is 'smaple'; allowed are 'sample', 'folder' - did you mean 'sample'?",
        ),
        (require_one_of, "zzz", [["sample", "folder"]], "X is 'zzz'; allowed are 'sample', 'folder'."),
        (require_one_of, True, [[1, 2]], "X is True; allowed are 1, 2."),
        (require_one_of, ["a"], [["a"]], "X is ['a']; allowed are 'a'."),
        (require_between, 0, [1, 10], "X is 0; allowed are whole numbers from 1 to 10."),
        (require_between, 3.0, [1, 10], "X is 3.0; allowed are whole numbers from 1 to 10."),
        (require_between, "3", [1, 10], "X is '3'; allowed are whole numbers from 1 to 10."),
        (require_between, True, [1, 10], "X is True; allowed are whole numbers from 1 to 10."),
        (require_between, -1, [0], "X is -1; allowed are whole numbers from 0."),
        (require_between, 0.9, [0.05, 0.5], "X is 0.9; allowed are numbers from 0.05 to 0.5."),
        (require_between, math.nan, [0.0, 1.0], "X is nan; allowed are numbers from 0.0 to 1.0."),
        (require_between, math.inf, [0.0], "X is inf; allowed are numbers from 0.0."),
        (require_between, True, [0.0, 1.0], "X is True; allowed are numbers from 0.0 to 1.0."),
        (
            require_each,
            [1, 5],
            [require_between, 1, 2],
            "X[1] is 5; allowed are whole numbers from 1 to 2.",
        ),
        (require_each, {"a": 1}, [require_type, str], "X['a'] is 1; allowed is text."),
        (
            require_each,
            [],
            [require_type, str],
            "X is []; allowed is a list or mapping with at least one element.",
        ),
        (
            require_each,
            "abc",
            [require_type, str],
            "X is 'abc'; allowed is a list or mapping with at least one element.",
        ),
    ],
)
def test_checks_refuse_wrong_values_in_one_sentence(check, value, limits, message):
    with pytest.raises(ParameterError) as refusal:
        check("X", value, *limits)
    assert str(refusal.value) == message


def test_a_long_value_is_shortened_in_the_message():
    with pytest.raises(ParameterError) as refusal:
        require_type("X", "a" * 500, int)
    assert str(refusal.value) == f"X is '{'a' * 76}...; allowed is a whole number."
