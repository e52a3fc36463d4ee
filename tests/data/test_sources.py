"""Remote sources, from a server that misbehaves: what is listed is whole, what is lost is named, and a run that was
killed is completed; nobody's list leads into a private network.
"""

import json
import multiprocessing
import re
import socket
import time
from pathlib import Path

import pandas as pd
import pytest
import requests

from tdsp_vision.data import sources, web
from tdsp_vision.data.sources import fetch, fetch_isic, fetch_openverse, fetch_urls, read_list
from tdsp_vision.data.tables import read_csv
from tdsp_vision.data.web import Client, FetchError, Guarded, GuardedAdapter, refuse_private

BAD = "/files/3.jpg"
ISIC, OPENVERSE = "/api/v2/images/search/", "/v1/images/"
QUERIES = {
    "benign": "diagnosis_1:Benign AND image_type:dermoscopic",
    "malignant": "diagnosis_1:Malignant AND image_type:dermoscopic",
}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "downloads"


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """The seconds that nobody waits for."""
    waits, sleep = [], time.sleep
    monkeypatch.setattr(web.time, "sleep", lambda seconds: waits.append(seconds) if seconds >= 0.5 else sleep(seconds))
    return waits


def assert_whole(folder: Path, server) -> pd.DataFrame:
    """`metadata.csv`: each line is a file with the bytes that the server has for its URL, and nothing else is there."""
    table = read_csv(folder / "metadata.csv")
    for row in table.itertuples():
        assert (folder / row.path).read_bytes() == server.files["/" + row.url.split("/", 3)[3]], row.path
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert there == {*table.path, "metadata.csv"}
    return table


def offer(server, count: int = 6) -> dict[str, list[tuple[str, dict]]]:
    """Candidates of one label with pictures on the server, sizes promised."""
    rows = [{"url": server.add_file(f"/files/{number}.jpg", number), "number": number} for number in range(count)]
    sizes = [len(server.files[f"/files/{number}.jpg"]) for number in range(count)]
    return {"wren": [(f"p{i}", rows[i] | {"archive_bytes": sizes[i]}) for i in range(count)]}


def run(folder, candidates, wanted=None, deadline=300, **options) -> dict[str, str]:
    return fetch(folder, candidates, Client(3, 0.3, deadline), wanted, allow_shortfall=True, **options)


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


@pytest.mark.parametrize(("behaviour", "reason"), BEHAVIOURS.items(), ids=str)
def test_a_trouble_costs_a_second_request_if_it_passes_and_else_is_a_named_loss(
    server, folder, behaviour, reason, waits
):
    candidates = offer(server)
    server.fail(BAD, behaviour, forever=True)
    lost = run(folder, candidates)
    assert list(lost) == ["wren/p3"] and reason in lost["wren/p3"]
    assert server.requests[BAD] == (1 if behaviour == 404 else 3)
    assert behaviour == 404 or waits[-2:] == [1, 2]
    assert list(assert_whole(folder, server).number) == [0, 1, 2, 4, 5]
    server.forever.clear()
    server.fail(BAD, behaviour if behaviour != 404 else 500)
    assert not run(folder, candidates) and len(assert_whole(folder, server)) == 6


def test_a_long_retry_after_is_capped_and_the_deadline_ends_it(server, folder, waits):
    candidates = offer(server)
    server.fail(BAD, (503, {"Retry-After": "Fri, 31 Dec 2100 23:59:59 GMT"}), forever=True)
    run(folder, candidates)
    assert waits == [60] * 2
    assert "HTTP 503" in run(folder, candidates, deadline=50)["wren/p3"] and server.requests[BAD] == 3 + 1


@pytest.mark.parametrize("behaviour", ["trickle", "trickled error", "trickled redirect"])
def test_a_trickle_does_not_outlast_the_deadline(server, folder, behaviour):
    candidates = offer(server)
    server.fail(BAD, behaviour, forever=True)
    assert "too large or too slow" in run(folder, candidates, deadline=1)["wren/p3"]
    assert len(assert_whole(folder, server)) == 5


