"""A person at JupyterLab, as the browser tests need one: opens a notebook, runs its cells, looks, and clicks.

Cells are found by a text that their source contains, as it stands in the notebook's file. Whatever goes wrong is
kept, whoever noticed it: the browser's console and page, an address outside this machine, and the kernel, in a cell
or in a widget's callback, which shows in no cell.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

CHROMIUM_FLAGS = [
    "--no-sandbox",  # it refuses to start for root otherwise
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
CELL_TIMEOUT = 600_000  # ms; a training on a busy machine


def kernel_trouble(frame: bytes | str) -> str:
    """What a websocket frame from the kernel says went wrong, or ''.

    A frame is a count of parts and their offsets (uint64, little endian), then channel, header, parent, metadata and
    content: protocol v1.kernel.websocket.jupyter.org.
    """
    if isinstance(frame, str) or len(frame) < 8:
        return ""
    count = int.from_bytes(frame[:8], "little")
    offsets = [int.from_bytes(frame[8 * i + 8 : 8 * i + 16], "little") for i in range(count)]
    channel, header, _, _, content = (frame[a:b] for a, b in zip(offsets[:5], offsets[1:6], strict=True))
    if channel != b"iopub":
        return ""
    kind, said = json.loads(header)["msg_type"], json.loads(content)
    if kind == "error":
        return f"{said['ename']}: {said['evalue']}"
    return said["text"] if kind == "stream" and "Traceback" in said["text"] else ""


class Notebook:
    """One notebook that is open in a browser page of its own. A cell is named by its number or by a text in it."""

    def __init__(self, page, path: Path, artefacts: Path):
        self.page, self.name, self.artefacts = page, path.stem, artefacts
        cells = nbformat.read(path, as_version=4).cells  # once, before JupyterLab writes to the file
        self.sources = [cell.source if cell.cell_type == "code" else "" for cell in cells]
        self.errors: list[str] = []
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.errors.append(f"page: {error}"))
        page.on("request", self._asked)
        page.on("websocket", lambda socket: socket.on("framereceived", self._received))

    def _said(self, message) -> None:
        if message.type == "error":  # none is known that would have to be allowed
            self.errors.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _asked(self, request) -> None:
        if not re.match(r"(https?|wss?)://127\.0\.0\.1:|data:|blob:", request.url):
            self.errors.append(f"asks outside: {request.url}")

    def _received(self, frame) -> None:
        trouble = kernel_trouble(frame)
        if trouble:
            self.errors.append(f"kernel: {trouble}")

    def number(self, cell: int | str) -> int:
        """Number of a cell; a text has to be in the source of exactly one code cell."""
        if isinstance(cell, int):
            return cell
        found = [number for number, source in enumerate(self.sources) if cell in source]
        assert len(found) == 1, f"{len(found)} cells of {self.name}.ipynb contain {cell!r}"
        return found[0]

    def output(self, cell: int | str):
        """Locator of what a cell shows below its source: text, pictures, widgets."""
        return self._cell(cell).locator(".jp-Cell-outputWrapper")

    def run(self, cell: int | str) -> None:
        """Click into a cell, press Shift+Enter, and wait until it has been executed; any error fails the test."""
        editor, prompt = (self._cell(cell).locator(f".jp-Input{part}").first for part in ("Area-editor", "Prompt"))
        before = prompt.inner_text()
        editor.click()
        self.page.keyboard.press("Shift+Enter")
        self.page.wait_for_function(
            "([prompt, before]) => /\\d/.test(prompt.innerText) && prompt.innerText != before",
            arg=[prompt.element_handle(), before],
            timeout=CELL_TIMEOUT,
        )
        assert not self.errors, f"{self.errors} when this cell had been run:\n{self.sources[self.number(cell)]}"

    def run_cells(self, first: int | str = 0, last: int | str | None = None) -> None:
        """Run the code cells from `first` to `last`, both included; without `last` to the end."""
        end = len(self.sources) - 1 if last is None else self.number(last)
        for number in range(self.number(first), end + 1):
            if self.sources[number]:
                self.run(number)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other.

        In a widget's list Space opens it, arrows and Enter choose. Without Space an arrow, or a letter such as m, is a
        shortcut of JupyterLab's: it goes to another cell, or changes this one.
        """
        for key in keys:
            self.page.keyboard.press(key, delay=50)  # ms

    def tab_to(self, control) -> None:
        """Press Tab until a control has the focus; it must not be further than ten steps away."""
        for _ in range(10):
            self.press("Tab")
            if control.evaluate("field => field === document.activeElement"):
                return
        raise AssertionError(f"{control} cannot be reached with the Tab key")

    def picture(self, name: str, cell: int | str) -> None:
        """Write a screenshot of what a cell shows to the folder of artefacts."""
        self.output(cell).screenshot(path=self.artefacts / f"{self.name}-{name}.png")

    def _cell(self, cell: int | str):
        return self.page.locator(".jp-Notebook .jp-Cell").nth(self.number(cell))


@dataclass
class Lab:
    """JupyterLab, and the browser that looks at it."""

    browser: object
    address: str
    root: Path  # what JupyterLab shows: code/ with the copied notebooks, and workspace/ with data/ and outputs/
    artefacts: Path

    @property
    def workspace(self) -> Path:
        """Where the notebooks write data/ and outputs/."""
        return self.root / "workspace"

    def open(self, name: str, width: int = 1400) -> Notebook:
        """Open a notebook below `root` in a page of its own and wait for its kernel."""
        path = self.root / name
        page = self.browser.new_page(viewport={"width": width, "height": 1000})
        page.set_default_timeout(60_000)
        notebook = Notebook(page, path, self.artefacts)
        page.goto(self.address.format(layout=path.stem, notebook=name))
        page.locator("#jp-bottom-panel, #jp-main-statusbar").get_by_text("| Idle").wait_for()  # earlier keys are lost
        return notebook

    def write(self, name: str, *cells: str) -> None:
        """Write a notebook of code cells below `root`, for a test that needs no more."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(notebook, self.root / name)
