"""The book that `make docs` builds: whole, without a dead link, and complete without any network."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tdsp_vision.paths import NOTEBOOKS, ROOT

CAUGHT = {"capture_output": True, "text": True}
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a page offers (`anchors`), where it leads (`links`), and what a browser loads for it (`loaded`)."""

    def __init__(self, path: Path):
        super().__init__()
        self.anchors, self.links, self.loaded = {""}, [], []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given.get("id"), given.get("name")}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect", "modulepreload"):
            self.loaded.append(given["href"])
        elif "src" in given or "srcset" in given or "data" in given:
            self.loaded += [given[name] for name in ("src", "srcset", "data") if name in given]


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """Folder of the built book; a warning, such as a dead link or a page that is in no chapter, fails the build."""
    site = tmp_path_factory.mktemp("book") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    built = subprocess.run(command, cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, **CAUGHT)
    assert built.returncode == 0, built.stdout + built.stderr
    return site


@pytest.fixture(scope="module")
def pages(book) -> dict[Path, Page]:
    """All pages; that of a wrong address is left out, since its links begin with a slash."""
    return {path: Page(path) for path in book.rglob("*.html") if path.name != "404.html"}


@pytest.mark.slow
def test_every_page_and_every_notebook_is_in_the_book(book, pages):
    sources = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *NOTEBOOKS.values()]
    built = {path: book / path.relative_to(ROOT).with_suffix(".html") for path in sources}
    built |= {path: page.with_name("index.html") for path, page in built.items() if path.stem == "README"}
    assert [path for path, page in built.items() if page not in pages] == []
    figures = pages[book / NOTEBOOKS["model"].relative_to(ROOT).with_suffix(".html")].loaded
    assert sum("modeling_files/" in name for name in figures) >= 5


@pytest.mark.slow
def test_every_link_anchor_and_picture_is_there(pages):
    dead = []
    for path, page in pages.items():
        for address in page.links + page.loaded:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[target].anchors if target in pages else {""}
            if not target.is_file() or unquote(parts.fragment) not in anchors:
                dead.append(f"{path.name}: {address}")
    assert dead == []


@pytest.mark.slow
def test_no_page_or_style_names_anything_to_load_from_outside(book, pages):
    named = {address for page in pages.values() for address in page.loaded}
    for style in book.rglob("*.css"):
        named |= set(re.findall(r"""(?:url\(|@import )["']?([^"')]+)""", style.read_text(encoding="utf-8")))
    assert [address for address in named if re.match(r"(https?:)?//", address)] == []


def chromium() -> str:
    """The installed Chromium or Chrome; REQUIRE_BROWSER makes its absence an error."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)("no Chromium on this machine")
    return found


@pytest.mark.slow
def test_opened_from_a_disk_it_needs_no_network_fits_a_phone_and_can_be_searched(book, pages):
    from playwright.sync_api import sync_playwright

    asked, trouble, wide = [], [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        phone = browser.new_page(viewport={"width": 420, "height": 800}, color_scheme="dark")
        phone.on("request", lambda request: asked.append(request.url))
        phone.on("pageerror", lambda error: trouble.append(str(error)))
        for path in pages:
            phone.goto(path.as_uri())
            if phone.evaluate("document.documentElement.scrollWidth") > 420:
                wide.append(path.name)
        phone.goto((book / "index.html").as_uri())
        assert phone.evaluate("document.body.dataset.mdColorScheme") == "slate"
        phone.click("label[for=__search]")
        phone.fill("input[name=query]", "near-duplicates")
        phone.wait_for_selector(".md-search-result__item a")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert (trouble, wide) == ([], [])


def test_the_architecture_page_names_only_files_that_exist():
    named = set(re.findall(r"`((?:code|tests|docs|benchmarks)/[^`<*]+)`", ARCHITECTURE))
    assert len(named) > 15 and [name for name in sorted(named) if not (ROOT / name).exists()] == []


def how_to_add() -> list[tuple[str, list[str], list[str]]]:
    """Numbered steps of the page: title of the section, files named, and identifiers named."""
    steps = []
    for section in ARCHITECTURE.split("\n## ")[1:]:
        for step in re.findall(r"^\d\. .*", section, re.M):
            spans = re.findall(r"`([^`]+)`", step)
            files = [span for span in spans if "/" in span and "<" not in span]
            steps.append((section.splitlines()[0], files, [span for span in spans if span.isidentifier()]))
    return steps


def test_each_how_to_is_short():
    sections = {part.splitlines()[0]: part for part in ARCHITECTURE.split("\n## ")}
    titles = [f"How to add a {what}" for what in ("backbone", "source of images", "metric", "backend")]
    assert all(sections[title].count("\n") < 30 for title in titles)


@pytest.mark.parametrize(("title", "files", "names"), how_to_add())
def test_the_places_to_touch_hold_the_names_that_the_page_gives(title, files, names):
    text = "\n".join((ROOT / file).read_text(encoding="utf-8") for file in files)
    assert [name for name in names if not re.search(rf"\b{name}\b", text)] == []