def test_lost_pictures_are_replaced_by_the_next_ones_until_that_is_in_vain(server, folder):
    candidates = offer(server, count=20)
    server.fail(BAD, 404, forever=True)
    assert list(run(folder, candidates, wanted=4)) == ["wren/p3"]
    assert list(assert_whole(folder, server).number) == [0, 1, 2, 4]
    server.forever |= dict.fromkeys(server.files, 404)
    server.requests.clear()
    run(folder / "other", {"wren": candidates["wren"] * 4}, wanted=2)
    assert server.requests.total() == 54 and len(assert_whole(folder / "other", server)) == 0


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
    assert_whole(folder, server)
    assert not run(folder, {"wren": candidates["wren"][:2]})
    assert len(assert_whole(folder, server)) == 2 and server.requests.total() == 8
    run(folder, {"robin": candidates["wren"]})  # a label that got another name leaves no folder behind
    assert [path.name for path in folder.glob("*/")] == ["robin"] and len(assert_whole(folder, server)) == 6


@pytest.mark.parametrize("place", ["wren/../escape", "wren/a/b", "wren/", "wren/" + "x" * 101, "../p", "/p", "a/b/p"])
def test_a_name_from_a_server_or_a_list_cannot_leave_the_folder(folder, place):
    label, _, name = place.partition("/") if place.startswith("wren") else place.rpartition("/")
    lost = run(folder, {label: [(name, {"url": "http://example.invalid"})]})
    assert "cannot be that of a file" in lost[f"{label}/{name}"] and len(list(folder.rglob("*"))) == 1


def archive(server) -> None:
    """60 records, every third one under a licence that is not asked for; pages of 7."""
    for number in range(60):
        server.add_record(
            f"ISIC_{number:07d}",
            license="CC-BY-NC" if number % 3 == 0 else ["CC-0", "CC-BY"][number % 2],
            diagnosis_1="Malignant" if number >= 40 else "Benign",
        )
    server.page_size = 7


def isic(folder, server, count=5, seed=0, **changes) -> pd.DataFrame:
    options = {"queries": QUERIES, "licenses": ["CC-0", "CC-BY"]} | changes
    return fetch_isic(folder, server.isic_api, wanted=count, seed=seed, **options)


def chosen(folder) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.glob("[!.]*/*.jpg")}


def test_the_sample_is_drawn_by_the_seed_whatever_pages_and_order_and_walks_no_more_than_it_needs(
    server, folder, tmp_path, waits
):
    archive(server)
    samples = []
    for seed in range(4):
        isic(tmp_path / str(seed), server, seed=seed)
        samples.append(chosen(tmp_path / str(seed)))
    eligible = {f"{'malignant' if n >= 40 else 'benign'}/ISIC_{n:07d}.jpg" for n in range(60) if n % 3}
    assert len(set(map(frozenset, samples))) == 4 and set().union(*samples) <= eligible
    assert all(re.fullmatch(r"\(diagnosis_1:\w+ AND image_type:\w+\) AND isic_id:\*\d\d", q) for q in server.queries)
    assert len(server.queries) < 4 * 200
    server.page_size, server.scramble = 100, True
    server.records.reverse()
    server.fail(ISIC, 500, "close", (429, {"Retry-After": "3"}), "html")
    isic(folder, server, seed=3)
    assert (folder / "metadata.csv").read_bytes() == (tmp_path / "3/metadata.csv").read_bytes() and 3 in waits


def test_pages_are_walked_to_their_end_and_what_they_do_not_hold_is_told(server, folder, capsys):
    for number in range(20):
        server.add_record(f"ISIC_00{number:03d}07", diagnosis_1="Benign")
    server.page_size = 7
    assert isic(folder, server, count=20, queries={"a": "", "b": "diagnosis_1:Benign"}).empty
    assert chosen(folder) == {f"{label}/ISIC_00{number:03d}07.jpg" for number in range(20) for label in "ab"}
    server.records.append(server.records[-1])
    isic(folder, server, count=20, queries={"a": "", "b": ""})
    assert "counted 21 records of isic_id:*07; its pages held 20." in capsys.readouterr().out


