"""Openverse as a source: queries from templates, results in turn, dead links replaced, licences kept."""

import pytest
from archive_server import ArchiveServer
from fetching import assert_whole, quick

from tdsp_vision.data.sources import fetch_openverse

SEARCH = "/v1/images/"


@pytest.fixture
def server():
    """45 results for each of four queries; those of "dotted vest" begin with a picture of "dotted shirt"."""
    with ArchiveServer() as running:
        seed = 0
        for query in ("dotted shirt", "dotted vest", "striped shirt", "striped vest"):
            for rank in range(33):
                seed += 1
                name = f"{query.replace(' ', '-')}-{rank}"
                result = {
                    "id": name,
                    "url": running.add_file(f"/pictures/{name}?size=big".partition("?")[0], seed, "PNG"),
                    "title": f'A "{name}", drawn',
                    "creator": "Ann",
                    "license": ["by", "cc0", "by-nc"][rank % 3],
                    "license_version": "2.0",
                    "license_url": "http://example.org/by",
                    "attribution": f"{name} by Ann",
                }
                running.results[query].append(result)
        running.results["dotted vest"].insert(0, running.results["dotted shirt"][0])
        yield running


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "downloads"


def run(folder, server, count=6, **changes):
    options = {
        "queries": {"dotted": ["dotted {item}"], "striped": ["striped {item}"]},
        "items": ["shirt", "vest"],
        "licenses": ["CC-0", "CC-BY"],
        "patience": quick(),
        "quiet": True,
    } | changes
    return fetch_openverse(folder, server.openverse_api, images_per_class=count, **options)


def test_queries_take_turns_and_licences_are_kept(server, folder):
    assert run(folder, server).empty
    table = assert_whole(folder, server.files).set_index("openverse_id")
    ranks = [f"dotted-{item}-{rank}" for item, rank in [("shirt", 0), ("shirt", 1), ("vest", 0), ("shirt", 3)]]
    assert {*ranks, "dotted-vest-1", "dotted-shirt-4"} == set(table.index[table.path.str.startswith("dotted/")])
    row = table.loc["dotted-shirt-1"]
    assert (row.license, row.creator, row.attribution) == ("CC-0", "Ann", "dotted-shirt-1 by Ann")
    assert row.title == 'A "dotted-shirt-1", drawn' and row["query"] == "dotted shirt"
    assert row.path == "dotted/dotted-shirt-1.png"
    assert server.requests[SEARCH] == 4


def test_pages_are_asked_for_as_needed_and_results_end(server, folder):
    assert run(folder, server, count=43).empty
    assert len(assert_whole(folder, server.files)) == 86
    assert server.requests[SEARCH] == 8
    with pytest.raises(ValueError, match="44 of 100 for 'dotted'.*44 of 100 for 'striped'.*found no more"):
        run(folder, server, count=100)
    assert run(folder, server, count=100, allow_shortfall=True).empty


def test_dead_links_are_replaced_and_named(server, folder):
    for rank, behaviour in enumerate([404, "html", "cut", "text"]):
        server.fail(f"/pictures/striped-shirt-{rank}", behaviour, forever=True)
    rejected = run(folder, server)
    assert list(rejected.path) == [f"striped/striped-shirt-{rank}" for rank in (0, 1, 3)]  # 2 is not allowed
    assert len(assert_whole(folder, server.files)) == 12


@pytest.mark.parametrize("field", ["id", "license"])
def test_a_missing_field_is_named(server, folder, field):
    del server.results["striped vest"][1][field]
    with pytest.raises(ValueError, match=field):
        run(folder, server)


def test_a_search_that_cannot_be_used_names_the_offline_sources(server, folder):
    server.fail(SEARCH, 400, forever=True)
    with pytest.raises(ValueError, match="HTTP 400.*'dotted shirt'.*trouble.*'sample' or 'folder'"):
        run(folder, server)
    server.files["/other/images/"] = b"{}"
    with pytest.raises(ValueError, match="no field 'results'"):
        fetch_openverse(folder, f"{server.url}/other", {"a": ["b"]}, [], 1, ["CC-0"], patience=quick(), quiet=True)
