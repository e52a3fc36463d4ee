"""JupyterLab and Chromium for the browser tests, and a person at it who opens a notebook, runs cells, clicks, types.

Everything that they write lies in a temporary folder. `TDSP_ARTEFACTS` names a folder for the screenshots. Whatever
goes wrong is kept, whoever noticed it: the browser's console and page, an address outside this machine, and the
kernel, in a cell or in a widget's callback, which shows in no cell.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

# JupyterLab asks nobody outside for news or updates, and keeps every cell of a long notebook in the page.
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
OPTIONS = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--LabApp.extension_manager=readonly"]
CHROMIUM = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def left_out(message: str) -> None:
    """Skip the test, or fail it where REQUIRE_BROWSER is set."""
    pytest.fail(message) if os.environ.get("REQUIRE_BROWSER") else pytest.skip(message)


def start_jupyterlab(folder: Path) -> tuple[subprocess.Popen, str]:
    """Start JupyterLab on a free port; returns the process and the address of a `notebook`."""
    for name, settings in SETTINGS.items():
        path = folder / "settings" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    own = {f"JUPYTER_{name}_DIR": str(folder / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    own |= {f"JUPYTERLAB_{name}_DIR": str(folder / name.lower()) for name in ("SETTINGS", "WORKSPACES")}
    own |= {"IPYTHONDIR": str(folder / "ipython"), "TDSP_WORKSPACE": str(folder / "workspace")}
    command = [sys.executable, "-m", "jupyterlab", *OPTIONS, f"--notebook-dir={folder}"]
    with (folder / "jupyterlab.log").open("w") as log:
        server = subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT)
    while server.poll() is None:
        for path in (folder / "runtime").glob("jpserver-*.json"):
            about = json.loads(path.read_text() or "{}")
            if about.get("port"):
                return server, f"http://127.0.0.1:{about['port']}/lab/tree/{{notebook}}?token={about['token']}"
        time.sleep(0.1)
    raise RuntimeError(f"JupyterLab did not start: {(folder / 'jupyterlab.log').read_text()[-2000:]}")


class Notebook:
    """A notebook of code cells in a browser page of its own; a cell is named by its number."""

    def __init__(self, browser, address: str, folder: Path, cells: list[str]):
        self.errors: list[str] = []
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, folder / "widgets.ipynb")
        self.count, self.page = len(cells), browser.new_page(viewport={"width": 1400, "height": 1000})
        self.artefacts = Path(os.environ.get("TDSP_ARTEFACTS") or folder / "artefacts").resolve()
        self.artefacts.mkdir(parents=True, exist_ok=True)
        self.page.set_default_timeout(60_000)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.errors.append(f"page: {error}"))
        self.page.on("request", self._request)
        self.page.on("websocket", lambda socket: socket.on("framereceived", self._received))
        self.page.goto(address.format(notebook="widgets.ipynb"))
        status = self.page.locator("#jp-bottom-panel, #jp-main-statusbar")
        status.get_by_text("| Idle").wait_for()  # earlier keys are lost

    def _console(self, message) -> None:
        if message.type == "error":  # none is known that would have to be allowed
            self.errors.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _request(self, request) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1:|data:|blob:", request.url):
            self.errors.append(f"asks outside: {request.url}")

    def _received(self, frame: bytes | str) -> None:
        if "Traceback" in str(frame):  # of a message from the kernel, which is JSON
            self.errors.append(f"kernel: {str(frame)[-2000:]}")

    def cell(self, number: int):
        """Locator of a cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def output(self, number: int):
        """Locator of what a cell shows below its source."""
        return self.cell(number).locator(".jp-Cell-outputWrapper")

    def run(self, number: int) -> None:
        """Click into a cell, press Shift+Enter, and wait until it has been executed."""
        editor, prompt = (self.cell(number).locator(f".jp-Input{part}").first for part in ("Area-editor", "Prompt"))
        before = prompt.inner_text()
        editor.click()
        self.page.keyboard.press("Shift+Enter")
        numbered = "([prompt, before]) => /\\d/.test(prompt.innerText) && prompt.innerText != before"
        self.page.wait_for_function(numbered, arg=[prompt.element_handle(), before])
        assert not self.errors

    def where(self) -> tuple[int, int]:
        """How many cells there are and which is the active one: a key that reached JupyterLab would change them."""
        cells = self.page.locator(".jp-Notebook .jp-Cell")
        active = cells.evaluate_all("cells => cells.findIndex(cell => cell.classList.contains('jp-mod-active'))")
        return cells.count(), active


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Opens a notebook with given cells in a JupyterLab with a workspace of its own."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        left_out("no package playwright")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    executable = found or left_out("no Chromium on this machine; Debian's package is named chromium")
    folder = tmp_path_factory.mktemp("lab")
    server, address = start_jupyterlab(folder)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM)
            yield lambda cells: Notebook(browser, address, folder, cells)
            browser.close()
    finally:
        server.terminate()  # it ends its kernels first
        server.wait(timeout=60)
