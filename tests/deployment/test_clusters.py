"""The cluster files: valid by strict schemas, wrong variants refused by them, and the same facts in every file."""

import copy

import jsonschema
import kubernetes_validate
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from tdsp_vision.deployment.backends import SERVING_IMAGE as IMAGE
from tdsp_vision.deployment.build_context import FLAGS
from tdsp_vision.deployment.clusters import write_cluster_files
from tdsp_vision.deployment.container import HARDENED, MAX_CPUS

FACTS = ("lesions", "registry.example.org:5000/lesions:3", 3, 2)
KUBERNETES = ["deployment", "service", "autoscaler", "disruption_budget"]
FILES = [*(f"kubernetes/{name}.yaml" for name in KUBERNETES), "kserve/inference_service.yaml", "compose.yaml"]
CONTAINER = "spec template spec containers 0"

STRING, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}


def _object(required: str = "", **properties) -> dict:
    """A schema that knows every field it allows."""
    return {"type": "object", "properties": properties, "required": required.split(), "additionalProperties": False}


# From KServe's API reference (serving.kserve.io/v1beta1); fields of Kubernetes' own are checked as parts of a Pod.
INFERENCE_SERVICE = _object(
    "apiVersion kind metadata spec",
    apiVersion={"const": "serving.kserve.io/v1beta1"},
    kind={"const": "InferenceService"},
    metadata=_object(
        "name",
        name={"type": "string", "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
        labels={"type": "object", "additionalProperties": STRING},
        annotations={"type": "object", "additionalProperties": STRING},
    ),
    spec=_object(
        "predictor",
        predictor=_object(
            "model",
            minReplicas={"type": "integer", "minimum": 0},
            maxReplicas=COUNT,
            scaleTarget=COUNT,
            scaleMetric={"enum": ["cpu", "memory", "concurrency", "rps"]},
            containerConcurrency=COUNT,
            timeout=COUNT,
            automountServiceAccountToken={"type": "boolean"},
            volumes={"type": "array"},
            model=_object(
                "modelFormat storageUri",
                modelFormat=_object("name", name=STRING, version=STRING),
                runtime=STRING,
                runtimeVersion=STRING,
                protocolVersion={"enum": ["v1", "v2", "grpc-v1", "grpc-v2"]},
                storageUri={"type": "string", "pattern": "^(gs|s3|hdfs|webhdfs|https?|pvc|oci)://."},
                resources={"type": "object"},
                securityContext={"type": "object"},
                volumeMounts={"type": "array"},
            ),
        ),
    ),
)


def _check(name: str, document: dict) -> None:
    """Raise ValidationError unless a document is what the file's schema allows."""
    if name == "compose":
        schema = get_builtin_schema("vendor.compose-spec")
        jsonschema.validators.validator_for(schema)(schema).validate(document)
    elif name == "inference_service":
        jsonschema.Draft202012Validator(INFERENCE_SERVICE).validate(document)
        predictor = document["spec"]["predictor"]
        parts = {field: predictor["model"][field] for field in ("resources", "securityContext", "volumeMounts")}
        pod = {"containers": [{"name": "server", **parts}], "volumes": predictor["volumes"]}
        _check("pod", {"apiVersion": "v1", "kind": "Pod", "spec": pod})
    else:
        for version in ("1.30", kubernetes_validate.latest_version()):
            kubernetes_validate.validate(document, version, strict=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_cluster_files(tmp_path_factory.mktemp("deployment"), *FACTS)


@pytest.fixture(scope="module")
def documents(written) -> dict:
    """File name without its ending: its content."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in written}


def _place(document: dict, place: str) -> tuple[object, object]:
    """The container of a value and the key or number that it has there; `place` is the way to it, in words."""
    *way, last = [int(step) if step.isdigit() else step for step in place.split()]
    for step in way:
        document = document[step]
    return document, last


def _get(document: dict, place: str) -> object:
    container, key = _place(document, place)
    return container[key]


def test_every_file_is_written_and_says_that_no_cluster_ran_it(written):
    folder = written[0].parents[1]
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()) == sorted(FILES)
    for path in written:
        assert "# Validated against the schema, not run on a cluster." in path.read_text()
        assert "$" not in path.read_text()


@pytest.mark.parametrize("name", [*KUBERNETES, "inference_service", "compose"])
def test_every_file_is_valid(documents, name):
    _check(name, documents[name])


@pytest.mark.parametrize(
    ("name", "place", "value", "message"),
    [
        ("deployment", f"{CONTAINER} readinesProbe", {}, "'readinesProbe' was unexpected"),
        ("deployment", f"{CONTAINER} readinessProbe httpGet url", "/", "'url' was unexpected"),
        ("deployment", f"{CONTAINER} startupProbe retries", 3, "'retries' was unexpected"),
        ("deployment", f"{CONTAINER} startupProbe periodSeconds", "5s", "'5s' is not of type"),
        ("deployment", f"{CONTAINER} securityContext readOnlyRootFileSystem", True, "'readOnlyRootFileSystem' was"),
        ("deployment", f"{CONTAINER} name", None, "'name' is a required property"),
        ("deployment", "spec selector", None, "'selector' is a required property"),
        ("deployment", "spec template", None, "'template' is a required property"),
        ("deployment", "spec minReplicas", 2, "'minReplicas' was unexpected"),
        ("service", "spec ports 0 port", None, "'port' is a required property"),
        ("service", "spec selectors", {}, "'selectors' was unexpected"),
        ("autoscaler", "spec maxReplicas", None, "'maxReplicas' is a required property"),
        ("autoscaler", "spec minReplicas", "two", "'two' is not of type"),
        ("autoscaler", "spec metrics 0 resource target averageUtilisation", 7, "'averageUtilisation' was unexpected"),
        ("disruption_budget", "spec maxUnavailble", 1, "'maxUnavailble' was unexpected"),
        ("inference_service", "spec predictor model modelFormat", None, "'modelFormat' is a required property"),
        ("inference_service", "spec predictor model storageUri", "models", "'models' does not match"),
        ("inference_service", "spec predictor model runtimeVersion", 2.2, "2.2 is not of type 'string'"),
        ("inference_service", "spec predictor model storageURI", "s3://a", "'storageURI' was unexpected"),
        ("inference_service", "spec predictor scaleMetric", "requests", "'requests' is not one of"),
        ("inference_service", "spec predictor model resources limit", {}, "'limit' was unexpected"),
        ("compose", "services server deploy replica", 2, "'replica' does not match any"),
        ("compose", "services server image", 5, "5 is not of type 'string'"),
        ("compose", "services server cap_drop", "ALL", "'ALL' is not of type 'array'"),
        ("compose", "services server readonly", True, "'readonly' was unexpected"),
    ],
)
def test_wrong_variants_are_refused(documents, name, place, value, message):
    document = copy.deepcopy(documents[name])
    container, key = _place(document, place)
    if value is None:
        del container[key]
    else:
        container[key] = value
    with pytest.raises(jsonschema.ValidationError) as caught:
        _check(name, document)
    assert message in caught.value.message


def test_what_refers_to_each_other_fits(documents):
    deployment, service, autoscaler, budget = (documents[name] for name in KUBERNETES)
    selector, labels = _get(deployment, "spec selector matchLabels"), _get(deployment, "spec template metadata labels")
    assert selector.items() < labels.items() and labels["app.kubernetes.io/version"] == "3"
    assert selector == service["spec"]["selector"] == _get(budget, "spec selector matchLabels")
    assert selector == _get(deployment, "spec template spec topologySpreadConstraints 0 labelSelector matchLabels")
    assert autoscaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "lesions"}
    server = _get(deployment, CONTAINER)
    assert {port["name"] for port in server["ports"]} == {port["targetPort"] for port in service["spec"]["ports"]}
    for probe in ("startupProbe", "readinessProbe"):
        assert server[probe]["httpGet"] == {"path": "/v1/models/lesions/metadata", "port": "rest"}
    volumes = _get(deployment, "spec template spec volumes")
    assert [mount["name"] for mount in server["volumeMounts"]] == [volume["name"] for volume in volumes]
    stop = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    assert stop < _get(deployment, "spec template spec terminationGracePeriodSeconds")


def test_each_fact_reaches_every_file_that_needs_it(tmp_path):
    changed = {"storage_uri": "s3://bucket/lesions-2", "serving_version": "2.19.1", "port": 9001, "cpus": 4}
    changed |= {"memory_mib": 3000, "pids": 99, "tmp_mib": 32, "user_id": 2000}
    image = f"other@sha256:{'0' * 64}"
    files = write_cluster_files(tmp_path, "moles", image, 12, 3, **changed)
    found = {path.stem: yaml.safe_load(path.read_text()) for path in files}
    deployment, service, autoscaler, budget, kserve, compose = found.values()
    for name, document in found.items():
        _check(name, document)
    assert {document["metadata"]["name"] for document in (deployment, service, autoscaler, budget, kserve)} == {"moles"}
    server, container = _get(compose, "services server"), _get(deployment, CONTAINER)
    predictor = kserve["spec"]["predictor"]
    assert server["image"] == container["image"] == image
    limits = {"cpu": "4", "memory": "3000Mi"}
    assert container["resources"] == predictor["model"]["resources"] == {"requests": limits, "limits": limits}
    assert server["deploy"] == {"replicas": 3, "resources": {"limits": {"cpus": "4", "memory": "3000M", "pids": 99}}}
    assert server["ports"] == [{"target": 8501, "published": "9001-9003", "host_ip": "127.0.0.1"}]
    replicas = {"minReplicas": 3, "maxReplicas": 12}
    assert replicas.items() < autoscaler["spec"].items() and replicas.items() < predictor.items()
    assert predictor["model"]["storageUri"] == "s3://bucket/lesions-2"
    assert predictor["model"]["runtimeVersion"] == "2.19.1"
    volumes = predictor["volumes"] + _get(deployment, "spec template spec volumes")
    assert [volume["emptyDir"]["sizeLimit"] for volume in volumes] == ["32Mi"] * 2
    assert server["tmpfs"] == ["/tmp:rw,noexec,nosuid,size=32m"] and server["user"] == "2000:2000"


def test_every_server_is_locked_down(documents):
    pod, container = _get(documents["deployment"], "spec template spec"), _get(documents["deployment"], CONTAINER)
    predictor, server = (
        _get(documents["inference_service"], "spec predictor"),
        documents["compose"]["services"]["server"],
    )
    for context in (pod["securityContext"] | container["securityContext"], predictor["model"]["securityContext"]):
        assert context.pop("runAsGroup", 10001) == 10001
        assert context == {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert pod["automountServiceAccountToken"] is predictor["automountServiceAccountToken"] is False
    assert server["read_only"] is server["init"] is True
    assert server["cap_drop"] == ["ALL"] and server["security_opt"] == ["no-new-privileges:true"]
    assert server["ports"][0]["host_ip"] == "127.0.0.1"


def test_the_facts_are_the_container_backends(documents):
    server, flags = documents["compose"]["services"]["server"], " ".join(FLAGS)
    limits, container = server["deploy"]["resources"]["limits"], _get(documents["deployment"], CONTAINER)
    assert server["user"] == HARDENED["user"] and limits["pids"] == HARDENED["pids_limit"]
    assert server["tmpfs"] == [f"/tmp:{HARDENED['tmpfs']['/tmp']}"] and limits["cpus"] == str(MAX_CPUS)
    assert (limits["memory"], server["memswap_limit"]) == ("2048M", "2048m") and HARDENED["mem_limit"] == "2g"
    for name, option in (("rest", "rest_api_port"), ("grpc", "port")):
        (port,) = (port["containerPort"] for port in container["ports"] if port["name"] == name)
        assert f"--{option}={port} " in flags
    assert server["ports"][0]["target"] == container["ports"][0]["containerPort"]
    assert f"tensorflow/serving:{_get(documents['inference_service'], 'spec predictor model runtimeVersion')}" == IMAGE


def test_one_server_has_one_port_and_a_second_call_replaces_the_files(tmp_path):
    write_cluster_files(tmp_path, *FACTS)
    write_cluster_files(tmp_path, "lesions", "lesions:4", 4, 1)
    compose = yaml.safe_load((tmp_path / "compose.yaml").read_text())
    assert compose["services"]["server"]["ports"][0]["published"] == "8501"
    assert compose["services"]["server"]["image"] == "lesions:4"
    _check("compose", compose)


@pytest.mark.parametrize("name", ["a", "lesions-2", "a" * 40])
def test_names_that_can_be_host_names_are_taken(tmp_path, name):
    files = write_cluster_files(tmp_path, name, "lesions:1", 1)
    assert yaml.safe_load(files[1].read_text())["metadata"]["name"] == name


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        *(
            ("model_name", name, "40 lower-case letters")
            for name in ("", "Lesions", "a_b", "a.b", "2a", "a-", "a" * 41)
        ),
        *(("model_name", name, "40 lower-case letters") for name in ("a\n", "é", "true: 1", None)),
        *(
            ("image", image, "a tag or digest")
            for image in ("lesions", "", "a:1\nb: 2", "a:1 # b", "A:1", "a@sha256:12")
        ),
        *(("storage_uri", uri, "a URI like s3") for uri in ("models", "s3://", 's3://a"', "s3://a b")),
        ("serving_version", "latest", "a version like 2.20.0"),
        *(("version", version, "whole number from 1 to 92") for version in (0, -1, "3", True, 1.0)),
        *(("replicas", replicas, "whole number from 1 to 100") for replicas in (0, 101)),
        ("user_id", 0, "whole number from 1 to 65535"),
        ("memory_mib", None, "whole number from 1 to 65535"),
    ],
)
def test_values_that_cannot_be_used_are_named(tmp_path, name, value, allowed):
    facts = dict(zip(("model_name", "image", "version", "replicas"), FACTS, strict=True)) | {name: value}
    with pytest.raises(ValueError) as caught:
        write_cluster_files(tmp_path, **facts)
    assert str(caught.value).startswith(f"{name} is {value!r}; ") and allowed in str(caught.value)
    assert not list(tmp_path.iterdir())
