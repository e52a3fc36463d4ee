"""The documents say what the files say, ask what no file knows, and read every label as text."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from documented_run import BLUE, RUN, N, change_json, documented_run
from PIL import Image

from tdsp_vision.__main__ import main
from tdsp_vision.documents.answers import TEMPLATES, read_questions
from tdsp_vision.documents.facts import read_facts
from tdsp_vision.documents.folder import write_documents
from tdsp_vision.documents.render import DOCUMENTS, escape, render_html, render_markdown
from tdsp_vision.paths import ROOT

COMMITTED = ROOT / "docs" / "deliverable_docs"


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the table whose first line begins with `heading`, without its head."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    end = next(number for number in range(start, len(lines) + 1) if number == len(lines) or not lines[number])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : end]]


def rendered(made, answers=()) -> dict[str, str]:
    return render_markdown(read_facts(*made), dict(answers))


@pytest.fixture
def made(tmp_path):
    return documented_run(tmp_path)


def test_every_number_is_the_files(made):
    texts = rendered(made)
    metrics = json.loads((made[2] / "metrics.json").read_text())
    test, text = metrics["test"], texts["model_report"]
    keys = {"calibration error (ECE)": "ece", "Brier score": "brier", "AUC": "auc", "F1": "f1"}
    found = rows(text, "measure")
    assert len(found) == 10
    for name, *cells in found:
        key = keys.get(name, name.replace(" ", "_"))
        for side, cell in zip(("validation", "test"), cells, strict=True):
            low, high = metrics[side]["intervals"][key]
            assert cell == f"{metrics[side][key]:.3f} ({low:.3f} to {high:.3f})"
    assert [[int(cell) for cell in row[1:]] for row in rows(text, "true class")] == test["confusion_matrix"]
    for name, *cells in rows(text, "class"):
        known = test["per_class"][name]
        assert cells[0] == str(known["n"])
        expected = [known[key] for key in ("recall", "precision", "specificity", "auc")]
        assert cells[1:] == [f"{value:.3f}" for value in expected]
    for cells, known in zip(rows(text, "what is known"), test["subgroups"], strict=True):
        assert cells[:4] == [known["column"], known["value"], str(known["n"]), str(known["n_positive"])]
        assert cells[4].startswith(known["note"] or f"{known['auc']:.3f} ({known['low']:.3f} to")
    for card in (text, texts["model_card"], texts["exit_report"]):
        assert "reaches **0.437**. Where this comes from: highest balanced accuracy on validation" in card
        assert "AUC of **0.562** on the test (95 % interval 0.438 to 0.688)" in card
        assert "- The test has few images." in card
    assert [row[0] for row in rows(text, "what must stay together")] == ["`patient_id`", "`cluster`"]
    assert rows(text, "c") == [["0.25", "0.7125"], ["0.5", "0.6875"]]
    assert ["`SVM_C`", "&#91;0.25, 0.5&#93;"] in rows(text, "parameter")


def test_service_and_data_are_the_files(made):
    texts = rendered(made)
    service = texts["exit_report"]
    assert "Backend local: a stand-in. It served version 3 of `birds`." in service
    assert f"All {N} images" in service and "**2.5e-07**, and up to 1e-05 is allowed" in service
    assert rows(service, "clients at once") == [["8", "321", "4", "12.2", "34.5", "160"]]
    assert "- The service: an embedded server stood in" in service
    sheet = texts["datasheet"]
    assert "96 images, each with a label: 48 benign, 48 malignant. Width: 64 to 65 pixels; height: 48 pixels." in sheet
    assert "CC-BY: 90 images, unknown: 6 images" in sheet and "A. Person (90)" in sheet
    assert "What licence do the 6 images have" in sheet
    assert "drawings" not in "".join(texts.values())


def test_what_no_file_knows_is_asked_and_what_a_person_says_is_told(made):
    questions = read_questions()
    open_texts = rendered(made)
    asked = re.findall(r"\(`(\w+)`\)", "".join(open_texts.values()))
    assert set(asked) == set(questions)
    assert [row[0].strip("`") for row in rows(open_texts["README"], "key")] == list(dict.fromkeys(asked))
    answers = {key: f"Answer <{key}>" for key in questions}
    answers["users"] = "1. The *lab*\n# and | others"
    told = rendered(made, answers)
    assert "Open question** (" not in "".join(told.values())
    assert f"All {len(questions)} questions" in told["README"]
    assert (
        "**Who leads, who builds, who owns the data, and who decides?** Answer &#60;team&#62;"
        in told["project_charter"]
    )
    assert "otherwise?** 1&#46; The &#42;lab&#42;\n\n&#35; and &#124; others" in told["model_card"]
    assert "confirmed? **Answer &#60;labels&#62;**" in told["data_report"]


def test_questions_that_the_data_stage_asks_have_the_same_words():
    asked = (ROOT / "code/tdsp_vision/data/report.py").read_text()
    for key in ("labels", "devices"):
        assert f'"{read_questions()[key]}"' in asked


GONE = {
    "model_card.json": ("model_card", "What is the model for, and what not?"),
    "parameters.json": ("model_report", "With which parameters was this run made?"),
    "history.csv": ("model_report", "How did the training go?"),
    "splits.csv": ("model_report", "Which images were on which side?"),
    "predictions.csv": ("model_report", "Which test images were called wrongly?"),
    "data_report.md": ("data_report", "What is in the images, and which were left out?"),
    "data_dictionary.md": ("data_dictionary", "What do the columns of the manifest mean?"),
    "manifest.csv": ("datasheet", "What is in the data set?"),
    "rejected.csv": ("datasheet", "Which files were left out, and why?"),
    "dataset.json": ("datasheet", "Where do the images come from?"),
    "service.json": ("exit_report", "Does a service of this run say what the run said, and how fast?"),
    "parity.json": ("exit_report", "Does the service say exactly what the notebook said?"),
    "latency.json": ("exit_report", "How fast does the service answer?"),
}


def test_a_file_that_is_missing_is_an_open_question(made):
    dataset, outputs, run = made
    for file, (name, question) in GONE.items():
        path = next(folder / file for folder in (run, dataset.root, outputs.deployment) if (folder / file).is_file())
        content = path.read_bytes()
        path.unlink()
        text = rendered(made)[name]
        assert f"> **Open question:** {question} There is no `" in text and f"{file}`" in text
        path.write_bytes(content)
    assert "Open question:" not in rendered(made)["model_report"]


def test_a_service_of_another_run_is_said_to_be_that(made):
    change_json(made[1].deployment / "service.json", run="the-other")
    text = rendered(made)["exit_report"]
    assert "The last deployment served another run, `the-other`" in text
    assert "stand-in" not in text and "serving/" not in text


def test_a_threshold_for_a_wanted_sensitivity_is_called_that(made):
    change_json(made[2] / "model_card.json", settings={"sensitivity": 0.95})
    assert "finds at least 95% of malignant on validation; the test was not used" in rendered(made)["model_card"]


def test_several_classes_without_a_positive_one(tmp_path):
    texts = rendered(documented_run(tmp_path, ("ant", "bee", "cat"), ""))
    report = texts["model_report"]
    assert "ant, bee, cat. No class is worse to miss than another." in report
    assert "the class with the highest score is named" in report
    names = [row[0] for row in rows(report, "measure")]
    assert "sensitivity" not in names and {"AUC", "accuracy", "Brier score"} <= set(names)
    assert len(rows(report, "true class")) == 3
    assert "- accuracy: **" in texts["README"]
    assert "None" not in "".join(texts.values())


class Tags(HTMLParser):
    """Names of all tags, their addresses, and the text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.links, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for key, value in attrs if key in ("href", "src")]

    def handle_data(self, data):
        self.text += data


