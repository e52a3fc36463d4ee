"""The command line: exit codes, messages in one sentence, quick answers, and plain papermill on the notebooks."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tdsp_vision import paths
from tdsp_vision.__main__ import main
from tdsp_vision.parameters import declared_parameters

TOYS = {
    stage: Path(__file__).parent / f"notebooks/{name}.ipynb"
    for stage, name in {"data": "data", "model": "modeling", "deploy": "deployment"}.items()
}
WITH_TOYS = f"""
import sys
from pathlib import Path
from tdsp_vision import paths
paths.NOTEBOOKS.update({{stage: Path(path) for stage, path in { ({s: str(p) for s, p in TOYS.items()})!r}.items()}})
from tdsp_vision.__main__ import main
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    for stage, path in TOYS.items():
        monkeypatch.setitem(paths.NOTEBOOKS, stage, path)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-p", "EPOCS", "3"], 2, "EPOCS is a parameter of no notebook; the nearest is EPOCHS"),
        (["-p", "EPOCHS", "abc"], 2, "EPOCHS is 'abc'; expected a whole number"),
        (["-p", "EPOCHS", "-3.5"], 2, "EPOCHS is '-3.5'; expected a whole number"),
        (["-p", "SVM_C", "[1"], 2, "SVM_C is '[1'; expected a list"),
        (["-p", "CLASSIFIER", "cnn"], 2, "CLASSIFIER is 'cnn'; allowed are 'svm', 'dnn'"),
        (["-p", "DATASET_NAME", "../x"], 2, "DATASET_NAME is '../x'; it becomes a folder name"),
        (["--stage", "data", "-p", "EPOCHS", "3"], 2, "EPOCHS is a parameter of stage model"),
        (["--stage", "modelling"], 2, "'modelling' is not one of 'data', 'model', 'deploy'"),
        (["-f", "missing.yaml"], 2, "missing.yaml cannot be read: No such file"),
        (["-f", "list.yaml"], 2, "list.yaml holds ['EPOCHS']; it has to map names to values"),
        (["-f", "broken.yaml"], 2, "broken.yaml is not valid YAML"),
        (["-f", "wrong.yaml"], 2, "EPOCHS is 'abc'; expected a whole number"),
        (["-f", "wrong.yaml", "-p", "EPOCHS", "0", "--stage", "model"], 1, "EPOCHS is 0; allowed are whole"),
        (["-p", "EPOCHS"], 2, "requires 2 arguments"),
    ],
)
def test_wrong_arguments_end_with_a_sentence_and_an_exit_code(toys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(toys)
    Path("list.yaml").write_text("- EPOCHS\n")
    Path("broken.yaml").write_text("EPOCHS: [\n")
    Path("wrong.yaml").write_text("EPOCHS: abc\n")
    result = CliRunner().invoke(main, ["run", *arguments])
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert Path("outputs").exists() == (code == 1)


def test_a_run_takes_values_from_file_and_command_line(toys):
    file = toys / "settings.yaml"
    file.write_text("IMAGES_PER_CLASS: 3\nDATASET_NAME: others\n")
    arguments = ["run", "--stage", "data", "-f", str(file), "-p", "IMAGES_PER_CLASS", "5"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "images          10: cat 5, dog 5" in result.stdout
    assert (toys / "data/others/dataset.json").is_file()


def test_params_lists_names_defaults_and_comments(toys):
    everything = CliRunner().invoke(main, ["params"])
    one = CliRunner().invoke(main, ["params", "model"])
    assert everything.exit_code == one.exit_code == 0
    assert one.stdout in everything.stdout
    assert "LEARNING_RATE        0.001\n" in one.stdout
    assert "highest step" in one.stdout
    assert "IMAGES_PER_CLASS" not in one.stdout


def test_an_unusable_notebook_is_said(toys, monkeypatch):
    monkeypatch.setitem(paths.NOTEBOOKS, "deploy", toys / "missing.ipynb")
    result = CliRunner().invoke(main, ["run"])
    assert (result.exit_code, result.stderr) == (1, "missing.ipynb: there is no such notebook.\n")


def test_a_wrong_name_is_answered_without_heavy_imports():
    script = f"""{WITH_TOYS}
try:
    main(["run", "-p", "EPOCS", "3"])
except SystemExit as stop:
    heavy = {{"papermill", "tensorflow", "keras", "nbformat", "nbclient", "pandas", "numpy"}}
    print(stop.code, sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "2 []\n"
    assert done.stderr.startswith("EPOCS is a parameter of no notebook; the nearest is EPOCHS")


def test_an_interrupt_leaves_one_sentence_and_no_kernel(tmp_path):
    script = f"""{WITH_TOYS}
main(["run", "--stage", "model", "-p", "FAIL", "wait"])
"""
    environment = os.environ | {"TDSP_WORKSPACE": str(tmp_path)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", script], env=environment, **pipes)
    note = tmp_path / "outputs/toys/kernel.pid"
    while not note.is_file():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted in stage modeling (svm); run again to go on\n"
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def papermill(*arguments, cwd):
    command = [sys.executable, "-m", "papermill", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def test_plain_papermill_runs_a_notebook_from_any_folder(toys):
    out = toys / "out.ipynb"
    done = papermill(TOYS["data"], out, "-p", "IMAGES_PER_CLASS", "7", cwd="/")
    assert done.returncode == 0, done.stderr
    assert '"cat": 7' in (toys / "data/toys/dataset.json").read_text()
    refused = papermill(TOYS["data"], out, "-p", "IMAGES_PER_CLASS", "seven", cwd="/")
    assert refused.returncode == 1
    assert "IMAGES_PER_CLASS is 'seven'; allowed are whole numbers from 1 to 100." in refused.stderr


@pytest.mark.parametrize("stage", ["data", "model", "deploy"])
def test_papermill_help_shows_every_parameter_of_the_real_notebooks(stage, tmp_path):
    shown = papermill("--help-notebook", paths.NOTEBOOKS[stage], cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    words = " ".join(shown.stdout.split())
    for parameter in declared_parameters(paths.NOTEBOOKS[stage]).values():
        assert parameter.comment, f"{parameter.name} has no comment"
        assert f" {parameter.name}: " in words
        assert " ".join(parameter.comment.split()) in words
