"""A list of URLs as a source: dead links are counted, and nobody's list leads into a private network."""

import socket

import pytest
import requests
from archive_server import ArchiveServer
from fetching import assert_whole, quick

from tdsp_vision.data import web
from tdsp_vision.data.sources import fetch_urls, read_list
from tdsp_vision.data.web import PublicOnly, is_public


@pytest.fixture
def server():
    with ArchiveServer() as running:
        for number in range(6):
            running.add_file(f"/{number}", number, ["JPEG", "PNG", "GIF", "BMP", "WEBP", "JPEG"][number])
        yield running


@pytest.fixture
def write(tmp_path):
    """Write the list of URLs; its lines as (url, label)."""

    def lines(*rows, header=""):
        path = tmp_path / "urls.tsv"
        path.write_text(header + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return lines


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "downloads"


@pytest.fixture
def network(monkeypatch):
    """Names to addresses, as a resolver with a script: each look-up of a name takes the next of its answers."""
    answers, real = {}, socket.getaddrinfo

    def look_up(host, port, *args, **options):
        if host not in answers:
            return real(host, port, *args, **options)
        address = answers[host].pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port or 0)) for one in address.split()]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return answers


@pytest.fixture
def loopback_is_public(monkeypatch):
    """The server of the tests stands in for the public internet; everything else is as it is."""
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1" or is_public(address))


def run(folder, tsv, **options):
    rejected = fetch_urls(folder, tsv, **{"patience": quick(attempts=2), "quiet": True} | options)
    return dict(rejected[["path", "reason"]].itertuples(index=False))


def test_what_can_be_had_is_fetched_and_the_rest_is_named(server, folder, write):
    server.fail("/1", "html", forever=True)
    server.fail("/2", "stall", forever=True)
    rows = [(f"{server.url}/{number}", "dotted" if number % 2 else "leopard print") for number in range(6)]
    dead = [(f"{server.url}/gone", "dotted"), ("http://host.invalid/x", "dotted"), ("http://[broken/", "dotted")]
    rejected = run(folder, write(*rows, *dead), allow_private=True)
    table = assert_whole(folder, server.files)
    assert sorted(path.split(".")[-1] for path in table.path) == ["bmp", "jpg", "jpg", "webp"]
    assert set(table.url) == {rows[number][0] for number in (0, 3, 4, 5)}
    assert {url: reason.split(" (")[0] for url, reason in rejected.items()} == {
        rows[1][0]: "not an image that can be recognized",
        rows[2][0]: "read timeout error",
        dead[0][0]: "HTTP 404 Not Found",
        dead[1][0]: "name resolution error",
        dead[2][0]: "not a valid URL of http or https",
    }


@pytest.mark.parametrize("header", ["", "\ufeffURL\tLabel\n"], ids=["none", "bom"])
def test_the_list_and_its_lines_that_cannot_be_used(write, header):
    rows = [
        ("http://a.example/1.jpg", " dotted "),
        ("http://a.example/3.jpg",),
        ("http://a.example/4.jpg", "../up"),
        ("",),
        ("http://a.example/1.jpg", "dotted"),
        ("http://a.example/1.jpg", "striped"),
        ("http://a.example/5.jpg", "dotted", "more"),
        ("HTTPS://a.example/6.jpg", "striped"),
    ]
    links, rejected = read_list(write(*rows, header=header))
    assert {url: row["label"] for url, row in links.items()} == {
        "http://a.example/1.jpg": "dotted",
        "HTTPS://a.example/6.jpg": "striped",
    }
    shift = 1 + bool(header)
    assert {int(line.split(":")[0].split()[1]) - shift for line in rejected} == {1, 2, 4, 5, 6}
    assert "in an earlier line; labels dotted and striped" in " ".join(rejected.values())


def test_columns_may_be_named_the_other_way_round(write):
    assert read_list(write(("dotted", "http://a.example/"), header="label\turl\n"))[0] == {
        "http://a.example/": {"label": "dotted"}
    }
    saved = write(
        ('"dotted"', '"http://a.example/"', "CC-BY", '"A ""B"""'), header="\n label \tURL\tLicence\tattribution\n"
    )
    assert read_list(saved)[0] == {"http://a.example/": {"label": "dotted", "license": "CC-BY", "attribution": 'A "B"'}}


