"""Where pictures come from, beside a folder: the ISIC Archive, the search of Openverse, a list of addresses.

downloads/<label>/<name>.jpg    one picture; the name says where it came from, the ending what is in the file
downloads/metadata.csv          path, then what is known of each picture: url, license, attribution, …

Each `fetch_…` fills `data/<dataset>/downloads` in this form, which `scan_folder` reads, and returns what was lost. A
picture is decoded to its last pixel before it gets its name, so a killed run goes on where it stopped, and nothing is
fetched twice. Pictures that a later run does not ask for are removed.
"""

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import islice, repeat, zip_longest
from pathlib import Path

import pandas as pd
from tqdm.contrib.concurrent import thread_map

from tdsp_vision.data.folder import METADATA_FILE, label_problem
from tdsp_vision.data.images import as_stored
from tdsp_vision.data.tables import write_csv
from tdsp_vision.data.web import Client, FetchError
from tdsp_vision.files import whole_file, write_text
from tdsp_vision.paths import shown

THREADS = 8
ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}
KEPT = ["title", "creator", "license_version", "license_url", "foreign_landing_url"]


def fetch_isic(folder, api, queries, wanted, licenses, seed, allow_shortfall=False):
    """Fill `folder` with `wanted` pictures of the ISIC Archive (API version 2) for each query.

    A search answers in pages, oldest first, and may hold half a million records. Wanted is a sample of the whole: the
    result is parted by the last two digits of the ids, which say nothing about a picture. The parts are walked in an
    order that the seed draws, whole, until there are enough records under an allowed licence; within a part those come
    first whose id, hashed with the seed, is smallest. That order depends neither on pages nor on repeated records, and
    hardly changes when the archive grows.

    Args:
        folder: path of `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        api: base address, such as "https://api.isic-archive.com/api/v2".
        queries: label to query, such as {"benign": "diagnosis_1:Benign"}.
        wanted, licenses: number of pictures per label; those that are allowed, such as ["CC-0", "CC-BY"].
        seed: chooses the sample.
        allow_shortfall: replace a picture that cannot be had by the next of the sample's order, and accept fewer
            where there is no next.

    Returns:
        table of path (label and id), kind, reason: what was lost.

    Raises:
        ValueError: if a parameter is wrong, the archive cannot be reached or answers in a way that is not known, or
            a picture of the sample cannot be had (unless `allow_shortfall`).
    """
    client, most = Client(), None if allow_shortfall else wanted
    some = {label: islice(_isic(client, api, query, licenses, seed), most) for label, query in queries.items()}
    return as_rejected(fetch(folder, some, client, wanted, allow_shortfall))


def _isic(client: Client, api: str, query: str, licenses: list[str], seed: int) -> Iterator:
    """Candidates in the sample's order; a part is asked for when those before are used up."""

    def order(text: str) -> str:
        return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()

    for ending in sorted((f"{number:02d}" for number in range(100)), key=order):
        part = f"({query}) AND isic_id:*{ending}" if query else f"isic_id:*{ending}"
        address, params = f"{api.rstrip('/')}/images/search/", {"query": part, "limit": 100}  # more it does not allow
        records, before, counted = {}, -1, 0
        while address and len(records) > before:  # pages that bring nothing new could go in a circle
            before = len(records)
            page, rows = _page(client, "ISIC_API", address, params, _isic_row)
            records |= {row["isic_id"]: row for row in rows}
            counted = page.get("count") or counted  # the first page has it
            address, params = page.get("next"), None
        if len(records) < counted:
            print(f"The archive counted {counted} records of {part}; its pages held {len(records)}.")
        allowed = [name for name in records if records[name]["license"] in licenses]
        yield from ((name, records[name]) for name in sorted(allowed, key=order))


def _isic_row(record: dict) -> dict:
    row = {"isic_id": record["isic_id"], "license": record["copyright_license"], "attribution": record["attribution"]}
    row |= {"url": record["files"]["full"]["url"], "archive_bytes": record["files"]["full"]["size"]}
    return row | (record["metadata"]["clinical"] or {}) | (record["metadata"]["acquisition"] or {})


def _page(client: Client, parameter: str, address: str, params: dict | None, row: Callable) -> tuple[dict, list[dict]]:
    """One page of a search and its rows for `metadata.csv`; ValueError, naming the parameter, if there is none."""
    try:
        page = client.get(address, params, json.loads)
        return page, [row(record) for record in page["results"]]
    except (FetchError, KeyError, TypeError) as error:
        found = f"{parameter} was asked at {address} for {params or 'the next page'}: {type(error).__name__}: {error}"
        raise ValueError(f"{found}. Offline, set SOURCE to 'sample' or 'folder'.") from error