def test_a_lost_image_of_the_archive_fails_the_run_and_is_named(server, folder):
    archive(server)
    isic(folder, server)
    lost = sorted(chosen(folder))[0]
    (folder / lost).unlink()
    server.fail(f"/files/{lost.split('/')[1]}", 404, forever=True)
    with pytest.raises(ValueError) as caught:
        isic(folder, server)
    message = str(caught.value)
    assert message.startswith("Only 4 of 5 images for 'benign' could be had") and "ALLOW_SHORTFALL" in message
    assert re.findall(r"\n  (\S+): HTTP 404", message) == [lost.removesuffix(".jpg")]
    assert len(assert_whole(folder, server)) == 9
    rejected = isic(folder, server, allow_shortfall=True)  # the next one of the sample takes its place
    assert list(rejected.path) == [lost.removesuffix(".jpg")] and "HTTP 404" in rejected.reason[0]
    assert len(assert_whole(folder, server)) == 10
    assert server.requests.total() - server.requests[ISIC] == 10 + 2 + 1  # nothing twice but the lost one


@pytest.mark.parametrize("field", ["copyright_license", "files.full.size", "metadata.clinical"])
def test_a_field_that_a_record_lacks_is_named(server, folder, field):
    archive(server)
    *parents, last = field.split(".")
    place = server.records[10]
    for parent in parents:
        place = place[parent]
    del place[last]
    with pytest.raises(ValueError, match=f"KeyError: '{last}'"):
        isic(folder, server, count=40)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"queries": {"a/b": ""}}, "a/b/.*a label becomes a folder name"),
        ({"queries": {"a": "diagnosis:Mole"}}, "diagnosis:Mole.*HTTP 400 .*Couldn't parse"),
    ],
)
def test_wrong_parameters(server, folder, changes, message):
    archive(server)
    with pytest.raises(ValueError, match=message):
        isic(folder, server, **changes)


def test_pages_that_go_in_a_circle_end(server, folder):
    page = {"next": f"{server.url}/other/images/search/?cursor=again", "results": []}
    server.files["/other/images/search/"] = json.dumps(page).encode()
    with pytest.raises(ValueError, match="0 of 5 images for 'benign'"):
        fetch_isic(folder, f"{server.url}/other", QUERIES, 5, ["CC-BY"], 0)
    assert server.requests["/other/images/search/"] == 2 * 100


def _isic_in_child(folder, api):
    queries = {"benign": "diagnosis_1:Benign", "malignant": "diagnosis_1:Malignant"}
    fetch_isic(folder, api, queries, 15, ["CC-BY"], seed=1)


def test_a_kill_and_a_resume_equal_an_undisturbed_run(server, tmp_path):
    for number in range(40):
        server.add_record(f"ISIC_{number:05d}07", diagnosis_1="Malignant" if number % 2 else "Benign")
    whole, folder = tmp_path / "undisturbed", tmp_path / "killed"
    _isic_in_child(whole, server.isic_api)
    server.requests.clear()
    server.latency = 0.05
    context = multiprocessing.get_context("forkserver")  # a child with the imports done, but not this one's threads
    context.set_forkserver_preload(["tdsp_vision.data.sources"])
    child = context.Process(target=_isic_in_child, args=(folder, server.isic_api))
    child.start()
    while child.is_alive() and len(list(folder.glob("*/[!.]*.jpg"))) < 8:  # with others under way
        time.sleep(0.001)
    child.kill()
    child.join()
    time.sleep(0.2)  # until requests that are still under way are counted
    verified = {path.name: server.requests[f"/files/{path.name}"] for path in folder.glob("*/[!.]*.jpg")}
    assert child.exitcode == -9 and 8 <= len(verified) < 30
    server.latency = 0
    _isic_in_child(folder, server.isic_api)
    assert {name: server.requests[f"/files/{name}"] for name in verified} == verified
    assert len(assert_whole(folder, server)) == 30
    for path in (path for path in whole.rglob("*") if path.is_file()):
        assert (folder / path.relative_to(whole)).read_bytes() == path.read_bytes()


