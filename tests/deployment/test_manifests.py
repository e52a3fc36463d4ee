"""The build context and the cluster files: whole, valid by strict schemas, and the same facts in every file."""

import re

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from tdsp_vision.deployment.backends import HARDENED, SERVING_IMAGE, LocalBackend, cluster_name
from tdsp_vision.deployment.deployment import Deployment, write_cluster_files
from tdsp_vision.paths import OutputPaths

# Fields of KServe's InferenceService that are used here, from its API reference (serving.kserve.io/v1beta1); those of
# Kubernetes' own are checked as parts of a Pod.
INFERENCE_SERVICE = {"apiVersion", "kind", "metadata", "spec"}
PREDICTOR = {"minReplicas", "maxReplicas", "automountServiceAccountToken", "volumes", "model"}
MODEL = {"modelFormat", "runtimeVersion", "protocolVersion", "storageUri", "resources", "securityContext"}


def _check(name: str, document: dict) -> None:
    """Raise ValidationError unless a document is what the file's schema allows."""
    if name == "compose":
        schema = get_builtin_schema("vendor.compose-spec")
        jsonschema.validators.validator_for(schema)(schema).validate(document)
    elif name == "inference_service":
        predictor = document["spec"]["predictor"]
        used = set(document), set(predictor), set(predictor["model"])
        if used != (INFERENCE_SERVICE, PREDICTOR, MODEL | {"volumeMounts"}):
            raise jsonschema.ValidationError(f"other fields than allowed: {used}")
        assert (document["apiVersion"], document["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
        assert re.match("(gs|s3|https?|pvc|oci)://.", predictor["model"]["storageUri"])
        parts = {field: predictor["model"][field] for field in ("resources", "securityContext", "volumeMounts")}
        pod = {"containers": [{"name": "server", **parts}], "volumes": predictor["volumes"]}
        _check("pod", {"apiVersion": "v1", "kind": "Pod", "spec": pod})
    else:
        for version in ("1.30", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(document, version, strict=True)


@pytest.fixture
def written(tmp_path, two_classes):
    """Outputs of a model with a name that no cluster takes, its version, and the content of each YAML file."""
    outputs = OutputPaths(str(tmp_path), "ds")
    version = outputs.serving("HAM_10000") / "3"
    version.mkdir(parents=True)
    for file in two_classes.version_folder.rglob("*"):
        if file.is_file():
            (version / file.relative_to(two_classes.version_folder)).parent.mkdir(parents=True, exist_ok=True)
            (version / file.relative_to(two_classes.version_folder)).write_bytes(file.read_bytes())
    Deployment(outputs, "HAM_10000").build(version, LocalBackend(), replicas=2)
    files = [*write_cluster_files(outputs, version, replicas=2), outputs.deployment / "docker/compose.yaml"]
    return outputs, version, {file.stem: yaml.safe_load(file.read_text()) for file in files}


def test_every_file_is_valid_and_a_wrong_field_is_not(written):
    _, _, documents = written
    names = {"deployment", "service", "autoscaler", "disruption_budget", "inference_service", "compose"}
    assert set(documents) == names
    for name, document in documents.items():
        _check(name, document)
        with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
            _check(name, document | {"replica": 3})


def test_all_files_say_the_same(written):
    _, _, documents = written
    pod = documents["deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    server = documents["compose"]["services"]["server"]
    assert container["image"] == server["image"] == "tdsp-vision/ham-10000:3"
    assert {d["metadata"]["name"] for n, d in documents.items() if n != "compose"} == {"ham-10000"}
    labels = documents["deployment"]["spec"]["template"]["metadata"]["labels"]
    for selector in (
        documents["deployment"]["spec"]["selector"]["matchLabels"],
        documents["service"]["spec"]["selector"],
        documents["disruption_budget"]["spec"]["selector"]["matchLabels"],
    ):
        assert selector.items() <= labels.items()
    predictor = documents["inference_service"]["spec"]["predictor"]
    assert f"tensorflow/serving:{predictor['model']['runtimeVersion']}" == SERVING_IMAGE
    assert (documents["autoscaler"]["spec"]["minReplicas"], predictor["minReplicas"]) == (2, 2)
    assert (server["deploy"]["replicas"], server["ports"][0]["published"]) == (2, "8501-8502")
    limits = server["deploy"]["resources"]["limits"]
    assert {"--memory=2g", "--memory-swap=2g", f"--pids-limit={limits['pids']}"} <= set(HARDENED)
    assert (limits["memory"], container["resources"]["limits"]["memory"]) == ("2048M", "2048Mi")
    for probe in ("startupProbe", "readinessProbe"):
        assert container[probe]["grpc"] == {"port": 8500}


def test_the_build_context_is_whole(written):
    outputs, version, _ = written
    context = outputs.deployment / "docker"
    files = {"Dockerfile", "compose.yaml", "batching.config", "monitoring.config", "models"}
    assert {path.name for path in context.iterdir()} == files
    for source in version.rglob("*"):
        copy = context / "models/HAM_10000/3" / source.relative_to(version)
        assert source.is_dir() or copy.read_bytes() == source.read_bytes()
    text = (context / "Dockerfile").read_text()
    assert f"ARG SERVING_IMAGE={SERVING_IMAGE}\nFROM $SERVING_IMAGE\n" in text and "USER 10001:10001" in text
    assert text.count("\nCOPY --chown=10001:10001 ") == 2  # the server reads them, whoever built the image
    assert not re.search(r"(ARG|ENV) MODEL_NAME", text)  # the base image's own value would win
    flags = dict(re.findall(r'"--(\w+)=([^"]*)"', text))
    config = (context / flags["model_config_file"].removeprefix("/")).read_text()
    (model,) = text_format.Parse(config, ModelServerConfig()).model_config_list.config
    assert (model.name, model.base_path, model.model_platform) == ("HAM_10000", "/models/HAM_10000", "tensorflow")
    for flag in ("batching_parameters_file", "monitoring_config_file"):
        assert (context / flags[flag].removeprefix("/config/")).is_file()
    batching = (context / "batching.config").read_text()  # a request of more images than a batch has is split
    sizes = dict(re.findall(r"(max_\w+_size) { value: (\d+) }", batching))
    assert int(sizes["max_batch_size"]) > int(sizes["max_execution_batch_size"]) == 64
    assert "enable_large_batch_splitting { value: true }" in batching
    threads = 4 * int(flags["rest_api_num_threads"]) + int(flags["grpc_max_threads"])
    assert threads < 256 and flags["enable_profiler"] == "false"


def test_a_later_version_takes_the_place_of_the_context(written):
    outputs, version, _ = written
    later = version.rename(version.with_name("4"))
    Deployment(outputs, "HAM_10000").build(later, LocalBackend())
    assert [path.name for path in (outputs.deployment / "docker/models/HAM_10000").glob("[0-9]*")] == ["4"]
    compose = yaml.safe_load((outputs.deployment / "docker/compose.yaml").read_text())
    assert compose["services"]["server"]["image"] == "tdsp-vision/ham-10000:4"
    assert compose["services"]["server"]["ports"][0]["published"] == "8501"


NAMES = {"HAM10000": "ham10000", "2024": "model-2024", "_a.b--c-": "a-b-c", "a" * 90: "a" * 40}


@pytest.mark.parametrize(("name", "wanted"), NAMES.items())
def test_names_that_images_and_clusters_take(name, wanted):
    assert cluster_name(name) == wanted
