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
from markupsafe import Markup

from tdsp_vision.errors import ParameterError
from tdsp_vision.parameters import nearest, read_settings

TEMPLATES = Path(__file__).parent / "templates"
QUESTIONS = TEMPLATES / "questions.yml"
# What begins markup in CommonMark: anywhere (an underscore within a word does not), then at the start of a line.
_MARKUP = re.compile(r"[&<>`*\[\]|\\~$]|(?<![^\W_])_|_(?![^\W_])|^[#=]|^[+-](?=[\s-]|$)|^\d(?=\d?[.)](\s|$))")


def render_markdown(facts: dict, answers: dict[str, object]) -> dict[str, str]:
    """All documents as Markdown, by name: README, and one for each other template `<name>.md.j2`.

    Args:
        answers: by the keys of templates/questions.yml; a key that is left out or empty stays an open question.

    Raises:
        ParameterError: an answer to no question.
    """
    questions, opened, texts = read_settings(QUESTIONS), {}, {}
    for key in answers:
        if key not in questions:
            raise ParameterError(f"No question is called {key!r}; the nearest is {nearest(key, questions)!r}.")
    asked = {key: _asked(key, question, answers.get(key)) for key, question in questions.items()}
    told = facts | {"asked": asked, "questions": questions, "opened": opened, "answered": partial(_answered, asked)}
    names = [path.name.removesuffix(".md.j2") for path in TEMPLATES.glob("*.md.j2")]
    for name in sorted(names, key="README".__eq__):  # README last, as it lists what stayed open
        text = _ENVIRONMENT.get_template(f"{name}.md.j2").render(told)
        for key in re.findall(r"\*\*Open question\*\* \(`(\w+)`\)", text):
            opened.setdefault(key, []).append(name)
        text = "\n".join(map(_without_gaps, text.splitlines()))
        texts[name] = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return texts


def escape(value: object) -> Markup:
    """`value` on one line, with all that Markdown and HTML would read as markup as character references."""
    if isinstance(value, jinja2.Undefined | Markup):
        return Markup(value)
    text = "–" if value is None else re.sub(r"[\s\0]+", " ", str(value))
    return Markup(_MARKUP.sub(lambda found: f"&#{ord(found[0])};", text))


class _Missing(jinja2.ChainableUndefined):
    """A value that no file has: a mark in the text, which `_without_gaps` finds."""

    def __str__(self) -> str:
        return f"\0{self._undefined_name}\0"


def _without_gaps(line: str) -> str:
    if line.startswith("|"):
        return re.sub("\0.*?\0", "–", line)
    gap = re.search("\0(.*?)\0", line)
    return f"\n> **Open question:** No file of this run says what `{gap[1]}` is.\n" if gap else line


def _asked(key: str, question: str, answer: object) -> Markup:
    """A question and its answer, each line of it a paragraph; or an open question."""
    text = "\n".join(map(str, answer)) if isinstance(answer, list) else str(answer or "")
    lines = [escape(line.strip()) for line in text.splitlines() if line.strip()]
    return Markup(f"**{question}** " + "\n\n".join(lines) if lines else f"> **Open question** (`{key}`): {question}")


def _answered(asked: dict[str, Markup], text: str) -> Markup:
    """A Markdown file of the data stage: HTML as text, its figures where the documents keep them, answers added."""
    text = text.replace("<", "&lt;").replace("](figures/", "](figures/data/")
    for key, question in read_settings(QUESTIONS).items():
        text = text.replace(f"- {question}\n", f"\n{asked[key]}\n\n")
    return Markup(text)


def _number(value: float | None, style: str = ",.3f") -> object:
    """A number in a format of Python; what is missing stays missing, and what is no number is a dash."""
    if isinstance(value, jinja2.Undefined):
        return value
    return format(value, style) if isinstance(value, int | float) and value == value else "–"


_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), undefined=_Missing, autoescape=True, finalize=escape
)
_ENVIRONMENT.trim_blocks = _ENVIRONMENT.lstrip_blocks = True
_ENVIRONMENT.filters["number"] = _number
