"""The documents say what the files say, ask what no file knows, read every label as text, and replace whole files."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from documented_run import RUN, change_json, documented_run
from markdown_it import MarkdownIt

from tdsp_vision.__main__ import main
from tdsp_vision.documents import render
from tdsp_vision.documents.commands import fill
from tdsp_vision.documents.facts import read_facts
from tdsp_vision.documents.render import escape, render_markdown
from tdsp_vision.parameters import read_settings
from tdsp_vision.paths import ROOT

COMMITTED = ROOT / "docs" / "deliverable_docs"
QUESTIONS = read_settings(render.QUESTIONS)


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the table whose first line begins with `heading`, without its head."""
    table = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def rendered(made, answers=()) -> dict[str, str]:
    return render_markdown(read_facts(*made), dict(answers))


@pytest.fixture
def made(tmp_path):
    return documented_run(tmp_path)


def test_every_number_is_the_files(made):
    texts = rendered(made)
    report = texts["model_report"]
    measures = {name: cells for name, *cells in rows(report, "measure")}
    assert len(measures) == 10 and measures["AUC"] == ["0.500", "0.500"]  # an interval that is null is left out
    assert measures["F1"] == measures["F1"][:1] * 2 == ["0.540 (0.440 to 0.640)"] * 2
    assert rows(report, "true class") == [["benign", "8", "8"], ["malignant", "7", "7"]]
    assert rows(report, "class")[0] == ["benign", "8", "0.500", "0.250", "0.750", "0.625"]
    assert rows(report, "what is known") == [["sex", "female", "7", "4", "too few", "–", "–"]]
    assert rows(report, "c") == [["0.25", "0.7125"], ["0.5", "0.6875"]]
    assert rows(report, "side") == [["train", "16", "4", "8", "8"], ["validation", "8", "2", "4", "4"]] + [
        ["test", "16", "4", "8", "8"]
    ]
    assert "8 of 16 test images were called wrongly" in report and len(rows(report, "image")) == 8
    assert rows(report, "parameter")[0] == ["`SVM_C`", "&#91;0.25, 0.5&#93;"]
    for card in (report, texts["model_card"], texts["exit_report"]):
        assert "reaches **0.437**" in card and "comes from: the best on validation." in card
        assert "**0.562** on the test (95 % interval 0.438 to 0.688)" in card and "- The test is small." in card
    service, sheet = texts["exit_report"], texts["datasheet"]
    assert "Backend local: a stand-in. It served version 3 of `birds`." in service
    assert "All 40 images" in service and "**2.5e-07**, and up to 1e-05 is allowed" in service
    assert rows(service, "clients at once") == [["8", "321", "4", "12.2", "34.5", "160"]]
    assert "40 images in 10 groups" in sheet and "left out: 1;" in sheet
    assert "CC-BY: 34 images, unknown: 6 images" in sheet and "What licence do the 6 images have" in sheet
    assert "still those that the run used" in sheet and "drawings" not in "".join(texts.values())


def test_what_changed_since_the_run_and_what_is_drawn_is_said(made):
    dataset = made[0]
    dataset.corrections.write_text("path,label\nimages/0.jpg,malignant\nimages/1.jpg,EXCLUDE\n")
    dataset.manifest.write_text(dataset.manifest.read_text().replace("A. Person", "drawn by tdsp_vision.data"))
    sheet = rendered(made)["datasheet"]
    assert "gave 2 images another label, or left them out" in sheet
    assert "2 of the images that the run used" in sheet and "and 1 are new or changed" in sheet
    assert "39 of 39 images are drawings" in sheet


def test_what_no_file_knows_is_asked_and_what_a_person_says_is_told(made):
    open_texts = rendered(made)
    asked = re.findall(r"\(`(\w+)`\)", "".join(open_texts.values()))
    assert set(asked) == set(QUESTIONS) == {row[0].strip("`") for row in rows(open_texts["README"], "key")}
    told = rendered(made, dict.fromkeys(QUESTIONS, "1. The *lab*\n# <and> | others"))
    assert "Open question** (" not in "".join(told.values())
    assert f"All {len(QUESTIONS)} questions" in told["README"]
    for name in ("project_charter", "data_report", "datasheet"):  # the data stage's own questions are answered as well
        assert "?** 1&#46; The &#42;lab&#42;\n\n&#35; &#60;and&#62; &#124; others" in told[name]


