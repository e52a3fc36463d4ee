"""Downloads from a server that misbehaves: what is listed is whole, what is lost is named."""

import pytest
from fetching import assert_whole, offer, run

from tdsp_vision.data import downloads
from tdsp_vision.data.downloads import Candidate

BAD = "/files/3.jpg"
BEHAVIOURS = {
    503: "HTTP 503",
    429: "HTTP 429",
    404: "HTTP 404",
    "stall": "read timeout error",
    "cut": "protocol error",
    "close": "connection error",
    "html": "bytes, where its record says",
    "short": "bytes, where its record says",
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "downloads"


@pytest.mark.parametrize(("behaviour", "reason"), BEHAVIOURS.items(), ids=str)
def test_a_trouble_costs_a_second_request_if_it_passes_and_else_is_a_named_loss(server, folder, behaviour, reason):
    candidates, waits = offer(server), []
    server.fail(BAD, behaviour, forever=True)
    fetched = run(folder, candidates, sleep=waits.append)
    assert fetched.counts == {"wren": 5}
    assert list(fetched.lost) == ["wren/p3"]
    assert reason in fetched.lost["wren/p3"] and server.requests[BAD] == (1 if behaviour == 404 else 3)
    assert behaviour == 404 or (0.5 <= waits[0] <= 1 <= waits[1] <= 2 and "(3 attempts)" in fetched.lost["wren/p3"])
    assert list(assert_whole(folder, server.files).number) == [0, 1, 2, 4, 5]
    server.forever.clear()
    server.fail(BAD, behaviour if behaviour != 404 else 500)
    assert run(folder, candidates).counts == {"wren": 6} and len(assert_whole(folder, server.files)) == 6


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


@pytest.mark.parametrize("name", ["../escape", "a/b", "", "a.b", "x" * 101])
def test_a_name_from_a_server_cannot_leave_the_folder(name):
    with pytest.raises(ValueError, match="cannot be a file name"):
        Candidate("wren", name, "http://example.org", {})
