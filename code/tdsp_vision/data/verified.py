"""The files of a folder of downloads: each has its final name only after it is verified.

Verified means: as many bytes as promised, an image of an accepted format, decoded to its last pixel. The sha256 of
what was verified is noted in `.verified.csv` when a run ends, and a file that no longer has it is fetched again. After
a killed run, files without a note are verified as they were when they came.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from tdsp_vision.data.containers import RejectedImage
from tdsp_vision.data.images import inspect_image
from tdsp_vision.data.tables import read_csv, write_csv
from tdsp_vision.files import whole_file

UNUSED = ".unused"
NOTES = ".verified.csv"  # path, sha256
ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}
DRAFT = re.compile(r"\..+\.[a-z0-9_]{8}\.(jpg|png|gif|bmp|webp|csv)")  # what `whole_file` leaves when it is killed


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


class Verified(NamedTuple):
    """A file in its place: path relative to the folder, and sha256 of its bytes in hex."""

    path: str
    sha256: str


def store(folder: Path, candidate: Candidate, content: bytes) -> Verified:
    """Verify what came for a candidate and write it.

    Raises:
        RejectedImage: if it is not the whole image that was expected.
    """
    if re.match(rb"\s*<(!doctype|html|head|body|\?xml)", content, re.IGNORECASE):
        raise RejectedImage("a web page or XML instead of an image")
    if candidate.size is not None and len(content) != candidate.size:
        raise RejectedImage(f"{len(content):,} bytes, where its record says {candidate.size:,}")
    ending = next((ending for start, ending in ENDINGS.items() if content.startswith(start)), None)
    if ending is None:
        raise RejectedImage("not an image that can be recognized")
    path = folder / candidate.label / (candidate.name + ending)
    with whole_file(path) as draft:
        draft.write_bytes(content)
        sha256 = inspect_image(draft).source_sha256
    return Verified(path.relative_to(folder).as_posix(), sha256)


def already_there(folder: Path, candidate: Candidate, notes: dict[str, str]) -> Verified | None:
    """The candidate's file from an earlier run, if it still is what it was verified to be (`notes`: sha256 by path)."""
    for ending in ENDINGS.values():
        path = folder / candidate.label / (candidate.name + ending)
        name = path.relative_to(folder).as_posix()
        for place in (path, folder / UNUSED / name):
            if (
                place.is_file()
                and (sha256 := _whole_sha256(place, candidate.size))
                and notes.get(name, sha256) == sha256
            ):
                if place != path:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    place.replace(path)
                return Verified(name, sha256)
    return None


def _whole_sha256(path: Path, size: int | None) -> str:
    """Hash of a file that is whole and has the size; empty for any other."""
    try:
        facts = inspect_image(path)
    except RejectedImage:
        return ""
    return facts.source_sha256 if size in (None, path.stat().st_size) else ""


def read_notes(folder: Path) -> dict[str, str]:
    """Sha256 by path, of all files that runs which came to an end have verified."""
    path = folder / NOTES
    return dict(read_csv(path)[["path", "sha256"]].itertuples(index=False)) if path.is_file() else {}


def write_notes(folder: Path, notes: dict[str, str]) -> None:
    """Write what `read_notes` reads."""
    write_csv(folder / NOTES, pd.DataFrame(sorted(notes.items()), columns=["path", "sha256"]))


def put_aside(folder: Path, wanted: set[str]) -> None:
    """Move files that this run does not name out of the way of `scan_folder`, to `.unused`."""
    for path in sorted(folder.glob("[!.]*/*")):
        name = path.relative_to(folder)
        if path.is_file() and not path.name.startswith(".") and name.as_posix() not in wanted:
            (folder / UNUSED / name).parent.mkdir(parents=True, exist_ok=True)
            path.replace(folder / UNUSED / name)


def remove_drafts(folder: Path) -> None:
    """Delete what a killed run had not finished."""
    for path in [*folder.glob(".*"), *folder.glob("[!.]*/.*")]:
        if path.is_file() and DRAFT.fullmatch(path.name):
            path.unlink()
