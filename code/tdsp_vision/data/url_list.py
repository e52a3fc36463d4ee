"""Pictures from a list of web addresses: a text file with one URL, a tab and a label in each line.

https://example.org/1.jpg	dotted

A first line that names the columns `url` and `label` is allowed, in either order. Lists age: dead links are expected,
and each ends in the rejections with its reason.
"""

import hashlib
from pathlib import Path

import pandas as pd

from tdsp_vision.data.downloads import as_rejected, fetch, label_problem
from tdsp_vision.data.patience import Patience
from tdsp_vision.data.verified import Candidate
from tdsp_vision.data.web import Client
from tdsp_vision.paths import shown

MAX_BYTES = 20_000_000  # of one picture
ONCE_MORE = Patience(attempts=2, read_timeout=15, deadline=60)  # most of what fails on the open web fails for good


def fetch_urls(
    folder: Path,
    tsv: Path,
    allow_private: bool = False,
    max_bytes: int = MAX_BYTES,
    patience: Patience = ONCE_MORE,
    quiet: bool = False,
) -> pd.DataFrame:
    """Fill `folder` with the pictures of the list that can be had, in the form that `scan_folder` reads.

    A file is named after the sha256 of its URL. Of a URL that comes twice the first line counts.

    Args:
        folder: `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        tsv: UTF-8 text, one URL, a tab and a label in each line.
        allow_private: also connect to addresses that are not public (loopback, the network at home), and through
            the proxies of the environment.
        max_bytes: where a transfer is stopped.
        patience: timeouts and attempts.
        quiet: no progress bar.

    Returns:
        path (the URL, or the line of the list), reason: all that was not fetched.

    Raises:
        ValueError: if the list cannot be read or has no line with a URL and a usable label.
    """
    links, rejected = read_list(tsv)
    candidates, urls = {}, {}
    for url, label in links.items():
        candidate = Candidate(label, hashlib.sha256(url.encode()).hexdigest()[:20], url, {}, None, max_bytes)
        candidates.setdefault(label, []).append(candidate)
        urls[f"{label}/{candidate.name}"] = url
    fetched = fetch(folder, candidates, None, Client(patience, guarded=not allow_private), top_up=False, quiet=quiet)
    return as_rejected(rejected | {urls[name]: reason for name, reason in fetched.lost.items()})


def read_list(tsv: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Label by URL, and by line (`line 7: …`) the reason for each that cannot be used.

    Raises:
        ValueError: if it cannot be read or has no usable line.
    """
    try:
        lines = tsv.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"SOURCE_PATH is {shown(tsv)!r}, which cannot be read as UTF-8 text: {error}.") from error
    links, rejected = {}, {}
    header = [field.strip().lower() for field in lines[0].split("\t")] if lines else []
    swapped, start = header == ["label", "url"], int(sorted(header) == ["label", "url"])
    for number, line in enumerate(lines[start:], start + 1):
        fields = [field.strip() for field in line.split("\t")]
        if not any(fields):
            continue
        url, label = (fields[::-1] if swapped else fields) if len(fields) == 2 else ("", "")
        if problem := _problem(url, label, links):
            rejected[f"line {number}: {line.strip()[:200]}"] = problem
        else:
            links[url] = label
    if not links:
        raise ValueError(
            f"SOURCE_PATH is {shown(tsv)!r}, and no line of it can be used; each needs a URL, a tab and a label"
            + "".join(f" (the first, {name!r}: {reason})" for name, reason in list(rejected.items())[:1])
            + "."
        )
    return links, rejected


def _problem(url: str, label: str, links: dict[str, str]) -> str:
    """Why a line cannot be used; empty if it can."""
    if not url or not label:
        return "not a URL, a tab and a label"
    if not url.lower().startswith(("http://", "https://")):
        return "its URL is neither http nor https"
    if url in links:
        other = "" if links[url] == label else f"; LABEL CONFLICT: {label} against {links[url]}"
        return f"its URL is in an earlier line{other}"
    return label_problem(label)
