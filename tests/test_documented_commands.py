"""Every command that README and docs show, word for word, in a fresh copy of the repository.

A block of commands that has no rule here fails, and so does a rule whose command is shown no more.
"""

import re
from dataclasses import dataclass

import pytest
from fresh_clone import ACTIVATE, Clone

from tdsp_vision.__main__ import main
from tdsp_vision.paths import ROOT

pytestmark = pytest.mark.slow
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]
# Those are made for one run, which a clone does not have; tests/test_documents.py makes such, and their command.
PAGES = [page for page in PAGES if not page.startswith("docs/deliverable_docs/")]
# Blocks that show files and folders, by their first line.
LISTINGS = {"birds/", "path,label", "code/01_… 02_… 03_…     the three notebooks"}
LISTINGS |= {
    "data/<dataset>/images/<label>/<file>   as they came; only turned upright, once, where their EXIF asks for it"
}
RUN, DEPLOY = "python -m tdsp_vision run", "python -m tdsp_vision deploy"


HERE, SERVER = "executed, exit code 0", "started, asked once, stopped"


@dataclass(frozen=True)
class Elsewhere:
    """A target of make whose `recipe` is what a test executes: `file` holds the line `how`."""

    file: str
    how: str
    recipe: str


RULES = {
    "make run": Elsewhere("tests/test_walkthrough.py", "return workspace, run(workspace)", "-m tdsp_vision run"),
    "make test": Elsewhere(".ci/run", "\nmake test\n", "-m pytest -q"),
    "make docs": Elsewhere("tests/test_site.py", '"mkdocs", "build", "--strict"', "-m mkdocs build --strict"),
    "make exercises": Elsewhere("tests/test_exercises.py", 'invoke(main, ["exercises"])', "-m tdsp_vision exercises"),
    "make lab": SERVER,
    "make history": SERVER,
    "make setup": HERE,  # nothing is left to do in the copy; .ci/run starts from none
    ACTIVATE: HERE,
    "python -m tdsp_vision params": HERE,
    f"{RUN} -p EPOCHS 30 -p SEED 1": HERE,
    f"{RUN} --stage model -p CLASSIFIER svm -p SVM_C '[1e-5, 1e-4]'": HERE,
    f'{RUN} -p SOURCE folder -p SOURCE_PATH ~/birds -p DATASET_NAME birds -p POSITIVE_CLASS ""': HERE,
    f"{RUN} -p SOURCE isic -p DATASET_NAME isic -p IMAGES_PER_CLASS 200": HERE,
    "python -m tdsp_vision sweep -g SVM_FEATURES last,pooled -g IMAGE_SIZE 160,224 --jobs 2": HERE,
    f"{DEPLOY} create": HERE,
    f"{DEPLOY} score sample_data/lesions/benign/lesion_0001.jpg": HERE,
    f"{DEPLOY} scale 2": HERE,
    f"{DEPLOY} delete": HERE,
    "python -m tdsp_vision report": HERE,
    f"{RUN} --stage deploy -p DATASET_NAME birds -p KEEP_RUNNING true": HERE,
    f"{DEPLOY} --dataset birds score ~/birds/robin/1.jpg": HERE,
    f"{DEPLOY} --dataset birds delete": HERE,
}


def commands(page: str) -> list[str]:
    """Commands of a page in order: all lines of blocks, and make targets in the text; listings are left out."""
    found = []
    text = (ROOT / page).read_text(encoding="utf-8")
    for block, inline in re.findall(r"^```[a-z]*\n(.*?)^```|`(make [a-z]+)`", text, re.M | re.S):
        lines = block.strip("\n").splitlines() or [inline]
        found += [line for line in lines if line] if lines[0] not in LISTINGS else []
    return found


@pytest.mark.parametrize("page", PAGES)
def test_every_block_has_a_rule(page):
    assert [command for command in commands(page) if command not in RULES] == []


def test_every_rule_is_about_a_command_that_is_shown():
    assert set(RULES) == {command for page in PAGES for command in commands(page)}


@pytest.mark.parametrize("page", PAGES)
def test_commands_named_in_the_text_exist(page):
    named = set(re.findall(r"python -m tdsp_vision ([a-z]+)", (ROOT / page).read_text(encoding="utf-8")))
    assert named <= set(main.commands)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tests/data")
        from archive_server import ArchiveServer

        with ArchiveServer() as archive:
            for number in range(400):
                diagnosis = ("Benign", "Malignant")[number % 2]
                archive.add_record(f"ISIC_{number:07d}", diagnosis_1=diagnosis, lesion_id=f"IL_{number:07d}")
            clone = Clone(tmp_path_factory.mktemp("fresh"), archive.isic_api)
            yield clone
            assert clone.end_what_runs() == []


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_work_in_a_fresh_clone(page, clone):
    clone.active = False  # each page is read in a new shell
    for command in commands(page):
        rule = RULES[command]
        if rule == HERE:
            clone.execute(command)
        elif rule == SERVER:
            clone.serve(command)
        else:
            assert rule.how in (ROOT / rule.file).read_text(encoding="utf-8")
            assert rule.recipe in clone.execute(command.replace("make", "make -n"))
