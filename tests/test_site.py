"""The book that `make docs` builds: whole, without a dead link, complete without any network, readable at any width."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tdsp_vision.paths import NOTEBOOKS, ROOT

ARCHITECTURE = "".join(
    (ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("architecture.md", "how_to_add.md")
)
PATIENCE = 300_000  # milliseconds; a busy machine is slow, and no reason to fail


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """Folder of the built book; a warning, such as a dead link or a page that is in no chapter, fails the build."""
    site = tmp_path_factory.mktemp("book") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return site


def test_every_source_is_a_page_with_a_title_of_its_own_and_nothing_is_loaded_from_outside(book):
    pages = {path: path.read_text(encoding="utf-8") for path in book.rglob("*.html") if path.name != "404.html"}
    for source in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *NOTEBOOKS.values()]:
        page = book / source.relative_to(ROOT).with_suffix(".html")
        assert (page.with_name("index.html") if source.stem == "README" else page) in pages, source
    titles = [re.search("<title>(.*?)</title>", text)[1] for text in pages.values()]
    assert [title for title in titles if titles.count(title) > 1] == []
    tags = re.findall(r"<(?:link|img|script|source|iframe)\b[^>]*>", "".join(pages.values()))
    loaded = [tag for tag in tags if not re.search(r'rel="(canonical|prev|next)"', tag)]
    assert [tag for tag in loaded if re.search(r' (?:href|src)="(https?:)?//', tag)] == []
    styles = "".join(style.read_text(encoding="utf-8") for style in book.rglob("*.css"))
    assert re.findall(r"""(?:url\(|@import )["']?(?:https?:)?//[^"')]+""", styles) == []


@pytest.mark.browser
def test_opened_from_a_disk_on_a_narrow_screen_nothing_is_fetched_and_the_search_finds(book):
    from playwright.sync_api import sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not found:
        (pytest.fail if os.environ.get("REQUIRE_BROWSER") else pytest.skip)("no Chromium on this machine")
    asked, trouble = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        screen = browser.new_page(viewport={"width": 400, "height": 800})
        screen.set_default_timeout(PATIENCE)
        screen.on("request", lambda request: asked.append(request.url))
        screen.on("pageerror", lambda error: trouble.append(str(error)))
        for path in set(book.rglob("*.html")) - {book / "404.html"}:
            screen.goto(path.as_uri())
            assert not screen.evaluate("document.documentElement.scrollWidth > innerWidth"), path
        screen.goto((book / "index.html").as_uri())
        screen.keyboard.press("/")
        screen.fill("input[name=query]", "near-duplicates")
        screen.wait_for_selector(".md-search-result__item a")
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == trouble == []


def test_the_pages_for_engineers_name_only_files_that_exist():
    rooms = set(re.findall(r"^\| (.*?) \|", ARCHITECTURE, re.M))
    named = set(re.findall(r"`((?:code|tests|docs|benchmarks)/[^`<*]+)`", ARCHITECTURE))
    named |= {f"code/tdsp_vision/{name}" for room in rooms for name in re.findall(r"`([\w/.]+)`", room)}
    assert len(named) > 15 and [name for name in sorted(named) if not (ROOT / name).exists()] == []