def openverse(folder, server, count=6, **changes) -> pd.DataFrame:
    """33 results for each of four queries; those of "dotted vest" begin with a picture of "dotted shirt"."""
    if not server.results:
        queries = ("dotted shirt", "dotted vest", "striped shirt", "striped vest")
        for seed, (query, rank) in enumerate((query, rank) for query in queries for rank in range(33)):
            name = f"{query.replace(' ', '-')}-{rank}"
            result = {"id": name, "url": server.add_file(f"/pictures/{name}", seed, "PNG"), "creator": "Ann"}
            result |= {"license": ["by", "cc0", "by-nc"][rank % 3], "attribution": f"{name} by Ann"}
            server.results[query].append(result | {"title": f'A "{name}", drawn'})
        server.results["dotted vest"].insert(0, server.results["dotted shirt"][0])
    queries = {"dotted": ["dotted {item}"], "striped": ["striped {item}"]}
    options = {"licenses": ["CC-0", "CC-BY"], "allow_private": True} | changes
    return fetch_openverse(folder, server.openverse_api, queries, ["shirt", "vest"], count, **options)


def test_queries_take_turns_licences_are_kept_and_pages_are_asked_for_as_needed(server, folder):
    assert openverse(folder, server).empty
    table = assert_whole(folder, server).set_index("openverse_id")
    ranks = [f"dotted-{item}-{rank}" for item, rank in [("shirt", 0), ("shirt", 1), ("vest", 0), ("shirt", 3)]]
    assert {*ranks, "dotted-vest-1", "dotted-shirt-4"} == set(table.index[table.path.str.startswith("dotted/")])
    row = table.loc["dotted-shirt-1"]
    assert (row.license, row.creator, row.attribution) == ("CC-0", "Ann", "dotted-shirt-1 by Ann")
    assert (row.title, row["query"]) == ('A "dotted-shirt-1", drawn', "dotted shirt")
    assert row.path == "dotted/dotted-shirt-1.png" and server.requests[OPENVERSE] == 4
    assert openverse(folder, server, count=43).empty and len(assert_whole(folder, server)) == 86
    assert server.requests[OPENVERSE] == 4 + 8
    with pytest.raises(ValueError, match="44 of 100 images for 'dotted'.*44 of 100 images for 'striped'"):
        openverse(folder, server, count=100)


def test_dead_links_of_a_search_are_replaced_and_private_ones_refused(server, folder):
    openverse(folder, server)
    for rank, behaviour in enumerate([404, "html", "cut", "text"]):
        server.fail(f"/pictures/striped-shirt-{rank}", behaviour, forever=True)
    rejected = openverse(folder / "again", server)
    assert list(rejected.path) == [f"striped/striped-shirt-{rank}" for rank in (0, 1, 3)]  # 2 is not allowed
    assert len(assert_whole(folder / "again", server)) == 12
    with pytest.raises(ValueError, match="(?s)0 of 6 images for 'dotted'.*which is not public"):
        openverse(folder / "guarded", server, allow_private=False)
    del server.results["striped vest"][1]["license"]
    with pytest.raises(ValueError, match="OPENVERSE_API .*'striped vest'.*KeyError: 'license'"):
        openverse(folder, server)
    server.fail(OPENVERSE, 400, forever=True)
    with pytest.raises(ValueError, match="'dotted shirt'.*HTTP 400.*trouble"):
        openverse(folder, server)
    server.files["/other/images/"] = b"{}"
    with pytest.raises(ValueError, match="KeyError: 'results'"):
        fetch_openverse(folder, f"{server.url}/other", {"a": ["b"]}, ["c"], 1, ["CC-0"])


