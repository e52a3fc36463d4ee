"""The documents say what the files say, ask what no file knows, read every label as text, and replace whole files."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from documented_run import RUN, documented_run
from markdown import markdown

from tdsp_vision.__main__ import main
from tdsp_vision.documents import render
from tdsp_vision.documents.commands import fill
from tdsp_vision.documents.facts import read_facts
from tdsp_vision.parameters import read_settings
from tdsp_vision.paths import ROOT

COMMITTED = ROOT / "docs" / "deliverable_docs"
QUESTIONS = read_settings(render.QUESTIONS)
LINK = r"\]\((?!https:)([^)]+)\)"


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the table whose first line begins with `heading`, without its head."""
    table = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def rendered(made, answers=()) -> dict[str, str]:
    return render.render_markdown(read_facts(*made), dict(answers))


@pytest.fixture
def made(tmp_path):
    return documented_run(tmp_path)


def test_every_number_is_the_files(made):
    texts = rendered(made)
    report = texts["model_report"]
    measures = {name: cells for name, *cells in rows(report, "measure")}
    assert len(measures) == 9 and measures["F1"] == ["0.540 (0.440 to 0.640)"] * 2
    assert measures["AUC"] == ["0.500"] * 2 and "\nOf one group only.\n" in report  # an interval that is null
    assert rows(report, "true class") == [["benign", "8", "8"], ["malignant", "7", "7"]]
    assert rows(report, "class")[0] == ["benign", "8", "0.500", "0.250", "0.750", "–"]
    assert rows(report, "what is known") == [["sex", "female", "7", "4", "too few", "–", "–"]]
    assert rows(report, "c") == [["0.25", "0.7125"], ["0.5", "0.6875"]]
    assert rows(report, "side")[1:] == [["validation", "8", "2", "4", "4"], ["test", "16", "4", "8", "8"]]
    assert "8 of 16 test images were called wrongly" in report and len(rows(report, "image")) == 8
    for said in ("reaches **0.437**", "from: the best on validation.", "(95 % interval 0.438 to 0.688)"):
        assert all(said in texts[name] for name in ("model_report", "model_card", "exit_report"))
    for said in ("age alone: AUC 0.622", "**6.2%** fall below it"):
        assert said in texts["model_card"] and said in texts["exit_report"]
    judged = [
        ["the test", "16", "0.500", "0.560", "6.2%", ""],
        ["clinic", "9", "0.688 (0.562 to 0.812)", "0.125", "25.0%", "7"],
    ]
    assert rows(texts["model_card"], "judged on") == rows(texts["exit_report"], "judged on") == judged
    service, sheet = texts["exit_report"], texts["datasheet"]
    assert "A stand-in. It served version 3 of `birds`." in service and "**2.5e-07**, and up to 1e-05" in service
    assert "Of `familiar` it is 3.0e-06." in service
    assert rows(service, "clients at once") == [["8", "321", "4", "12.2", "34.5", "160"]]
    for said in ("40 images in 10 groups", "left out: 1;", "CC-BY: 34 images, unknown: 6", "licence do the 6 images"):
        assert said in sheet
    assert "still those that the run used" in sheet and "drawings" not in sheet


def test_what_changed_since_the_run_what_is_drawn_and_which_run_is_served_is_said(made):
    dataset, outputs, _ = made
    dataset.corrections.write_text("path,label\nimages/0.jpg,malignant\nimages/1.jpg,EXCLUDE\n")
    dataset.manifest.write_text(dataset.manifest.read_text().replace("Ann", "drawn by tdsp_vision.data"))
    (outputs.deployment / "service.json").write_text('{"run": "the-other", "model": "birds"}')
    texts = rendered(made)
    changes = ("gave 2 images another label", "2 of the images that", "and 1 are new", "39 of 39 images are drawings")
    assert all(said in texts["datasheet"] for said in changes)
    assert "served another run, `the-other`" in texts["exit_report"] and "birds" not in texts["exit_report"]


def test_what_no_file_knows_is_asked_and_what_a_person_says_is_told(made):
    texts = rendered(made)
    asked = re.findall(r"\(`(\w+)`\)", "".join(texts.values()))
    assert set(asked) == set(QUESTIONS) == {row[0].strip("`") for row in rows(texts["README"], "key")}
    told = rendered(made, dict.fromkeys(QUESTIONS, "1. The *lab*\n# <and> | others"))
    assert "Open question** (" not in "".join(told.values()) and f"All {len(QUESTIONS)} questions" in told["README"]
    for name in ("project_charter", "data_report", "datasheet"):  # the data stage's own questions are answered as well
        assert "?** &#49;. The &#42;lab&#42;\n\n&#35; &#60;and&#62; &#124; others" in told[name]
    stage = "".join(path.read_text() for path in (ROOT / "code/tdsp_vision/data").glob("*.py"))
    assert all(f'"{QUESTIONS[key]}"' in stage for key in ("labels", "devices"))


def test_whatever_is_missing_becomes_an_open_question(made):
    """Each file of the run, data set and deployment, and each entry at any depth of each JSON file."""
    dataset, outputs, run = made
    complete = rendered(made)
    assert "Open question:" not in complete["model_report"] + complete["exit_report"] + complete["model_card"]
    files = [file for folder in (run, dataset.root, outputs.deployment) for file in folder.glob("*.*")]
    assert len(files) == 13
    for file in files:
        content = file.read_bytes()
        file.unlink()
        assert f"`{file.name}`, which is missing" in "".join(rendered(made).values())
        for less in pruned(json.loads(content)) if file.suffix == ".json" else ():
            file.write_text(json.dumps(less))
            assert not re.search("\0|None|Undefined", "".join(rendered(made).values())), less
        file.write_bytes(content)


