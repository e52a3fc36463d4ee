"""Fill a folder with pictures from the web, whole and verified, in the form that `scan_folder` reads.

downloads/<label>/<name>.jpg    one picture; the name says where it came from, the ending what is in the file
downloads/metadata.csv          path, then what is known of each picture: url, license, attribution, …
downloads/.verified.csv         path, sha256: what the files were when they were verified
downloads/.unused/<label>/…     pictures of earlier runs that this one does not want; put back when one does

A file has its final name only after it is verified: complete, of the promised size, decoded to the last pixel. So a
killed run goes on where it stopped, and nothing is fetched twice.
"""

import re
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from tdsp_vision.data.containers import RejectedImage
from tdsp_vision.data.corrections import EXCLUDE
from tdsp_vision.data.folder import METADATA_FILE
from tdsp_vision.data.licenses import check_licenses
from tdsp_vision.data.patience import FetchError, TryAgain
from tdsp_vision.data.tables import write_csv
from tdsp_vision.data.verified import (
    Candidate,
    Verified,
    already_there,
    put_aside,
    read_notes,
    remove_drafts,
    store,
    write_notes,
)
from tdsp_vision.data.web import Client

THREADS = 8
MOST_IN_VAIN = 50  # replacements that are tried without a single success: then the server is down


@dataclass(frozen=True)
class Fetched:
    """What a run brought: number of pictures by label, and by `<label>/<name>` the reason for each that is missing."""

    counts: dict[str, int]
    lost: dict[str, str]


def fetch(
    folder: Path,
    candidates: dict[str, Iterable[Candidate]],
    wanted: int | None,
    client: Client,
    top_up: bool,
    threads: int = THREADS,
    quiet: bool = False,
) -> Fetched:
    """Fetch the first `wanted` candidates of each label into `folder` and write its `metadata.csv`.

    The result depends on the candidates and on what their servers answer, not on the order of arrival.

    Args:
        folder: `downloads`; what lies there from earlier runs is verified and used.
        candidates: by label, in order of preference; an iterator is asked only for as many as are needed.
        wanted: pictures per label; None for all.
        client: for the requests, with its patience.
        top_up: replace a picture that cannot be had by the next candidate.
        threads, quiet: pictures fetched at the same time; no progress bar.
    """
    remove_drafts(folder)
    notes, rows, lost, counts = read_notes(folder), {}, {}, dict.fromkeys(candidates, 0)
    sources = {label: iter(some) for label, some in candidates.items()}
    batches = _batches(sources, counts, wanted, top_up)
    with _progress(wanted, len(sources), quiet) as bar:
        for candidate, result in _results(folder, batches, client, notes, threads):
            if isinstance(result, FetchError):
                lost[f"{candidate.label}/{candidate.name}"] = f"{result} ({candidate.url})"
            else:
                rows[result] = {"path": result.path, "url": candidate.url} | candidate.metadata
                counts[candidate.label] += 1
                bar.update()
    put_aside(folder, {file.path for file in rows})
    write_notes(folder, notes | {file.path: file.sha256 for file in rows})
    table = pd.DataFrame(rows.values(), columns=_columns(rows.values()))
    write_csv(folder / METADATA_FILE, table.sort_values("path"))
    return Fetched(counts, lost)


def as_rejected(lost: dict[str, str]) -> pd.DataFrame:
    """Rows path, reason for `rejected.csv`, sorted by path."""
    return pd.DataFrame(sorted(lost.items()), columns=["path", "reason"])


def check_promise(fetched: Fetched, wanted: int, allow_shortfall: bool) -> None:
    """Raise ValueError that names each missing picture, if a label has fewer than `wanted` and that matters."""
    short = {label: count for label, count in fetched.counts.items() if count < wanted}
    if not short or allow_shortfall:
        return
    counts = ", ".join(f"{count} of {wanted} for {label!r}" for label, count in short.items())
    missing = [f"\n  {name}: {why}" for name, why in sorted(fetched.lost.items()) if name.split("/")[0] in short]
    raise ValueError(
        f"IMAGES_PER_CLASS is {wanted}, and not all images could be had: {counts}. What is here is kept: run again to "
        "fetch only the rest, or set ALLOW_SHORTFALL to True to go on with others or with fewer. "
        + ("Missing are:" + "".join(missing) if missing else "The search found no more than these.")
    )


def check_request(parameter: str, labels: Iterable[str], images_per_class: int, licenses: list[str]) -> None:
    """Raise ValueError if a label of the parameter cannot be a folder, or one of the others is out of range."""
    for label in labels:
        if problem := label_problem(label):
            raise ValueError(f"{parameter} has the label {label!r}: {problem}.")
    if images_per_class < 1:
        raise ValueError(f"IMAGES_PER_CLASS is {images_per_class}; give 1 or more.")
    check_licenses(licenses)


def label_problem(label: str) -> str:
    """Why a label cannot be the name of a folder; empty if it can."""
    if label == EXCLUDE:
        return f"{EXCLUDE} is the word that drops an image"
    if not re.fullmatch(r"[^\x00-\x1f\x7f/\\:*?\"<>|.\s][^\x00-\x1f\x7f/\\:*?\"<>|]{0,99}(?<![.\s])", label):
        return 'a label becomes a folder name: 1 to 100 characters, none of / \\ : * ? " < > |, no dot at its ends'
    return ""


def _progress(wanted: int | None, labels: int, quiet: bool) -> tqdm:
    total = None if wanted is None else wanted * labels
    return tqdm(total=total, desc="fetching images", unit="image", disable=quiet or None)


def _batches(
    sources: dict[str, Iterator], counts: dict[str, int], wanted: int | None, top_up: bool
) -> Iterator[list[Candidate]]:
    """What each label still needs according to `counts`, which the caller keeps; again and again with `top_up`."""
    vain = 0
    while vain < MOST_IN_VAIN:
        need = {label: None if wanted is None else wanted - counts[label] for label in sources}
        batch = [candidate for label, some in sources.items() for candidate in islice(some, need[label])]
        if not batch:
            return
        before = sum(counts.values())
        yield batch
        if not top_up:
            return
        vain = 0 if sum(counts.values()) > before else vain + len(batch)


def _results(
    folder: Path, batches: Iterator[list[Candidate]], client: Client, notes: dict[str, str], threads: int
) -> Iterator[tuple[Candidate, Verified | FetchError]]:
    """Each candidate of the batches with its outcome, in order, several at a time."""
    # Filters of warnings belong to the process: set once here, not by each thread. Pillow's oddities do no harm.
    with warnings.catch_warnings(), ThreadPoolExecutor(threads) as pool:
        warnings.simplefilter("ignore")
        for batch in batches:
            results = pool.map(lambda candidate: _fetch_one(folder, candidate, client, notes), batch)
            yield from zip(batch, results, strict=True)


def _fetch_one(folder: Path, candidate: Candidate, client: Client, notes: dict[str, str]) -> Verified | FetchError:
    """The verified file, or why there is none."""
    if found := already_there(folder, candidate, notes):
        return found

    def attempt(stop: float) -> Verified:
        content = client.get(candidate.url, stop, candidate.max_bytes)
        try:
            return store(folder, candidate, content)
        except RejectedImage as reason:  # a server in trouble sends half a file or a page with an apology
            raise TryAgain(str(reason)) from reason

    try:
        return client.patience.persist(attempt)
    except FetchError as reason:
        return reason


def _columns(rows: Iterable[dict]) -> list[str]:
    """Columns of all rows in the order of their first appearance; `path` even without rows."""
    return list(dict.fromkeys(["path", *(name for row in rows for name in row)]))
