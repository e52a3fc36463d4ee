"""The runner: what is run with which values, what it prints, and what is left behind when a notebook fails.

Toy notebooks in tests/notebooks stand in for the real ones: they write the same files within a second.
"""

import io
import json
import re
from pathlib import Path

import nbformat
import pytest

from tdsp_vision.execution import RunFailed, run_notebook
from tdsp_vision.parameters import ParameterError
from tdsp_vision.runner import places, plan, run_walkthrough

TOYS = {
    stage: Path(__file__).parent / f"notebooks/{name}.ipynb"
    for stage, name in {"data": "data", "model": "modeling", "deploy": "deployment"}.items()
}


@pytest.fixture(autouse=True)
def workspace(tmp_path, monkeypatch):
    folder = tmp_path / "a {workspace}"  # papermill formats paths, so braces need care
    monkeypatch.setenv("TDSP_WORKSPACE", str(folder))
    return folder


def run(settings, *stages):
    """What a walkthrough of the toys prints."""
    out = io.StringIO()
    run_walkthrough(settings, stages, TOYS, out)
    return out.getvalue()


def only(folder, pattern):
    (found,) = folder.glob(pattern)
    return found


SVM, DNN = {"CLASSIFIER": "svm"}, {"CLASSIFIER": "dnn"}


@pytest.mark.parametrize(
    ("settings", "stages", "expected"),
    [
        ({}, [], [("data", {}), ("model-svm", SVM), ("model-dnn", DNN), ("deploy", {})]),
        ({}, ["deploy", "data"], [("data", {}), ("deploy", {})]),
        ({}, ["model"], [("model-svm", SVM), ("model-dnn", DNN)]),
        ({}, ["data", "data"], [("data", {})]),
        ({"CLASSIFIER": "dnn"}, [], [("data", {}), ("model-dnn", DNN), ("deploy", {})]),
        ({"CLASSIFIER": "svm", "EPOCHS": "3"}, ["model"], [("model-svm", SVM | {"EPOCHS": 3})]),
        (
            {"DATASET_NAME": "13", "DATA_DIR": "d"},
            [],
            [
                ("data", {"DATASET_NAME": "13", "DATA_DIR": "d"}),
                ("model-svm", SVM | {"DATASET_NAME": "13", "DATA_DIR": "d"}),
                ("model-dnn", DNN | {"DATASET_NAME": "13", "DATA_DIR": "d"}),
                ("deploy", {"DATASET_NAME": "13"}),
            ],
        ),
        ({"OUTPUT_DIR": "elsewhere"}, ["data"], [("data", {})]),
    ],
)
def test_the_plan_gives_each_notebook_the_settings_it_declares(settings, stages, expected):
    assert [(step.name, step.parameters) for step in plan(settings, stages, TOYS)] == expected


def test_the_plan_names_stages_and_notebooks():
    steps = plan({}, [], TOYS)
    assert [step.title for step in steps] == [
        "data acquisition",
        "modeling (svm)",
        "modeling (dnn)",
        "deployment",
    ]
    assert [step.notebook for step in steps] == [TOYS[step.stage] for step in steps]


@pytest.mark.parametrize(
    ("settings", "stages", "message"),
    [
        ({"EPOCS": "3"}, [], "EPOCS is a parameter of no notebook; the nearest is EPOCHS"),
        ({"epochs": "3"}, [], "epochs is a parameter of no notebook; the nearest is EPOCHS"),
        ({"EPOCHS": "abc"}, [], "EPOCHS is 'abc'; expected a whole number, such as 2."),
        ({"TENSORBOARD": "maybe"}, [], "TENSORBOARD is 'maybe'; expected True or False"),
        ({"LEARNING_RATE": "nan"}, [], "LEARNING_RATE is 'nan'; expected a finite number"),
        ({"CLASSIFIER": "svn"}, [], "CLASSIFIER is 'svn'; allowed are 'svm', 'dnn' - did you mean 'svm'?"),
        ({"EPOCHS": "3"}, ["data", "deploy"], "EPOCHS is a parameter of stage model, which is not among"),
        ({"EPOCHS": "3"}, ["data"], "add --stage model or leave EPOCHS out"),
        ({"DATA_DIR": "d"}, ["deploy"], "DATA_DIR is a parameter of stage data and model, which"),
        ({}, ["modell"], "--stage is 'modell'; allowed are 'data', 'model', 'deploy' - did you mean 'model'?"),
    ],
)
def test_a_wrong_setting_is_refused_before_anything_runs(workspace, settings, stages, message):
    with pytest.raises(ParameterError) as refusal:
        run(settings, *stages)
    assert message in str(refusal.value)
    assert not workspace.exists()


