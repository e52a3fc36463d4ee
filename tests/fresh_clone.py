"""A fresh copy of the repository in which documented commands are typed word for word; see test_documented_commands.

What makes it small and quick is its data and its notebooks, never the command: fewer sample images, another address of
the archive, and two notebooks that end early (`early_ends`). What they do in full is the matter of test_walkthrough.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
from early_ends import end_early

from tdsp_vision.paths import ROOT

ACTIVATE = "source .venv/bin/activate"
DATA_NOTEBOOK = "code/01_data_acquisition_and_understanding/data_acquisition.ipynb"


class Clone:
    """A copy of the repository with an environment that is ready, in a home folder of its own."""

    def __init__(self, folder: Path, isic_api: str):
        self.root, self.home, self.done = folder / "clone", folder / "home", {}
        left_out = {".git", ".venv", "data", "outputs", "build"}
        shutil.copytree(ROOT, self.root, ignore=lambda path, names: left_out if Path(path) == ROOT else ["__pycache__"])
        self._link_environment()
        self._fewer_images()
        end_early(self.root)
        self.change(DATA_NOTEBOOK, "https://api.isic-archive.com/api/v2", isic_api)
        unset = {"TDSP_WORKSPACE", "VIRTUAL_ENV", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "BROWSER", "DISPLAY"}
        self.environment = {name: value for name, value in os.environ.items() if name not in unset}
        elsewhere = [part for part in os.environ["PATH"].split(":") if part != f"{sys.prefix}/bin"]
        self.environment |= {"PATH": ":".join(elsewhere), "HOME": str(self.home), "PYTHONPATH": str(self.root / "code")}
        self.environment |= {"DOCKER_HOST": "unix:///no/engine/here", "JUPYTER_CONFIG_DIR": str(self.home / "jupyter")}
        self.environment |= {"JUPYTER_RUNTIME_DIR": str(self.home / "runtime")}
        (self.home / "jupyter").mkdir()
        settings = {"open_browser": False, "port": 0}
        (self.home / "jupyter/jupyter_server_config.json").write_text(json.dumps({"ServerApp": settings}))
        self.active = False

    def _link_environment(self):
        """`.venv` as `make setup` leaves it; the package comes from the copy, through PYTHONPATH."""
        (self.root / ".venv").mkdir()
        for part in Path(sys.prefix).iterdir():
            if part.name != ".ready":
                (self.root / ".venv" / part.name).symlink_to(part)
        (self.root / ".venv/.ready").touch()

    def _fewer_images(self):
        """14 of each class in the sample; the same as `~/birds`."""
        for label, other in (("benign", "robin"), ("malignant", "wren")):
            photos = sorted((self.root / "sample_data/lesions" / label).glob("*.jpg"))
            (self.home / "birds" / other).mkdir(parents=True)
            for number, photo in enumerate(photos[:14], 1):
                shutil.copy(photo, self.home / "birds" / other / f"{number}.jpg")
            for photo in photos[14:]:
                photo.unlink()

    def change(self, file: str, old: str, new: str):
        text = (self.root / file).read_text(encoding="utf-8")
        assert text.count(old) == 1
        (self.root / file).write_text(text.replace(old, new), encoding="utf-8")

    def start(self, command: str) -> subprocess.Popen:
        """`command` as typed into a shell whose environment is active if the page has said how."""
        line = f"{ACTIVATE} && {command}" if self.active else command
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
        return subprocess.Popen(["bash", "-c", line], cwd=self.root, env=self.environment, **pipes)

    def execute(self, command: str) -> str:
        """What a command prints; it has to end well. One that an earlier page has shown is not executed again."""
        self.active = self.active or command == ACTIVATE
        if command not in self.done:
            process = self.start(command)
            printed, _ = process.communicate(timeout=900)
            assert process.returncode == 0, f"{command}\n{printed}"
            self.done[command] = printed
        return self.done[command]

    def serve(self, command: str) -> None:
        """Start `make lab` or `make history`, ask it for a page, and stop it as closing the terminal does."""
        if command in self.done:
            return
        busy = command == "make history" and taken(5000)
        process = self.start(command)
        try:
            if busy:
                assert "Port 5000 is in use already" in process.communicate(timeout=120)[0]
            else:
                assert answer(self.lab_address if command == "make lab" else lambda: "http://127.0.0.1:5000/", process)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.communicate(timeout=60)
        self.done[command] = ""

    def lab_address(self) -> str | None:
        for file in (self.home / "runtime").glob("jpserver-*.json"):
            about = json.loads(file.read_text() or "{}")
            if about.get("port"):
                return f"{about['url']}api/contents/{DATA_NOTEBOOK}?content=0&token={about['token']}"

    def end_what_runs(self) -> list[list[str]]:
        """Command lines of processes that a command left behind; they are killed."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            if str(self.root) in " ".join(process.info["cmdline"] or []):
                found.append(process.info["cmdline"])
                process.kill()
        return found


def taken(port: int) -> bool:
    """Whether something else on this machine has the port."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


def answer(address, process, seconds: int = 180) -> bool:
    """Whether the server answers within the time; it has to live until then."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate()[0]
        try:
            if url := address():
                return direct.open(url, timeout=30).status == 200
        except OSError:
            pass
        time.sleep(0.3)
    return False
