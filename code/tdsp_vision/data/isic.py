"""Pictures of skin lesions from the ISIC Archive, API version 2: labels are search queries.

A search answers in pages of 100 records, oldest first, each with the URL of the next page; `count` stands on the first
page only. Wanted is a sample of the whole result, not of its oldest part. So all pages are walked, and of the records
under an allowed licence those come first whose id, hashed with the seed, is smallest: an order that depends neither on
pages nor on repeated records, and hardly changes when the archive grows.
"""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from tqdm.auto import tqdm

from tdsp_vision.data.addresses import is_private_host
from tdsp_vision.data.downloads import as_rejected, check_promise, check_request, fetch
from tdsp_vision.data.images import MAX_BYTES
from tdsp_vision.data.patience import FetchError, Patience
from tdsp_vision.data.verified import Candidate
from tdsp_vision.data.web import Client

PAGE = 100  # records; the archive allows no more
# Records; a larger result is sampled by the last two digits of the ids: those parts of it whose endings come first in
# seeded order are walked until there are this many. 20,000 are 200 pages, about 80 s at 400 ms a page.
MOST_WALKED = 20_000
MOST_STALE = 20  # pages in a row without a new record
CLINICAL = ["age_approx", "sex", "fitzpatrick_skin_type", "patient_id", "lesion_id", "melanocytic"]
CLINICAL += ["diagnosis_confirm_type", *(f"diagnosis_{level}" for level in range(1, 6))]
CLINICAL += ["anatom_site_general", *(f"anatom_site_{level}" for level in range(1, 6))]
ACQUISITION = ["image_type", "dermoscopic_type", "image_manipulation"]


def fetch_isic(
    folder: Path,
    api: str,
    queries: dict[str, str],
    images_per_class: int,
    licenses: list[str],
    seed: int,
    allow_shortfall: bool = False,
    patience: Patience | None = None,
    quiet: bool = False,
) -> pd.DataFrame:
    """Fill `folder` with `images_per_class` pictures for each query, in the form that `scan_folder` reads.

    Args:
        folder: `data/<dataset>/downloads`; pictures that are there already are not fetched again.
        api: base address, such as "https://api.isic-archive.com/api/v2".
        queries: label to query, such as {"benign": "diagnosis_1:Benign"}.
        images_per_class: 1 or more.
        licenses: allowed ones, of `licenses.TERMS`.
        seed: chooses the sample.
        allow_shortfall: replace a picture that cannot be had by the next of the sample's order, and accept fewer
            where there is no next.
        patience: timeouts and attempts.
        quiet: no progress bar.

    Returns:
        path, reason: what was lost, and searches whose pages held fewer records than the archive counted.

    Raises:
        ValueError: if a parameter is wrong, the archive cannot be reached or answers in a way that is not known, or
            a picture of the sample cannot be had (unless `allow_shortfall`).
    """
    check_request("ISIC_QUERIES", queries, images_per_class, licenses)
    client = Client(patience, direct=is_private_host(api))
    candidates, notes = _find(_Archive(api, client, quiet), queries, images_per_class, licenses, seed)
    fetched = fetch(folder, candidates, images_per_class, client, top_up=allow_shortfall, quiet=quiet)
    check_promise(fetched, images_per_class, allow_shortfall)
    return as_rejected(fetched.lost | notes)


def _find(
    archive: "_Archive", queries: dict[str, str], wanted: int, licenses: list[str], seed: int
) -> tuple[dict[str, list[Candidate]], dict[str, str]]:
    """Candidates of each label in the order of the sample; and by search, a note on records that did not come."""
    candidates, notes = {}, {}
    with archive.bar:
        for label, query in queries.items():
            records, counted = archive.sample(query, seed, lambda found: len(_allowed(found, licenses)) >= 2 * wanted)
            if len(records) < counted:
                notes[f"search for {label}"] = f"the archive counted {counted}, its pages held {len(records)} records"
            order = sorted(_allowed(records, licenses), key=lambda record: _hash(record["isic_id"], seed))
            candidates[label] = [_candidate(label, record) for record in order]
    return candidates, notes


