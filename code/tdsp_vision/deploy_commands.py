"""Command line: `python -m tdsp_vision deploy build | create | list | score | logs | update | rollback | delete`.

A deployment that is made here keeps running until it is deleted; one that a notebook keeps running is found as well.
"""

from pathlib import Path

import click

from tdsp_vision.errors import ParameterError
from tdsp_vision.paths import OutputPaths, checked_name, resolve, shown

VERSION = click.option("--version", type=int, help="Exported version; by default the highest.")
BACKEND = click.option("--backend", default="auto", type=click.Choice(["auto", "docker", "local"]), show_default=True)
IMAGE = click.option("--image", default=None, help="SERVING_IMAGE; docker only.")


@click.group()
@click.option("--dataset", default="lesions", show_default=True, help="DATASET_NAME of the notebooks.")
@click.option("--model", help="MODEL_NAME of the notebook; by default the name of the dataset.")
@click.option("--output-dir", default="outputs", show_default=True, help="OUTPUT_DIR of the notebooks.")
@click.pass_context
def deploy(context: click.Context, dataset: str, model: str | None, output_dir: str) -> None:
    """Look after a deployed model, whichever process deployed it."""
    from tdsp_vision.deployment.deployment import Deployment

    context.obj = Deployment(OutputPaths(output_dir, dataset), checked_name("--model", model or dataset))


@deploy.command()
@VERSION
@BACKEND
@IMAGE
@click.pass_obj
def build(deployment, version, backend, image) -> None:
    """Write the build context and build the image, without running it."""
    _built(deployment, version, backend, image)


@deploy.command()
@VERSION
@BACKEND
@IMAGE
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="On this machine; 0: any free one.")
@click.pass_obj
def create(deployment, version, backend, image, port) -> None:
    """Build and run; it answers when the command ends."""
    click.echo(deployment.create(*_built(deployment, version, backend, image), port, keep_running=True).summary())


@deploy.command("list")
@click.pass_obj
def list_command(deployment) -> None:
    """List the deployments of all data sets."""
    from tdsp_vision.deployment.deployment import list_deployments

    root = resolve(deployment.outputs.output_dir)
    found = [each.summary() for each in list_deployments(root)]
    click.echo("\n".join(found) or f"nothing is deployed below {shown(root)}")


@deploy.command()
@click.argument("sources", nargs=-1, required=True)
@click.pass_obj
def score(deployment, sources: tuple[str, ...]) -> None:
    """Score SOURCES: image files, folders or web addresses; a table with one line for each image."""
    if missing := [source for source in sources if "://" not in source and not Path(source).exists()]:
        raise ParameterError(f"There is no {', '.join(missing)}.")
    click.echo(deployment.client().score(sources).to_string(index=False))


@deploy.command()
@click.pass_obj
def logs(deployment) -> None:
    """Show what the server wrote."""
    deployment.service()
    click.echo(deployment.logs())


@deploy.command()
@VERSION
@click.pass_obj
def update(deployment, version: int | None) -> None:
    """Serve another exported version; until it answers, and if it fails, the old one does."""
    from tdsp_vision.deployment.versions import version_folder

    deployment.update(version_folder(deployment.folder, version))
    click.echo(deployment.summary())


@deploy.command()
@click.pass_obj
def rollback(deployment) -> None:
    """Serve the version below the present one."""
    deployment.rollback()
    click.echo(deployment.summary())


@deploy.command()
@click.option("--if-exists", is_flag=True, help="It is no error if there is none.")
@click.pass_obj
def delete(deployment, if_exists: bool) -> None:
    """Stop and remove the server, its images and their build context; the exported versions stay."""
    if not deployment.delete() and not if_exists:
        raise ParameterError(f"{deployment.name} is not deployed: there is neither a server nor an image of it.")
    click.echo(f"{deployment.name}: deleted")


def _built(deployment, version, backend, image):
    """Build a version and say on what; its folder and backend."""
    from tdsp_vision.deployment.deployment import SERVING_IMAGE, choose_backend
    from tdsp_vision.deployment.versions import version_folder

    folder = version_folder(deployment.folder, version)
    chosen, reason = choose_backend(backend, image or SERVING_IMAGE)
    click.echo(reason)
    deployment.build(folder, chosen)
    return folder, chosen
