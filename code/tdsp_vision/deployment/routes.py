"""Which call a URL means, and its answer: TensorFlow Serving's REST routes over the loaded versions of one model.

Routes: `GET /v1/models/N[/versions/V|/labels/L][/metadata]` and
`POST /v1/models/N[/versions/V|/labels/L]:predict|classify|regress`.
A path under `/v1/` that is none of these is answered with 400, as TensorFlow Serving does whatever the HTTP method.
Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import re
from typing import NamedTuple
from urllib.parse import unquote

from tdsp_vision.deployment.classify_body import (
    check_classify,
    check_regress,
    classify_answer,
    classify_feeds,
)
from tdsp_vision.deployment.guard import guarded
from tdsp_vision.deployment.loaded import LoadedVersions
from tdsp_vision.deployment.predict_body import predict_answer, predict_feeds
from tdsp_vision.deployment.protocol import (
    RequestError,
    Signature,
    parse_object,
    signature_name,
    to_json,
)
from tdsp_vision.deployment.session import ServedVersion

SELECTOR = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
CALL = re.compile(rf"/v1/models/(?P<model>[^/:]+){SELECTOR}:(?P<call>classify|regress|predict)", re.ASCII)
QUERY = re.compile(rf"/v1/models(?:/(?P<model>[^/:]+))?{SELECTOR}(?P<metadata>/metadata)?", re.ASCII)


class Target(NamedTuple):
    """The model, version (None: the highest) and label that a path names."""

    model: str
    version: int | None
    label: str | None


class Routes:
    """Answers requests for one model, from any thread."""

    def __init__(self, versions: LoadedVersions):
        self.versions = versions

    def answer(self, method: str, path: str, body: bytes) -> bytes:
        """Body of the answer with status 200.

        Args:
            method: HTTP method in capitals.
            path: the URL's path as it was sent, query included.
            body: the request's body.

        Raises:
            RequestError: with status and message of any other answer.
        """
        if method == "POST" and (match := CALL.fullmatch(path)):
            return getattr(self, f"_{match['call']}")(_target(match), body)
        if method == "GET" and (match := QUERY.fullmatch(path)):
            if not match["model"]:
                raise RequestError(400, "Missing model name in request.")
            return self._metadata(_target(match)) if match["metadata"] else self._status(_target(match))
        raise RequestError(400, f"Malformed request: {method} {path}")

    def _predict(self, target: Target, body: bytes) -> bytes:
        document = parse_object(body)
        name = signature_name(document)
        with self.versions.lease(*target) as (_, served):
            if name not in served.signatures:
                raise RequestError(400, f'Serving signature name: "{name}" not found in signature def')
            signature = served.signatures[name]
            feeds, row_format = predict_feeds(document, signature)
            del document  # the images are in it once more, in base64
            with guarded(feeds, signature) as safe:
                outputs = served.run(name, safe)
        return predict_answer(outputs, row_format)

    def _classify(self, target: Target, body: bytes) -> bytes:
        document = parse_object(body)
        name = signature_name(document)
        feeds = classify_feeds(document)
        with self.versions.lease(*target) as (_, served):
            signature = _signature(served, name)
            check_classify(signature)
            with guarded(feeds, signature) as safe:
                return classify_answer(served.run(name, safe))

    def _regress(self, target: Target, body: bytes) -> bytes:
        document = parse_object(body)
        name = signature_name(document)
        classify_feeds(document)
        with self.versions.lease(*target) as (_, served):
            check_regress(_signature(served, name))

    def _status(self, target: Target) -> bytes:
        number = self.versions.number(target.version, target.label)
        entries = [
            {"version": str(version), "state": state, "status": {"error_code": code, "error_message": message}}
            for version, (state, code, message) in self.versions.status(target.model, number)
        ]
        return to_json({"model_version_status": entries})

    def _metadata(self, target: Target) -> bytes:
        with self.versions.lease(*target) as (number, served):
            spec = {"name": target.model, "signature_name": "", "version": str(number)}
            definitions = {"signature_def": {"signature_def": served.metadata()}}
        return to_json({"model_spec": spec, "metadata": definitions})


def _signature(served: ServedVersion, name: str) -> Signature:
    """A signature for classify and regress, which word its absence differently from predict."""
    if name not in served.signatures:
        raise RequestError(400, f"No signature was found with the name: {name}")
    return served.signatures[name]


def _target(match: re.Match) -> Target:
    """The target of a path that fits one of the two patterns."""
    version = int(match["version"][:20]) if match["version"] else None
    if version is not None and version >= 2**63:
        raise RequestError(400, f"Failed to convert version: {match['version']} to numeric.")
    label = unquote(match["label"]) if match["label"] else None
    return Target(unquote(match["model"]), version, label)
