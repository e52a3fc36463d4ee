"""A server on loopback that speaks the search APIs of the ISIC Archive and of Openverse, and misbehaves when told to.

with ArchiveServer() as server:
    server.add_record("ISIC_0000001", diagnosis_1="Benign")
    server.fail("/files/ISIC_0000001.jpg", "cut", 503)     # the first two requests; the third is answered
"""

import base64
import json
import re
import threading
import time
from collections import Counter, defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlencode, urlsplit

import zoo


class ArchiveServer(ThreadingHTTPServer):
    """Public attributes may be changed at any time; `requests` counts what was asked for, by path."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.records, self.files, self.results = [], {}, defaultdict(list)
        self.faults, self.forever = defaultdict(list), {}
        self.requests, self.queries, self.hosts = Counter(), [], []
        self.page_size, self.scramble, self.latency = 100, False, 0.0
        self.stopping = threading.Event()

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stopping.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up, or is killed, is nothing to report."""

    @property
    def isic_api(self) -> str:
        return f"{self.url}/api/v2"

    @property
    def openverse_api(self) -> str:
        return f"{self.url}/v1"

    def add_file(self, path: str, seed: int, kind: str = "JPEG") -> str:
        """Serve picture number `seed` at `path`; its URL."""
        self.files[path] = zoo.encode(zoo.picture(seed), kind)
        return self.url + path

    def add_record(self, isic_id: str, license: str = "CC-BY", **clinical) -> dict:
        """A record of the archive with its picture at `/files/<isic_id>.jpg`."""
        url = self.add_file(f"/files/{isic_id}.jpg", int(isic_id[5:]))
        size = len(self.files[f"/files/{isic_id}.jpg"])
        self.records.append(
            {
                "isic_id": isic_id,
                "public": True,
                "copyright_license": license,
                "attribution": "Hospital, with a comma",
                "files": {"full": {"url": url, "size": size}, "thumbnail_256": {"url": url, "size": size}},
                "metadata": {
                    "acquisition": {"pixels_x": zoo.WIDTH, "pixels_y": zoo.HEIGHT, "image_type": "dermoscopic"},
                    "clinical": clinical,
                },
            }
        )
        return self.records[-1]

    def fail(self, path: str, *behaviours, forever: bool = False) -> None:
        """Answer requests of `path` with these behaviours, one after the other; `forever`: always with the first."""
        if forever:
            self.forever[path] = behaviours[0]
        else:
            self.faults[path] += behaviours


class Handler(BaseHTTPRequestHandler):
    """A behaviour is a status, (status, headers), or one of the names in `misbehave`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each answer on a connection that is kept waits 40 ms

    def log_message(self, *_):
        """Quiet."""

    def do_GET(self):
        path = urlsplit(self.path).path
        self.server.requests[path] += 1
        self.server.hosts.append(self.headers["Host"])
        time.sleep(self.server.latency * (path in self.server.files))
        faults = self.server.faults[path]
        behaviour = faults.pop(0) if faults else self.server.forever.get(path)
        if behaviour is not None:
            self.misbehave(path, behaviour)
        elif path == "/api/v2/images/search/":
            self.search_isic()
        elif path == "/v1/images/":
            self.search_openverse()
        elif path in self.server.files:
            self.answer(200, self.server.files[path], "image/jpeg")
        else:
            self.answer(404, b"no such file", "text/plain")

    def misbehave(self, path, behaviour):
        body = self.server.files.get(path, b'{"results": []')
        if isinstance(behaviour, int | tuple):
            status, headers = (behaviour, {}) if isinstance(behaviour, int) else behaviour
            self.answer(status, b"trouble", "text/plain", headers)
        elif behaviour == "html":
            self.answer(200, b"<!DOCTYPE html><html><body>Please come back later</body></html>", "image/jpeg")
        elif behaviour == "short":
            self.answer(200, body[:-20], "image/jpeg")
        elif behaviour == "text":
            self.answer(200, b"gone" * len(body), "image/jpeg")
        elif behaviour == "close":
            self.close_connection = True
        elif behaviour in ("cut", "stall", "trickle", "trickled error", "trickled redirect"):
            status = {"trickled error": 500, "trickled redirect": 302}.get(behaviour, 200)
            self.begin(status, len(body), "image/jpeg", {"Location": "/elsewhere"})
            self.wfile.write(body[:20])
            self.close_connection = True
            if behaviour == "stall":
                self.server.stopping.wait(10)
            while behaviour.startswith("trickle") and not self.server.stopping.wait(0.02):
                self.wfile.write(b"\0")

    def search_isic(self):
        asked = self.parameters()
        self.server.queries.append(asked.get("query", ""))
        try:
            found = [record for record in self.server.records if matches(record, asked.get("query", ""))]
        except ValueError as error:
            self.answer_json(400, {"message": f"Couldn't parse search query: {error}"})
            return
        start = int(base64.b64decode(asked["cursor"])) if "cursor" in asked else 0
        stop = start + min(int(asked.get("limit", 100)), 100, self.server.page_size)
        page = found[start:stop]
        if self.server.scramble:  # some of the page before again, and all in another order
            page = (found[max(0, start - 2) : start] + page)[::-1]
        cursor = base64.b64encode(str(stop).encode()).decode()
        following = f"{self.server.isic_api}/images/search/?{urlencode(asked | {'cursor': cursor})}"
        answer = {"next": following if stop < len(found) else None, "previous": None, "results": page}
        self.answer_json(200, answer | ({} if start else {"count": len(found)}))

    def search_openverse(self):
        asked = self.parameters()
        self.server.queries.append(asked["q"])
        size, number = int(asked["page_size"]), int(asked["page"])
        if size > 20:
            self.answer_json(401, {"detail": "Ensure this value is less than or equal to 20."})
            return
        allowed = asked["license"].split(",")
        found = [result for result in self.server.results[asked["q"]] if result.get("license", "by") in allowed]
        page = found[(number - 1) * size : number * size]
        self.answer_json(200, {"result_count": len(found), "page_count": -(-len(found) // size), "results": page})

    def parameters(self) -> dict:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def answer_json(self, status, content):
        self.answer(status, json.dumps(content).encode(), "application/json")

    def answer(self, status, body, kind, headers=None):
        self.begin(status, len(body), kind, headers)
        self.wfile.write(body)

    def begin(self, status, length, kind, headers=None):
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()


def matches(record: dict, query: str) -> bool:
    """Whether a record fits `field:value AND field:*end …`; ValueError for what the archive would not understand."""
    parts = [*record.get("metadata", {}).values(), {"isic_id": record.get("isic_id", "")}]
    values = {field: value for part in parts for field, value in part.items()}
    known = {"diagnosis_1", "image_type", "isic_id"}
    for term in filter(None, re.sub(r"[()]", "", query).split(" AND ")):
        field, colon, wanted = term.partition(":")
        if not colon or field not in known:
            raise ValueError(f"unexpected {term!r}")
        value = str(values.get(field, wanted))  # the search knows more than a record that lost a field
        if not (value.endswith(wanted[1:]) if wanted.startswith("*") else value == wanted):
            return False
    return True
