"""JupyterLab and Chromium for the browser tests.

Everything that they write lies in a temporary folder: a copy of the notebooks (JupyterLab saves by itself, and the
committed ones must stay as they are), the workspace with `data/` and `outputs/`, and Jupyter's own folders.
`TDSP_ARTEFACTS` names a folder for the screenshots. One laboratory for each test file: Playwright's event loop would
be in the way of other tests if it lived longer.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from lab import CHROMIUM_FLAGS, Lab

from tdsp_vision.paths import NOTEBOOKS

# JupyterLab asks nobody outside for news or updates, and keeps every cell of a long notebook in the page.
SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
}
OPTIONS = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--LabApp.extension_manager=readonly"]


def left_out(message: str) -> None:
    """Skip the test, or fail it where REQUIRE_BROWSER is set."""
    pytest.fail(message) if os.environ.get("REQUIRE_BROWSER") else pytest.skip(message)


def chromium() -> str:
    """The installed Chromium or Chrome."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or left_out("no Chromium on this machine; Debian's package is named chromium")


def copy_notebooks(folder: Path) -> None:
    """Copy the three notebooks to `folder`, without their outputs: what is seen later was made by the test."""
    for path in NOTEBOOKS.values():
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.update(outputs=[], execution_count=None)
        copy = folder / path.parent.name / path.name
        copy.parent.mkdir(parents=True)
        nbformat.write(notebook, copy)


def start_jupyterlab(folder: Path) -> tuple[subprocess.Popen, str]:
    """Start JupyterLab on a free port; returns the process and the address of a `notebook` in a `layout` of tabs."""
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
    for _ in range(600):
        for path in (folder / "runtime").glob("jpserver-*.json"):
            about = json.loads(path.read_text() or "{}")
            if about.get("port"):
                place = "lab/workspaces/{layout}/tree/{notebook}?token="
                return server, f"http://127.0.0.1:{about['port']}/{place}{about['token']}"
        if server.poll() is not None:
            break
        time.sleep(0.1)
    server.kill()
    raise RuntimeError(f"JupyterLab did not start: {(folder / 'jupyterlab.log').read_text()[-2000:]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed test leaves a screenshot of each notebook that is open."""
    report = yield
    if report.failed and isinstance(item.funcargs.get("lab"), Lab):
        for page in (page for context in item.funcargs["lab"].browser.contexts for page in context.pages):
            name = page.url.split("?")[0].split("/")[-1]
            page.screenshot(path=item.funcargs["lab"].artefacts / f"failed-{item.name}-{name}.png")
    return report


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab with copies of the notebooks in a workspace of its own, and a browser that looks at it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        left_out("no package playwright")
    executable, folder = chromium(), tmp_path_factory.mktemp("lab")
    copy_notebooks(folder / "code")
    artefacts = Path(os.environ.get("TDSP_ARTEFACTS") or folder / "artefacts").resolve()
    artefacts.mkdir(parents=True, exist_ok=True)
    server, address = start_jupyterlab(folder)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
            yield Lab(browser, address, folder, artefacts)
            browser.close()
    finally:
        server.terminate()  # it ends its kernels first
        server.wait(timeout=60)
