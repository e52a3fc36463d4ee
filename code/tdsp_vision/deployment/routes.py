"""Which call a URL means, and its answer: TensorFlow Serving's REST routes over the loaded versions of one model.

Routes: `GET /v1/models/N[/versions/V][/metadata]` and `POST /v1/models/N[/versions/V]:predict|classify|regress`.
A path under `/v1/` that is none of these is answered with 400, as TensorFlow Serving does whatever the HTTP method.
Source: https://www.tensorflow.org/tfx/serving/api_rest
"""

import re
from dataclasses import dataclass
from urllib.parse import unquote

from tdsp_vision.deployment.classify_body import (
    check_classify,
    check_regress,
    classify_answer,
    classify_feeds,
)
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


@dataclass(frozen=True)
class Target:
    """The model, version (None: the highest) and label that a path names."""

    model: str
    version: int | None
    label: str | None


class Routes:
    """Answers requests for one model.

    Attributes:
        model_name: the name in the URL.
        versions: loaded versions by number; the highest answers where a request names none. It is read once per
            request, so a later version can be added, or an old one taken out, by assigning a new dict.
    """

    def __init__(self, model_name: str, versions: dict[int, ServedVersion]):
        self.model_name = model_name
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
        _, served = self._find(target)
        if name not in served.signatures:
            raise RequestError(400, f'Serving signature name: "{name}" not found in signature def')
        feeds, row_format = predict_feeds(document, served.signatures[name])
        return predict_answer(served.run(name, feeds), row_format)

    def _classify(self, target: Target, body: bytes) -> bytes:
        document = parse_object(body)
        name = signature_name(document)
        feeds = classify_feeds(document)
        _, served = self._find(target)
        check_classify(_signature(served, name))
        return classify_answer(served.run(name, feeds))

    def _regress(self, target: Target, body: bytes) -> bytes:
        document = parse_object(body)
        name = signature_name(document)
        classify_feeds(document)
        _, served = self._find(target)
        check_regress(_signature(served, name))

    def _status(self, target: Target) -> bytes:
        versions = self.versions if target.model == self.model_name else {}
        if target.label is not None:
            raise RequestError(400, f"Unrecognized servable version label: {target.label}")
        if target.version is not None and target.version not in versions:
            raise RequestError(404, f"Could not find version {target.version} of model {target.model}")
        if not versions:
            raise RequestError(404, f"Could not find any versions of model {target.model}")
        numbers = sorted(versions, reverse=True) if target.version is None else [target.version]
        healthy = {"error_code": "OK", "error_message": ""}
        states = [{"version": str(number), "state": "AVAILABLE", "status": healthy} for number in numbers]
        return to_json({"model_version_status": states})

    def _metadata(self, target: Target) -> bytes:
        number, served = self._find(target)
        spec = {"name": target.model, "signature_name": "", "version": str(number)}
        definitions = {"signature_def": {"signature_def": served.metadata}}
        return to_json({"model_spec": spec, "metadata": definitions})

    def _find(self, target: Target) -> tuple[int, ServedVersion]:
        """Number and version of `target`; RequestError 404 where it is not served."""
        if target.label is not None:
            raise RequestError(400, f"Unrecognized servable version label: {target.label}")
        versions = self.versions if target.model == self.model_name else {}
        if target.version is None and versions:
            return max(versions.items())
        if target.version is not None and target.version in versions:
            return target.version, versions[target.version]
        wanted = f"Latest({target.model})"
        if target.version is not None:
            wanted = f"Specific({target.model}, {target.version})"
        raise RequestError(404, f"Servable not found for request: {wanted}")


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
