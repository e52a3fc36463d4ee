"""A second run, after an end or a kill: it brings what is missing and fetches nothing twice."""

import multiprocessing
import random
import time

import pytest
from fetching import assert_whole, offer, run

from tdsp_vision.data.downloads import Candidate
from tdsp_vision.data.sources import fetch_isic
from tdsp_vision.data.web import Patience


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "downloads"


def test_a_second_run_fetches_only_what_is_missing_or_damaged(server, folder):
    candidates = offer(server)
    run(folder, candidates)
    before = (folder / "metadata.csv").read_bytes()
    (folder / "wren" / "p1.jpg").unlink()
    (folder / "wren" / "p2.jpg").write_bytes(server.files["/files/2.jpg"][:-50])
    (folder / "wren" / "p4.jpg").write_bytes(server.files["/files/5.jpg"])  # whole, but of another size
    (folder / ".files" / "wren" / ".p5.jpg.a1b2c3d4.jpg").write_bytes(b"half")  # what a killed run leaves
    run(folder, candidates)
    assert [server.requests[f"/files/{number}.jpg"] for number in range(6)] == [1, 1, 2, 1, 2, 1]
    assert (folder / "metadata.csv").read_bytes() == before
    assert_whole(folder, server.files)


def test_a_file_that_is_another_picture_now_is_fetched_again(server, folder):
    candidates = {"wren": [Candidate("wren", f"p{n}", server.add_file(f"/{n}", n), {}) for n in range(2)]}  # no size
    run(folder, candidates)
    (folder / "wren" / "p0.jpg").write_bytes(server.files["/1"])
    run(folder, candidates)
    assert (server.requests["/0"], server.requests["/1"]) == (2, 1)
    assert_whole(folder, server.files)


def test_unwanted_pictures_are_put_aside_and_come_back_without_a_request(server, folder):
    candidates = offer(server)
    run(folder, candidates, wanted=5)
    assert run(folder, candidates, wanted=2).counts == {"wren": 2}
    assert len(assert_whole(folder, server.files)) == 2
    assert run(folder, candidates, wanted=5).counts == {"wren": 5}
    assert len(assert_whole(folder, server.files)) == 5
    assert server.requests.total() == 5


def _fetch_isic_in_child(folder, api):
    queries = {"benign": "diagnosis_1:Benign", "malignant": "diagnosis_1:Malignant"}
    patience = Patience(attempts=3, read_timeout=5, backoff=0.01)
    fetch_isic(folder, api, queries, 30, ["CC-BY"], seed=1, patience=patience, quiet=True)


def test_ten_kills_and_a_resume_equal_an_undisturbed_run(server, tmp_path):
    chance = random.Random(3)
    for number in range(80):
        server.add_record(f"ISIC_{number:07d}", diagnosis_1="Malignant" if number % 2 else "Benign")
    whole, folder = tmp_path / "undisturbed", tmp_path / "killed"
    _fetch_isic_in_child(whole, server.isic_api)
    server.requests.clear()
    server.latency = 0.02
    context = multiprocessing.get_context("forkserver")  # a child with the imports done, but not this one's threads
    context.set_forkserver_preload(["tdsp_vision.data.sources"])
    requests_when_verified, killed = {}, 0
    for _ in range(10):
        child = context.Process(target=_fetch_isic_in_child, args=(folder, server.isic_api))
        child.start()
        goal = server.requests.total() + chance.randrange(4, 16)
        while child.is_alive() and server.requests.total() < goal:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 0.03))
        child.kill()
        child.join()
        killed += child.exitcode == -9
        time.sleep(0.1)  # until requests that are still under way are counted
        for path in folder.glob(".files/*/[!.]*.jpg"):
            name = path.name.split(".")[0] + ".jpg"
            requests_when_verified.setdefault(name, server.requests[f"/files/{name}"])
            assert path.read_bytes() == server.files[f"/files/{name}"]
    _fetch_isic_in_child(folder, server.isic_api)
    assert killed >= 8 and len(requests_when_verified) > 10
    assert {name: server.requests[f"/files/{name}"] for name in requests_when_verified} == requests_when_verified
    assert len(assert_whole(folder, server.files)) == 60
    for path in (path for path in whole.rglob("*") if path.is_file()):
        assert (folder / path.relative_to(whole)).read_bytes() == path.read_bytes()
