"""What MkDocs does for the book besides its own work: which files are in it, and notebooks as pages.

The book has the layout of the repository, so a link that works there works here. A notebook becomes Markdown with the
outputs it was committed with; nothing is executed. Links and anchors in it are then checked as those of any page.
"""

import base64
import json
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
# All pages, and the files that they name. What is linked and not listed here stops the build.
CONTENT = ("README.md", "LICENSE", "sample_data/README.md", "docs/**/*", "code/0*/*.ipynb")
LEFT_OUT = ("docs/site/hooks.py", "__pycache__", ".ipynb_checkpoints")

FOLDED = '<details markdown="1">'  # what is inside is Markdown as well


class Lesson(File):
    """A notebook as a page; links name it by its `.ipynb`."""

    def is_documentation_page(self) -> bool:
        return True


@event_priority(100)
def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the book in place of those below `docs`; the theme's own stay."""
    book = Files(file for file in files if file.src_dir != config.docs_dir)
    for path in sorted({path for pattern in CONTENT for path in ROOT.glob(pattern) if path.is_file()}):
        name = path.relative_to(ROOT).as_posix()
        if any(part in name for part in LEFT_OUT):
            continue
        if path.suffix != ".ipynb" or path.parent.name == "solutions":  # those are for teachers, as files
            book.append(File.generated(config, name, abs_src_path=str(path)))
            continue
        text, pictures = as_markdown(json.loads(path.read_text(encoding="utf-8")), path.stem)
        book.append(Lesson.generated(config, name, content=text))
        for picture, content in pictures.items():
            book.append(
                File.generated(config, f"{path.parent.relative_to(ROOT).as_posix()}/{picture}", content=content)
            )
    return book


def on_post_build(config: MkDocsConfig) -> None:
    """Make the search work in pages opened from a disk, where a browser fetches no index and starts no worker."""
    site = Path(config.site_dir)
    index = (site / "search/search_index.json").read_text(encoding="utf-8")
    (site / "search/search_index.js").write_text(f"var __index = {index}", encoding="utf-8")
    worker = next(site.glob("assets/javascripts/workers/search.*.min.js")).read_text(encoding="utf-8")
    with (site / "docs/site/from_disk.js").open("a", encoding="utf-8") as script:
        script.write(f"const SEARCH = {json.dumps(worker)};\n")


def as_markdown(notebook: dict, stem: str) -> tuple[str, dict[str, bytes]]:
    """Text of the page, and pictures (PNG) by file name."""
    parts, pictures = [], {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source.replace("<details>", FOLDED))
        elif source.strip():
            code = f"``` python\n{source}\n```"
            folded = cell["metadata"].get("jupyter", {}).get("source_hidden")
            parts.append(f"{FOLDED}<summary>Code</summary>\n\n{code}\n\n</details>" if folded else code)
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":  # what libraries log when they start
                continue
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{stem}_files/{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode("".join(data["image/png"]))
                parts.append(f"![Figure made by the cell above]({name})")
            elif "text/html" in data:
                parts.append(_plain_html("".join(data["text/html"])))
            elif text := "".join(output.get("text", data.get("text/plain", ""))).strip("\n"):
                parts.append(f"``` {{ .text .output }}\n{text}\n```")
    return "\n\n".join(parts), pictures


def _plain_html(html: str) -> str:
    """A table without pandas' own style, so that it looks like the book's other tables, by day and by night."""
    html = re.sub(r"<style.*?</style>", "", html, flags=re.DOTALL)
    html = re.sub(r"<table[^>]*>", "<table>", html).replace(' style="text-align: right;"', "")
    return "<div>" + re.sub(r"\n\s*\n", "\n", html) + "</div>"
