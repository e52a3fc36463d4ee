"""What does the way over HTTP cost? The embedded server against the same model in a Session, side by side.

    python benchmarks/serving.py [--photos FOLDER] [--seconds 5] [--rounds 5]

Two networks: a small one, where the way weighs most, and EfficientNet-Lite0. For each, one caller and then eight send
one photo at a time to the server; the floor is a Session in this process that gets the same photos from one thread and
from two. The rounds alternate, so that whatever else the machine does hits both. The clients of this benchmark send
prepared bytes over a socket: on a machine of few cores, anything more would take its time from the server.
Wanted: p50 at most 2.2 times the floor's; requests per second with eight clients at least 0.8 times the floor's.
"""

import base64
import json
import socket
import tempfile
import threading
from pathlib import Path

import click
import keras
import numpy as np
import tensorflow as tf

from tdsp_vision.deployment.export import export_model
from tdsp_vision.deployment.local import LocalBackend
from tdsp_vision.deployment.session import ServedVersion
from tdsp_vision.deployment.timing import measure
from tdsp_vision.modeling.backbones import build_backbone
from tdsp_vision.paths import SAMPLE_DATA

SIZE = 224
HEADER = "POST /v1/models/bench:predict HTTP/1.1\r\nHost: bench\r\nContent-Length: {}\r\n\r\n"


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), default=SAMPLE_DATA / "lesions")
@click.option("--seconds", default=5.0, help="of each measurement")
@click.option("--rounds", default=5)
def main(photos: Path, seconds: float, rounds: int) -> None:
    """Print p50, requests per second and their ratios for both networks."""
    files = sorted(photos.rglob("*.jpg"))[:50]
    contents = [file.read_bytes() for file in files]
    kilobytes = np.mean([len(content) for content in contents]) / 1000
    print(f"{len(contents)} photos of {kilobytes:.0f} kB from {photos}; {rounds} rounds of {seconds:g} s")
    for name, model in (("small CNN", small_network()), ("EfficientNet-Lite0", lite0())):
        with tempfile.TemporaryDirectory() as folder:
            version = exported(model, Path(folder))
            compare(name, version, contents, seconds, rounds)


def small_network() -> keras.Model:
    """Three convolutions: a few milliseconds on one core."""
    layers = [keras.layers.Conv2D(filters, 3, strides=2, activation="relu") for filters in (32, 64, 128)]
    head = [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation="softmax")]
    return keras.Sequential([keras.Input([SIZE, SIZE, 3]), keras.layers.Rescaling(1 / 255), *layers, *head])


def lite0() -> keras.Model:
    """The default backbone with a head of two classes."""
    backbone = build_backbone("efficientnet_lite0", SIZE)
    return keras.Model(backbone.input, keras.layers.Dense(2, activation="softmax")(backbone.output))


def exported(model: keras.Model, folder: Path) -> Path:
    """The model as the first version of a served one."""
    run = folder / "run"
    run.mkdir()
    model.save(run / "model.keras")
    metrics = {"classes": ["a", "b"], "positive_class": "b", "image_size": SIZE, "validation": {"threshold": 0.5}}
    (run / "metrics.json").write_text(json.dumps(metrics))
    return export_model(run, folder / "serving")


def compare(name: str, version: Path, contents: list[bytes], seconds: float, rounds: int) -> None:
    """Alternate the floor and the server for some rounds and print medians and ratios."""
    requests = [request(content) for content in contents]
    with ServedVersion(version) as served, LocalBackend().start("bench", version.parent) as service:
        port = int(service.url.rpartition(":")[2])

        def in_process(content: bytes) -> None:
            served.run("serving_default", {"image_bytes": np.array([content], dtype=object)})

        def over_rest(clients: int) -> dict:
            return measure(Connections(port).send, requests, seconds, clients)

        def floor(threads: int) -> dict:
            return measure(in_process, contents, seconds, threads)

        rows = [[floor(1), over_rest(1), floor(2), over_rest(8)] for _ in range(rounds)]
    p50 = np.array([[row["p50_ms"] for row in line] for line in rows])
    rate = np.array([[row["requests_per_s"] for row in line] for line in rows])
    session, rest, ratio = np.median(p50[:, 0]), np.median(p50[:, 1]), np.median(p50[:, 1] / p50[:, 0])
    print(
        f"{name}: p50 in a Session {session:.2f} ms, over REST {rest:.2f} ms, ratio {ratio:.2f} (wanted: at most 2.2)"
    )
    session, rest, ratio = np.median(rate[:, 2]), np.median(rate[:, 3]), np.median(rate[:, 3] / rate[:, 2])
    print(
        f"{name}: Session from 2 threads {session:.0f} requests/s, REST from 8 clients {rest:.0f} requests/s, "
        f"ratio {ratio:.2f} (wanted: at least 0.8)"
    )


def request(content: bytes) -> bytes:
    """A whole HTTP request for one photo."""
    body = json.dumps({"instances": [{"b64": base64.b64encode(content).decode()}]}).encode()
    return HEADER.format(len(body)).encode() + body


class Connections:
    """One connection for each thread."""

    def __init__(self, port: int):
        self.port = port
        self._local = threading.local()

    def send(self, data: bytes) -> None:
        """Send a request and wait for its whole answer; AssertionError unless its status is 200."""
        if not hasattr(self._local, "socket"):
            self._local.socket = socket.create_connection(("127.0.0.1", self.port))
            self._local.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._local.socket.sendall(data)
        answer = self._local.socket.recv(65_536)
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), answer
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        while len(body) < length:
            body += self._local.socket.recv(65_536)


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
