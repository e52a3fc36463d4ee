"""The folder of documents: `<document>.md`, their pages `<document>.html` and `index.html`, and their figures.

figures/model/<name>.png   of the run
figures/data/<name>.png    of the data report
answers.yml                a person's; it stays when the documents are filled again
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdsp_vision.documents.render import DOCUMENTS, page_name, render_html, render_markdown
from tdsp_vision.files import whole_folder
from tdsp_vision.paths import DatasetPaths, shown

ANSWERS = "answers.yml"
_OURS = {"figures", ANSWERS} | {f"{name}.md" for name in DOCUMENTS} | {page_name(name) for name in DOCUMENTS}


def write_documents(
    folder: Path, dataset: DatasetPaths, run: Path, facts: dict, answers: dict[str, str], small: bool = False
) -> Path:
    """Write all documents into `folder`, whole or not at all; returns it. Documents that are there are replaced.

    Args:
        folder: new, empty, or one that this function wrote.
        dataset, run: where the figures are; `facts` come from there as well.
        small: Markdown only, and figures in 256 colors: fit to be committed.

    Raises:
        FileExistsError: the folder holds other files, which would be lost.
        ValueError: a file of the run lacks what a document says.
    """
    foreign = sorted({path.name for path in folder.glob("*")} - _OURS)
    if foreign or folder.is_file():
        held = f"holds {foreign[0]!r}, which is none of them" if foreign else "is a file"
        raise FileExistsError(f"The documents would replace {shown(folder)}, which {held}; name another folder.")
    texts = render_markdown(facts, answers)
    with _replaced(folder) as draft:
        for name, text in texts.items():
            (draft / f"{name}.md").write_text(text, encoding="utf-8")
            if not small:
                (draft / page_name(name)).write_text(render_html(name, text), encoding="utf-8")
        everything = "".join(texts.values())
        for kind, origin in (("model", run / "figures"), ("data", dataset.figures)):
            for file in origin.glob("*.png"):
                if f"figures/{kind}/{file.name}" in everything:
                    _copy(file, draft / "figures" / kind / file.name, small)
        if (folder / ANSWERS).is_file():
            shutil.copyfile(folder / ANSWERS, draft / ANSWERS)
    return folder


def _copy(file: Path, target: Path, small: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if not small:
        shutil.copyfile(file, target)
        return
    from PIL import Image

    with Image.open(file) as image:
        # A third of the bytes. The usual choice of colors forgets rare ones: blue evidence on a heat map became red.
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(target, optimize=True)


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """As `whole_folder`, where `folder` may be there: it stays until the new one is whole."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as place:
        with whole_folder(Path(place) / "new") as draft:
            yield draft
        if folder.exists():
            folder.rename(Path(place) / "old")
        (Path(place) / "new").rename(folder)
