"""Where pictures come from, beside a folder: the ISIC Archive, the search of Openverse, a list of addresses.

downloads/<label>/<name>.jpg    one picture; the name says where it came from, the ending what is in the file
downloads/metadata.csv          path, then what is known of each picture: url, license, attribution, …

Each `fetch_…` fills `data/<dataset>/downloads` in this form, which `scan_folder` reads, and returns what was lost. A
picture is decoded to its last pixel before it gets its name, so a killed run goes on where it stopped, and nothing is
fetched twice. Pictures that a later run does not ask for are removed.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, zip_longest
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from tqdm.auto import tqdm

from tdsp_vision.data.folder import METADATA_FILE, label_problem
from tdsp_vision.data.images import RejectedImage, as_stored
from tdsp_vision.data.tables import write_csv
from tdsp_vision.data.web import Client, FetchError, TryAgain, json_object
from tdsp_vision.files import whole_file, write_text
from tdsp_vision.paths import shown

OFFLINE = "Offline, set SOURCE to 'sample' or 'folder': pictures that come with this project, or your own."
THREADS = 8
MOST_IN_VAIN = 50  # replacements of a label that are tried without a single success: then the server is down
ENDINGS = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"RIFF": ".webp"}
ISIC_PAGE = 100  # records; the archive allows no more
OPENVERSE_PAGE = 20  # results; more need a key
MOST_PAGES = 20  # deeper ones are not answered
KEPT = ["title", "creator", "license_version", "license_url", "attribution", "foreign_landing_url"]
ONCE_MORE = {"attempts": 2, "timeout": 15, "deadline": 60}  # most of what fails on the open web fails for good
# What each licence asks for. Names are those of the ISIC Archive; versions stand in a column of their own.
BY = "Name the creator, link to the licence, and say whether you changed the picture"
SHARE, KEEP = "share adaptations under the same licence", "do not share adaptations"
TERMS = {
    "CC-0": "Nothing. The creators gave up their rights; naming them is good practice.",
    "PDM": "Nothing. The picture is marked as free of known copyright.",
    "CC-BY": f"{BY}.",
    "CC-BY-SA": f"{BY}; {SHARE}.",
    "CC-BY-ND": f"{BY}; {KEEP}.",
    "CC-BY-NC": f"{BY}; no commercial use.",
    "CC-BY-NC-SA": f"{BY}; no commercial use; {SHARE}.",
    "CC-BY-NC-ND": f"{BY}; no commercial use; {KEEP}.",
}
UNKNOWN = "not known; ask whoever published the picture before you share it"
CODES = {name: name.removeprefix("CC-").lower().replace("0", "cc0") for name in TERMS}  # CC-BY: by, CC-0: cc0


class Candidate(NamedTuple):
    """A picture that could be fetched.

    label: name of its folder.
    name: of its file, without ending; unique within the label and the same on every run.
    url: where it lies.
    metadata: columns of `metadata.csv`, beside path and url.
    size: bytes it must have; None where nobody said.
    """

    label: str
    name: str
    url: str
    metadata: dict
    size: int | None = None


def fetch_isic(folder, api, queries, images_per_class, licenses, seed, allow_shortfall=False, **patience):
    """Fill `folder` with `images_per_class` pictures of the ISIC Archive (API version 2) for each query.

    A search answers in pages, oldest first, and may hold half a million records. Wanted is a sample of the whole: the
    result is parted by the last two digits of the ids, which say nothing about a picture. The parts are walked in an
    order that the seed draws, whole, until there are enough records under an allowed licence; within a part those come
    first whose id, hashed with the seed, is smallest. That order depends neither on pages nor on repeated records, and
    hardly changes when the archive grows.

    Args:
        folder: path of `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        api: base address, such as "https://api.isic-archive.com/api/v2".
        queries: label to query, such as {"benign": "diagnosis_1:Benign"}.
        images_per_class, licenses: 1 or more; allowed ones of `TERMS`.
        seed: chooses the sample.
        allow_shortfall: replace a picture that cannot be had by the next of the sample's order, and accept fewer
            where there is no next.
        patience: of `Client`.

    Returns:
        table of path, kind, reason: what was lost, and searches whose pages held fewer records than were counted.

    Raises:
        ValueError: if a parameter is wrong, the archive cannot be reached or answers in a way that is not known, or
            a picture of the sample cannot be had (unless `allow_shortfall`).
    """
    _check_licenses(licenses)
    client, notes = Client(**patience), {}
    some = {label: _isic(client, api, label, query, licenses, seed, notes) for label, query in queries.items()}
    lost = fetch(folder, some, client, images_per_class, top_up=allow_shortfall, allow_shortfall=allow_shortfall)
    return as_rejected(lost | notes)


def _isic(client, api, label, query, licenses, seed, notes) -> Iterator[Candidate]:
    """Candidates in the sample's order; a part is asked for when those before are used up."""

    def order(text: str) -> str:
        return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()

    for ending in sorted((f"{number:02d}" for number in range(100)), key=order):
        part = f"({query}) AND isic_id:*{ending}" if query else f"isic_id:*{ending}"
        address, params = f"{api.rstrip('/')}/images/search/", {"query": part, "limit": ISIC_PAGE}
        counted, records, walked = 0, {}, set()
        while address:
            if address in walked:
                raise ValueError(f"ISIC_API is {api!r}, and its pages go in a circle at the query {part!r}.")
            walked.add(address)
            page = _page(client, "ISIC_API", api, address, params, ("results", "next"))
            counted = max(counted, page.get("count") or 0)
            records |= {record["isic_id"]: record for record in map(_flatten, page["results"])}
            address, params = page["next"], None
        if len(records) < counted:
            notes[f"search for {part}"] = f"the archive counted {counted}, its pages held {len(records)} records"
        for name in sorted(records, key=order):
            if records[name]["license"] in licenses:
                yield Candidate(label, name, records[name].pop("url"), records[name], records[name]["archive_bytes"])


def _flatten(record: dict) -> dict:
    """The columns of `metadata.csv`, with size and URL of the full picture."""
    try:
        full, metadata = record["files"]["full"], record["metadata"]
        named = {"isic_id": record["isic_id"], "license": record["copyright_license"]}
        named |= {"attribution": record["attribution"], "url": full["url"], "archive_bytes": full["size"]}
        return named | metadata["clinical"] | metadata["acquisition"]
    except (KeyError, TypeError) as error:
        name = record.get("isic_id", "(without isic_id)") if isinstance(record, dict) else record
        raise ValueError(f"The archive's record {name!r} has no field {error}: has the API changed?") from error


def _page(client: Client, parameter: str, api: str, address: str, params: dict | None, fields: tuple) -> dict:
    """One page of a search; ValueError that names the parameter if it cannot be had or lacks a field."""
    try:
        page = client.get(address, params, json_object)
    except FetchError as error:
        query, body = (params or {}).get("query") or (params or {}).get("q"), error.body.strip()
        at = f"{error} at the query {query!r}" + f" (it says: {body})" * bool(body)
        raise ValueError(f"{parameter} is {api!r}, and it cannot be used: {at}. {OFFLINE}") from error
    if missing := [field for field in fields if field not in page]:
        raise ValueError(f"{parameter} is {api!r}, and its answer has no field {missing[0]!r}: has the API changed?")
    return page


def fetch_openverse(
    folder, api, queries, items, images_per_class, licenses, allow_shortfall=False, allow_private=False, **patience
):
    """Fill `folder` with `images_per_class` openly licensed pictures for each label, from the search of Openverse.

    "dotted {item}" is asked for each of the items. Of all queries of a label the first result is taken, then the
    second of each, and so on. A picture that cannot be had, which is common here, is replaced by the next result.

    Args:
        folder: path of `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        api: base address, such as "https://api.openverse.org/v1".
        queries, items: label to queries, such as {"dotted": ["dotted {item}"]}; what `{item}` stands for.
        images_per_class, licenses: 1 or more; allowed ones of `TERMS`.
        allow_shortfall: accept fewer where the results do not suffice.
        allow_private: also fetch pictures from addresses that are not public.
        patience: of `Client`.

    Returns:
        table of path (label and id), kind, reason: what was lost.

    Raises:
        ValueError: if a parameter is wrong, the search cannot be used, or results do not suffice.
    """
    _check_licenses(licenses)
    search, client, some = Client(**patience), Client(**patience, guarded=not allow_private), {}
    for label, templates in queries.items():
        texts = dict.fromkeys(one.replace("{item}", item) for one in templates for item in items)
        some[label] = _openverse(search, api, label, list(texts), licenses)
    lost = fetch(folder, some, client, images_per_class, top_up=True, allow_shortfall=allow_shortfall)
    return as_rejected(lost)


def _openverse(client: Client, api: str, label: str, queries: list[str], licenses: list[str]) -> Iterator[Candidate]:
    """Results of all queries in turn, each picture once; a page is asked for when the one before is used up."""
    seen, names = set(), {CODES[name]: name for name in licenses}
    for number in range(1, MOST_PAGES + 1):
        pages = {}
        for query in queries:
            params = {"q": query, "license": ",".join(names), "page": number, "page_size": OPENVERSE_PAGE}
            pages[query] = _page(client, "OPENVERSE_API", api, f"{api.rstrip('/')}/images/", params, ("results",))
        for ranked in zip_longest(*(page["results"] for page in pages.values())):
            for query, result in zip(pages, ranked, strict=True):
                if result is None:
                    continue
                if missing := [field for field in ("id", "url", "license", "attribution") if field not in result]:
                    raise ValueError(f"Openverse's result {result.get('id')!r} has no field {missing[0]!r}.")
                if result["id"] not in seen and result["license"] in names:
                    seen.add(result["id"])
                    row = {"openverse_id": result["id"], "license": names[result["license"]], "query": query}
                    yield Candidate(label, result["id"], result["url"], row | {key: result.get(key) for key in KEPT})
        pages = {query: page for query, page in pages.items() if page["results"]}
        queries = [query for query, page in pages.items() if number < page.get("page_count", MOST_PAGES)]


def fetch_urls(folder, tsv, allow_private=False, **patience):
    """Fill `folder` with the pictures of a list of web addresses that can be had.

    Lists age: dead links are expected, and each ends in the rejections. A file is named after the sha256 of its URL.

    Args:
        folder: path of `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        tsv: as `read_list` takes it.
        allow_private: also connect to addresses that are not public (loopback, the network at home).
        patience: of `Client`.

    Returns:
        table of path (the URL, or the line of the list), kind, reason: all that was not fetched.

    Raises:
        ValueError: if the list cannot be read or has no line with a URL and a usable label.
    """
    links, rejected = read_list(tsv)
    candidates, urls = {}, {}
    for url, row in links.items():
        label, name = row.pop("label"), hashlib.sha256(url.encode()).hexdigest()[:20]
        candidates.setdefault(label, []).append(Candidate(label, name, url, row))
        urls[f"{label}/{name}"] = url
    lost = fetch(folder, candidates, Client(**ONCE_MORE | patience, guarded=not allow_private))
    return as_rejected(rejected | {urls[name]: reason for name, reason in lost.items()})


def read_list(tsv: Path) -> tuple[dict[str, dict], dict[str, str]]:
    """Label (and licence, attribution) by URL, and by line (`line 7: …`) the reason for each that cannot be used.

    Args:
        tsv: UTF-8 text by the rules of CSV with tabs, one URL and one label in each line; or a first line that names
            the columns url, label and, if there are such, license and attribution. Of a URL that comes twice the
            first line counts.

    Raises:
        ValueError: if it cannot be read or has no usable line.
    """
    try:
        lines = csv.reader(tsv.read_text(encoding="utf-8-sig").splitlines(), delimiter="\t")
        rows = [(lines.line_num, [field.strip() for field in row]) for row in lines if any(map(str.strip, row))]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"SOURCE_PATH is {shown(tsv)!r}, which cannot be read as UTF-8 text: {error}.") from error
    columns = [name.lower().replace("licence", "license") for name in rows[0][1]] if rows else []
    named = {"url", "label"} <= set(columns)
    columns, links, rejected = columns if named else ["url", "label"], {}, {}
    for number, row in rows[named:]:
        fields = dict(zip(columns, row, strict=False)) if len(row) == len(columns) else {}
        url, label = fields.get("url"), fields.get("label")
        problem = label_problem(label) if url and label else "not a URL, a tab and a label"
        if url in links:
            problem = f"its URL is in an earlier line; labels {links[url]['label']} and {label}"
        if problem:
            rejected[f"line {number}: {' '.join(row)[:200]}"] = problem
        else:
            links[url] = {name: fields[name] for name in ("label", "license", "attribution") if name in fields}
    if not links:
        first = next((f" (the first, {name!r}: {reason})" for name, reason in rejected.items()), "")
        raise ValueError(f"SOURCE_PATH is {shown(tsv)!r}, and no line of it is a URL, a tab and a label{first}.")
    return links, rejected


def fetch(folder: Path, candidates, client, wanted=None, top_up=False, allow_shortfall=False, threads=THREADS):
    """Fetch the first `wanted` candidates of each label into `folder` and write its `metadata.csv`.

    The result depends on the candidates and on what their servers answer, not on the order of arrival.

    Args:
        folder: `downloads`; pictures that lie there from earlier runs, of the size that is promised, are used.
        candidates: some `Candidate`s by label, in order of preference; an iterator is asked only for those needed.
        client: for the requests, with its patience.
        wanted: number of pictures per label; None for all that can be had.
        top_up: True replaces a picture that cannot be had by the next candidate.
        allow_shortfall: accept fewer than `wanted`.
        threads: pictures fetched at the same time.

    Returns:
        by `<label>/<name>` the reason for each picture that is missing.

    Raises:
        ValueError: if a label cannot be a folder; or there are fewer than `wanted`, each missing one with its reason.
    """
    if wrong := [label for label in candidates if label_problem(label)]:
        raise ValueError(f"{wrong[0]!r} cannot be a label: {label_problem(wrong[0])}.")
    rows, lost, counts = {}, {}, dict.fromkeys(candidates, 0)
    bar = tqdm(total=(wanted or 0) * len(counts) or None, desc="fetching images", unit="image", disable=None)
    with ThreadPoolExecutor(threads) as pool, bar:
        for label, some in candidates.items():
            some, in_vain = iter(some), 0
            while in_vain < MOST_IN_VAIN and (batch := list(islice(some, wanted and wanted - counts[label]))):
                before = counts[label]
                results = pool.map(lambda candidate: _fetch_one(folder, candidate, client), batch)
                for candidate, result in zip(batch, results, strict=True):
                    if isinstance(result, FetchError):
                        lost[f"{label}/{candidate.name}"] = f"{result} ({candidate.url})"
                        continue
                    path = result.relative_to(folder).as_posix()
                    rows[result] = {"path": path, "url": candidate.url} | candidate.metadata
                    counts[label] += 1
                    bar.update()
                in_vain = 0 if counts[label] > before else in_vain + len(batch)
                if not top_up:
                    break
    _write_metadata(folder, rows)
    short = [f"{count} of {wanted} for {label!r}" for label, count in counts.items() if wanted and count < wanted]
    if short and not allow_shortfall:
        advice = "run again to fetch only the rest, or set ALLOW_SHORTFALL to True to go on with others or with fewer."
        missing = "".join(f"\n  {name}: {why}" for name, why in sorted(lost.items()))
        missing = f"Missing are:{missing}" if missing else "The search found no more than these."
        found = f"IMAGES_PER_CLASS is {wanted}, and not all images could be had: {', '.join(short)}"
        raise ValueError(f"{found}; {advice} {missing}")
    return lost


def _write_metadata(folder: Path, rows: dict[Path, dict]) -> None:
    """Write `metadata.csv` of the pictures that are wanted, and remove all others."""
    for label in folder.glob("[!.]*/"):
        for path in set(label.iterdir()) - set(rows):
            path.unlink()
        if not any(label.iterdir()):
            label.rmdir()
    columns = dict.fromkeys(["path", *(name for row in rows.values() for name in row)])
    write_csv(folder / METADATA_FILE, pd.DataFrame(rows.values(), columns=list(columns)).sort_values("path"))


def _fetch_one(folder: Path, candidate: Candidate, client: Client) -> Path | FetchError:
    """The verified file, or why there is none."""

    def whole(content: bytes) -> bytes:
        """Verified; a server in trouble sends half a file or a page with an apology, so it is asked again."""
        if candidate.size not in (None, len(content)):
            raise TryAgain(f"{len(content):,} bytes, where its record says {candidate.size:,}")
        try:
            as_stored(content)
        except RejectedImage as reason:
            raise TryAgain(str(reason)) from reason
        return content

    if not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", candidate.name):  # it may come from a server and becomes a path
        return FetchError("its name cannot be a file name: letters, digits, '_' and '-' only")
    for path in (folder / candidate.label).glob(f"{candidate.name}.*"):
        if candidate.size in (None, path.stat().st_size):
            return path
        path.unlink()
    try:
        content = client.get(candidate.url, accept=whole)
    except FetchError as reason:
        return reason
    ending = next((ending for start, ending in ENDINGS.items() if content.startswith(start)), ".image")
    path = folder / candidate.label / (candidate.name + ending)
    with whole_file(path) as draft:
        draft.write_bytes(content)
    return path


def as_rejected(lost: dict[str, str]) -> pd.DataFrame:
    """Rows path, kind, reason for `rejected.csv`, sorted by path."""
    return pd.DataFrame([(path, "lost", why) for path, why in sorted(lost.items())], columns=["path", "kind", "reason"])


def _check_licenses(licenses: Iterable[str]) -> None:
    if not set(licenses) <= set(TERMS):
        raise ValueError(f"LICENSES is {licenses!r}; give one or more of {', '.join(TERMS)}.")


def write_attribution(path: Path, images: pd.DataFrame) -> None:
    """Write `ATTRIBUTION.md`: for each licence its number of images, what it asks for, and whom to name.

    Args:
        path: file to write.
        images: a manifest, or another table with the columns license and attribution; a missing value is "".
    """
    table = images[["license", "attribution"]].fillna("").astype(str)
    lines = ["# Attribution", "", f"{len(table):,} images. What their licences ask for, and whom to name:", ""]
    for name, group in table.groupby("license"):
        lines += [f"## {name or 'No licence given'}: {len(group):,} images", "", TERMS.get(name, UNKNOWN), ""]
        for text, count in group.attribution.value_counts().sort_index().items():
            lines.append(f"- {' '.join(text.split()) or 'no attribution given'} ({count:,})")
        lines.append("")
    write_text(path, "\n".join(lines))