def test_questions_that_the_data_stage_asks_have_the_same_words():
    asked = "".join(path.read_text() for path in (ROOT / "code/tdsp_vision/data").glob("*.py"))
    assert all(f'"{QUESTIONS[key]}"' in asked for key in ("labels", "devices"))


def test_whatever_is_missing_becomes_an_open_question(made):
    """Each file of the run, data set and deployment, and each entry at any depth of each JSON file and table."""
    dataset, outputs, run = made
    complete = rendered(made)
    assert "Open question:" not in complete["model_report"] + complete["exit_report"] + complete["model_card"]
    files = [file for folder in (run, dataset.root, outputs.deployment) for file in folder.glob("*.*")]
    assert len(files) == 13
    for file in files:
        content = file.read_bytes()
        for changed in [None, *without_each(file)]:
            file.unlink() if changed is None else file.write_text(changed)
            if file != dataset.manifest or changed is None:  # a manifest that lacks a column is refused by its reader
                texts = "".join(rendered(made).values())
                assert "\0" not in texts and "None" not in texts and "Undefined" not in texts
            if changed is None:
                assert f"`{file.name}`, which is missing" in texts
            file.write_bytes(content)


def without_each(file: Path) -> list[str]:
    """The content of a JSON object or a table, each time without one of its entries."""
    if file.suffix == ".csv":
        table = pd.read_csv(file)
        return [table.drop(columns=name).to_csv(index=False) for name in table]
    return [json.dumps(less) for less in pruned(json.loads(file.read_text()))] if file.suffix == ".json" else []


def pruned(content):
    for key in content if isinstance(content, dict) else ():
        yield {name: value for name, value in content.items() if name != key}
        yield from (content | {key: less} for less in pruned(content[key]))


def test_a_service_of_another_run_is_said_to_be_that(made):
    change_json(made[1].deployment / "service.json", run="the-other")
    text = rendered(made)["exit_report"]
    assert "The last deployment served another run, `the-other`" in text and "serving/" not in text


@pytest.mark.parametrize("classes", [("ant", "bee", "None"), tuple(f"kind {k}" for k in range(30))])
def test_many_classes_without_a_positive_one(tmp_path, classes):
    texts = rendered(documented_run(tmp_path, classes, ""))
    report, everything = texts["model_report"], "".join(texts.values())
    assert "the class with the highest score is named" in report
    assert not re.search(r"[Ss]ensitivity|[Pp]atient|must not be missed", report + texts["model_card"])
    assert ["top-5 accuracy", "0.580 (0.480 to 0.680)", "0.580 (0.480 to 0.680)"] in rows(report, "measure")
    assert max(line.count("|") for line in everything.splitlines()) <= 17
    assert ("bee, None" in report) if len(classes) == 3 else ("kind 11 and 18 more" in report)


def test_markup_in_names_is_text(tmp_path):
    nasty = "<b onclick=x>|*a*_`[x](javascript:y)", "<script>b"
    made = documented_run(tmp_path, nasty, nasty[1])
    made[0].report.write_text(f"# Data report\n\n- {nasty[0]} <img src=x>\n", encoding="utf-8")
    texts = rendered(made)
    html = "".join(MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(text) for text in texts.values())
    assert not re.search(r"<(b|script|img src=\"x)\b|javascript:y\"", html)
    assert [row[0] for row in rows(texts["model_report"], "class")] == [escape(name) for name in nasty]
    for value in ("efficientnet_lite0: 0.5 to -1.5, 2026. A dog's (tail) #3 a.b", "-1"):
        assert escape(value) == value


