"""What does a request cost? REST of the new export and server, of an older checkout's, and a call in the process.

    python benchmarks/serving.py [--before CHECKOUT] [--photos FOLDER] [--seconds 3] [--rounds 5]

EfficientNet-Lite0 with two classes. One caller sends one photo at a time: to a Session in this process (the floor), to
the embedded server of this checkout, and, with `--before`, to the server of another checkout, which exports the same
network itself with its own `.venv`. The three take turns, so that whatever else the machine does hits all of them.
Wanted: p50 at most 1.3 times the floor's, and at most 0.65 times that of the state before the deployment was rebuilt.
"""

import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import click
import keras
import numpy as np
import tensorflow as tf

from tdsp_vision.deployment.backends import LocalBackend
from tdsp_vision.deployment.client import ServingClient
from tdsp_vision.deployment.deployment import Deployment
from tdsp_vision.deployment.export import export_model
from tdsp_vision.deployment.server import ServedVersion
from tdsp_vision.modeling.backbones import build_backbone
from tdsp_vision.paths import SAMPLE_DATA, OutputPaths

SIZE = 224
MAKE_RUN = """
import sys, keras
from tdsp_vision.modeling.backbones import build_backbone
keras.utils.set_random_seed(0)
backbone = build_backbone("efficientnet_lite0", 224)
keras.Model(backbone.input, keras.layers.Dense(2, activation="softmax")(backbone.output)).save(sys.argv[1])
"""
EXPORT = """
import sys
from pathlib import Path
from tdsp_vision.deployment.export import export_model
export_model(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@click.command()
@click.option("--before", type=click.Path(path_type=Path, exists=True), help="A checkout with a .venv.")
@click.option("--photos", type=click.Path(path_type=Path, exists=True), default=SAMPLE_DATA / "lesions")
@click.option("--seconds", default=3.0, help="of each measurement")
@click.option("--rounds", default=5)
def main(before: Path | None, photos: Path, seconds: float, rounds: int) -> None:
    """Print p50 of each way and the ratios."""
    files = sorted(photos.rglob("*.jpg"))[:50]
    contents = [np.array([file.read_bytes()], dtype=object) for file in files]
    with tempfile.TemporaryDirectory() as name:
        folder, servers = Path(name), {}
        outputs = OutputPaths(name, "now")
        version = exported(folder / "run", outputs.serving("bench"))
        deployment = Deployment(outputs, "bench").create(version, LocalBackend())
        servers["REST, this checkout"] = deployment.client()
        old = None
        if before:
            old, url = start_before(before.resolve(), folder)
            servers["REST, the other checkout"] = ServingClient(url, "bench")
        else:
            print("no --before CHECKOUT: nothing to compare with")
        served, times = ServedVersion(version), {"in this process": [], **{name: [] for name in servers}}
        try:
            for _ in range(rounds):
                times["in this process"].append(floor(served, contents, seconds))
                for name, client in servers.items():
                    times[name].append(client.benchmark(files, seconds, [1]).p50_ms[0])
        finally:
            deployment.stop()
            if old:
                old.terminate()
                old.wait()
    report(times)


def exported(run: Path, serving: Path) -> Path:
    """Lite0 with a head of two classes, exported by this checkout."""
    keras.utils.set_random_seed(0)
    backbone = build_backbone("efficientnet_lite0", SIZE)
    write_run(run)
    scores = keras.layers.Dense(2, "softmax", name="scores")(backbone.output)
    familiar = keras.layers.Dense(1, "sigmoid", name="familiar")(backbone.output)
    keras.Model(backbone.input, {"scores": scores, "familiar": familiar}).save(run / "model.keras")
    return export_model(run, serving)


def write_run(run: Path) -> None:
    """The decision rule of a run."""
    run.mkdir()
    metrics = {"classes": ["a", "b"], "positive_class": "b", "image_size": SIZE, "validation": {"threshold": 0.5}}
    (run / "metrics.json").write_text(json.dumps(metrics))


def start_before(checkout: Path, folder: Path) -> tuple[subprocess.Popen, str]:
    """The embedded server of another checkout with its own export; the process and its address."""
    python, run, serving = str(checkout / ".venv/bin/python"), folder / "run_before", folder / "before/bench"
    write_run(run)
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}  # it would lead to this checkout
    subprocess.run([python, "-c", MAKE_RUN, str(run / "model.keras")], check=True, env=own)
    subprocess.run([python, "-c", EXPORT, str(run), str(serving)], check=True, env=own)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [python, "-m", "tdsp_vision.deployment.server", "--model-name", "bench", "--port", str(port)]
    process = subprocess.Popen([*command, "--model-base-path", str(serving)], env=own, stdout=subprocess.PIPE)
    process.stdout.readline()  # it prints a line once it answers
    return process, f"http://127.0.0.1:{port}"


def floor(served: ServedVersion, contents: list[np.ndarray], seconds: float) -> float:
    """p50 in milliseconds of calls in this process."""
    end, times = time.perf_counter() + seconds, []
    while time.perf_counter() < end:
        begin = time.perf_counter()
        served.run("serving_default", {"image_bytes": contents[len(times) % len(contents)]})
        times.append((time.perf_counter() - begin) * 1000)
    return float(np.median(times[1:]))


def report(times: dict[str, list[float]]) -> None:
    """Medians over the rounds, and medians of the ratios within a round."""
    table = {name: np.array(values) for name, values in times.items()}
    new = table["REST, this checkout"]
    for name, values in table.items():
        print(f"{name}: p50 {np.median(values):.1f} ms ({values.min():.1f} to {values.max():.1f})")
    print(f"over REST against in this process: {np.median(new / table['in this process']):.2f} (wanted: at most 1.3)")
    if "REST, the other checkout" in table:
        ratio = np.median(new / table["REST, the other checkout"])
        print(f"this checkout against the other: {ratio:.2f} (wanted: at most 0.65)")


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    main()