@pytest.mark.parametrize("content", [b"", b"no tab\n", b"\xff\xfe\x00"])
def test_a_list_without_a_usable_line_is_refused(tmp_path, folder, content):
    (tmp_path / "urls.tsv").write_bytes(content)
    with pytest.raises(ValueError, match="SOURCE_PATH is"):
        run(folder, tmp_path / "urls.tsv")
    with pytest.raises(ValueError, match="SOURCE_PATH is"):
        run(folder, tmp_path / "missing.tsv")


def test_private_addresses_are_refused_without_a_request(server, folder, write):
    port = server.server_port
    hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1"]
    hosts += ["192.168.1.1", "169.254.169.254", "224.0.0.1", "user:pass@127.0.0.1"]
    rejected = run(folder, write(*[(f"http://{host}:{port}/0", "dotted") for host in hosts]))
    assert len(rejected) == len(hosts)
    assert all("which is not public" in reason for reason in rejected.values()), rejected
    assert not server.requests
    assert len(assert_whole(folder, server.files)) == 0


def test_a_name_is_resolved_once_and_that_address_is_used(server, folder, write, network, loopback_is_public):
    network["pictures.example"] = ["127.0.0.1", "10.0.0.1"]  # a second look-up would lead into a private network
    url = f"http://pictures.example:{server.server_port}/0"
    assert not run(folder, write((url, "dotted")))
    assert network["pictures.example"] == ["10.0.0.1"]
    assert server.hosts == [f"pictures.example:{server.server_port}"]
    assert len(assert_whole(folder, server.files)) == 1


def test_https_asks_for_the_name_and_checks_it(network):
    network["pictures.example"] = ["93.184.216.34"]
    request = requests.Request("GET", "https://user:word@pictures.example:8443/0").prepare()
    pool = PublicOnly().get_connection_with_tls_context(request, verify=True)
    assert (pool.host, pool.port, pool.assert_hostname) == ("93.184.216.34", 8443, "pictures.example")
    assert pool.conn_kw["server_hostname"] == "pictures.example" and pool.cert_reqs == "CERT_REQUIRED"
    assert request.headers["Host"] == "pictures.example:8443"


def test_one_private_address_among_several_is_enough(server, folder, write, network, loopback_is_public):
    network["pictures.example"] = ["127.0.0.1 10.0.0.1"]
    rejected = run(folder, write((f"http://pictures.example:{server.server_port}/0", "dotted")))
    assert "pictures.example has the address 10.0.0.1" in "".join(rejected.values()) and not server.requests


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("http://inside.example/0", "inside.example has the address 10.0.0.1"),
        ("http://192.168.0.1/0", "192.168.0.1, which is not public"),
        ("file:///etc/passwd", "not a valid URL"),
        ("/moved", "more than 5 redirects"),
    ],
)
def test_each_redirect_is_checked(server, folder, write, network, loopback_is_public, target, reason):
    network["inside.example"] = ["10.0.0.1"]
    server.fail("/moved", (302, {"Location": target}), forever=True)
    rejected = run(folder, write((f"{server.url}/moved", "dotted")))
    assert reason in "".join(rejected.values())
    assert server.requests["/moved"] == (6 if target == "/moved" else 1)


def test_proxies_of_the_environment_do_not_get_around_the_check(server, folder, write, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    rejected = run(folder, write(("http://10.0.0.1/0", "dotted")))
    assert "which is not public" in "".join(rejected.values()) and not server.requests


def test_a_proxy_of_the_environment_is_used_but_not_for_hosts_at_home(server, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    for guarded in (False, True):  # the name is known to the proxy only
        assert web.Client(quick(), guarded).get("http://pictures.invalid/0", 10**6) == server.files["/0"]
    assert server.hosts[-1] == "pictures.invalid"
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert web.Client(quick()).get(f"{server.url}/0", 10**6) == server.files["/0"]
