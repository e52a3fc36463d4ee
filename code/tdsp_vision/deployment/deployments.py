"""Make, find and list deployments: the door to `life.Deployment` for the notebook and the command line.

Everything of a deployment lies in `outputs/<dataset>/deployment/services/<model>/`; see `life`.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tdsp_vision import paths
from tdsp_vision.deployment.backends import SERVING_IMAGE, Backend, Release
from tdsp_vision.deployment.build_context import prepare, version_number
from tdsp_vision.deployment.life import Deployment
from tdsp_vision.deployment.record import RECORD, changing, read_record, write_record
from tdsp_vision.deployment.servers import check_replicas


def deployment_folder(outputs: paths.OutputPaths, model_name: str) -> Path:
    """Folder of the deployment of a model."""
    return outputs.deployment / "services" / paths.checked_name("MODEL_NAME", model_name)


def build_deployment(
    outputs: paths.OutputPaths,
    model_name: str,
    version_folder: Path,
    backend: Backend,
    port: int = 0,
    keep_running: bool = False,
    warmup: Sequence[Path] = (),
) -> Deployment:
    """Build without running; `Deployment.start` runs it later.

    Args:
        outputs, model_name: data set and model; the model's name is the deployment's, too.
        version_folder: the exported version, `serving/<model>/<version>`.
        backend: as `backends.choose_backend` gives it.
        port: port of the first replica on the loopback address; 0 for any free one.
        keep_running: whether the deployment outlives the process and the `with` block.
        warmup: image files that every server scores before it counts as loaded.

    Raises:
        FileExistsError, FileNotFoundError: if the model is deployed already, or a file is missing.
        RuntimeError: if the image cannot be built, with the log.
    """
    folder = deployment_folder(outputs, model_name)
    release = Release(folder, model_name, version_number(version_folder))
    folder.mkdir(parents=True, exist_ok=True)
    with changing(folder):
        if (folder / RECORD).exists():
            raise FileExistsError(f"{model_name} is deployed already; update or delete that deployment.")
        try:
            prepare(backend, release, version_folder, warmup)
            settings = {"backend": backend.name, "serving_image": getattr(backend, "serving_image", SERVING_IMAGE)}
            settings |= {"port": port, "keep_running": keep_running, "owner": os.getpid()}
            write_record(folder, settings | {"version": release.version, "previous": None, "replicas": []})
        except BaseException:
            backend.discard(release)
            shutil.rmtree(folder)
            raise
    return Deployment(folder, backend)


def create_deployment(
    outputs: paths.OutputPaths,
    model_name: str,
    version_folder: Path,
    backend: Backend,
    replicas: int = 1,
    port: int = 0,
    keep_running: bool = False,
    warmup: Sequence[Path] = (),
) -> Deployment:
    """Build and run; all replicas answer when this returns, or nothing is left. Arguments: see `build_deployment`.

    Raises:
        ValueError: for a number of replicas outside of 1 to 32.
        RuntimeError: if it cannot be built or does not come up, with the log; others as `build_deployment`.
    """
    check_replicas(replicas)
    deployment = build_deployment(outputs, model_name, version_folder, backend, port, keep_running, warmup)
    try:
        deployment.start(replicas)
    except BaseException:
        deployment.delete()
        raise
    return deployment


def open_deployment(folder: Path) -> Deployment:
    """The deployment in a folder, made by whichever process.

    Raises:
        FileNotFoundError: if there is none.
        RuntimeError: if its Docker engine does not answer.
    """
    record = read_record(folder)
    if record["backend"] == "docker":
        from tdsp_vision.deployment.container import DockerBackend

        return Deployment(folder, DockerBackend(record["serving_image"]))
    from tdsp_vision.deployment.local import LocalBackend

    return Deployment(folder, LocalBackend())


def list_deployments(output_dir: str) -> list[Path]:
    """Folders of all deployments below an output folder, of all data sets."""
    found = paths.resolve(output_dir).glob(f"*/deployment/services/*/{RECORD}")
    return sorted(file.parent for file in found)


def delete_if_exists(outputs: paths.OutputPaths, model_name: str) -> bool:
    """Delete the deployment of a model, if there is one; whether there was."""
    folder = deployment_folder(outputs, model_name)
    if not (folder / RECORD).exists():
        return False
    open_deployment(folder).delete()
    return True
