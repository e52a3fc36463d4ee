"""Every command that README and docs show: names and values are checked by what would read them, two are executed."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from test_walkthrough import photos_of

from tdsp_vision.__main__ import main
from tdsp_vision.parameters import as_settings
from tdsp_vision.paths import ROOT, SAMPLE_DATA
from tdsp_vision.runner import plan
from tdsp_vision.sweeps.sweep import plan_sweep

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "sample_data" / "README.md"]
OWN_IMAGES = "python -m tdsp_vision run -p SOURCE folder -p SOURCE_PATH ~/birds"
REPORT = "python -m tdsp_vision report"


def commands(page: Path) -> list[str]:
    """Lines of the blocks of a page that begin as commands do, and commands and targets of make in the text."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.M | re.S)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`((?:python -m|make) [^`]+)`", text)
    return [line.split(" #")[0] for line in lines if re.match(r"(\$ )?(python|pip|make|uv|source|git|cd)\b", line)]


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A home folder with `birds`, as the pages suppose it, and commands that stop where their work would begin."""
    monkeypatch.setenv("HOME", str(tmp_path))
    photos_of(SAMPLE_DATA / "lesions", tmp_path / "birds", 14)
    instead = {name: lambda **_: None for name in main.commands}
    instead["run"] = lambda parameters, stages, **_: plan(as_settings(parameters, "-p"), stages)
    instead["sweep"] = lambda choices, fixed, ranges, metric, trials, **_: plan_sweep(
        *(as_settings(pairs, "") for pairs in (choices, fixed, ranges)), metric, trials
    )
    for name, command in main.commands.items():
        monkeypatch.setattr(command, "callback", instead.get(name, lambda **_: None))
    return tmp_path


def refusal(line: str) -> str:
    """Why a command would not be taken; "" if it would."""
    program, *words = shlex.split(line)
    if words[:2] == ["-m", "tdsp_vision"]:
        # One that is only named, as in `python -m tdsp_vision sweep`, is asked for help.
        result = CliRunner().invoke(main, words[2:] if len(words) > 3 else [*words[2:], "--help"])
        return result.output if result.exit_code else ""
    if words[:1] == ["-m"]:
        return "" if importlib.util.find_spec(words[1]) else "no such module"
    if program == "make":
        return "" if re.search(rf"^{words[-1]}:", (ROOT / "Makefile").read_text(), re.M) else "no such target"
    if program == "python" and words[0].endswith(".py"):
        return "" if (ROOT / words[0]).is_file() else "no such file"
    known = line == "source .venv/bin/activate" or re.match(r"git clone https://|cd [a-z-]+$", line)
    return "" if known else "unknown command"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_command_of_a_page_would_be_taken(page, home):
    lines = [line for line in commands(page) if "<" not in line]  # a place to be filled in
    assert {line: why for line in lines if (why := refusal(line))} == {}


def test_a_wrong_command_is_noticed(home):
    wrong = ["make rnu", "python -m tdsp_vision.no_such_module", "pip install tdsp", "git clone here"]
    for words in ("rum", "run -p EPOCH 3", "run -p EPOCHS many", "run --stages data", "deploy --data birds delete"):
        wrong.append(f"python -m tdsp_vision {words}")
    wrong.append("python -m tdsp_vision sweep -g SVM_FEATURES lsat,pooled")
    assert [line for line in wrong if not refusal(line)] == []


@pytest.mark.slow
def test_the_commands_for_own_images_and_for_the_documents_do_what_the_page_says(home):
    shown = [line for page in PAGES for line in commands(page)]
    tiny = "--stage data --stage model -p CLASSIFIER svm -p WEIGHTS none -p IMAGE_SIZE 32"
    runs = {next(line for line in shown if line.startswith(OWN_IMAGES)): tiny, REPORT: "--dataset birds"}
    assert REPORT in shown
    environment = os.environ | {"TDSP_WORKSPACE": str(home), "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    for line, more in runs.items():
        command, how = ["bash", "-c", f"{line} {more}"], {"capture_output": True, "text": True}
        done = subprocess.run(command, env=environment, cwd=ROOT, **how)
        assert done.returncode == 0, done.stdout + done.stderr
    (report,) = (home / "outputs/birds/runs").glob("*/documents/model_report.md")
    assert "benign, malignant" in report.read_text() and "Open question:" not in report.read_text()
