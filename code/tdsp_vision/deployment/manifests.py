"""The files around a model: what its image is built from, and the same service on many machines.

Out, below `outputs/<dataset>/deployment/`: `docker/` (Dockerfile, compose.yaml, the server's settings and the version
itself, so that `docker compose up` there needs nothing else), `kubernetes/` and `kserve/`. All of them name the image
`tdsp-vision/<model>:<version>`. KServe's file has a folder of its own because it takes the place of the others:
`kubectl apply -f kubernetes/` would otherwise deploy the model twice.

What is proven: every file is validated strictly against its schema. None was run on a cluster here.
"""

import shutil
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tdsp_vision import paths
from tdsp_vision.deployment.container import SERVING_IMAGE, cluster_name, image_tag
from tdsp_vision.deployment.versions import MODELS, write_config
from tdsp_vision.files import whole_folder, write_text

TEMPLATES = Path(__file__).with_name("templates")
CONTEXT = ("Dockerfile", "compose.yaml", "batching.config", "monitoring.config")
CLUSTER = ("deployment", "service", "autoscaler", "disruption_budget")
CLUSTERS = (*(f"kubernetes/{name}.yaml" for name in CLUSTER), "kserve/inference_service.yaml")


def write_build_context(
    outputs: paths.OutputPaths, version_folder: Path, image: str = SERVING_IMAGE, replicas: int = 1
) -> Path:
    """Write `deployment/docker/` for a version, in place of that of an earlier one.

    Args:
        outputs: of the data set.
        version_folder: the exported version.
        image: TensorFlow Serving's image, which the model is added to.
        replicas: servers that compose starts.

    Returns:
        The folder, which holds all that `docker build` needs.
    """
    folder, name = outputs.deployment / "docker", version_folder.parent.name
    shutil.rmtree(folder, ignore_errors=True)
    with whole_folder(folder) as draft:
        shutil.copytree(version_folder, draft / "models" / name / version_folder.name)
        write_config(draft / "models" / name, int(version_folder.name))
        _write(draft, CONTEXT, version_folder, image, replicas)
        for path in draft.rglob("*"):  # the server is another user than the one who builds
            path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def write_cluster_files(outputs: paths.OutputPaths, version_folder: Path, replicas: int = 1) -> list[Path]:
    """Write the files for Kubernetes and KServe, in place of those of an earlier version; returns them.

    Args:
        outputs, version_folder: as above.
        replicas: servers at rest; up to four times as many under load.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/, https://kserve.github.io/website/
    """
    return _write(outputs.deployment, CLUSTERS, version_folder, SERVING_IMAGE, replicas)


def _write(folder: Path, names: tuple[str, ...], version_folder: Path, image: str, replicas: int) -> list[Path]:
    """Fill the template of each file with what all of them have to say."""
    name, version = version_folder.parent.name, int(version_folder.name)
    facts = {"model": name, "name": cluster_name(name), "version": version, "replicas": replicas, "models": MODELS}
    facts |= {"base": image, "image": image_tag(name, version), "serving_version": SERVING_IMAGE.rpartition(":")[2]}
    loader = FileSystemLoader(TEMPLATES)
    templates = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, trim_blocks=True)
    for file in names:
        write_text(folder / file, templates.get_template(f"{Path(file).name}.j2").render(facts))
    return [folder / file for file in names]
