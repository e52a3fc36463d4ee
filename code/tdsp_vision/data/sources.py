"""Where pictures come from, beside a folder: the ISIC Archive, the search of Openverse, a list of addresses.

Each `fetch_…` fills `data/<dataset>/downloads` in the form that `scan_folder` reads, and returns what was lost.
"""

import csv
import hashlib
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from tqdm.auto import tqdm

from tdsp_vision.data.downloads import Candidate, as_rejected, check_promise, check_request, fetch
from tdsp_vision.data.images import MAX_BYTES
from tdsp_vision.data.labels import label_problem
from tdsp_vision.data.licenses import TERMS
from tdsp_vision.data.web import Client, FetchError, Patience, is_private_host
from tdsp_vision.paths import shown

OFFLINE = "Offline, set SOURCE to 'sample' or 'folder': pictures that come with this project, or your own."
ISIC_PAGE = 100  # records; the archive allows no more
# Records; a larger result is sampled by the last two digits of the ids: those parts of it whose endings come first in
# seeded order are walked until there are this many. 20,000 are 200 pages, about 80 s at 400 ms a page.
MOST_WALKED = 20_000
CLINICAL = ["age_approx", "sex", "fitzpatrick_skin_type", "patient_id", "lesion_id", "melanocytic"]
CLINICAL += ["diagnosis_confirm_type", *(f"diagnosis_{level}" for level in range(1, 6))]
CLINICAL += ["anatom_site_general", *(f"anatom_site_{level}" for level in range(1, 6))]
ACQUISITION = ["image_type", "dermoscopic_type", "image_manipulation"]
OPENVERSE_PAGE = 20  # results; more need a key
MOST_PAGES = 20  # deeper ones are not answered
CODES = {name: name.removeprefix("CC-").lower().replace("0", "cc0") for name in TERMS}  # CC-BY: by, CC-0: cc0
NAMES = {code: name for name, code in CODES.items()}
KEPT = ["title", "creator", "license_version", "license_url", "attribution", "foreign_landing_url"]
ONCE_MORE = Patience(attempts=2, read_timeout=15, deadline=60)  # most of what fails on the open web fails for good


def fetch_isic(
    folder, api, queries, images_per_class, licenses, seed, allow_shortfall=False, patience=None, quiet=False
):
    """Fill `folder` with `images_per_class` pictures of the ISIC Archive (API version 2) for each query.

    A search answers in pages, oldest first. Wanted is a sample of the whole result: all pages are walked, and of the
    records under an allowed licence those come first whose id, hashed with the seed, is smallest: an order that
    depends neither on pages nor on repeated records, and hardly changes when the archive grows.

    Args:
        folder: path of `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        api: base address, such as "https://api.isic-archive.com/api/v2".
        queries: label to query, such as {"benign": "diagnosis_1:Benign"}.
        images_per_class, licenses: 1 or more; allowed ones of `licenses.TERMS`.
        seed: chooses the sample.
        allow_shortfall: replace a picture that cannot be had by the next of the sample's order, and accept fewer
            where there is no next.
        patience, quiet: timeouts and attempts; no progress bar.

    Returns:
        table of path, kind, reason: what was lost, and searches whose pages held fewer records than were counted.

    Raises:
        ValueError: if a parameter is wrong, the archive cannot be reached or answers in a way that is not known, or
            a picture of the sample cannot be had (unless `allow_shortfall`).
    """
    check_request("ISIC_QUERIES", queries, licenses)
    client, candidates, notes = Client(patience), {}, {}
    with tqdm(desc="searching the archive", unit="record", disable=quiet or None) as bar:
        for label, query in queries.items():
            records, counted = _isic_sample(client, api, query, seed, 2 * images_per_class, licenses, bar)
            if len(records) < counted:
                notes[f"search for {label}"] = f"the archive counted {counted}, its pages held {len(records)} records"
            order = sorted(_allowed(records, licenses), key=lambda record: _hash(record["isic_id"], seed))
            candidates[label] = [
                Candidate(label, record["isic_id"], record.pop("url"), record, record["archive_bytes"], MAX_BYTES)
                for record in order
            ]
    fetched = fetch(folder, candidates, images_per_class, client, top_up=allow_shortfall, quiet=quiet)
    check_promise(fetched, images_per_class, allow_shortfall)
    return as_rejected(fetched.lost | notes)


