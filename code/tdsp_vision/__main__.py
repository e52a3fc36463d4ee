"""Command line: `python -m tdsp_vision run | params | notebooks | sweep | history | deploy | exercises | report`.

Exit codes: 0 done; 1 a notebook or its results failed; 2 a wrong name, value or file; 130 interrupted.
"""

from pathlib import Path

import click

from tdsp_vision import paths
from tdsp_vision.deploy_commands import deploy
from tdsp_vision.documents.commands import report
from tdsp_vision.exercises import exercises
from tdsp_vision.exits import end_with_starter, exit_codes
from tdsp_vision.history_commands import history
from tdsp_vision.parameters import declared_parameters
from tdsp_vision.settings import read_settings
from tdsp_vision.sweeps.commands import sweep

STAGE = click.Choice(list(paths.NOTEBOOKS))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Image classification in three notebooks: acquire data, model, deploy."""


@main.command()
@click.option("parameters", "-p", "--parameter", nargs=2, multiple=True, metavar="NAME VALUE", help="One parameter.")
@click.option("file", "-f", "--file", type=click.Path(path_type=Path), help="YAML file of parameters; -p wins.")
@click.option("stages", "--stage", type=STAGE, multiple=True, help="Run only this stage; may be repeated.")
@click.option("--watched", is_flag=True, help="For a program: progress in JSON; ends when standard input closes.")
def run(parameters: tuple[tuple[str, str], ...], file: Path | None, stages: tuple[str, ...], watched: bool) -> None:
    """Run the walkthrough: data, modeling (svm, then dnn), deployment."""
    from tdsp_vision.runner import run_walkthrough

    with exit_codes():
        if watched:
            end_with_starter()
        settings = (read_settings(file) if file else {}) | dict(parameters)
        run_walkthrough(settings, stages, paths.NOTEBOOKS, watched=watched)


@main.command()
@click.argument("stage", type=STAGE, required=False)
def params(stage: str | None) -> None:
    """List the parameters of STAGE, or of all stages, with defaults and meaning."""
    with exit_codes():
        for name in [stage] if stage else paths.NOTEBOOKS:
            click.echo(f"{name}: {paths.shown(paths.NOTEBOOKS[name])}")
            for parameter in declared_parameters(paths.NOTEBOOKS[name]).values():
                click.echo(f"  {parameter.name:<20} {parameter.default!r}")
                click.echo(f"  {'':<20}   {parameter.comment}")


@main.command()
def notebooks() -> None:
    """Execute the notebooks with their defaults and write the outputs into them, for committing."""
    from tdsp_vision.committed import refresh

    with exit_codes():
        refresh(paths.NOTEBOOKS, documents=paths.ROOT / "docs" / "deliverable_docs")


for command in (sweep, history, deploy, exercises, report):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m tdsp_vision")
