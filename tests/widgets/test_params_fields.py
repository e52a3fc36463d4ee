"""The fields of the form: what is allowed is read from the notebook, a wrong text gets the sentence of the runner."""

import nbformat
import pytest

from tdsp_vision import paths
from tdsp_vision.parameters import DeclarationError
from tdsp_vision.widgets.params_fields import ParameterForm, parameter_table

PARAMETERS = """
COLOR = "red"  # red | green
SIZE = 3  # pixels
SHARE = 0.5  # of all
RATES = [0.1, 0.2]  # to try
WORDS = {"a": ["b"]}  # by label
LOUD = False  # says more
NAME = ""  # free
KIND = "cat"  # one of the classes
"""
CHECKS = """
from tdsp_vision.parameters import require_between, require_each, require_one_of, require_type
MORE = ["blue"]
require_one_of("COLOR", COLOR, ["red", "green", *MORE])
for name in ("SIZE",):
    require_between(name, globals()[name], 1, 2**4 - 1)
require_between("SHARE", SHARE, 0.0)
require_each("RATES", RATES, require_between, 1e-3, 1.0)
require_type("NAME", NAME, str)
require_one_of("KIND", KIND, sorted(open("classes")))
MORE = open("more")
require_one_of("NAME", NAME, [*MORE])
"""


def notebook(folder, *sources):
    """A notebook whose first cell is tagged `parameters`."""
    cells = [nbformat.v4.new_code_cell(source.strip()) for source in sources]
    cells[0].metadata["tags"] = ["parameters"]
    file = folder / "toy.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Toy"), *cells]), file)
    return file


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A toy as the notebook of the first stage."""
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    file = notebook(tmp_path, PARAMETERS, CHECKS, "%matplotlib inline\nraise SystemExit")
    monkeypatch.setitem(paths.NOTEBOOKS, "data", file)
    return file


def test_what_is_allowed_is_read_from_the_notebook(toy):
    assert parameter_table("data").allowed.to_dict() == {
        "COLOR": "red | green | blue",
        "SIZE": "1 to 15",
        "SHARE": "0 or more",
        "RATES": "a list, each 0.001 to 1",
        "WORDS": "a mapping with text as keys",
        "LOUD": "True or False",
        "NAME": "text",
        "KIND": "text",
    }


@pytest.mark.parametrize("stage", paths.NOTEBOOKS)
def test_the_real_notebooks_make_a_table_and_a_form_that_changes_nothing(stage):
    form = ParameterForm(paths.NOTEBOOKS[stage])
    assert (form.errors(), form.changed()) == ({}, {})
    assert {name: form.value(name) for name in form.texts} == {n: p.default for n, p in form.parameters.items()}
    table = parameter_table(paths.NOTEBOOKS[stage])
    assert list(table.index) == list(form.parameters)
    assert (table.meaning != "").all() and (table.allowed != "").all()


def test_the_real_checks_are_found():
    allowed = parameter_table("model").allowed
    assert (
        allowed["BACKBONE"] == "efficientnet_lite0 | alexnet | resnet18 | resnet34 | resnet50 | resnet101 | resnet152"
    )
    assert (allowed["EPOCHS"], allowed["SEED"]) == ("1 to 10000", "0 to 4294967295")
    assert allowed["SVM_C"] == "a list, each 1e-09 to 1e+06"


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("COLOR", "bleu", "COLOR is 'bleu'; allowed are 'red', 'green', 'blue' - did you mean 'blue'?"),
        ("SIZE", "many", "SIZE is 'many'; expected a whole number, such as 3."),
        ("SIZE", "16", "SIZE is 16; allowed are whole numbers from 1 to 15."),
        ("SHARE", "-0.1", "SHARE is -0.1; allowed are numbers from 0.0."),
        ("RATES", "[0.1, 2]", "RATES[1] is 2.0; allowed are numbers from 0.001 to 1.0."),
        ("RATES", "[]", "RATES is []; allowed is a list or mapping with at least one element."),
        ("WORDS", "[1]", "WORDS is '[1]'; expected a mapping with text as keys (of each: a list (of each: text))"),
        ("LOUD", "maybe", "LOUD is 'maybe'; expected True or False"),
    ],
)
def test_a_wrong_text_gets_the_sentence_of_the_runner(toy, name, text, sentence):
    form = ParameterForm(toy)
    form.texts[name] = text
    assert list(form.errors()) == [name]
    assert form.errors()[name].startswith(sentence)
    assert form.changed() == {}


def test_only_what_changed_in_meaning_is_passed(toy):
    form = ParameterForm(toy)
    form.texts |= {"SIZE": " 3 ", "RATES": "[0.10, 2e-1]", "SHARE": "1", "NAME": "0013", "WORDS": "{a: [1, b]}"}
    assert form.changed() == {"SHARE": "1.0", "WORDS": '{"a": ["1", "b"]}', "NAME": "0013"}


def test_a_cell_that_cannot_be_read_is_said(tmp_path):
    with pytest.raises(DeclarationError, match="toy.ipynb: a cell that checks parameters is not valid Python"):
        ParameterForm(notebook(tmp_path, "A = 1", "require_between('A', A, 1"))
