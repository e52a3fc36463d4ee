"""Fill a folder with pictures from the web, whole and verified, in the form that `scan_folder` reads.

downloads/<label>/<name>.jpg    one picture; the name says where it came from, the ending what is in the file
downloads/metadata.csv          path, then what is known of each picture: url, license, attribution, …

A picture is decoded to its last pixel before it gets its name, so a killed run goes on where it stopped, and nothing
is fetched twice. Pictures that a later run does not ask for are removed.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from tdsp_vision.data.folder import METADATA_FILE
from tdsp_vision.data.images import RejectedImage, as_stored, quiet_decoders
from tdsp_vision.data.labels import label_problem
from tdsp_vision.data.licenses import TERMS
from tdsp_vision.data.tables import write_csv
from tdsp_vision.data.web import Client, FetchError, TryAgain
from tdsp_vision.files import whole_file

THREADS = 8
MOST_IN_VAIN = 50  # replacements of a label that are tried without a single success: then the server is down
ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}


@dataclass(frozen=True)
class Candidate:
    """A picture that could be fetched.

    label: name of its folder.
    name: of its file, without ending; unique within the label and the same on every run.
    url: where it lies.
    metadata: columns of `metadata.csv`, beside path and url.
    size: bytes it must have; None where nobody said.
    max_bytes: where the transfer is stopped.
    """

    label: str
    name: str
    url: str
    metadata: dict
    size: int | None = None
    max_bytes: int = 20_000_000

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", self.name):  # it may come from a server and becomes a path
            raise ValueError(f"{self.name!r} of {self.url} cannot be a file name: letters, digits, '_' and '-' only.")


class Fetched(NamedTuple):
    """What a run brought: number of pictures by label, and by `<label>/<name>` the reason for each that is missing."""

    counts: dict[str, int]
    lost: dict[str, str]


def fetch(folder: Path, candidates, wanted, client: Client, top_up, threads=THREADS, quiet=False) -> Fetched:
    """Fetch the first `wanted` candidates of each label into `folder` and write its `metadata.csv`.

    The result depends on the candidates and on what their servers answer, not on the order of arrival.

    Args:
        folder: `downloads`; pictures that lie there from earlier runs, of the size that is promised, are used.
        candidates: some `Candidate`s by label, in order of preference; an iterator is asked only for those needed.
        wanted: number of pictures per label; None for all.
        client: for the requests, with its patience.
        top_up: True replaces a picture that cannot be had by the next candidate.
        threads, quiet: pictures fetched at the same time; no progress bar.
    """
    rows, lost, counts = {}, {}, dict.fromkeys(candidates, 0)
    bar = tqdm(total=(wanted or 0) * len(counts) or None, desc="fetching images", unit="image", disable=quiet or None)
    with quiet_decoders(), ThreadPoolExecutor(threads) as pool, bar:
        for label, some in candidates.items():
            some, in_vain = iter(some), 0
            while in_vain < MOST_IN_VAIN and (batch := list(islice(some, wanted and wanted - counts[label]))):
                before = counts[label]
                results = pool.map(lambda candidate: _fetch_one(folder, candidate, client), batch)
                for candidate, result in zip(batch, results, strict=True):
                    if isinstance(result, FetchError):
                        lost[f"{label}/{candidate.name}"] = f"{result} ({candidate.url})"
                    else:
                        path = result.relative_to(folder).as_posix()
                        rows[result] = {"path": path, "url": candidate.url} | candidate.metadata
                        counts[label] += 1
                        bar.update()
                in_vain = 0 if counts[label] > before else in_vain + len(batch)
                if not top_up:
                    break
    for label in folder.glob("[!.]*/"):
        for path in set(label.iterdir()) - set(rows):
            path.unlink()
        if not any(label.iterdir()):
            label.rmdir()
    columns = dict.fromkeys(["path", *(name for row in rows.values() for name in row)])
    write_csv(folder / METADATA_FILE, pd.DataFrame(rows.values(), columns=list(columns)).sort_values("path"))
    return Fetched(counts, lost)


def _fetch_one(folder: Path, candidate: Candidate, client: Client) -> Path | FetchError:
    """The verified file, or why there is none."""
    for path in (folder / candidate.label).glob(f"{candidate.name}.*"):
        if candidate.size in (None, path.stat().st_size):
            return path
        path.unlink()

    def accept(content: bytes) -> Path:
        """Verify and write; a server in trouble sends half a file or a page with an apology, so it is asked again."""
        if candidate.size not in (None, len(content)):
            raise TryAgain(f"{len(content):,} bytes, where its record says {candidate.size:,}")
        try:
            as_stored(content)
        except RejectedImage as reason:
            raise TryAgain(str(reason)) from reason
        ending = next((ending for start, ending in ENDINGS.items() if content.startswith(start)), ".image")
        path = folder / candidate.label / (candidate.name + ending)
        with whole_file(path) as draft:
            draft.write_bytes(content)
        return path

    try:
        return client.get(candidate.url, candidate.max_bytes, accept=accept)
    except FetchError as reason:
        return reason


def as_rejected(lost: dict[str, str]) -> pd.DataFrame:
    """Rows path, kind, reason for `rejected.csv`, sorted by path."""
    return pd.DataFrame([(path, "lost", why) for path, why in sorted(lost.items())], columns=["path", "kind", "reason"])


def check_promise(fetched: Fetched, wanted: int, allow_shortfall: bool) -> None:
    """Raise ValueError that names each missing picture, if a label has fewer than `wanted` and that matters."""
    short = {label: count for label, count in fetched.counts.items() if count < wanted}
    if not short or allow_shortfall:
        return
    counts = ", ".join(f"{count} of {wanted} for {label!r}" for label, count in short.items())
    missing = [f"\n  {name}: {why}" for name, why in sorted(fetched.lost.items()) if name.split("/")[0] in short]
    said = "Missing are:" + "".join(missing) if missing else "The search found no more than these."
    advice = "run again to fetch only the rest, or set ALLOW_SHORTFALL to True to go on with others or with fewer."
    raise ValueError(f"IMAGES_PER_CLASS is {wanted}, and not all images could be had: {counts}; {advice} {said}")


def check_request(parameter: str, labels: Iterable[str], licenses: list[str]) -> None:
    """Raise ValueError if a label of the parameter cannot be a folder, or LICENSES has a name not in `TERMS`."""
    for label in labels:
        if problem := label_problem(label):
            raise ValueError(f"{parameter} has the label {label!r}: {problem}.")
    if not licenses or not set(licenses) <= set(TERMS):
        raise ValueError(f"LICENSES is {licenses!r}; give one or more of {', '.join(TERMS)}.")
