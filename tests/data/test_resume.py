"""A second run, after an end or a kill: it brings what is missing and fetches nothing twice."""

import multiprocessing
import random
import time

import pytest
from fetching import assert_whole, offer, run

from tdsp_vision.data.sources import fetch_isic
from tdsp_vision.data.web import Patience


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "downloads"


def test_a_second_run_fetches_only_what_is_missing_and_removes_what_is_not_wanted(server, folder):
    candidates = offer(server)
    run(folder, candidates)
    before = (folder / "metadata.csv").read_bytes()
    (folder / "wren/p1.jpg").unlink()
    (folder / "wren/p2.jpg").write_bytes(server.files["/files/2.jpg"][:-50])
    (folder / "wren/.p5.a1b2c3d4.jpg").write_bytes(b"half")  # what a killed run leaves
    run(folder, candidates)
    assert [server.requests[f"/files/{number}.jpg"] for number in range(6)] == [1, 2, 2, 1, 1, 1]
    assert (folder / "metadata.csv").read_bytes() == before
    assert_whole(folder, server.files)
    assert run(folder, {"wren": candidates["wren"][:2]}).counts == {"wren": 2}
    assert len(assert_whole(folder, server.files)) == 2 and server.requests.total() == 8


def _fetch_isic_in_child(folder, api):
    queries = {"benign": "diagnosis_1:Benign", "malignant": "diagnosis_1:Malignant"}
    patience = Patience(attempts=3, read_timeout=5, backoff=0.01)
    fetch_isic(folder, api, queries, 15, ["CC-BY"], seed=1, patience=patience, quiet=True)


def test_five_kills_and_a_resume_equal_an_undisturbed_run(server, tmp_path):
    chance = random.Random(3)
    for number in range(40):
        server.add_record(f"ISIC_{number:07d}", diagnosis_1="Malignant" if number % 2 else "Benign")
    whole, folder = tmp_path / "undisturbed", tmp_path / "killed"
    _fetch_isic_in_child(whole, server.isic_api)
    server.requests.clear()
    server.latency = 0.02
    context = multiprocessing.get_context("forkserver")  # a child with the imports done, but not this one's threads
    context.set_forkserver_preload(["tdsp_vision.data.sources"])
    requests_when_verified, killed = {}, 0
    for _ in range(5):
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
        for path in folder.glob("*/[!.]*.jpg"):
            name = path.name
            requests_when_verified.setdefault(name, server.requests[f"/files/{name}"])
            assert path.read_bytes() == server.files[f"/files/{name}"]
    _fetch_isic_in_child(folder, server.isic_api)
    assert killed >= 3 and len(requests_when_verified) > 5
    assert {name: server.requests[f"/files/{name}"] for name in requests_when_verified} == requests_when_verified
    assert len(assert_whole(folder, server.files)) == 30
    for path in (path for path in whole.rglob("*") if path.is_file()):
        assert (folder / path.relative_to(whole)).read_bytes() == path.read_bytes()