class _Archive:
    """The search of one archive, with a progress bar over records."""

    def __init__(self, api: str, client: Client, quiet: bool):
        self.api, self.client = api, client
        self.bar = tqdm(desc="searching the archive", unit="record", disable=quiet or None)

    def sample(self, query: str, seed: int, is_enough: Callable[[dict], bool]) -> tuple[dict[str, dict], int]:
        """Records by id, all or those of enough equally likely parts, and how many the archive counted."""
        records, counted = self._result(query, only_up_to=MOST_WALKED)
        if counted <= MOST_WALKED:
            return records, counted
        records, counted = {}, 0
        for ending in sorted((f"{number:02d}" for number in range(100)), key=lambda ending: _hash(ending, seed)):
            part, size = self._result(f"({query}) AND isic_id:*{ending}" if query else f"isic_id:*{ending}")
            records, counted = records | part, counted + size
            if len(records) >= MOST_WALKED and is_enough(records):
                break
        return records, counted

    def _result(self, query: str, only_up_to: float = float("inf")) -> tuple[dict[str, dict], int]:
        """Records of a query by id, all pages of it unless the archive counts more than `only_up_to`, and its count."""
        page = self._page(f"{self.api.rstrip('/')}/images/search/", {"query": query, "limit": PAGE})
        counted, asked, records, stale = page.get("count") or 0, _asked_fields(query), {}, 0
        while True:
            before = len(records)
            records |= {flat["isic_id"]: flat for flat in (_flatten(record, asked) for record in page["results"])}
            self.bar.update(len(records) - before)
            stale = 0 if len(records) > before else stale + 1
            if stale > MOST_STALE:
                raise ValueError(f"ISIC_API is {self.api!r}, and its pages go in a circle at the query {query!r}.")
            if not page["next"] or counted > only_up_to:
                return records, counted
            page = self._page(page["next"])

    def _page(self, address: str, params: dict | None = None) -> dict:
        try:
            page = self.client.json(address, params)
        except FetchError as error:
            if error.status == 400 and params:
                raise ValueError(
                    f"The archive does not accept the query {params['query']!r} of ISIC_QUERIES: {error.body.strip()}"
                ) from error
            raise ValueError(
                f"ISIC_API is {self.api!r}, and it cannot be used: {error}. Offline, set SOURCE to 'sample' (pictures "
                "that come with this project) or to 'folder' (pictures of your own)."
            ) from error
        for field in ("results", "next"):
            if field not in page:
                raise ValueError(f"ISIC_API is {self.api!r}, and its answer has no field {field!r}: another version?")
        return page


def _asked_fields(query: str) -> list[str]:
    """Metadata that each record of the result must have: what a query of nothing but ANDs asks for."""
    if re.search(r"\bOR\b|-\w+:", query):
        return []
    return [name for name in re.findall(r"(\w+):", query) if name in CLINICAL + ACQUISITION]


def _flatten(record: dict, asked: list[str]) -> dict:
    """The columns of `metadata.csv`, with size and URL of the full picture."""
    clinical, acquisition = (_field(record, f"metadata.{part}") for part in ("clinical", "acquisition"))
    for name in asked:
        _field(record, f"metadata.{'clinical' if name in CLINICAL else 'acquisition'}.{name}")
    return {
        "isic_id": _field(record, "isic_id"),
        "license": _field(record, "copyright_license"),
        "attribution": _field(record, "attribution"),
        "url": _field(record, "files.full.url"),
        "archive_bytes": _field(record, "files.full.size"),
        **{name: clinical.get(name) for name in CLINICAL},
        **{name: acquisition.get(name) for name in ACQUISITION},
    }


def _field(record: dict, name: str):
    value = record
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ValueError(f"The archive's record {_named(record)} has no field {name!r}: has the API changed?")
        value = value[part]
    return value


def _named(record) -> str:
    return repr(record.get("isic_id", "(without isic_id)") if isinstance(record, dict) else record)


def _allowed(records: dict[str, dict], licenses: list[str]) -> list[dict]:
    return [record for record in records.values() if record["license"] in licenses]


def _candidate(label: str, record: dict) -> Candidate:
    metadata = {name: value for name, value in record.items() if name != "url"}
    return Candidate(label, record["isic_id"], record["url"], metadata, record["archive_bytes"], MAX_BYTES)


def _hash(text: str, seed: int) -> str:
    return hashlib.sha256(f"{seed} {text}".encode()).hexdigest()
