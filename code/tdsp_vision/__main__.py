"""Command line: `python -m tdsp_vision run | evaluate | sweep | deploy | report`.

Exit codes: 0 done; 1 a notebook or its results failed; 2 a wrong name, value or file; 130 an interrupted run or sweep.
"""

import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path

import click

from tdsp_vision import paths
from tdsp_vision.deploy_commands import deploy
from tdsp_vision.documents.commands import of_run, report
from tdsp_vision.parameters import as_settings, read_settings
from tdsp_vision.sweeps.sweep import sweep_command as sweep


def tell(kind: type, error: BaseException, _) -> None:
    """In place of Python's own `sys.excepthook`: one sentence; what nobody expected keeps its traceback in a file."""
    words = str(error)
    if not isinstance(error, OSError):
        with tempfile.NamedTemporaryFile("w", prefix="tdsp-vision-", suffix=".log", delete=False) as file:
            traceback.print_exception(error, file=file)
        words = f"{kind.__name__}: {error}; a fault of the program, whose traceback is in {file.name}"
    click.echo(f"Error: {words}", err=True)


@click.command()
@click.option("parameters", "-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="One parameter.")
@click.option("file", "-f", "--file", type=click.Path(path_type=Path), help="YAML file of parameters; -p wins.")
@click.option("stages", "--stage", type=click.Choice([*paths.NOTEBOOKS]), multiple=True, help="Only this; repeatable.")
@click.option("--watched", is_flag=True, help="For a program: progress in JSON; ends when standard input closes.")
def run(parameters: tuple[tuple[str, str], ...], file: Path | None, stages: tuple[str, ...], watched: bool) -> None:
    """Run the walkthrough: data, modeling (svm, then dnn), deployment."""
    from tdsp_vision.runner import interrupt_once, run_walkthrough

    signal.signal(signal.SIGINT, interrupt_once)  # also where a Jupyter kernel, which is deaf to it, starts this
    settings = (read_settings(file) if file else {}) | as_settings(parameters, "-p")
    run_walkthrough(settings, stages, watched)


@click.command()
@click.argument("source_path")
@of_run
def evaluate(dataset: paths.DatasetPaths, outputs: paths.OutputPaths, run_id: str, source_path: str) -> None:
    """Judge a finished run, as it is, on the images of another folder, SOURCE_PATH."""
    from tdsp_vision.modeling.evaluate_elsewhere import evaluate_elsewhere
    from tdsp_vision.modeling.runs import find_run

    said, table, _ = evaluate_elsewhere(find_run(outputs, run_id), dataset, source_path)
    click.echo("\n".join([*said, table.to_string()]))


@click.group(commands=[run, evaluate, sweep, deploy, report], context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Image classification in three notebooks: acquire data, model, deploy."""
    os.environ["TDSP_WORKSPACE"] = str(paths.workspace())  # absolute from here on, for every process that is started
    sys.excepthook = tell


if __name__ == "__main__":
    main(prog_name="python -m tdsp_vision")
