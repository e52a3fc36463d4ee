"""What only people know: the questions of the documents, and a file in which a person answers them.

templates/questions.yml   key: question
answers.yml               key: answer, text; a key that is left out or empty stays an open question
"""

from importlib.resources import files
from pathlib import Path

from tdsp_vision.parameters import ParameterError, nearest, short
from tdsp_vision.settings import read_settings

TEMPLATES = files("tdsp_vision.documents") / "templates"


def read_questions() -> dict[str, str]:
    """Key and question, in the order in which they are asked."""
    return read_settings(Path(str(TEMPLATES / "questions.yml")))


def read_answers(file: Path) -> dict[str, str]:
    """Key and answer of each question that `file` (YAML) answers.

    Raises:
        ParameterError: the file cannot be read, is no mapping of keys to text, or has a key that no question has.
    """
    questions, answers = read_questions(), read_settings(file)
    for key, answer in answers.items():
        if key not in questions:
            raise ParameterError(f"{file}: no question is called {key!r}; the nearest is {nearest(key, questions)}.")
        if not isinstance(answer, str | None):
            raise ParameterError(f"{file}: {key} is {short(answer)}; an answer is text: put it in quotes.")
    return {key: answer.strip() for key, answer in answers.items() if answer and answer.strip()}
