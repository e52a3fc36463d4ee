"""What a sweep consists of: names and values as on the command line, typed, refused where they are wrong."""

import json

import pytest
from click.testing import CliRunner
from sweeping import toy_notebooks

from tdsp_vision import paths
from tdsp_vision.__main__ import main
from tdsp_vision.parameters import ParameterError
from tdsp_vision.sweeps.plan import Range, plan_sweep, split_values


@pytest.fixture
def toys(tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    notebooks = toy_notebooks(tmp_path)
    for stage, path in notebooks.items():
        monkeypatch.setitem(paths.NOTEBOOKS, stage, path)
    monkeypatch.delitem(paths.NOTEBOOKS, "deploy")
    return notebooks


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("224,448", ["224", "448"]),
        ("[0.0001],[0.001,0.01]", ["[0.0001]", "[0.001,0.01]"]),
        ("[0.05]*7,cosine", ["[0.05]*7", "cosine"]),
        ("{a: [1, 2], b: [3]}, {}", ["{a: [1, 2], b: [3]}", "{}"]),
        (",malignant", ["", "malignant"]),
        ("one", ["one"]),
    ],
)
def test_values_are_split_at_commas_outside_of_brackets(text, parts):
    assert split_values(text) == parts


def test_a_grid_is_every_combination_typed_and_named(toys, tmp_path):
    given = [("SVM_C", "[1e-4],[0.001,0.01]"), ("SCHEDULE", "[0.05]*7,cosine"), ("IMAGE_SIZE", "224")]
    sweep = plan_sweep(given, {"DROPOUT": "0.5", "DATASET_NAME": "13"}, notebooks=toys)
    trials = sweep.grid()
    assert [trial.values for trial in trials] == [
        {"IMAGE_SIZE": 224, "SCHEDULE": schedule, "SVM_C": c}
        for schedule in ("[0.05]*7", "cosine")
        for c in ([0.0001], [0.001, 0.01])
    ]
    assert [trial.name for trial in trials] == [f"{sweep.id}-00{n}" for n in (1, 2, 3, 4)]
    fixed = {"DROPOUT": 0.5, "DATASET_NAME": "13", "RUN_NAME": trials[0].name}
    assert trials[0].parameters == trials[0].values | fixed
    assert sweep.folder == tmp_path / "outputs/13/sweeps" / sweep.id


def test_the_same_command_is_the_same_sweep_and_nothing_else_is(toys, tmp_path):
    one = [("IMAGE_SIZE", "224,448"), ("CLASSIFIER", "svm,dnn")]
    first = plan_sweep(one, {"DROPOUT": "0.5"}, notebooks=toys)
    assert plan_sweep(one[::-1], {"DROPOUT": "0.50"}, notebooks=toys) == first
    others = [
        plan_sweep(one, {}, notebooks=toys),
        plan_sweep(one[:1], {"DROPOUT": "0.5"}, notebooks=toys),
        plan_sweep(one[:1], {"DROPOUT": "0.5", "CLASSIFIER": "dnn"}, notebooks=toys),
        plan_sweep(one, {"DROPOUT": "0.5", "DATASET_NAME": "b"}, notebooks=toys),
        plan_sweep(one, {"DROPOUT": "0.5"}, [("EPOCHS", "1..3")], toys),
    ]
    (tmp_path / "data/toys").mkdir(parents=True)
    (tmp_path / "data/toys/manifest.csv").write_text("path,label\n")
    others.append(plan_sweep(one, {"DROPOUT": "0.5"}, notebooks=toys))  # other data
    assert len({first.id, *(sweep.id for sweep in others)}) == 7


def test_ranges_are_typed_by_their_parameter(toys):
    ranges = [("DROPOUT", "0..0.5"), ("EPOCHS", "1..64:log")]
    assert plan_sweep([], {}, ranges, toys).ranges == {"DROPOUT": Range(0.0, 0.5, False), "EPOCHS": Range(1, 64, True)}


