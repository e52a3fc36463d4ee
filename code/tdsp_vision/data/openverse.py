"""Openly licensed pictures from the search of Openverse: labels are search queries, without a key.

"dotted {item}" is asked for each of the items. Of all queries of a label the first result is taken, then the second of
each, and so on, so that no query crowds out the others. Who made a picture, and under which licence, is kept.
"""

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pandas as pd

from tdsp_vision.data.addresses import is_private_host
from tdsp_vision.data.downloads import as_rejected, check_promise, check_request, fetch
from tdsp_vision.data.licenses import TERMS
from tdsp_vision.data.patience import FetchError, Patience
from tdsp_vision.data.verified import Candidate
from tdsp_vision.data.web import Client

PAGE = 20  # results; more need a key
MOST_PAGES = 20  # deeper ones are not answered
CODES = {name: name.removeprefix("CC-").lower().replace("0", "cc0") for name in TERMS}  # CC-BY: by, CC-0: cc0
NAMES = {code: name for name, code in CODES.items()}
KEPT = ["title", "creator", "license_version", "license_url", "attribution", "foreign_landing_url"]


def fetch_openverse(
    folder: Path,
    api: str,
    queries: dict[str, list[str]],
    items: list[str],
    images_per_class: int,
    licenses: list[str],
    allow_shortfall: bool = False,
    allow_private: bool = False,
    patience: Patience | None = None,
    quiet: bool = False,
) -> pd.DataFrame:
    """Fill `folder` with `images_per_class` pictures for each label, in the form that `scan_folder` reads.

    A picture that cannot be had, which is common here, is replaced by the next result.

    Args:
        folder: `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        api: base address, such as "https://api.openverse.org/v1".
        queries, items: label to queries, such as {"dotted": ["dotted {item}"]}; what `{item}` stands for.
        images_per_class, licenses: 1 or more; allowed ones of `licenses.TERMS`.
        allow_shortfall: accept fewer where the results do not suffice.
        allow_private: fetch from addresses that are not public, too; also done if the API has such a one.
        patience, quiet: timeouts and attempts; no progress bar.

    Returns:
        path (label and id), reason: what was lost.

    Raises:
        ValueError: if a parameter is wrong, the search cannot be used, or results do not suffice.
    """
    check_request("SEARCH_QUERIES", queries, images_per_class, licenses)
    at_home = is_private_host(api)
    search = Client(patience, direct=at_home)
    filled = {label: fill(label, templates, items) for label, templates in queries.items()}
    candidates = {label: _candidates(search, api, label, texts, licenses) for label, texts in filled.items()}
    client = Client(patience, guarded=not (allow_private or at_home), direct=at_home)
    fetched = fetch(folder, candidates, images_per_class, client, top_up=True, quiet=quiet)
    check_promise(fetched, images_per_class, allow_shortfall)
    return as_rejected(fetched.lost)


def fill(label: str, templates: list[str], items: list[str]) -> list[str]:
    """All queries of a label, each once: every template with every item.

    Raises:
        ValueError: if there is none.
    """
    templates = [] if isinstance(templates, str) else templates
    filled = {one.replace("{item}", item): None for one in templates for item in (items if "{item}" in one else [""])}
    if not filled or not all(text.strip() for text in filled):
        raise ValueError(
            f"SEARCH_QUERIES has {templates!r} for {label!r}, and SEARCH_ITEMS is {items!r}; that leaves an empty "
            "query or none; give a list of queries for each label, and items where a query has {item}."
        )
    return list(filled)


def _candidates(client: Client, api: str, label: str, queries: list[str], licenses: list[str]) -> Iterator[Candidate]:
    """Results of all queries in turn, each picture once; a page is asked for when the one before is used up."""
    seen, going = set(), list(queries)
    for number in range(1, MOST_PAGES + 1):
        pages = {query: _page(client, api, query, number, licenses) for query in going}
        for ranked in zip_longest(*([(query, result) for result in pages[query]["results"]] for query in going)):
            for query, result in filter(None, ranked):
                candidate = _candidate(label, query, result)
                if candidate.name not in seen and candidate.metadata["license"] in licenses:
                    seen.add(candidate.name)
                    yield candidate
        going = [
            query for query in going if pages[query]["results"] and number < pages[query].get("page_count", MOST_PAGES)
        ]


def _page(client: Client, api: str, query: str, number: int, licenses: list[str]) -> dict:
    codes = ",".join(CODES[name] for name in licenses)
    params = {"q": query, "license": codes, "page": number, "page_size": PAGE}
    try:
        page = client.json(f"{api.rstrip('/')}/images/", params)
    except FetchError as error:
        said = f" (it says: {error.body.strip()})" if error.body.strip() else ""
        raise ValueError(
            f"OPENVERSE_API is {api!r}, and it cannot be used: {error} at the query {query!r}{said}. Offline, set "
            "SOURCE to 'sample' or 'folder'."
        ) from error
    if "results" not in page:
        raise ValueError(f"OPENVERSE_API is {api!r}, and its answer has no field 'results': has the API changed?")
    return page


def _candidate(label: str, query: str, result: dict) -> Candidate:
    for field in ("id", "url", "license", "attribution"):
        if field not in result:
            raise ValueError(f"Openverse's result {result.get('id', '(without id)')!r} has no field {field!r}.")
    license = NAMES.get(result["license"], result["license"])
    metadata = {"openverse_id": result["id"], "license": license, "query": query}
    return Candidate(label, result["id"], result["url"], metadata | {name: result.get(name) for name in KEPT})
