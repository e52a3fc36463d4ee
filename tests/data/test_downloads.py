"""Downloads from a server that misbehaves: what is listed is whole, what is lost is named."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from archive_server import ArchiveServer
from fetching import assert_whole, offer, quick, run

from tdsp_vision.data import downloads
from tdsp_vision.data.downloads import Candidate
from tdsp_vision.data.labels import label_problem
from tdsp_vision.data.web import Client, FetchError, retry_after

BAD = "/files/3.jpg"
BEHAVIOURS = {
    500: "HTTP 500",
    503: "HTTP 503",
    (429, ()): "HTTP 429",
    "stall": "no answer in time",
    "cut": "the connection was cut",
    "close": "the connection was cut",
    "html": "a web page or XML instead of an image",
    "short": "bytes, where its record says",
    "long": "bytes, where its record says",
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "downloads"


@pytest.mark.parametrize("behaviour", BEHAVIOURS, ids=str)
def test_a_trouble_that_passes_costs_nothing_but_a_second_request(server, folder, behaviour):
    candidates = offer(server)
    server.fail(BAD, (429, {"Retry-After": "7"}) if behaviour == (429, ()) else behaviour)
    waits = []
    fetched = run(folder, candidates, sleep=waits.append)
    assert fetched.counts == {"wren": 6} and not fetched.lost
    assert len(assert_whole(folder, server.files)) == 6
    assert server.requests[BAD] == 2 and len(waits) == 1
    assert waits == [7] if behaviour == (429, ()) else 0.5 <= waits[0] <= 1


@pytest.mark.parametrize(("behaviour", "reason"), BEHAVIOURS.items(), ids=str)
def test_a_trouble_that_stays_is_a_named_loss(server, folder, behaviour, reason):
    candidates = offer(server)
    server.fail(BAD, (429, {}) if behaviour == (429, ()) else behaviour, forever=True)
    fetched = run(folder, candidates)
    assert fetched.counts == {"wren": 5}
    assert list(fetched.lost) == ["wren/p3"]
    assert reason in fetched.lost["wren/p3"] and "(3 attempts)" in fetched.lost["wren/p3"]
    assert server.requests[BAD] == 3
    assert list(assert_whole(folder, server.files).number) == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_what_will_not_pass_is_not_asked_for_again(server, folder, status):
    candidates = offer(server)
    server.fail(BAD, status, forever=True)
    fetched = run(folder, candidates)
    assert f"HTTP {status}" in fetched.lost["wren/p3"] and server.requests[BAD] == 1
    assert_whole(folder, server.files)


def test_waits_double_with_jitter_and_end(server, folder):
    candidates = offer(server)
    server.fail(BAD, 503, forever=True)
    waits = []
    run(folder, candidates, attempts=5, backoff=10, longest_wait=60, sleep=waits.append)
    assert [
        low <= wait <= high for wait, (low, high) in zip(waits, [(5, 10), (10, 20), (20, 40), (40, 60)], strict=True)
    ]
    assert waits[3] > waits[0] and max(waits) <= 60
    assert all(low <= wait <= 2 * low for wait, low in zip(waits[:3], [5, 10, 20], strict=True))


def test_a_long_retry_after_is_capped_and_the_deadline_ends_it(server, folder):
    candidates = offer(server)
    server.fail(BAD, (503, {"Retry-After": "86400"}), forever=True)
    waits = []
    run(folder, candidates, attempts=5, longest_wait=60, deadline=300, sleep=waits.append)
    assert waits == [60] * 4
    assert "(1 attempts)" in run(folder, candidates, longest_wait=60, deadline=50).lost["wren/p3"]


@pytest.mark.parametrize("behaviour", ["trickle", "trickled error"])
def test_a_trickle_does_not_outlast_the_deadline(server, folder, behaviour):
    candidates = offer(server)
    server.fail(BAD, behaviour, forever=True)
    fetched = run(folder, candidates, deadline=0.5)
    assert "too slow" in fetched.lost["wren/p3"]
    assert len(assert_whole(folder, server.files)) == 5


def test_retry_after_as_seconds_as_date_and_as_nonsense():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    past = format_datetime(datetime.now(UTC) - timedelta(seconds=100), usegmt=True)
    assert retry_after("12") == 12 and 95 < retry_after(soon) <= 100 and retry_after(past) == 0
    assert retry_after(None) is None and retry_after("soon") is None and retry_after("-5") is None


def test_a_lost_picture_is_replaced_by_the_next_one(server, folder):
    candidates = offer(server)
    server.fail(BAD, 404, forever=True)
    fetched = run(folder, candidates, wanted=4, top_up=True)
    assert fetched.counts == {"wren": 4} and list(fetched.lost) == ["wren/p3"]
    assert list(assert_whole(folder, server.files).number) == [0, 1, 2, 4]


def test_replacements_end_when_nothing_can_be_had(server, folder, monkeypatch):
    monkeypatch.setattr(downloads, "MOST_IN_VAIN", 4)
    candidates = offer(server, count=20)
    for path in server.files:
        server.fail(path, 404, forever=True)
    assert run(folder, candidates, wanted=2, top_up=True).counts == {"wren": 0}
    assert server.requests.total() == 4
    assert len(assert_whole(folder, server.files)) == 0


def test_the_number_of_threads_does_not_show(server, tmp_path):
    candidates = offer(server, count=12)
    server.fail("/files/0.jpg", 404, forever=True)
    server.fail("/files/5.jpg", "cut", forever=True)
    server.latency = 0.01
    for threads in (1, 8):
        run(tmp_path / str(threads), candidates, wanted=8, top_up=True, threads=threads)
    one, eight = (
        {
            path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }
        for name in ("1", "8")
    )
    assert one == eight and sum(not name.startswith(".") for name in one) == 9


def test_an_unreachable_server_says_so(tmp_path):
    with ArchiveServer() as server:
        candidates = offer(server, count=1)
    fetched = run(tmp_path, candidates)
    assert fetched.lost["wren/p0"].startswith("no connection: refused or not reachable (3 attempts)")


def test_json_that_is_none_is_an_error(server):
    server.fail("/v1/images/", "html", forever=True)
    with pytest.raises(FetchError, match="not JSON"):
        Client(quick()).json(f"{server.url}/v1/images/")
    server.files["/list"] = b"[1, 2]"
    with pytest.raises(FetchError, match="JSON list, not an object"):
        Client(quick()).json(f"{server.url}/list")


@pytest.mark.parametrize("name", ["../escape", "a/b", "", "a.b", "x" * 101])
def test_a_name_from_a_server_cannot_leave_the_folder(name):
    with pytest.raises(ValueError, match="cannot be a file name"):
        Candidate("wren", name, "http://example.org", {})


@pytest.mark.parametrize("label", ["", ".hidden", "a/b", "a\\b", "EXCLUDE", " wren", "wren.", "a\tb", "..", "x" * 102])
def test_labels_that_cannot_be_folders(label):
    assert label_problem(label)


def test_labels_that_can_be_folders():
    assert not any(map(label_problem, ["wren", "leopard print", "nævus", "t-shirt", "3", "a.b"]))