@pytest.fixture
def write(tmp_path):
    """Write the list of URLs; its lines as (url, label)."""

    def lines(*rows, header=""):
        path = tmp_path / "urls.tsv"
        path.write_text(header + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return lines


@pytest.fixture
def network(monkeypatch):
    """Names to addresses, as a resolver with a script: each look-up of a name takes the next of its answers. The
    server of the tests stands in for the public internet."""
    answers, real = {}, socket.getaddrinfo

    def look_up(host, port, *args, **options):
        if host not in answers:
            return real(host, port, *args, **options)
        address = answers[host].pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port or 0)) for one in address.split()]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(web, "refuse_private", lambda host, ip: ip == "127.0.0.1" or refuse_private(host, ip))
    return answers


def fetch_list(folder, tsv, **options) -> dict[str, str]:
    rejected = fetch_urls(folder, tsv, **{"timeout": 0.3} | options)
    return dict(rejected[["path", "reason"]].itertuples(index=False))


def test_what_can_be_had_of_a_list_is_fetched_and_the_rest_is_named(server, folder, write):
    kinds = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "JPEG"]
    rows = [(server.add_file(f"/{n}", n, kind), ["a b", "dotted"][n % 2]) for n, kind in enumerate(kinds)]
    server.fail("/1", "html", forever=True)
    server.fail("/2", "stall", forever=True)
    dead = [(f"{server.url}/gone", "dotted"), ("http://host.invalid/x", "dotted"), ("http://[broken/", "dotted")]
    rejected = fetch_list(folder, write(*rows, *dead, header="url\tlabel\tpath\n"), allow_private=True)
    table = assert_whole(folder, server)
    assert sorted(path.split(".")[-1] for path in table.path) == ["bmp", "jpg", "jpg", "webp"]
    assert set(table.url) == {rows[number][0] for number in (0, 3, 4, 5)}
    assert {reason.split("(")[-1][:-1]: reason.split(" (")[0] for reason in rejected.values()} == {
        rows[1][0]: "not an image that can be recognized",
        rows[2][0]: "read timeout error",
        dead[0][0]: "HTTP 404 Not Found: no such file",
        dead[1][0]: "name resolution error",
        dead[2][0]: "not a valid URL of http or https",
    }


@pytest.mark.parametrize("header", ["", "\ufeffURL\tLabel\n"], ids=["none", "bom"])
def test_the_list_and_its_lines_that_cannot_be_used(write, header):
    one = "http://a.example/1.jpg"
    rows = [(one, " dotted "), ("http://a.example/3.jpg",), ("http://a.example/4.jpg", "../up"), ("",)]
    rows += [(one, "dotted"), (one, "striped"), ("http://a.example/5.jpg", "dotted", "more"), ("HTTPS://a/6", "x")]
    candidates, rejected = read_list(write(*rows, header=header))
    urls = {label: [row["url"] for _, row in some] for label, some in candidates.items()}
    assert urls == {"dotted": [one, one], "striped": [one], "x": ["HTTPS://a/6"], "../up": ["http://a.example/4.jpg"]}
    assert len({name for some in candidates.values() for name, _ in some}) == 3
    shift = 1 + bool(header)
    assert {int(line.split(":")[0].split()[1]) - shift for line in rejected} == {1, 6}


def test_columns_of_a_list_may_be_named_the_other_way_round_and_quoted(write):
    header = "\n label \tURL\tLicence\tattribution\n"
    saved = write(('"dotted"', '"http://a.example/"', "CC-BY", '"A ""B"""'), header=header)
    row = {"url": "http://a.example/", "license": "CC-BY", "attribution": 'A "B"'}
    assert [row for _, row in read_list(saved)[0]["dotted"]] == [row]
    cut = write(("dotted", "http://a.example/"), ("striped", "http://b.example/", "", "", ""), header=header)
    assert [len(some) for some in read_list(cut)[0].values()] == [1, 1]


@pytest.mark.parametrize("content", [b"", b"no tab\n", b"\xff\xfe\x00", None])
def test_a_list_without_a_usable_line_is_refused(tmp_path, folder, content):
    if content is not None:
        (tmp_path / "urls.tsv").write_bytes(content)
    with pytest.raises(ValueError, match="SOURCE_PATH is"):
        fetch_list(folder, tmp_path / "urls.tsv")


