"""The same service on many machines: files for Kubernetes, KServe and Docker Compose, written from one set of facts.

In: an image with the model inside, as the container backend builds it (for KServe: a folder of versions where the
cluster can read it). Out, below `outputs/<dataset>/deployment/`: `kubernetes/*.yaml`, `kserve/inference_service.yaml`
and `compose.yaml`. KServe's file has a folder of its own because it takes the place of the others:
`kubectl apply -f kubernetes/` would otherwise deploy the model twice.

What is proven: every file is validated strictly against the schema (tests/deployment/test_clusters.py). None was run
on a cluster, because there was none to run it on.
"""

import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from string import Template

from tdsp_vision.deployment.backends import SERVING_IMAGE
from tdsp_vision.deployment.build_context import USER
from tdsp_vision.deployment.cluster_templates import TEMPLATES
from tdsp_vision.files import write_text

REST_PORT, GRPC_PORT = 8501, 8500  # inside the image, which is told so by its Dockerfile
MOST = {"version": 2**63 - 1, "replicas": 100, "port": 65_000}


@dataclass(frozen=True)
class ClusterFacts:
    """What all the files say, each in its own words.

    Attributes:
        model_name: name of the model in the URL, and of everything that is created.
        image: the image with the model, with a tag or digest.
        version: number of the served version.
        replicas: servers at rest; up to four times as many under load.
        storage_uri: KServe only: URI of the folder of versions; "" for a folder named like the model on a volume
            claim named `models`.
        serving_version: KServe only: version of TensorFlow Serving.
        port: Compose only: where the first replica answers on this machine; the others take the ports that follow.
        cpus, memory_mib, pids, tmp_mib: the most that one server may take: cores, MiB, processes, MiB in `/tmp`.
        user_id: of the server, which never runs as root.
    """

    model_name: str
    image: str
    version: int
    replicas: int = 2
    storage_uri: str = ""
    serving_version: str = SERVING_IMAGE.rpartition(":")[2]
    port: int = 8501
    cpus: int = 2
    memory_mib: int = 2048
    pids: int = 256
    tmp_mib: int = 64
    user_id: int = USER

    def __post_init__(self):
        name = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"  # 63 is a DNS label's limit; Kubernetes and KServe add endings
        tag = r"[a-z0-9][a-z0-9._/-]*(:\d+/[a-z0-9._/-]+)?(:\w[\w.-]{0,127}|@sha256:[0-9a-f]{64})"
        self._check_text("model_name", name, "1 to 40 lower-case letters, digits and '-', from a letter to no '-'")
        self._check_text("image", tag, "a name with a tag or digest, like registry.example.org/lesions:1")
        self._check_text("storage_uri", r"([a-z][a-z0-9]*://[\w.~%@:/+-]+)?", "a URI like s3://bucket/models/lesions")
        self._check_text("serving_version", r"\d+\.\d+\.\d+", "a version like 2.20.0")
        for field in fields(self):
            value, most = getattr(self, field.name), MOST.get(field.name, 65_535)
            if field.type is int and not (type(value) is int and 1 <= value <= most):
                raise ValueError(f"{field.name} is {value!r}; it must be a whole number from 1 to {most}.")

    def _check_text(self, name: str, pattern: str, allowed: str) -> None:
        value = getattr(self, name)
        if not (isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII)):
            raise ValueError(f"{name} is {value!r}; the cluster files need {allowed}.")


def write_cluster_files(
    folder: Path, model_name: str, image: str, version: int, replicas: int = 2, **settings: object
) -> list[Path]:
    """Write the files, each whole; those of an earlier call are replaced.

    Args:
        folder: `outputs/<dataset>/deployment`.
        model_name, image, version, replicas, settings: see `ClusterFacts`.

    Returns:
        the files written.

    Raises:
        ValueError: if a value cannot be used, in one sentence.
        TypeError: for a setting that `ClusterFacts` does not have.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/, https://kserve.github.io/website/,
    https://github.com/compose-spec/compose-spec
    """
    facts = ClusterFacts(model_name, image, version, replicas, **settings)
    selector = f"app.kubernetes.io/name: tensorflow-serving, app.kubernetes.io/instance: {model_name}"
    words = asdict(facts) | {
        "selector": f"{{{selector}}}",
        "labels": f'{{{selector}, app.kubernetes.io/version: "{version}", app.kubernetes.io/managed-by: tdsp-vision}}',
        "max_replicas": 4 * replicas,
        "storage_uri": facts.storage_uri or f"pvc://models/{model_name}",
        "published": "-".join(str(port) for port in sorted({facts.port, facts.port + replicas - 1})),
        "rest_port": REST_PORT,
        "grpc_port": GRPC_PORT,
    }
    for name, text in TEMPLATES.items():
        write_text(folder / name, Template(text).substitute(words))
    return [folder / name for name in TEMPLATES]