def _isic_sample(client, api, query, seed, enough, licenses, bar) -> tuple[dict[str, dict], int]:
    """Records by id, all or those of enough equally likely parts, and how many the archive counted."""

    def result(query: str, only_up_to: float = float("inf")) -> tuple[dict[str, dict], int]:
        """Records of a query, all pages of it unless the archive counts more than `only_up_to`, and its count."""
        address, params = f"{api.rstrip('/')}/images/search/", {"query": query, "limit": ISIC_PAGE}
        counted, records, seen = None, {}, set()
        while True:
            page = _page(client, "ISIC_API", api, address, params, ("results", "next"))
            counted = page.get("count") or 0 if counted is None else counted
            records |= {flat["isic_id"]: flat for flat in map(_flatten, page["results"])}
            bar.update(len(records) - bar.n)
            if not page["next"] or counted > only_up_to:
                return records, counted
            if page["next"] in seen:
                raise ValueError(f"ISIC_API is {api!r}, and its pages go in a circle at the query {query!r}.")
            address, params = page["next"], None
            seen.add(address)

    records, counted = result(query, only_up_to=MOST_WALKED)
    if counted <= MOST_WALKED:
        return records, counted
    records, counted = {}, 0
    for ending in sorted((f"{number:02d}" for number in range(100)), key=lambda ending: _hash(ending, seed)):
        part, size = result(f"({query}) AND isic_id:*{ending}" if query else f"isic_id:*{ending}")
        records, counted = records | part, counted + size
        if len(records) >= MOST_WALKED and len(_allowed(records, licenses)) >= enough:
            break
    return records, counted


def _page(client: Client, parameter: str, api: str, address: str, params: dict | None, fields: tuple) -> dict:
    """One page of a search; ValueError that names the parameter if it cannot be had or lacks a field."""
    try:
        page = client.json(address, params)
    except FetchError as error:
        query = (params or {}).get("query") or (params or {}).get("q")
        said = f" (it says: {error.body.strip()})" if error.body.strip() else ""
        at = f"{error} at the query {query!r}{said}"
        raise ValueError(f"{parameter} is {api!r}, and it cannot be used: {at}. {OFFLINE}") from error
    if missing := [field for field in fields if field not in page]:
        raise ValueError(f"{parameter} is {api!r}, and its answer has no field {missing[0]!r}: has the API changed?")
    return page


def _flatten(record: dict) -> dict:
    """The columns of `metadata.csv`, with size and URL of the full picture."""
    try:
        full, metadata = record["files"]["full"], record["metadata"]
        clinical, acquisition = metadata["clinical"], metadata["acquisition"]
        named = {"isic_id": record["isic_id"], "license": record["copyright_license"]}
        named |= {"attribution": record["attribution"], "url": full["url"], "archive_bytes": full["size"]}
    except (KeyError, TypeError) as error:
        name = record.get("isic_id", "(without isic_id)") if isinstance(record, dict) else record
        raise ValueError(f"The archive's record {name!r} has no field {error}: has the API changed?") from error
    more = {name: clinical.get(name) for name in CLINICAL} | {name: acquisition.get(name) for name in ACQUISITION}
    return named | more


def _allowed(records: dict[str, dict], licenses: list[str]) -> list[dict]:
    return [record for record in records.values() if record["license"] in licenses]