def test_private_addresses_are_refused_without_a_request_also_where_there_is_a_proxy(
    server, folder, write, monkeypatch
):
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"]
    hosts += ["192.168.1.1", "169.254.169.254", "224.0.0.1", "user:pass@127.0.0.1", "[64:ff9b::a00:1]"]
    for _ in range(2):
        rejected = fetch_list(folder, write(*[(f"http://{host}:{server.server_port}/0", "dotted") for host in hosts]))
        assert len(rejected) == len(hosts) and not server.requests and len(assert_whole(folder, server)) == 0
        assert all("which is not public" in reason for reason in rejected.values()), rejected
        monkeypatch.setenv("http_proxy", server.url)


def test_a_name_is_checked_and_so_is_where_its_connection_leads(server, folder, write, network, monkeypatch):
    tsv = write((server.add_file("/0", 0).replace("127.0.0.1", "pictures.example"), "dotted"))
    network["pictures.example"] = ["127.0.0.1 10.0.0.1"]  # one private address among several is enough
    assert "pictures.example has the address 10.0.0.1" in "".join(fetch_list(folder, tsv).values())
    network["pictures.example"] = ["127.0.0.1", "127.0.0.1"]
    assert not fetch_list(folder, tsv) and len(assert_whole(folder, server)) == 1
    assert server.hosts == [f"pictures.example:{server.server_port}"]
    monkeypatch.setattr(web, "refuse_private", refuse_private)
    network["pictures.example"] = ["93.184.216.34", "127.0.0.1"]  # the second look-up leads into a private network
    assert "has the address 127.0.0.1" in "".join(fetch_list(folder / "other", tsv).values()) and len(server.hosts) == 1


def test_https_asks_for_the_name_and_checks_it():
    request = requests.Request("GET", "https://pictures.invalid:8443/0").prepare()
    pool = GuardedAdapter().get_connection_with_tls_context(request, verify=True)
    assert (pool.host, pool.port, pool.cert_reqs) == ("pictures.invalid", 8443, "CERT_REQUIRED")
    assert issubclass(pool.ConnectionCls, Guarded)


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://inside.example/0", "inside.example has the address 10.0.0.1"),
        ("http://192.168.0.1/0", "192.168.0.1, which is not public"),
        ("file:///etc/passwd", "not a valid URL"),
        ("/moved", "too many redirects"),
    ],
)
def test_each_redirect_is_checked(server, folder, write, network, target, reason):
    network["inside.example"] = ["10.0.0.1"]
    server.fail("/moved", (302, {"Location": target}), forever=True)
    assert reason in "".join(fetch_list(folder, write((f"{server.url}/moved", "dotted"))).values())
    assert server.requests["/moved"] == (2 * 31 if target == "/moved" else 1)


def test_a_proxy_of_the_environment_is_used_where_no_proxy_does_not_except_the_host(server, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server.add_file("/0", 0)
    monkeypatch.setenv("http_proxy", server.url)
    for guarded in (False, True):  # the name is known to the proxy only
        assert Client(guarded=guarded).get("http://pictures.invalid/0") == server.files["/0"]
    assert server.hosts[-1] == "pictures.invalid"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert Client().get(f"{server.url}/0") == server.files["/0"]
    with pytest.raises(FetchError, match="too large .* of at most 10 bytes"):
        Client().get(f"{server.url}/0", max_bytes=10)


def test_attribution_names_licences_and_whom_to_name(tmp_path):
    names = {"license": ["CC-BY", "CC-0", "CC-BY", None, "HOME"], "attribution": ["B", "A\nC", "B", None, "D"]}
    sources.write_attribution(tmp_path / "ATTRIBUTION.md", pd.DataFrame(names))
    text = (tmp_path / "ATTRIBUTION.md").read_text()
    assert text.startswith("# Attribution\n\n5 images. Terms of CC: https://creativecommons.org/licenses/\n")
    assert "## CC-BY: 2 images\n\n- B\n" in text and "## CC-0: 1 images\n\n- A C\n" in text
    assert "## No licence given: 1 images\n\n- no attribution given\n" in text
