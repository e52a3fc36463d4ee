"""Command line: `python -m tdsp_vision deploy create | list | score | logs | update | rollback | scale | delete`.

A deployment that is made here keeps running until it is deleted; one that a notebook keeps running is found as well.
Exit codes: 0 done; 1 a server, an image or the engine failed; 2 a wrong name, value or file.
"""

from dataclasses import dataclass
from pathlib import Path

import click

from tdsp_vision.exits import exit_codes
from tdsp_vision.paths import OutputPaths, checked_name, resolve, shown

# Of whoever called, and of servers, images and the engine; a ServingError is a RuntimeError.
ERRORS = (ValueError, FileNotFoundError, FileExistsError), (RuntimeError, OSError)


@dataclass(frozen=True)
class Where:
    """The deployment that a command is about."""

    output_dir: str
    dataset: str
    model: str

    @property
    def outputs(self) -> OutputPaths:
        return OutputPaths(self.output_dir, self.dataset)

    def open(self):
        """The `Deployment`; FileNotFoundError if there is none."""
        from tdsp_vision.deployment.deployments import deployment_folder, open_deployment

        return open_deployment(deployment_folder(self.outputs, self.model))

    def version_folder(self, version: int | None) -> Path:
        """Folder of an exported version, of the highest one for None; FileNotFoundError if there is none."""
        from tdsp_vision.deployment.versions import versions_in

        serving = self.outputs.serving(self.model)
        exported = versions_in(serving)
        if not exported or version not in (None, *exported):
            there = ", ".join(map(str, exported)) or "none"
            wanted = "an exported version" if version is None else f"version {version}"
            raise FileNotFoundError(f"There is no {wanted.removeprefix('an ')} in {shown(serving)}; there is {there}.")
        return serving / str(version or exported[-1])


@click.group()
@click.option("--dataset", default="lesions", show_default=True, help="DATASET_NAME of the notebooks.")
@click.option("--model", help="MODEL_NAME of the notebook; by default the name of the dataset.")
@click.option("--output-dir", default="outputs", show_default=True, help="OUTPUT_DIR of the notebooks.")
@click.pass_context
def deploy(context: click.Context, dataset: str, model: str | None, output_dir: str) -> None:
    """Look after a deployed model, whichever process deployed it."""
    with exit_codes(*ERRORS):
        checked_name("--dataset", dataset)
        context.obj = Where(output_dir, dataset, checked_name("--model", model or dataset))


@deploy.command()
@click.option("--version", type=int, help="Exported version; by default the highest.")
@click.option("--backend", default="auto", show_default=True, help="docker | local | auto.")
@click.option("--image", help="SERVING_IMAGE; docker only.")
@click.option("--replicas", default=1, show_default=True, help="Number of servers, 1 to 32.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="Port of the first server; 0: any free one.")
@click.option("--warmup", multiple=True, type=click.Path(path_type=Path), help="Image for warmup; may be repeated.")
@click.pass_obj
def create(where: Where, version, backend, image, replicas, port, warmup) -> None:
    """Build and run; it answers when the command ends."""
    with exit_codes(*ERRORS):
        from tdsp_vision.deployment.backends import SERVING_IMAGE, choose_backend
        from tdsp_vision.deployment.deployments import create_deployment

        folder = where.version_folder(version)
        chosen, reason = choose_backend(backend, image or SERVING_IMAGE)
        click.echo(reason)
        options = {"replicas": replicas, "port": port, "keep_running": True, "warmup": warmup}
        made = create_deployment(where.outputs, where.model, folder, chosen, **options)
        click.echo(f"{where.model}: version {folder.name} answers at {', '.join(made.urls)}")


@deploy.command("list")
@click.pass_obj
def list_command(where: Where) -> None:
    """List the deployments of all data sets."""
    with exit_codes(*ERRORS):
        from tdsp_vision.deployment.deployments import list_deployments, open_deployment

        folders = list_deployments(where.output_dir)
        for folder in folders:
            try:
                click.echo(open_deployment(folder).summary())
            except RuntimeError as error:  # an engine that does not answer hides no other deployment
                click.echo(f"{folder.parents[2].name}/{folder.name}: {error}")
        if not folders:
            click.echo(f"nothing is deployed below {shown(resolve(where.output_dir))}")


@deploy.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_obj
def score(where: Where, files: tuple[Path, ...]) -> None:
    """Score image FILES; a table with one line for each."""
    with exit_codes(*ERRORS):
        if missing := [str(file) for file in files if not file.is_file()]:
            raise FileNotFoundError(f"No such file: {', '.join(missing)}")
        click.echo(where.open().score(files).to_string(index=False))


@deploy.command()
@click.pass_obj
def logs(where: Where) -> None:
    """Show what the servers wrote."""
    with exit_codes(*ERRORS):
        click.echo(where.open().logs())


@deploy.command()
@click.option("--version", type=int, help="Exported version; by default the highest.")
@click.pass_obj
def update(where: Where, version: int | None) -> None:
    """Serve another exported version; until it answers, and if it fails, the old one does."""
    with exit_codes(*ERRORS):
        deployment = where.open()
        deployment.update(where.version_folder(version))
        click.echo(deployment.summary())


@deploy.command()
@click.pass_obj
def rollback(where: Where) -> None:
    """Serve the version before the last update again."""
    with exit_codes(*ERRORS):
        deployment = where.open()
        deployment.rollback()
        click.echo(deployment.summary())


@deploy.command()
@click.argument("replicas", type=int)
@click.pass_obj
def scale(where: Where, replicas: int) -> None:
    """Bring the number of servers to REPLICAS; those that died are replaced."""
    with exit_codes(*ERRORS):
        deployment = where.open()
        deployment.scale(replicas)
        click.echo(deployment.summary())


@deploy.command()
@click.option("--if-exists", is_flag=True, help="It is no error if there is none.")
@click.pass_obj
def delete(where: Where, if_exists: bool) -> None:
    """Stop and remove the servers, images and files of the deployment; the exported versions stay."""
    with exit_codes(*ERRORS):
        from tdsp_vision.deployment.deployments import delete_if_exists

        if if_exists:
            found = delete_if_exists(where.outputs, where.model)
        else:
            where.open().delete()
            found = True
        click.echo(f"{where.model}: {'deleted' if found else 'nothing to delete'}")