def fetch_openverse(folder, api, queries, items, wanted, licenses, allow_shortfall=False, allow_private=False):
    """Fill `folder` with `wanted` openly licensed pictures for each label, from the search of Openverse.

    "dotted {item}" is asked for each of the items. Of all queries of a label the first result is taken, then the
    second of each, and so on. A picture that cannot be had, which is common here, is replaced by the next result.

    Args:
        folder: path of `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        api: base address, such as "https://api.openverse.org/v1".
        queries, items: label to queries, such as {"dotted": ["dotted {item}"]}; what `{item}` stands for.
        wanted, licenses: number of pictures per label; those that are allowed, such as ["CC-0", "CC-BY"].
        allow_shortfall: accept fewer where the results do not suffice.
        allow_private: also fetch pictures from addresses that are not public.

    Returns:
        table of path (label and id), kind, reason: what was lost.

    Raises:
        ValueError: if a parameter is wrong, the search cannot be used, or results do not suffice.
    """
    search, client, some = Client(), Client(guarded=not allow_private), {}
    for label, templates in queries.items():
        texts = dict.fromkeys(one.replace("{item}", item) for one in templates for item in items)
        results = [_openverse(search, api, text, licenses) for text in texts]
        some[label] = (row for ranked in zip_longest(*results) for row in ranked if row)
    return as_rejected(fetch(folder, some, client, wanted, allow_shortfall))


def _openverse(client: Client, api: str, query: str, licenses: list[str]) -> Iterator:
    """Candidates of a query in the order of the search; a page is asked for when the one before is used up."""

    def columns(result: dict) -> dict:
        row = {"url": result["url"], "openverse_id": result["id"], "license": names.get(result["license"])}
        return row | {"query": query, "attribution": result["attribution"]} | {key: result.get(key) for key in KEPT}

    names = {name.removeprefix("CC-").lower().replace("0", "cc0"): name for name in licenses}  # by: CC-BY
    params = {"q": query, "license": ",".join(names), "page_size": 20}  # more need a key
    for number in range(1, 21):  # deeper pages are not answered
        page, rows = _page(client, "OPENVERSE_API", f"{api.rstrip('/')}/images/", params | {"page": number}, columns)
        yield from ((row["openverse_id"], row) for row in rows if row["license"])
        if number >= page.get("page_count", 20) or not rows:
            return


def fetch_urls(folder, tsv, allow_private=False, timeout=15):
    """Fill `folder` with the pictures of a list of web addresses that can be had.

    Lists age: dead links are expected, and each ends in the rejections. Most of what fails fails for good, so it is
    asked for only once more. A file is named after the sha256 of its URL.

    Args:
        folder: path of `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        tsv: as `read_list` takes it.
        allow_private: also connect to addresses that are not public (loopback, the network at home).
        timeout: seconds without a connection or a single byte.

    Returns:
        table of path (label and name, or the line of the list), kind, reason: all that was not fetched.

    Raises:
        ValueError: if the list cannot be read or has no line with a URL and a label.
    """
    candidates, rejected = read_list(tsv)
    return as_rejected(rejected | fetch(folder, candidates, Client(2, timeout, 60, not allow_private)))