def test_places_come_from_settings_or_defaults(workspace):
    dataset, outputs = places({}, TOYS)
    assert (dataset.root, outputs.root) == (workspace / "data/toys", workspace / "outputs/toys")
    dataset, outputs = places({"DATASET_NAME": "13", "OUTPUT_DIR": "o", "DATA_DIR": "/d"}, TOYS)
    assert (dataset.root, outputs.root) == (Path("/d/13"), workspace / "o/13")
    with pytest.raises(ParameterError, match="DATASET_NAME is '../up'; it becomes a folder name"):
        places({"DATASET_NAME": "../up"}, TOYS)


def test_a_whole_walkthrough_ends_in_a_table(workspace):
    printed = run({"RUN_NAME": "0013", "SVM_C": "[1e-4, 1]", "IMAGES_PER_CLASS": 3})
    results = workspace / "outputs/toys"
    metrics = json.loads((results / "runs/run-svm/metrics.json").read_text())
    assert (metrics["run_name"], metrics["svm_c"]) == ("0013", [0.0001, 1.0])
    executed = only(results / "notebooks", "*")
    assert re.fullmatch(r"\d{8}-\d{6}", executed.name)
    assert {file.name for file in executed.iterdir()} == {
        f"{name}.ipynb" for name in ("data", "model-svm", "model-dnn", "deploy")
    }
    progress, table = printed.split("\n\n", 1)
    assert re.sub(r"\.+ \d+ s", "T", progress) == (
        "1/4 data acquisition T\n2/4 modeling (svm) T\n3/4 modeling (dnn) T\n4/4 deployment T"
    )
    assert table.splitlines() == [
        "images          6: cat 3, dog 3",
        "",
        "classifier      accuracy   balanced accuracy   AUC (95% interval)    run",
        "svm             0.500      0.625               0.750 (0.700-0.812)   run-svm",
        "dnn             0.500      0.625               0.750 (0.700-0.812)   run-dnn",
        "",
        "model           outputs/toys/runs/run-svm/model.keras",
        "figures         outputs/toys/runs/run-svm/figures",
        "model           outputs/toys/runs/run-dnn/model.keras",
        "figures         outputs/toys/runs/run-dnn/figures",
        f"notebooks       outputs/toys/notebooks/{executed.name}",
        "",
        "scored request  outputs/toys/deployment/request.json, 2 images",
        "                a toy stands in for a server",
        "                cat/a.jpg                            cat 0.375",
        "                cat/broken.jpg                       cannot be read as an image",
    ]
    (injected,) = [
        cell
        for cell in nbformat.read(executed / "model-svm.ipynb", as_version=4).cells
        if "injected-parameters" in cell.metadata.get("tags", [])
    ]
    assert 'RUN_NAME = "0013"' in injected.source


@pytest.mark.parametrize(
    ("settings", "reason", "cell"),
    [
        ({"FAIL": "error"}, "cell In [4]: KeyError: 'missing image'", 4),
        ({"EPOCHS": 0}, "cell In [3]: EPOCHS is 0; allowed are whole numbers from 1 to 100.", 3),
        ({"FAIL": "die"}, "code cell 4 of 7: Kernel died; its last words: none", 4),
    ],
)
def test_a_failure_names_stage_cell_reason_and_notebook(workspace, settings, reason, cell):
    with pytest.raises(RunFailed) as failure:
        run({"CLASSIFIER": "dnn"} | settings, "data", "model")
    first, second = str(failure.value).splitlines()
    assert first.startswith(f"modeling (dnn) failed in {reason}")
    partly = workspace / second.removeprefix("partly executed notebook: ")
    cells = [c for c in nbformat.read(partly, as_version=4).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells[: cell - 1]] == list(range(1, cell))
    assert cells[cell].execution_count is None
    assert (partly.parent / "data.ipynb").is_file()


def test_the_kernel_is_this_interpreter_whatever_is_registered(workspace, tmp_path, monkeypatch):
    registered = tmp_path / "jupyter/kernels/python3/kernel.json"
    registered.parent.mkdir(parents=True)
    registered.write_text('{"argv": ["/bin/false"], "display_name": "another Python", "language": "python"}')
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    output = run_notebook(TOYS["data"], {"IMAGES_PER_CLASS": 1}, workspace / "out.ipynb")
    assert (output, output.is_file()) == (workspace / "out.ipynb", True)
    assert (workspace / "data/toys/dataset.json").is_file()


def test_plain_papermill_values_are_refused_by_the_notebook(workspace):
    with pytest.raises(RunFailed, match="TENSORBOARD is 'true'; allowed is True or False"):
        run_notebook(TOYS["model"], {"TENSORBOARD": "true"}, workspace / "out.ipynb")
