"""From facts and answers to documents: Markdown by jinja2, and HTML pages made from that Markdown.

In:  the dict of `facts.read_facts`, answers of `answers.read_answers`.
Out: Markdown text by document name. Every value is escaped where it is put in, so a label, a path or an answer is
     always read as text; only the templates contain markup.
"""

import re
from functools import cache

import jinja2
from markupsafe import Markup

from tdsp_vision.documents.answers import TEMPLATES, read_questions

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


def render_markdown(facts: dict, answers: dict[str, str]) -> dict[str, str]:
    """All documents as Markdown, by name (the keys of `DOCUMENTS`).

    Raises:
        ValueError: a file of the run is there but lacks what a document says.
    """
    questions, opened = read_questions(), {}
    about = {"facts": facts, "documents": DOCUMENTS, "opened": opened, "questions": questions}
    texts = {}
    for name in sorted(DOCUMENTS, key=lambda name: name == "README"):  # last, as it lists what stayed open
        asked = _Asked(name, questions, answers, opened)
        functions = {"ask": asked.ask, "from_data_stage": asked.from_data_stage, "missing": missing}
        page = _environment().get_template(f"{name}.md.j2")
        try:
            text = page.render(facts | about | functions)
        except jinja2.UndefinedError as error:
            raise ValueError(f"{facts['run']} cannot be described: a file lacks what {name} says: {error}.") from None
        texts[name] = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
    return texts


def render_html(name: str, markdown: str) -> str:
    """One document as a whole HTML page; raw HTML in `markdown` stays text, links to documents lead to pages."""
    from markdown_it import MarkdownIt

    body = MarkdownIt("js-default").render(markdown)  # this preset never passes HTML on, nor javascript: addresses
    body = re.sub(r'href="(\w+)\.md"', lambda found: f'href="{page_name(found[1])}"', body)
    body = body.replace("<table>", '<div class="wide"><table>').replace("</table>", "</table></div>")
    pages = {page_name(other): title for other, title in DOCUMENTS.items()}
    environment = jinja2.Environment(loader=jinja2.FunctionLoader(_template), autoescape=True)
    page = environment.get_template("page.html.j2")
    return page.render(title=DOCUMENTS[name], body=Markup(body), pages=pages, here=page_name(name))


def page_name(name: str) -> str:
    """File name of a document's page: a folder opens with `index.html`."""
    return "index.html" if name == "README" else f"{name}.html"


def escape(value: object) -> Markup:
    """`value` on one line, with all that Markdown and HTML would read as markup as character references."""
    if isinstance(value, Markup):
        return value
    text = "–" if value is None else re.sub(r"\s+", " ", str(value))
    return Markup(_MARKUP.sub(lambda found: f"&#{ord(found[0])};", text))


class _Asked:
    """The functions with which one document asks; remembers in `opened` (key: documents) what nobody has answered."""

    def __init__(self, name: str, questions: dict[str, str], answers: dict[str, str], opened: dict[str, list[str]]):
        self._name, self._questions, self._answers, self._opened = name, questions, answers, opened

    def ask(self, key: str) -> Markup:
        """The question and its answer, each line of it a paragraph; or an open question."""
        question = self._questions[key]
        if key in self._answers:
            lines = [escape(line.strip()) for line in self._answers[key].splitlines() if line.strip()]
            return Markup(f"**{question}** " + "\n\n".join(lines))
        self._opened.setdefault(key, []).append(self._name)
        return Markup(f"> **Open question** (`{key}`): {question}")

    def from_data_stage(self, text: str) -> Markup:
        """A Markdown file of the data stage: HTML as text, its figures where the documents keep them, answers added."""
        text = text.replace("<", "&lt;").replace("](figures/", "](figures/data/")
        for key, question in self._questions.items():
            line = f"- {question}\n"
            if line in text and key in self._answers:
                text = text.replace(line, f"- {question} **{escape(self._answers[key])}**\n")
            elif line in text:
                text = text.replace(line, f"- {question} (`{key}`)\n")
                self._opened.setdefault(key, []).append(self._name)
        return Markup(text)


def missing(what: str, file: str, writer: str, key: str = "") -> Markup:
    """An open question that a file (or the entry `key` of it) would answer, and which notebook writes that."""
    gap = f"`{key}` in `{file}`" if key else f"`{file}`"
    return Markup(f"> **Open question:** {what} There is no {gap}; the {writer} notebook writes it.")


@cache  # compiling the templates takes longer than filling them
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        finalize=escape,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "percent": _percent, "interval": _interval, "code": _code}
    return environment


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _number(value: float | None, digits: int = 3) -> str:
    absent = value is None or isinstance(value, jinja2.Undefined)
    return "–" if absent else f"{value:,.{digits}f}"


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _interval(measured: list[float | None]) -> str:
    """`0.809 (0.634 to 0.985)` of value, low, high."""
    value, low, high = measured
    return _number(value) + ("" if low is None else f" ({_number(low)} to {_number(high)})")


def _code(value: object) -> Markup:
    """In typewriter letters; as plain text where it holds a character that would end that."""
    text = str(value)
    return escape(text) if re.search(r"[`|<>&\n]", text) or not text.strip() else Markup(f"`{text}`")
