"""The book that `make docs` builds: whole, without a dead link, complete without any network, readable at any width."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tdsp_vision.paths import NOTEBOOKS, ROOT

ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
PATIENCE = 300_000  # milliseconds; a busy machine is slow, and no reason to fail
# Boxes that stick out of the text, and code that is cut off; what stands in a box that scrolls is neither.
WIDE = """() => {
  document.querySelectorAll("details").forEach(part => part.open = true);
  const right = document.querySelector(".md-content__inner").getBoundingClientRect().right + 1;
  const scrolls = part => ["auto", "scroll"].includes(getComputedStyle(part).overflowX);
  const inside = part => part.closest(".md-typeset") && (scrolls(part.parentElement) || inside(part.parentElement));
  const boxes = [...document.querySelectorAll(".md-typeset :is(pre, table, img, svg)")];
  const code = [...document.querySelectorAll(".md-typeset :not(.output) > pre > code")];
  const out = boxes.filter(box => box.getBoundingClientRect().right > right && !inside(box));
  const cut = code.filter(block => !block.closest(".output") && block.scrollWidth > block.clientWidth);
  const page = document.documentElement.scrollWidth > innerWidth ? ["the page"] : [];
  return [...page, ...[...out, ...cut].map(part => part.tagName + " " + part.textContent.slice(0, 40))];
}"""


class Page(HTMLParser):
    """What a page offers (`anchors`), where it leads (`links`), and what a browser loads for it (`loaded`)."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, [], []
        self.text = path.read_text(encoding="utf-8")
        self.title = re.search("<title>(.*?)</title>", self.text)[1]
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given.get("id"), given.get("name")}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "modulepreload"):
            self.loaded.append(given["href"])
        else:
            self.loaded += [given[name] for name in ("src", "srcset", "data") if name in given]


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """Folder of the built book; a warning, such as a dead link or a page that is in no chapter, fails the build."""
    site = tmp_path_factory.mktemp("book") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return site


@pytest.fixture(scope="module")
def pages(book) -> dict[Path, Page]:
    """All pages; that of a wrong address is left out, since its links begin with a slash."""
    return {path: Page(path) for path in book.rglob("*.html") if path.name != "404.html"}


def test_every_source_is_a_page_with_a_title_of_its_own_and_nothing_is_missing_or_loaded_from_outside(book, pages):
    for source in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *NOTEBOOKS.values()]:
        page = book / source.relative_to(ROOT).with_suffix(".html")
        assert (page.with_name("index.html") if source.stem == "README" else page) in pages, source
    assert [title for title, times in Counter(page.title for page in pages.values()).items() if times > 1] == []
    dead, outside = [], []
    for path, page in pages.items():
        for address in page.links + page.loaded:
            parts = urlsplit(address)
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {""}
            if parts.scheme or parts.netloc:
                outside += [address] if address in page.loaded and parts.scheme != "data" else []
            elif not target.is_file() or unquote(parts.fragment) not in anchors:
                dead.append(f"{path.name}: {address}")
    for style in book.rglob("*.css"):
        outside += re.findall(r"""(?:url\(|@import )["']?((?:https?:)?//[^"')]+)""", style.read_text(encoding="utf-8"))
    assert (dead, outside) == ([], [])


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1400])
def test_opened_from_a_disk_every_box_fits_and_the_search_finds(book, pages, width):
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)("no Chromium on this machine")
    asked, trouble, wide = [], [], {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        screen = browser.new_page(viewport={"width": width, "height": 800}, color_scheme="dark")
        screen.set_default_timeout(PATIENCE)
        screen.on("request", lambda request: asked.append(request.url))
        screen.on("pageerror", lambda error: trouble.append(str(error)))
        for path in pages:
            screen.goto(path.as_uri())
            wide |= {path.name: boxes} if (boxes := screen.evaluate(WIDE)) else {}
        screen.goto((book / "index.html").as_uri())
        assert screen.evaluate("document.body.dataset.mdColorScheme") == "slate"
        screen.keyboard.press("/")
        screen.fill("input[name=query]", "near-duplicates")
        screen.wait_for_selector(".md-search-result__item a")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert (trouble, wide) == ([], {})


def test_the_architecture_page_names_only_files_that_exist_and_names_that_stand_in_them():
    named = set(re.findall(r"`((?:code|tests|docs|benchmarks)/[^`<*]+)`", ARCHITECTURE))
    assert len(named) > 15 and [name for name in sorted(named) if not (ROOT / name).exists()] == []
    for step in re.findall(r"^\d\. .*", ARCHITECTURE, re.M):  # how to add a backbone, a source, a metric, a backend
        spans = re.findall(r"`([^`]+)`", step)
        text = "".join((ROOT / span).read_text() for span in spans if "/" in span and "<" not in span)
        assert [span for span in spans if span.isidentifier() and not re.search(rf"\b{span}\b", text)] == [], step