def read_list(tsv: Path) -> tuple[dict[str, list], dict[str, str]]:
    """Candidates by label, as `fetch` takes them, and by line (`line 7: …`) the reason for each that is none.

    Args:
        tsv: UTF-8 text by the rules of CSV with tabs, one URL and one label in each line; or a first line that names
            the columns url, label and, if there are such, others of `metadata.csv`, such as license and attribution.

    Raises:
        ValueError: if it cannot be read or has no candidate.
    """
    try:
        lines = list(csv.reader(tsv.read_text(encoding="utf-8-sig").splitlines(), delimiter="\t"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"SOURCE_PATH is {shown(tsv)!r}, which cannot be read as UTF-8 text: {error}.") from error
    columns, candidates, rejected = ["url", "label"], {}, {}
    for number, line in enumerate(lines, 1):
        fields = [field.strip() for field in line]
        if {"url", "label"} <= {field.lower() for field in fields}:
            columns = [field.lower().replace("licence", "license") for field in fields]
        elif any(fields):
            row = dict(zip_longest(columns, fields, fillvalue=""))  # spreadsheets pad lines, or cut them
            label, more = row.pop("label"), row.pop("", "")
            if not (label and row["url"]) or more:
                rejected[f"line {number}: {' '.join(fields)[:200]}"] = "not a URL, a tab and a label"
            else:
                name = hashlib.sha256(row["url"].encode()).hexdigest()[:20]
                candidates.setdefault(label, []).append((name, row))
    if not candidates:
        raise ValueError(f"SOURCE_PATH is {shown(tsv)!r}, and no line of it is a URL, a tab and a label.")
    return candidates, rejected


def fetch(folder: Path, candidates: dict, client: Client, wanted=None, allow_shortfall=False, threads=THREADS):
    """Fetch the first `wanted` candidates of each label that can be had into `folder` and write its `metadata.csv`.

    The result depends on the candidates and on what their servers answer, not on the order of arrival. Files that do
    not belong to it are removed, and so are the folders of labels that are no more.

    Args:
        folder: `downloads`; pictures that lie there from earlier runs, of the size that is promised, are used.
        candidates: by label pairs of a name and a row of `metadata.csv`, in order of preference; an iterator is asked
            only for those needed. The name becomes that of the file, without ending: unique within the label and the
            same on every run. The row has a `url`, and as `archive_bytes` the size of the file where that is known.
        client: for the requests, with its patience.
        wanted: number of pictures per label; None for all that can be had.
        allow_shortfall: accept fewer than `wanted`.
        threads: pictures fetched at the same time.

    Returns:
        by `<label>/<name>` the reason for each picture that is missing.

    Raises:
        ValueError: if there are fewer than `wanted` of a label; each missing one with its reason.
    """
    rows, lost, short = {}, {}, []
    there = {path.with_suffix(""): path for path in folder.glob("[!.]*/*")}

    def fetch_one(label: str, name: str, row: dict) -> None:
        """Note the row of one picture, or why it is lost."""
        try:
            path = _file(client, folder, there, label, name, row)
            # its place is the first column, and a list may have such a column, too
            rows[path] = {"path": ""} | row | {"path": path.relative_to(folder).as_posix()}
        except FetchError as reason:
            lost[f"{label}/{name}"] = f"{reason} ({row['url']})"

    options = {"max_workers": threads, "unit": "image", "leave": False, "disable": None}
    for label, some in candidates.items():
        before, some = len(rows), islice(some, wanted and 2 * wanted + 50)  # if these do not do, no others will
        while batch := dict(islice(some, wanted and before + wanted - len(rows))):
            thread_map(fetch_one, repeat(label), batch, batch.values(), desc=label, total=len(batch), **options)
        if wanted and len(rows) < before + wanted:
            short.append(f"{len(rows) - before} of {wanted} images for {label!r}")
    for path in set(folder.glob("[!.]*/*")) - set(rows):
        path.unlink()
    for path in set(folder.glob("[!.]*/")) - {path.parent for path in rows}:
        path.rmdir()
    write_csv(folder / METADATA_FILE, pd.DataFrame([rows[path] for path in sorted(rows)] or {"path": []}))
    if short and not allow_shortfall:
        missing = "".join(f"\n  {name}: {why}" for name, why in sorted(lost.items()))
        raise ValueError(f"Only {', '.join(short)} could be had; run again, or set ALLOW_SHORTFALL to True.{missing}")
    return lost


def _file(client: Client, folder: Path, there: dict, label: str, name: str, row: dict) -> Path:
    """The verified file, from `there` or fetched; FetchError if it cannot be had."""
    if problem := label_problem(label) or label_problem(name):  # they come from lists and servers, and become a path
        raise FetchError(f"its label or name cannot be that of a file: {problem}")
    size, path = int(row.get("archive_bytes") or 0), folder / label / name
    if path in there and size in (0, there[path].stat().st_size):
        return there[path]

    def stored(content: bytes) -> Path:
        """Where a body lies now; ValueError where it is no whole picture of the promised size."""
        if size not in (0, len(content)):
            raise ValueError(f"{len(content):,} bytes, where its record says {size:,}")
        as_stored(content)
        ending = next((ending for start, ending in ENDINGS.items() if content.startswith(start)), ".image")
        with whole_file(path.with_name(name + ending)) as draft:
            draft.write_bytes(content)
        return path.with_name(name + ending)

    return client.get(row["url"], accept=stored)


def as_rejected(lost: dict[str, str]) -> pd.DataFrame:
    """Rows path, kind, reason for `rejected.csv`, sorted by path."""
    return pd.DataFrame([(path, "lost", why) for path, why in sorted(lost.items())], columns=["path", "kind", "reason"])


def write_attribution(path: Path, images: pd.DataFrame) -> None:
    """Write `ATTRIBUTION.md`: for each licence its number of images and whom to name.

    Args:
        path: file to write.
        images: a manifest, or another table with the columns license and attribution; a missing value is "".
    """
    lines = ["# Attribution", "", f"{len(images):,} images. Terms of CC: https://creativecommons.org/licenses/"]
    for name, names in images.fillna({"license": "", "attribution": ""}).groupby("license").attribution:
        lines += ["", f"## {name or 'No licence given'}: {len(names):,} images", ""]
        lines += [f"- {' '.join(text.split()) or 'no attribution given'}" for text in sorted(set(names))]
    write_text(path, "\n".join([*lines, ""]))