def test_documents_are_replaced_whole_and_nothing_else_is_touched(made, tmp_path, monkeypatch):
    folder = fill(*made[:2], "latest", tmp_path / "out", None)
    texts = "".join(file.read_text() for file in folder.glob("*.md"))
    linked = set(re.findall(r"\]\((?!https:)([^)]+)\)", texts))
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")}
    assert linked <= files and {"figures/data/m.png", "figures/model/new.png"} <= files and len(files) == 11
    (folder / "answers.yml").write_text("team: we\n")
    (folder / "answers.yml").chmod(0o400)
    before = {path: (path.read_bytes(), path.stat().st_ino) for path in folder.rglob("*.*")}
    writes = []
    monkeypatch.setattr(Path, "write_bytes", lambda *_: writes.append(1) if len(writes) < 4 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        fill(*made[:2], "latest", folder, None)
    assert {path: (path.read_bytes(), path.stat().st_ino) for path in folder.rglob("*.*")} == before
    monkeypatch.undo()
    fill(*made[:2], "latest", folder, None)
    assert (folder / "answers.yml").stat().st_ino == before[folder / "answers.yml"][1]
    (folder / "mine.txt").write_text("keep me")
    with pytest.raises(ValueError, match=r"holds 'mine.txt', which is no document"):
        fill(*made[:2], "latest", folder, None)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 0, f"documents in outputs/tiny/runs/{RUN}/documents; begin with README.md"),
        (["--answers", "good.yml", "--into", "handed"], 0, "documents in handed"),
        (["--run", "nope"], 2, f"RUN is 'nope'; allowed are 'latest', 'best' and '{RUN}'"),
        (["--dataset", "none"], 2, "There is no run in outputs/none/runs"),
        (["--dataset", "../x"], 2, "DATASET_NAME is '../x'; it becomes a folder name"),
        (["--answers", "missing.yml"], 2, "missing.yml cannot be read"),
        (["--answers", "wrong.yml"], 2, "No question is called 'teem'; the nearest is 'team'"),
        (["--answers", "twice.yml"], 2, "team is given 2 times"),
        (["--into", "data"], 2, "data holds 'tiny', which is no document"),
    ],
)
def test_the_command(made, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (made[0].root / "answers.yml").write_text("team: 007\nplan:\n")
    for name, text in {"good": "team: Three", "wrong": "teem: we", "twice": "team: a\nteam: b"}.items():
        Path(f"{name}.yml").write_text(text)
    result = CliRunner().invoke(main, ["report", "--dataset", "tiny", *arguments])
    assert (result.exit_code, message in result.output) == (code, True), result.output
    if not code:
        charter = (tmp_path / ("handed" if arguments else made[2] / "documents") / "project_charter.md").read_text()
        assert ("decides?** Three" if arguments else "decides?** 007") in charter and "(`plan`)" in charter


@pytest.mark.parametrize("content", ["{", "[1]", '"text"', "\xff"])
def test_a_file_that_is_no_json_object_is_named_or_left_out(made, content):
    (made[2] / "model_card.json").write_text(content, encoding="latin-1")
    try:
        assert "What is the model for, and what not?" in rendered(made)["model_card"]
    except ValueError as error:
        assert "model_card.json cannot be read" in str(error)


def test_committed_documents_are_of_these_templates_and_of_the_committed_notebook():
    """`make notebooks` writes both; a change of a template, of a file's keys or of a number needs it again."""
    texts = {file.stem: file.read_text() for file in COMMITTED.glob("*.md")}
    answered = re.findall(r"(?m)^(\w+):", (COMMITTED / "answers.yml").read_text())
    assert sorted(answered + [row[0].strip("`") for row in rows(texts["README"], "key")]) == sorted(QUESTIONS)
    assert "Open question:" not in "".join(texts.values())  # the default run has all files, and every key in them
    linked = {link for text in texts.values() for link in re.findall(r"\]\((?!https:)([^)]+)\)", text)}
    figures = {file.relative_to(COMMITTED).as_posix() for file in COMMITTED.rglob("*.png")}
    assert linked == figures | {f"{name}.md" for name in texts}
    auc = re.search(r"- AUC: \*\*([\d.]+) \(([\d.]+) to ([\d.]+)\)", texts["model_report"])
    notebook = (ROOT / "code/02_modeling/modeling.ipynb").read_text()
    assert f"{auc[1]}" in notebook and f"{auc[2]} to {auc[3]}" in notebook