def test_markup_in_names_is_text(tmp_path):
    nasty = "<b onclick=x>|*a*_`[x](javascript:y)", "<script>b"
    made = documented_run(tmp_path, nasty, nasty[1])
    made[0].report.write_text(f"# Data report\n\n- {nasty[0]} <img src=x>\n", encoding="utf-8")
    texts = rendered(made)
    for name, text in texts.items():
        page = Tags(render_html(name, text))
        assert not page.tags & {"b", "script", "img"} or name == "model_card" or name == "model_report"
        assert not page.tags & {"b", "script"}
        assert not [link for link in page.links if "javascript" in link]
    assert nasty[0] in Tags(render_html("model_report", texts["model_report"])).text
    assert len(rows(texts["model_report"], "class")[0]) == 6


def test_escape_leaves_plain_text_alone():
    plain = "efficientnet_lite0: 0.5 to -1.5, 2026. A dog's (tail) #3 a.b"
    assert escape(plain) == plain
    assert escape("_a_ 1.\n- b") == "&#95;a&#95; 1. - b"
    assert (escape("1. a"), escape("- a"), escape("-1"), escape(None)) == ("1&#46; a", "&#45; a", "-1", "–")


def test_the_folder_is_whole_linked_and_replaced(made, tmp_path):
    dataset, _, run = made
    folder = write_documents(tmp_path / "out", dataset, run, read_facts(*made), {})
    pages = sorted(folder.glob("*.html"))
    assert len(pages) == len(DOCUMENTS) == len(list(folder.glob("*.md")))
    for file in [*pages, *folder.glob("*.md")]:
        text = file.read_text(encoding="utf-8")
        links = Tags(text).links if file.suffix == ".html" else re.findall(r"\]\(([^)]+)\)", text)
        for link in links:
            assert link.startswith("https://") or (folder / link).is_file(), (file.name, link)
    assert (folder / "figures/data/measures.png").read_bytes() == (dataset.figures / "measures.png").read_bytes()
    assert "figures/model/something_new.png" in (folder / "model_report.md").read_text()
    (folder / "answers.yml").write_text("team: we\n")
    write_documents(folder, dataset, run, read_facts(*made), {}, small=True)
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".md") == ["answers.yml", "figures"]
    with Image.open(folder / "figures/model/confusion_matrix.png") as image:
        assert (image.mode, image.size) == ("P", (50, 50))
        corner = image.convert("RGB").getpixel((0, 0))
        assert max(abs(one - other) for one, other in zip(corner, BLUE, strict=True)) < 8  # a rare color stays
    (folder / "mine.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match=r"holds 'mine.txt'"):
        write_documents(folder, dataset, run, read_facts(*made), {})
    assert (folder / "mine.txt").read_text() == "keep me"
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_failure_leaves_the_documents_as_they_were(made, tmp_path, monkeypatch):
    dataset, _, run = made
    folder = write_documents(tmp_path / "out", dataset, run, read_facts(*made), {})
    before = {path: path.read_bytes() for path in folder.rglob("*.*")}
    monkeypatch.setattr("tdsp_vision.documents.folder.render_html", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_documents(folder, dataset, run, read_facts(*made), {})
    assert {path: path.read_bytes() for path in folder.rglob("*.*")} == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def command(*arguments: str):
    return CliRunner().invoke(main, ["report", "--dataset", "tiny", *arguments])


def test_the_command(made, tmp_path, monkeypatch):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    (made[0].root / "answers.yml").write_text("team: Two people\nplan:\n")
    result = command()
    assert result.exit_code == 0, result.output
    assert result.stdout == f"documents in outputs/tiny/runs/{RUN}/documents; begin with index.html\n"
    charter = (made[2] / "documents" / "project_charter.md").read_text()
    assert "decides?** Two people" in charter and "(`plan`)" in charter
    (tmp_path / "other.yml").write_text("team: Three people\n")
    result = command("--run", RUN, "--into", "handed", "--answers", str(tmp_path / "other.yml"), "--small")
    assert "Three people" in (tmp_path / "handed" / "project_charter.md").read_text(), result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "nope"], f"RUN is 'nope'; allowed are 'latest', 'best' and '{RUN}'"),
        (["--dataset", "none"], "There is no run in outputs/none/runs; run the modeling notebook first"),
        (["--dataset", "../x"], "DATASET_NAME is '../x'; it becomes a folder name"),
        (["--answers", "missing.yml"], "missing.yml cannot be read: No such file"),
        (["--answers", "wrong.yml"], "wrong.yml: no question is called 'teem'; the nearest is team"),
        (["--answers", "number.yml"], "number.yml: team is 3; an answer is text: put it in quotes"),
        (["--into", "data"], "would replace data, which holds 'tiny', which is none of them"),
    ],
)
def test_wrong_arguments_end_with_a_sentence(made, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setenv("TDSP_WORKSPACE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    Path("wrong.yml").write_text("teem: we\n")
    Path("number.yml").write_text("team: 3\n")
    result = command(*arguments)
    assert (result.exit_code, "Traceback" in result.output) == (2, False)
    assert message in result.stderr


def test_every_question_is_asked_somewhere():
    templates = "".join(path.read_text() for path in Path(str(TEMPLATES)).glob("*.md.j2"))
    assert set(re.findall(r'ask\("(\w+)"\)', templates)) == set(read_questions())


def test_committed_documents_are_of_these_templates_and_of_the_committed_notebook():
    """`make notebooks` writes both; a change of a template or of a number needs it again."""
    readme = (COMMITTED / "README.md").read_text()
    answered = re.findall(r"(?m)^(\w+):", (COMMITTED / "answers.yml").read_text())
    opened = [row[0].strip("`") for row in rows(readme, "key")]
    assert sorted(answered + opened) == sorted(read_questions())
    report = (COMMITTED / "model_report.md").read_text()
    notebook = (ROOT / "code/02_modeling/modeling.ipynb").read_text()
    auc = re.search(r"- AUC: \*\*([\d.]+)\*\*, (95 % interval [\d.]+ to [\d.]+)", report)
    assert f"{auc[1]}, {auc[2]}" in notebook
    assert f"threshold {re.search(r'reaches .*?([0-9.]+[0-9])', report)[1]}" in notebook
    for file in COMMITTED.glob("*.md"):
        for link in re.findall(r"\]\((?!https:)([^)]+)\)", file.read_text()):
            assert (COMMITTED / link).is_file(), (file.name, link)
    assert sum(path.stat().st_size for path in COMMITTED.rglob("*.png")) < 600_000
