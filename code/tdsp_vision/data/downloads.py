"""Fill a folder with pictures from the web, whole and verified, in the form that `scan_folder` reads.

downloads/<label>/<name>.jpg    one picture; the name says where it came from, the ending what is in the file
downloads/metadata.csv          path, then what is known of each picture: url, license, attribution, …
downloads/.files/<label>/<name>.<sha256>.jpg   all pictures that were ever verified; the others are links to these

A file in `.files` was decoded to its last pixel before it got its name, and its name says what it has to be. So a
killed run goes on where it stopped, a changed file is noticed, and nothing is fetched twice.
"""

import hashlib
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from tdsp_vision.data.containers import RejectedImage
from tdsp_vision.data.folder import METADATA_FILE
from tdsp_vision.data.images import as_stored, quiet_decoders
from tdsp_vision.data.labels import label_problem
from tdsp_vision.data.licenses import check_licenses
from tdsp_vision.data.tables import file_sha256, link_or_copy, write_csv
from tdsp_vision.data.web import Client, FetchError, TryAgain
from tdsp_vision.files import whole_file

THREADS = 8
MOST_IN_VAIN = 50  # replacements that are tried without a single success: then the server is down
KEPT = ".files"
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


@dataclass(frozen=True)
class Fetched:
    """What a run brought: number of pictures by label, and by `<label>/<name>` the reason for each that is missing."""

    counts: dict[str, int]
    lost: dict[str, str]


def fetch(folder: Path, candidates, wanted, client: Client, top_up, threads=THREADS, quiet=False) -> Fetched:
    """Fetch the first `wanted` candidates of each label into `folder` and write its `metadata.csv`.

    The result depends on the candidates and on what their servers answer, not on the order of arrival.

    Args:
        folder: `downloads`; what lies there from earlier runs is verified and used.
        candidates: some `Candidate`s by label, in order of preference; an iterator is asked only for those needed.
        wanted: number of pictures per label; None for all.
        client: for the requests, with its patience.
        top_up: True replaces a picture that cannot be had by the next candidate.
        threads, quiet: pictures fetched at the same time; no progress bar.
    """
    for draft in folder.glob(f"{KEPT}/*/.*"):  # what a killed run had not finished
        draft.unlink()
    found, lost, counts = [], {}, dict.fromkeys(candidates, 0)
    batches = _batches({label: iter(some) for label, some in candidates.items()}, counts, wanted, top_up)
    bar = tqdm(total=(wanted or 0) * len(counts) or None, desc="fetching images", unit="image", disable=quiet or None)
    with quiet_decoders(), ThreadPoolExecutor(threads) as pool, bar:
        for batch in batches:
            results = pool.map(lambda candidate: _fetch_one(folder, candidate, client), batch)
            for candidate, result in zip(batch, results, strict=True):
                if isinstance(result, FetchError):
                    lost[f"{candidate.label}/{candidate.name}"] = f"{result} ({candidate.url})"
                else:
                    found.append((candidate, result))
                    counts[candidate.label] += 1
                    bar.update()
    _lay_out(folder, found)
    return Fetched(counts, lost)


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


def _fetch_one(folder: Path, candidate: Candidate, client: Client) -> Path | FetchError:
    """The verified file in `.files`, or why there is none."""
    kept = folder / KEPT / candidate.label
    for path in kept.glob(f"{candidate.name}.*"):
        right_size = candidate.size in (None, path.stat().st_size)
        if right_size and file_sha256(path) == path.name.split(".")[1]:
            return path
        path.unlink()

    def accept(content: bytes) -> Path:
        """Verify and write; a server in trouble sends half a file or a page with an apology, so it is asked again."""
        if re.match(rb"\s*<(!doctype|html|head|body|\?xml)", content, re.IGNORECASE):
            raise TryAgain("a web page or XML instead of an image")
        if candidate.size not in (None, len(content)):
            raise TryAgain(f"{len(content):,} bytes, where its record says {candidate.size:,}")
        try:
            as_stored(content)
        except RejectedImage as reason:
            raise TryAgain(str(reason)) from reason
        ending = next((ending for start, ending in ENDINGS.items() if content.startswith(start)), ".image")
        path = kept / f"{candidate.name}.{hashlib.sha256(content).hexdigest()}{ending}"
        with whole_file(path) as draft:
            draft.write_bytes(content)
        return path

    try:
        return client.get(candidate.url, candidate.max_bytes, accept=accept)
    except FetchError as reason:
        return reason


def _lay_out(folder: Path, found: list[tuple[Candidate, Path]]) -> None:
    """Make the folders of the labels hold exactly the found files, and write `metadata.csv`."""
    for path in folder.glob("[!.]*"):
        if path.is_dir():
            shutil.rmtree(path)
    rows = []
    for candidate, kept in found:
        path = folder / candidate.label / (candidate.name + kept.suffix)
        link_or_copy(kept, path)
        rows.append({"path": path.relative_to(folder).as_posix(), "url": candidate.url} | candidate.metadata)
    columns = dict.fromkeys(["path", *(name for row in rows for name in row)])
    write_csv(folder / METADATA_FILE, pd.DataFrame(rows, columns=list(columns)).sort_values("path"))


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


def check_request(parameter: str, labels: Iterable[str], images_per_class: int, licenses: list[str]) -> None:
    """Raise ValueError if a label of the parameter cannot be a folder, or one of the others is out of range."""
    for label in labels:
        if problem := label_problem(label):
            raise ValueError(f"{parameter} has the label {label!r}: {problem}.")
    if images_per_class < 1:
        raise ValueError(f"IMAGES_PER_CLASS is {images_per_class}; give 1 or more.")
    check_licenses(licenses)
