"""Command line: `python -m tdsp_vision report`, the TDSP documents of a run as a folder of Markdown.

<document>.md              by `render.render_markdown`
figures/model/<name>.png   of the run
figures/data/<name>.png    of the data report
answers.yml                a person's, if it was put there; no program touches it

Exit codes: 0 done; 1 a file cannot be read or written; 2 a wrong name, value or file.
"""

from contextlib import ExitStack
from io import BytesIO
from pathlib import Path

import click

from tdsp_vision.exits import exit_codes
from tdsp_vision.files import whole_file
from tdsp_vision.paths import DatasetPaths, OutputPaths, resolve, shown

ANSWERS = "answers.yml"


@click.command()
@click.option("--run", "run_id", default="latest", show_default=True, help="latest | best | a run id.")
@click.option("--dataset", default="lesions", show_default=True, help="DATASET_NAME of the notebooks.")
@click.option("--data-dir", default="data", show_default=True, help="DATA_DIR of the notebooks.")
@click.option("--output-dir", default="outputs", show_default=True, help="OUTPUT_DIR of the notebooks.")
@click.option("--into", type=click.Path(path_type=Path), help="Folder to write; by default `documents` in the run's.")
@click.option(
    "--answers", type=click.Path(exists=True, path_type=Path), help="YAML file: what people know, by question."
)
@click.option("--small", is_flag=True, help="Figures in 256 colors: fit to be committed.")
def report(run_id: str, dataset: str, data_dir: str, output_dir: str, into, answers, small: bool) -> None:
    """Fill charter, reports, model card and datasheet from a run's own files."""
    with exit_codes((ValueError, FileExistsError)):
        places = DatasetPaths(data_dir, dataset), OutputPaths(output_dir, dataset)
        folder = fill(*places, run_id, into and resolve(into), answers, small)
        click.echo(f"documents in {shown(folder)}; begin with README.md")


def fill(
    dataset: DatasetPaths, outputs: OutputPaths, run_id: str, into: Path | None, answers: Path | None, small: bool
) -> Path:
    """Write the documents of a run and return their folder.

    Args:
        run_id: "latest", "best" or an id.
        into: new, empty, or a folder of documents, which are replaced; None for `documents` in the run's folder.
        answers: None for the file `answers.yml` beside the data set's manifest, if it is there.
        small: figures in 256 colors, a third of the bytes.

    Raises:
        ValueError: there is no such run, a file is not what it should be, or an answer is to no question.
        FileExistsError: `into` holds other files.
    """
    from tdsp_vision.documents.facts import read_facts
    from tdsp_vision.documents.render import read_answers, render_markdown
    from tdsp_vision.modeling.runs import find_run

    if answers is None and (dataset.root / ANSWERS).is_file():
        answers = dataset.root / ANSWERS
    given = read_answers(answers) if answers else {}
    run = find_run(outputs, run_id)
    texts = render_markdown(read_facts(dataset, outputs, run), given)
    everything = "".join(texts.values())
    figures = {"model": run / "figures", "data": dataset.figures}
    contents = {f"{name}.md": text.encode() for name, text in texts.items()}
    for kind, folder in figures.items():
        names = {f"figures/{kind}/{file.name}": file for file in sorted(folder.glob("*.png"))}
        contents |= {name: _picture(file, small) for name, file in names.items() if name in everything}
    return write_documents(into or run / "documents", contents)


def write_documents(folder: Path, contents: dict[str, bytes]) -> Path:
    """Put files into `folder`, by their path in it; returns it. All are written before the first takes its place.

    Figures of earlier documents that are no longer shown are removed.

    Raises:
        FileExistsError: the folder holds files that are no documents; they would be lost among them.
    """
    ours = {name.split("/")[0] for name in contents} | {"figures", ANSWERS}
    foreign = sorted({path.name for path in folder.glob("[!.]*")} - ours)
    if foreign or folder.is_file():
        held = f"holds {foreign[0]!r}, which is none of them" if foreign else "is a file"
        raise FileExistsError(f"The documents would replace {shown(folder)}, which {held}; name another folder.")
    with ExitStack() as drafts:
        for name, content in contents.items():
            drafts.enter_context(whole_file(folder / name)).write_bytes(content)
    for file in folder.glob("figures/*/*.png"):
        if file.relative_to(folder).as_posix() not in contents:
            file.unlink()
    return folder


def _picture(file: Path, small: bool) -> bytes:
    if not small:
        return file.read_bytes()
    from PIL import Image

    written = BytesIO()
    with Image.open(file) as image:
        # The usual choice of colors forgets rare ones: blue evidence on a heat map became red.
        image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(written, "PNG", optimize=True)
    return written.getvalue()
