"""Command line: `python -m tdsp_vision deploy build | create | list | score | logs | update | rollback | delete`.

A deployment that is made here keeps running until it is deleted; one that a notebook keeps running is found as well.
"""

from pathlib import Path

import click
from click.core import ParameterSource

from tdsp_vision.errors import ParameterError
from tdsp_vision.paths import OutputPaths, checked_name, resolve, shown

ACTIONS = ("build", "create", "list", "score", "logs", "update", "rollback", "delete")
# What each option is for; another action refuses it.
TAKEN_BY = {"version": "build, create, update", "backend": "build, create", "image": "build, create"}
TAKEN_BY |= {"port": "create", "if_exists": "delete"}


@click.command()
@click.argument("action", type=click.Choice(ACTIONS))
@click.argument("sources", nargs=-1)
@click.option("--dataset", default="lesions", show_default=True, help="DATASET_NAME of the notebooks.")
@click.option("--model", help="MODEL_NAME of the notebook; by default the name of the dataset.")
@click.option("--output-dir", default="outputs", show_default=True, help="OUTPUT_DIR of the notebooks.")
@click.option("--version", type=int, help="build, create, update: exported version; by default the highest.")
@click.option("--backend", default="auto", type=click.Choice(["auto", "docker", "local"]), help="build, create.")
@click.option("--image", help="build, create: SERVING_IMAGE; docker only.")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="create: on this machine; 0: any free one.")
@click.option("--if-exists", is_flag=True, help="delete: it is no error if there is none.")
def deploy(action, sources, dataset, model, output_dir, version, backend, image, port, if_exists) -> None:
    """Look after a deployed model, whichever process deployed it.

    \b
    build     write the build context and build the image, without running it
    create    build and run; it answers when the command ends
    list      list the deployments of all data sets
    score     score SOURCES: image files, folders or web addresses; a table with one line for each image
    logs      show what the server wrote
    update    serve another exported version; until it answers, and if it fails, the old one does
    rollback  serve the version below the present one
    delete    stop and remove the server, its images and their build context; the exported versions stay
    """
    from tdsp_vision.deployment import deployment as life
    from tdsp_vision.deployment.versions import version_folder

    given = click.get_current_context().get_parameter_source
    for option, actions in TAKEN_BY.items():
        if action not in actions and given(option) is not ParameterSource.DEFAULT:
            raise click.UsageError(f"--{option.replace('_', '-')} is for {actions}, not for {action}.")
    if bool(sources) != (action == "score"):
        raise click.UsageError("`score` takes images, folders or addresses after it; no other command does.")
    if missing := [source for source in sources if "://" not in source and not Path(source).exists()]:
        raise ParameterError(f"There is no {', '.join(missing)}.")
    one = life.Deployment(OutputPaths(output_dir, dataset), checked_name("--model", model or dataset))
    said = ""
    if action == "list":
        root = resolve(output_dir)
        found = [each.summary() for each in life.list_deployments(root)]
        said = "\n".join(found) or f"nothing is deployed below {shown(root)}"
    elif action == "score":
        table = one.client().score(sources)
        said = "no image is below what was named" if table.empty else table.to_string(index=False)
    elif action == "logs":
        said = one.logs()
    elif action == "delete":
        if not one.delete() and not if_exists:
            raise ParameterError(f"{one.name} is not deployed: there is neither a server nor an image of it.")
        said = f"{one.name}: deleted"
    elif action == "rollback":
        one.rollback()
    else:
        folder = version_folder(one.folder, version)
        if action == "update":
            one.update(folder)
        else:
            chosen, reason = life.choose_backend(backend, image or life.SERVING_IMAGE)
            click.echo(reason)
            one.check_port(chosen, port)
            one.build(folder, chosen)
        if action == "create":
            one.create(folder, chosen, port, keep_running=True)
    if said or action != "build":
        click.echo(said or one.summary())
