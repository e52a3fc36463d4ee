"""When a server counts as started: the right model is AVAILABLE under its name, and it scores a picture."""

import base64
import io
import os
import time

import orjson
from PIL import Image

from tdsp_vision.deployment.backends import Service
from tdsp_vision.deployment.replicas import Replicas, ServingError
from tdsp_vision.deployment.server import KEY_VARIABLE

READY_SECONDS = 120


def wait_until_answering(service: Service) -> None:
    """Return once every version of `service.model_name` is AVAILABLE and a gray picture was scored as a valid one.

    Raises:
        RuntimeError: with the log, if the server stops first or is not ready within two minutes.
    """
    deadline = time.monotonic() + READY_SECONDS
    reason = "it does not listen yet"
    while time.monotonic() < deadline:
        if not service.alive():
            raise RuntimeError(f"The server stopped before it was ready. Its log:\n{service.logs()}")
        if service.url:
            reason = _not_ready(service)
        if not reason:
            return
        time.sleep(0.05)
    raise RuntimeError(f"The server was not ready after {READY_SECONDS} seconds: {reason}. Its log:\n{service.logs()}")


def _not_ready(service: Service) -> str:
    """What is missing; "" if nothing is. The address names the model: a server of another one is never ready."""
    path = f"/v1/models/{service.model_name}"
    try:
        replicas = Replicas([service.url], os.environ.get(KEY_VARIABLE))
        states = [version["state"] for version in replicas.call("GET", path)["model_version_status"]]
        if set(states) != {"AVAILABLE"}:
            return f"its versions are {', '.join(states)}"
        answer = replicas.call("POST", f"{path}:predict", _gray_picture())
    except ServingError as error:
        return str(error)
    return "" if answer["predictions"][0]["valid"] else f"it answered a prediction with {answer}"


def _gray_picture() -> bytes:
    """A request for a prediction that every model must be able to answer."""
    encoded = io.BytesIO()
    Image.new("RGB", (32, 32), "gray").save(encoded, "PNG")
    return orjson.dumps({"instances": [{"b64": base64.b64encode(encoded.getvalue()).decode()}]})
