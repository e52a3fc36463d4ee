"""From facts and answers to documents: Markdown by jinja2.

In:  the dict of `facts.read_facts`; answers.yml, in which a person answers by key what no file knows.
Out: Markdown text by document name. Every value is escaped where it is put in, so a label, a path or an answer is
     always read as text; only the templates contain markup. A line that needs a value which no file has becomes an
     open question, and a cell of a table a dash.
"""

import re
from functools import partial
from pathlib import Path

import jinja2
import yaml
from markupsafe import Markup

from tdsp_vision.parameters import ParameterError, nearest, short

TEMPLATES = Path(__file__).parent / "templates"
DOCUMENTS = {  # file name without its ending: title
    "README": "Documents",
    "project_charter": "Project charter",
    "data_report": "Data report",
    "data_dictionary": "Data dictionary",
    "model_report": "Model report",
    "exit_report": "Exit report",
    "model_card": "Model card",
    "datasheet": "Datasheet",
}
# What begins markup in CommonMark: anywhere (an underscore within a word does not), then at the start of a line.
_MARKUP = re.compile(
    r"[&<>`*\[\]|\\~$]|(?<![^\W_])_|_(?![^\W_])"
    r"|^[#=]|^[+-](?=[\s-]|$)|(?<=^\d)[.)](?=\s|$)|(?<=^\d\d)[.)](?=\s|$)"
)


def read_questions() -> dict[str, str]:
    """Key and question, in the order in which they are asked."""
    return yaml.safe_load((TEMPLATES / "questions.yml").read_text(encoding="utf-8"))


def read_answers(file: Path) -> dict[str, str]:
    """Key and answer of each question that `file` (YAML) answers; a key that is left empty is an open question.

    Raises:
        ParameterError: the file is no mapping of keys to text, or has a key that no question has.
    """
    try:
        answers = yaml.load(file.read_bytes(), Loader=yaml.BaseLoader) or {}  # the loader that leaves 007 and `no` text
    except yaml.YAMLError as error:
        raise ParameterError(f"{file} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(answers, dict):
        raise ParameterError(f"{file} holds {short(answers)}; it has to map keys to answers, as in `team: Two people`.")
    questions = read_questions()
    for key, answer in answers.items():
        if key not in questions:
            raise ParameterError(f"{file}: no question is called {key!r}; the nearest is {nearest(key, questions)}.")
        if not isinstance(answer, str):
            raise ParameterError(f"{file}: {key} is {short(answer)}; an answer is text: put it in quotes.")
    return {key: answer.strip() for key, answer in answers.items() if answer.strip()}


def render_markdown(facts: dict, answers: dict[str, str]) -> dict[str, str]:
    """All documents as Markdown, by name (the keys of `DOCUMENTS`)."""
    questions, texts = read_questions(), {}
    ask = partial(_ask, questions, answers)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=_Missing,
        autoescape=True,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "code": _code, "from_data_stage": partial(_from_data_stage, ask)}
    environment.globals |= facts | {"ask": ask, "questions": questions, "documents": DOCUMENTS, "opened": {}}
    for name in sorted(DOCUMENTS, key=lambda name: name == "README"):  # last, as it lists what stayed open
        text = environment.get_template(f"{name}.md.j2").render()
        for key in re.findall(r"\*\*Open question\*\* \(`(\w+)`\)", text):
            environment.globals["opened"].setdefault(key, []).append(name)
        text = "\n".join(_without_gaps(line) for line in text.splitlines())
        texts[name] = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return texts


def escape(value: object) -> Markup:
    """`value` on one line, with all that Markdown and HTML would read as markup as character references."""
    if isinstance(value, jinja2.Undefined | Markup):
        return Markup(value)
    text = "–" if value is None else re.sub(r"[\s\0]+", " ", str(value))
    return Markup(_MARKUP.sub(lambda found: f"&#{ord(found[0])};", text))


class _Missing(jinja2.ChainableUndefined):
    """A value that no file has; `_without_gaps` finds it in the finished text."""

    def __str__(self) -> str:
        return f"\0{self._undefined_name}\0"

    __html__ = __str__


def _without_gaps(line: str) -> str:
    """`line`, or what takes its place where it holds the mark of a missing value."""
    if line.startswith("|"):
        return re.sub("\0.*?\0", "–", line)
    found = re.search("\0(.*?)\0", line)
    return f"\n> **Open question:** No file of this run says what `{found[1]}` is.\n" if found else line


def _ask(questions: dict[str, str], answers: dict[str, str], key: str) -> Markup:
    """The question and its answer, each line of it a paragraph; or an open question."""
    if key not in answers:
        return Markup(f"> **Open question** (`{key}`): {questions[key]}")
    lines = [escape(line.strip()) for line in answers[key].splitlines() if line.strip()]
    return Markup(f"**{questions[key]}** " + "\n\n".join(lines))


def _from_data_stage(ask: partial, text: str) -> Markup:
    """A Markdown file of the data stage: HTML as text, its figures where the documents keep them, answers added."""
    text = text.replace("<", "&lt;").replace("](figures/", "](figures/data/")
    for key, question in read_questions().items():
        text = text.replace(f"- {question}\n", f"\n{ask(key)}\n\n")
    return Markup(text)


def _number(value: float | None, style: str = ",.3f") -> object:
    """A number in a format of Python; what is missing stays missing, and what is no number is a dash."""
    if isinstance(value, jinja2.Undefined):
        return value
    return format(value, style) if isinstance(value, int | float) and value == value else "–"


def _code(value: object) -> Markup:
    """In typewriter letters; as plain text where it holds a character that would end that."""
    text = escape(value)
    return Markup(f"`{value}`") if text == str(value) and text.strip() and "\0" not in text else text