@pytest.mark.parametrize(
    ("choices", "fixed", "ranges", "message"),
    [
        ([("IMAGE_SICE", "1")], {}, [], "IMAGE_SICE is no parameter of the modeling notebook; the nearest is IMAGE_S"),
        ([], {"EPOCS": "1"}, [], "EPOCS is no parameter of the modeling notebook; the nearest is EPOCHS"),
        ([("SOURCE", "isic")], {}, [], "SOURCE is a parameter of stage data; a sweep runs stage model only"),
        ([("IMAGE_SIZE", "224,big")], {}, [], "IMAGE_SIZE is 'big'; expected a whole number"),
        ([("IMAGE_SIZE", "")], {}, [], "IMAGE_SIZE is ''; expected a whole number"),
        ([("SVM_C", "[0.1")], {}, [], "SVM_C is '[0.1'; expected a list"),
        ([("DROPOUT", "0.1,1e-1")], {}, [], "DROPOUT has the value 0.1 more than once in '0.1,1e-1'"),
        ([("CLASSIFIER", "svm,cnn")], {}, [], "CLASSIFIER is 'cnn'; allowed are 'svm', 'dnn'"),
        ([("EPOCHS", "1")], {"CLASSIFIER": "cnn"}, [], "CLASSIFIER is 'cnn'; allowed are 'svm', 'dnn'"),
        ([("EPOCHS", "1"), ("EPOCHS", "2")], {}, [], "EPOCHS is given more than once"),
        ([("EPOCHS", "1")], {"EPOCHS": "2"}, [], "EPOCHS is given more than once"),
        ([("EPOCHS", "1")], {}, [("EPOCHS", "1..2")], "EPOCHS is given more than once"),
        ([("EPOCHS", "1")], {"RUN_NAME": "x"}, [], "RUN_NAME cannot be set in a sweep"),
        ([("DATASET_NAME", "a,b")], {}, [], "DATASET_NAME cannot vary in a sweep"),
        ([("EPOCHS", "1")], {"DATASET_NAME": "../x"}, [], "DATASET_NAME is '../x'; it becomes a folder name"),
        ([], {}, [("SCHEDULE", "1..2")], "SCHEDULE is no number, so it has no range"),
        ([], {}, [("DROPOUT", "0.5")], "DROPOUT is '0.5'; expected a range such as 0.1..0.5"),
        ([], {}, [("EPOCHS", "1..2.5")], "EPOCHS is '2.5'; expected a whole number"),
        ([], {}, [("DROPOUT", "0.5..0.1")], "DROPOUT is '0.5..0.1'; a range has to end above its start"),
        ([], {}, [("DROPOUT", "0..0.1:log")], "DROPOUT is '0..0.1:log'; a range has to start above 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_refused_in_a_sentence(toys, choices, fixed, ranges, message):
    with pytest.raises(ParameterError) as refusal:
        plan_sweep(choices, fixed, ranges, toys)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-g", "EPOCS", "1,2"], "EPOCS is no parameter"),
        ([], "Nothing varies"),
        (["-g", "EPOCHS", "1", "-p", "DROPOUT", "0", "-p", "DROPOUT", "1"], "DROPOUT is given more than once with -p"),
        (["-r", "DROPOUT", "0..0.5"], "-r belongs to a search: add --search optuna"),
        (["-g", "EPOCHS", "1", "--trials", "3"], "--trials belongs to a search"),
        (["--search", "optuna", "-r", "DROPOUT", "0..0.5"], "--search needs --trials"),
        (["-g", "EPOCHS", "1", "--jobs", "0"], "0 is not in the range x>=1"),
        (["-f", "missing.yaml", "-g", "EPOCHS", "1"], "missing.yaml cannot be read"),
    ],
)
def test_a_wrong_command_ends_with_code_2_and_leaves_nothing(toys, tmp_path, arguments, message):
    result = CliRunner().invoke(main, ["sweep", *arguments])
    assert (result.exit_code, message in result.output) == (2, True), result.output
    assert not (tmp_path / "outputs").exists()


def test_a_cluster_without_ray_is_explained(toys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    result = CliRunner().invoke(main, ["sweep", "-g", "EPOCHS", "1", "--ray", "auto"])
    assert (result.exit_code, 'pip install "tdsp-vision[ray]"' in result.output) == (1, True), result.output


def test_the_plan_is_plain_data(toys):
    (trial,) = plan_sweep([("SVM_C", "[0.1]")], {}, notebooks=toys).grid()
    assert json.loads(json.dumps(vars(trial))) == vars(trial)