def _hash(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()


def fetch_openverse(
    folder, api, queries, items, images_per_class, licenses, allow_shortfall=False, patience=None, quiet=False
):
    """Fill `folder` with `images_per_class` openly licensed pictures for each label, from the search of Openverse.

    "dotted {item}" is asked for each of the items. Of all queries of a label the first result is taken, then the
    second of each, and so on. A picture that cannot be had, which is common here, is replaced by the next result.

    Args:
        folder: path of `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        api: base address, such as "https://api.openverse.org/v1".
        queries, items: label to queries, such as {"dotted": ["dotted {item}"]}; what `{item}` stands for.
        images_per_class, licenses: 1 or more; allowed ones of `licenses.TERMS`.
        allow_shortfall: accept fewer where the results do not suffice.
        patience, quiet: timeouts and attempts; no progress bar.

    Returns:
        table of path (label and id), kind, reason: what was lost.

    Raises:
        ValueError: if a parameter is wrong, the search cannot be used, or results do not suffice.
    """
    check_request("SEARCH_QUERIES", queries, licenses)
    candidates = {}
    for label, templates in queries.items():
        texts = dict.fromkeys(one.replace("{item}", item) for one in templates for item in items or [""])
        candidates[label] = _results(Client(patience), api, label, texts, licenses)
    client = Client(patience, guarded=not is_private_host(api))  # a search engine at home has its pictures there
    fetched = fetch(folder, candidates, images_per_class, client, top_up=True, quiet=quiet)
    check_promise(fetched, images_per_class, allow_shortfall)
    return as_rejected(fetched.lost)


def _results(client: Client, api: str, label: str, queries: list[str], licenses: list[str]) -> Iterator[Candidate]:
    """Results of all queries in turn, each picture once; a page is asked for when the one before is used up."""
    seen, going, codes = set(), list(queries), ",".join(CODES[name] for name in licenses)
    for number in range(1, MOST_PAGES + 1):
        pages = {}
        for query in going:
            params = {"q": query, "license": codes, "page": number, "page_size": OPENVERSE_PAGE}
            pages[query] = _page(client, "OPENVERSE_API", api, f"{api.rstrip('/')}/images/", params, ("results",))
        for ranked in zip_longest(*([(query, result) for result in pages[query]["results"]] for query in going)):
            for query, result in filter(None, ranked):
                candidate = _openverse_candidate(label, query, result)
                if candidate.name not in seen and candidate.metadata["license"] in licenses:
                    seen.add(candidate.name)
                    yield candidate
        last = {
            query: not page["results"] or number >= page.get("page_count", MOST_PAGES) for query, page in pages.items()
        }
        going = [query for query in going if not last[query]]


def _openverse_candidate(label: str, query: str, result: dict) -> Candidate:
    for field in ("id", "url", "license", "attribution"):
        if field not in result:
            raise ValueError(f"Openverse's result {result.get('id', '(without id)')!r} has no field {field!r}.")
    license = NAMES.get(result["license"], result["license"])
    metadata = {"openverse_id": result["id"], "license": license, "query": query}
    return Candidate(label, result["id"], result["url"], metadata | {name: result.get(name) for name in KEPT})


def fetch_urls(folder, tsv, allow_private=False, patience=ONCE_MORE, quiet=False):
    """Fill `folder` with the pictures of a list of web addresses that can be had.

    Lists age: dead links are expected, and each ends in the rejections. A file is named after the sha256 of its URL.

    Args:
        folder: path of `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        tsv: as `read_list` takes it.
        allow_private: also connect to addresses that are not public (loopback, the network at home).
        patience, quiet: timeouts and attempts; no progress bar.

    Returns:
        table of path (the URL, or the line of the list), kind, reason: all that was not fetched.

    Raises:
        ValueError: if the list cannot be read or has no line with a URL and a usable label.
    """
    links, rejected = read_list(tsv)
    candidates, urls = {}, {}
    for url, row in links.items():
        label = row.pop("label")
        candidate = Candidate(label, hashlib.sha256(url.encode()).hexdigest()[:20], url, row)
        candidates.setdefault(label, []).append(candidate)
        urls[f"{label}/{candidate.name}"] = url
    fetched = fetch(folder, candidates, None, Client(patience, guarded=not allow_private), top_up=False, quiet=quiet)
    return as_rejected(rejected | {urls[name]: reason for name, reason in fetched.lost.items()})


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
    columns = columns if named else ["url", "label"]
    links, rejected = {}, {}
    for number, row in rows[named:]:
        fields = dict(zip(columns, row, strict=False)) if len(row) == len(columns) else {}
        url, label = fields.get("url"), fields.get("label")
        if not (url and label):
            problem = "not a URL, a tab and a label"
        elif url in links:
            problem = f"its URL is in an earlier line; labels {links[url]['label']} and {label}"
        else:
            problem = label_problem(label)
        if problem:
            rejected[f"line {number}: {' '.join(row)[:200]}"] = problem
        else:
            links[url] = {name: fields[name] for name in ("label", "license", "attribution") if name in fields}
    if not links:
        first = "".join(f" (the first, {name!r}: {reason})" for name, reason in list(rejected.items())[:1])
        raise ValueError(f"SOURCE_PATH is {shown(tsv)!r}, and no line of it is a URL, a tab and a label{first}.")
    return links, rejected
