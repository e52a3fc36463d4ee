"""What the tests of all remote sources share: quick patience, and the look at what lies on the disk."""

from pathlib import Path

import pandas as pd
from archive_server import ArchiveServer

from tdsp_vision.data.downloads import Candidate, Fetched, fetch
from tdsp_vision.data.tables import read_csv
from tdsp_vision.data.web import Client, Patience


def quick(**changes) -> Patience:
    """Patience that does not sleep and gives up on a silent server after 0.3 s."""
    return Patience(**{"attempts": 3, "read_timeout": 0.3, "sleep": lambda _: None} | changes)


def assert_whole(folder: Path, files: dict[str, bytes]) -> pd.DataFrame:
    """Each line of `metadata.csv` is a file with the bytes that the server has for its URL, and nothing else is there.

    Returns `metadata.csv`.
    """
    table = read_csv(folder / "metadata.csv")
    for row in table.itertuples():
        assert (folder / row.path).read_bytes() == files["/" + row.url.split("/", 3)[3]], row.path
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*table.path, "metadata.csv"}
    return table


def offer(server: ArchiveServer, count: int = 6, label: str = "wren") -> dict[str, list[Candidate]]:
    """Candidates of one label with pictures on the server, sizes promised."""
    urls = [server.add_file(f"/files/{number}.jpg", number) for number in range(count)]
    sizes = [len(server.files[f"/files/{number}.jpg"]) for number in range(count)]
    return {label: [Candidate(label, f"p{i}", urls[i], {"number": i}, sizes[i]) for i in range(count)]}


def run(folder: Path, candidates: dict, wanted=None, top_up=False, threads=8, **patience) -> Fetched:
    """`fetch` with quick patience."""
    return fetch(folder, candidates, wanted, Client(quick(**patience)), top_up, threads, quiet=True)