def pruned(content):
    for key in content if isinstance(content, dict) else ():
        yield {name: value for name, value in content.items() if name != key}
        yield from (content | {key: less} for less in pruned(content[key]))


@pytest.mark.parametrize("classes", [("ant", "bee", "None"), tuple(f"kind {k}" for k in range(30))])
def test_many_classes_without_a_positive_one(tmp_path, classes):
    texts = rendered(documented_run(tmp_path, classes, ""))
    report, everything = texts["model_report"], "".join(texts.values())
    assert not re.search(r"[Ss]ensitivity|[Pp]atient|must not be missed", report + texts["model_card"])
    assert ["top-5 accuracy", "0.570 (0.470 to 0.670)", "0.570 (0.470 to 0.670)"] in rows(report, "measure")
    assert max(line.count("|") for line in everything.splitlines()) <= 17
    assert ("bee, None" if len(classes) == 3 else "kind 11 and 18 more") in report


def test_markup_in_names_is_text(tmp_path):
    nasty = "<b onclick=x>|*a*_`[x](javascript:y)", "<script>b"
    made = documented_run(tmp_path, nasty, nasty[1])
    made[0].report.write_text("# Data report\n\n- <b onclick=x> <img src=x>\n", encoding="utf-8")
    texts = rendered(made)
    html = "".join(markdown(text, extensions=["tables"]) for text in texts.values())
    assert not re.search(r"<(b|script|img src=\"x)\b|javascript:y\"", html)
    assert [row[0] for row in rows(texts["model_report"], "class")] == [render.escape(name) for name in nasty]
    for value in ("efficientnet_lite0: 0.5 to -1.5, 2026. A dog's (tail) #3 a.b", "-1"):
        assert render.escape(value) == value


def test_documents_are_replaced_whole_and_nothing_else_is_touched(made, tmp_path, monkeypatch):
    folder = fill(*made[:2], "latest", tmp_path / "out", None)
    linked = set(re.findall(LINK, "".join(file.read_text() for file in folder.glob("*.md"))))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert linked <= files and {"figures/data/m.png", "figures/model/new.png"} <= files and len(files) == 11
    (folder / "answers.yml").write_text("team: we\n")
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in folder.rglob("*.*")}
    writes = []
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda *_: writes.append(1) if len(writes) < 4 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            fill(*made[:2], "latest", folder, None)
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in folder.rglob("*.*")} == before
    fill(*made[:2], "latest", folder, None)
    assert (folder / "answers.yml").stat().st_ino == before[folder / "answers.yml"][1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 0, f"documents in outputs/tiny/runs/{RUN}/documents; begin with README.md"),
        (["--answers", "good.yml", "--into", "handed"], 0, "documents in handed"),
        (["--run", "nope"], 2, f"RUN is 'nope'; allowed are 'latest', 'best' and '{RUN}'"),
        (["--dataset", "none"], 2, "There is no run in outputs/none/runs"),
        (["--answers", "wrong.yml"], 2, "No question is called 'teem'; the nearest is 'team'"),
        (["--into", "data"], 2, "data holds 'tiny', which is no document"),
        (["--run", "broken"], 2, "broken/metrics.json cannot be read: Expecting"),
    ],
)
def test_the_command(made, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (made[0].root / "answers.yml").write_text("team: 007\nplan:\n")
    for name, text in {"good": "team: Three", "wrong": "teem: we"}.items():
        Path(f"{name}.yml").write_text(text)
    if "broken" in arguments:
        made[2].rename(made[2].with_name("broken")).joinpath("metrics.json").write_text("{")
    result = CliRunner().invoke(main, ["report", "--dataset", "tiny", *arguments])
    assert (result.exit_code, message in result.output) == (code, True), result.output
    if not code:
        charter = (tmp_path / ("handed" if arguments else made[2] / "documents") / "project_charter.md").read_text()
        assert ("decides?** Three" if arguments else "decides?** 007") in charter and "(`plan`)" in charter


def test_committed_documents_are_of_these_templates_and_of_the_committed_notebook():
    """`make notebooks` writes both; a change of a template, of a file's keys or of a number needs it again."""
    texts = {file.stem: file.read_text() for file in COMMITTED.glob("*.md")}
    answered = re.findall(r"(?m)^(\w+):", (COMMITTED / "answers.yml").read_text())
    assert sorted(answered + [row[0].strip("`") for row in rows(texts["README"], "key")]) == sorted(QUESTIONS)
    assert "Open question:" not in "".join(texts.values())  # the default run has all files, and every key in them
    figures = {file.relative_to(COMMITTED).as_posix() for file in COMMITTED.rglob("*.png")}
    assert set(re.findall(LINK, "".join(texts.values()))) == figures | {f"{name}.md" for name in texts}
    auc = re.search(r"- AUC: \*\*([\d.]+) \(([\d.]+ to [\d.]+)\)", texts["model_report"])
    notebook = (ROOT / "code/02_modeling/modeling.ipynb").read_text()
    assert auc[1] in notebook and auc[2] in notebook
