"""Command line: `python -m tdsp_vision deploy build | create | list | score | logs | update | rollback | delete`.

A deployment that is made here keeps running until it is deleted; one that a notebook keeps running is found as well.
"""

import click

from tdsp_vision.errors import ParameterError
from tdsp_vision.paths import OutputPaths, checked_name, resolve

ACTIONS = ("build", "create", "list", "score", "logs", "update", "rollback", "delete")
# What each option is for; another action refuses it.
TAKEN_BY = {"version": "build, create, update", "backend": "build, create", "image": "build, create", "port": "create"}


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
def deploy(action, sources, dataset, model, output_dir, version, backend, image, port) -> None:
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

    for option, given in {"version": version, "backend": backend != "auto", "image": image, "port": port}.items():
        if given and action not in TAKEN_BY[option]:
            raise click.UsageError(f"--{option} is for {TAKEN_BY[option]}, not for {action}.")
    if bool(sources) != (action == "score"):
        raise click.UsageError("`score` takes images, folders or addresses after it; no other command does.")
    one = life.Deployment(OutputPaths(output_dir, dataset), checked_name("--model", model or dataset))
    said = ""
    if action == "list":
        said = "\n".join(each.summary() for each in life.list_deployments(resolve(output_dir))) or "nothing is deployed"
    elif action == "score":
        said = one.client().score(sources).to_string(index=False)
    elif action == "logs":
        said = one.logs()
    elif action == "delete":
        if not one.delete():
            raise ParameterError(f"{one.name} is not deployed: there is neither a server nor an image of it.")
        said = f"{one.name}: deleted"
    elif action == "rollback":
        one.rollback()
    elif action == "update":
        one.update(version_folder(one.folder, version))
    else:
        folder = version_folder(one.folder, version)
        chosen, reason = life.choose_backend(backend, image or life.SERVING_IMAGE)
        click.echo(reason)
        one.check_port(chosen, port)
        one.build(folder, chosen)
        if action == "create":
            one.create(folder, chosen, port, keep_running=True)
    if said or action != "build":
        click.echo(said or one.summary())
