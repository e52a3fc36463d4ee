"""An image that stands in for tensorflow/serving where no registry can be reached.

Its base holds this machine's Python, TensorFlow and the shared libraries they need, copied into it, so the engine
imports it without any network. It is made once per machine and tagged with what went into it. On top, from a
Dockerfile, come this project's package and a `tensorflow_model_server` that takes TensorFlow Serving's flags and
starts the embedded server.
"""

import functools
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import tdsp_vision
from tdsp_vision.deployment.backends import docker
from tdsp_vision.errors import RunFailed

IMAGE = "tdsp-vision-stand-in:latest"
NEEDED = ["tensorflow", "tensorflow-serving-api", "uvicorn", "starlette", "orjson", "click", "pillow", "filelock"]
BASE = "tdsp-vision-stand-in-base"
PACKAGE = Path(tdsp_vision.__file__).parent
PYTHON = Path(sys.executable).resolve()
TOOLS = ["bash", "grep"]  # what the health check finds in the real image
STDLIB = Path(sysconfig.get_path("stdlib"))
SITE = Path(sysconfig.get_path("purelib"))
PACKAGES = "/stand-in-packages"  # SITE in the image; its own path may be below /tmp, which a mount hides there
LEFT_OUT = [STDLIB / "site-packages", STDLIB / "test", SITE / "tensorflow/include", SITE / "clang"]
DOCKERFILE = """\
FROM {base}
COPY . /stand-in
# The real image sets this name for its own entrypoint; it must not reach the model's address.
ENV MODEL_NAME=model
ENV PATH=/stand-in:/usr/bin:/bin PYTHONPATH=/stand-in:{packages} LD_LIBRARY_PATH={libraries} TF_CPP_MIN_LOG_LEVEL=2
LABEL tdsp-vision.stand-in="the embedded server behind TensorFlow Serving's command line"
"""


@functools.cache
def stand_in_image() -> str:
    """Name of the stand-in image, made or brought up to date in the engine.

    The test is left out where no engine answers, and fails where REQUIRE_DOCKER is set.
    """
    try:
        docker("version")
    except RunFailed as error:
        message = f"{error}; .ci/engine starts one"
        pytest.fail(message) if os.environ.get("REQUIRE_DOCKER") else pytest.skip(message)
    base = _base_image()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(PACKAGE, folder / "tdsp_vision", ignore=shutil.ignore_patterns("__pycache__"))
        script = (Path(__file__).parent / "stand_in_image/tensorflow_model_server.py").read_text(encoding="utf-8")
        server = folder / "tensorflow_model_server"
        server.write_text(f"#!{PYTHON}\n{script}", encoding="utf-8")
        server.chmod(0o755)
        libraries = ":".join(sorted({str(library.parent) for library in _libraries(_packages())}))
        values = {"base": base, "packages": PACKAGES, "libraries": libraries}
        (folder / "Dockerfile").write_text(DOCKERFILE.format(**values), encoding="utf-8")
        docker("build", "--quiet", f"--tag={IMAGE}", name, timeout=300)
    docker("image", "prune", "--force", "--filter=label=tdsp-vision.stand-in")
    return IMAGE


def labelled(serving_folder: Path) -> list[str]:
    """All containers and images that carry the label of a model's folder."""
    label = f"--filter=label=tdsp-vision.serving={serving_folder}"
    return [*docker("ps", "--all", "--quiet", label).split(), *docker("image", "ls", "--quiet", label).split()]


def _base_image() -> str:
    """Name of the base image, made where the engine does not have it."""
    versions = sorted(f"{name} {importlib.metadata.version(name)}" for name in _distributions())
    made_of = [str(PYTHON), sys.version, Path(__file__).read_text(encoding="utf-8"), *versions]
    name = f"{BASE}:{hashlib.sha256('|'.join(made_of).encode()).hexdigest()[:12]}"
    if docker("image", "ls", "--quiet", name):
        return name
    packages = _packages()
    tools = [Path(shutil.which(tool)) for tool in TOOLS]
    members = [PYTHON, STDLIB, *packages, *_libraries(packages), *tools]
    command = ["tar", "-C", "/", "--dereference", "--owner=0", "--group=0", "--anchored"]
    command += [f"--exclude={str(path).lstrip('/')}" for path in LEFT_OUT]
    command += [f"--transform=s|^{str(SITE).lstrip('/')}|{PACKAGES.lstrip('/')}|"]
    command += ["-cf", "-", *(str(member).lstrip("/") for member in members)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
        subprocess.run(["docker", "import", "-", name], stdin=tar.stdout, check=True, capture_output=True)
    if tar.returncode:
        docker("image", "rm", name)
        raise RuntimeError(f"tar ended with {tar.returncode}; the base image would not be whole.")
    return name


def _distributions() -> set[str]:
    """Names of the needed distributions and of all that they require here."""
    found, waiting = set(), list(NEEDED)
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        required = [Requirement(line) for line in importlib.metadata.requires(name) or []]
        waiting += [item.name for item in required if not item.marker or item.marker.evaluate({"extra": ""})]
    return found


def _packages() -> list[Path]:
    """What the needed distributions installed into the folder of packages, as its top-level files and folders."""
    files = [file for name in _distributions() for file in importlib.metadata.distribution(name).files]
    return sorted({SITE / file.parts[0] for file in files if file.parts[0] != ".." and file.parts[0] != "__pycache__"})


def _libraries(packages: list[Path]) -> list[Path]:
    """Shared libraries outside of Python and the packages that these, Python and the tools are linked with."""
    linked = [PYTHON, *(Path(shutil.which(tool)) for tool in TOOLS)]
    linked += [file for folder in [STDLIB / "lib-dynload", *packages] for file in folder.rglob("*.so*")]
    answer = subprocess.run(["ldd", *linked], capture_output=True, text=True)  # 1 where a file is not linked: no matter
    found = {Path(path) for path in re.findall(r"(?:=> |^\t)(/\S+) \(0x", answer.stdout, re.M)}
    return sorted(path for path in found if not path.is_relative_to(SITE))
