"""Command line: `python -m tdsp_vision report`, the TDSP documents of a run.

Exit codes: 0 done; 1 a file cannot be read or written; 2 a wrong name, value or file.
"""

from pathlib import Path

import click

from tdsp_vision.exits import exit_codes
from tdsp_vision.paths import DatasetPaths, OutputPaths, resolve, shown


@click.command()
@click.option("--run", "run_id", default="latest", show_default=True, help="latest | best | a run id.")
@click.option("--dataset", default="lesions", show_default=True, help="DATASET_NAME of the notebooks.")
@click.option("--data-dir", default="data", show_default=True, help="DATA_DIR of the notebooks.")
@click.option("--output-dir", default="outputs", show_default=True, help="OUTPUT_DIR of the notebooks.")
@click.option("--into", type=click.Path(path_type=Path), help="Folder to write; by default `documents` in the run's.")
@click.option("--answers", type=click.Path(path_type=Path), help="YAML file: what people know, by question.")
@click.option("--small", is_flag=True, help="Markdown only, figures in 256 colors: fit to be committed.")
def report(run_id: str, dataset: str, data_dir: str, output_dir: str, into, answers, small: bool) -> None:
    """Fill charter, reports, model card and datasheet from a run's own files."""
    with exit_codes((ValueError, FileExistsError)):
        found = DatasetPaths(data_dir, dataset)
        folder = fill(found, OutputPaths(output_dir, dataset), run_id, into and resolve(into), answers, small)
        click.echo(f"documents in {shown(folder)}; begin with {'README.md' if small else 'index.html'}")


def fill(
    dataset: DatasetPaths, outputs: OutputPaths, run_id: str, into: Path | None, answers: Path | None, small: bool
) -> Path:
    """Write the documents of a run and return their folder.

    Args:
        run_id: "latest", "best" or an id.
        into: None for `documents` in the run's folder.
        answers: None for the file `answers.yml` beside the data set's manifest, if it is there.
        small: as in `write_documents`.

    Raises:
        ValueError: there is no such run, a file is not what it should be, or an answer is to no question.
        FileExistsError: `into` holds other files.
    """
    from tdsp_vision.documents.answers import read_answers
    from tdsp_vision.documents.facts import read_facts
    from tdsp_vision.documents.folder import ANSWERS, write_documents
    from tdsp_vision.modeling.runs import find_run

    if answers is None and (dataset.root / ANSWERS).is_file():
        answers = dataset.root / ANSWERS
    given = read_answers(answers) if answers else {}
    run = find_run(outputs, run_id)
    facts = read_facts(dataset, outputs, run)
    return write_documents(into or run / "documents", dataset, run, facts, given, small)
