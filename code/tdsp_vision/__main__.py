"""Command line: `python -m tdsp_vision run | evaluate | sweep | history | deploy | report`.

Exit codes: 0 done; 1 a notebook or its results failed; 2 a wrong name, value or file; 130 interrupted.
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
from tdsp_vision.errors import ParameterError, RunFailed
from tdsp_vision.parameters import as_settings, read_settings
from tdsp_vision.sweeps.sweep import sweep_command as sweep

STAGE = click.Choice(list(paths.NOTEBOOKS))


class Program(click.Group):
    """Ends a command with one sentence and its exit code; what nobody expected keeps its traceback in a file."""

    def invoke(self, context: click.Context):
        """Run the command; 130 and 1 are the exit codes for an interrupt and for a fault."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            click.echo("interrupted; the same command starts it again", err=True)
            context.exit(130)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except OSError as error:
            raise RunFailed(str(error)) from None
        except Exception as error:
            with tempfile.NamedTemporaryFile("w", prefix="tdsp-vision-", suffix=".log", delete=False) as file:
                traceback.print_exc(file=file)
            words = f"{type(error).__name__}: {error}; a fault of the program, whose traceback is in {file.name}"
            raise RunFailed(words) from None


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Image classification in three notebooks: acquire data, model, deploy."""
    os.environ["TDSP_WORKSPACE"] = str(paths.workspace())  # absolute from here on, for every process that is started


@main.command()
@click.option("parameters", "-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="One parameter.")
@click.option("file", "-f", "--file", type=click.Path(path_type=Path), help="YAML file of parameters; -p wins.")
@click.option("stages", "--stage", type=STAGE, multiple=True, help="Run only this stage; may be repeated.")
@click.option("--watched", is_flag=True, help="For a program: progress in JSON; ends when standard input closes.")
def run(parameters: tuple[tuple[str, str], ...], file: Path | None, stages: tuple[str, ...], watched: bool) -> None:
    """Run the walkthrough: data, modeling (svm, then dnn), deployment."""
    from tdsp_vision.runner import end_with_starter, interrupt_once, run_walkthrough

    signal.signal(signal.SIGINT, interrupt_once)  # also where a Jupyter kernel, which is deaf to it, starts this
    if watched:
        end_with_starter()
    settings = (read_settings(file) if file else {}) | as_settings(parameters, "-p")
    run_walkthrough(settings, stages, watched)


@main.command()
@click.option("--log", "run_folder", metavar="FOLDER", required=True, help="OUTPUT_DIR/DATASET/runs/RUN.")
def history(run_folder: str) -> None:
    """Add a finished run to the run history, where its notebook could not; `make history` shows the history."""
    from tdsp_vision.modeling.history import log_run

    folder = paths.resolve(run_folder)
    if not (folder / "metrics.json").is_file():
        raise ParameterError(f"{folder} is no run folder: it has no metrics.json.")
    said = log_run(paths.OutputPaths(str(folder.parents[2]), folder.parents[1].name), folder)
    click.echo(said)
    sys.exit(said.startswith("WARNING"))


@main.command()
@click.argument("source_path")
@of_run
def evaluate(dataset: paths.DatasetPaths, outputs: paths.OutputPaths, run_id: str, source_path: str) -> None:
    """Judge a finished run, as it is, on the images of another folder, SOURCE_PATH."""
    from tdsp_vision.modeling.evaluate_elsewhere import evaluate_elsewhere
    from tdsp_vision.modeling.runs import find_run

    said, table, _ = evaluate_elsewhere(find_run(outputs, run_id), dataset, source_path)
    click.echo("\n".join([*said, table.to_string()]))


for command in (sweep, deploy, report):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m tdsp_vision")
