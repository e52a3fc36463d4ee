"""Command line: `python -m tdsp_vision report`, the TDSP documents of a run as a folder of Markdown.

<document>.md              by `render.render_markdown`
figures/model/<name>.png   of the run
figures/data/<name>.png    of the data report
answers.yml                a person's, if it was put there; no program touches it
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from pathlib import Path

import click

from tdsp_vision.errors import ParameterError
from tdsp_vision.files import whole_file
from tdsp_vision.paths import DatasetPaths, OutputPaths, resolve, shown

ANSWERS = "answers.yml"


def of_run(command: Callable) -> Callable:
    """Gives a command the options that name a run; it gets its data set, its outputs, its id, and its own options.

    What it refuses (a ValueError) reaches a person as one sentence.
    """

    @click.option("--run", "run_id", default="latest", show_default=True, help="latest | best | a run id.")
    @click.option("--dataset", default="lesions", show_default=True, help="DATASET_NAME of the notebooks.")
    @click.option("--data-dir", default="data", show_default=True, help="DATA_DIR of the notebooks.")
    @click.option("--output-dir", default="outputs", show_default=True, help="OUTPUT_DIR of the notebooks.")
    @wraps(command)
    def with_paths(run_id: str, dataset: str, data_dir: str, output_dir: str, **own) -> None:
        try:
            command(DatasetPaths(data_dir, dataset), OutputPaths(output_dir, dataset), run_id, **own)
        except ValueError as error:
            raise ParameterError(str(error)) from error

    return with_paths


@click.command()
@click.option("--into", type=click.Path(path_type=Path), help="Folder to write; by default `documents` in the run's.")
@click.option("--answers", type=click.Path(path_type=Path), help="YAML file: what people know, by question.")
@of_run
def report(dataset: DatasetPaths, outputs: OutputPaths, run_id: str, into, answers) -> None:
    """Fill charter, reports, model card and datasheet from a run's own files."""
    click.echo(f"documents in {shown(fill(dataset, outputs, run_id, into, answers))}; begin with README.md")


def fill(dataset: DatasetPaths, outputs: OutputPaths, run_id: str, into: Path | None, answers: Path | None) -> Path:
    """Write the documents of a run and return their folder.

    Args:
        run_id: "latest", "best" or an id.
        into: new, empty, or a folder of documents, which are replaced; None for `documents` in the run's folder.
        answers: None for the file `answers.yml` beside the data set's manifest, if it is there.

    Raises:
        ValueError: there is no such run, a file is not what it should be, an answer is to no question, or `into` holds
            other files.
    """
    from tdsp_vision.documents.facts import read_facts
    from tdsp_vision.documents.render import render_markdown
    from tdsp_vision.modeling.runs import find_run
    from tdsp_vision.parameters import read_settings

    if answers is None and (dataset.root / ANSWERS).is_file():
        answers = dataset.root / ANSWERS
    run = find_run(outputs, run_id)
    texts = render_markdown(read_facts(dataset, outputs, run), read_settings(answers) if answers else {})
    folder = resolve(into) if into else run / "documents"
    contents = {f"{name}.md": text.encode() for name, text in texts.items()}
    foreign = sorted({path.name for path in folder.glob("[!.]*")} - {*contents, "figures", ANSWERS})
    if foreign:
        raise ParameterError(f"{shown(folder)} holds {foreign[0]!r}, which is no document; name another folder.")
    for kind, origin in (("model", run / "figures"), ("data", dataset.figures)):
        figures = {f"figures/{kind}/{file.name}": file for file in origin.glob("*.png")}
        contents |= {name: file.read_bytes() for name, file in figures.items() if name in "".join(texts.values())}
    with ExitStack() as drafts:  # all are written before the first takes its place
        for name, content in contents.items():
            drafts.enter_context(whole_file(folder / name)).write_bytes(content)
    return folder
