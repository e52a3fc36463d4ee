"""The web application (ASGI): admits a request or refuses it at once, has it answered in a thread, writes the answer.

What keeps the server alive under any load: a body has a longest length and a longest duration, only so many requests
wait at a time, and only as many run as there are workers. A request that is refused is read to its end and thrown
away, so that the client gets the answer and not a broken connection. Questions about the model's state are answered
without waiting, so that a busy server is not taken for a dead one.
Beside TensorFlow Serving's routes: `GET /health` (asks for no key) and `GET /monitoring/prometheus/metrics`.
"""

import asyncio
import logging
import time
from collections import Counter
from concurrent.futures import Executor

from tdsp_vision.deployment.protocol import INTERNAL, NEEDS_KEY, RequestError, is_allowed, to_json
from tdsp_vision.deployment.routes import Routes

METHODS = {"GET", "POST", "HEAD", "PUT", "DELETE"}  # any other method is answered with 501
MAX_BUFFERED_BYTES = 256 * 1024 * 1024  # of all requests that wait or run
BODY_SECONDS = 60  # until a whole body must be there
JSON, HTML, TEXT = b"application/json", b"text/html; charset=utf-8", b"text/plain; version=0.0.4"
EXTRA_HEADERS = {
    401: [(b"www-authenticate", b"Bearer")],
    408: [(b"connection", b"close")],
    429: [(b"retry-after", b"1")],
}
Answer = tuple[int, bytes, bytes]  # status, body, content type
logger = logging.getLogger(__name__)


class Gone(Exception):
    """The client closed the connection; nobody is left to answer."""


class App:
    """Answers HTTP requests.

    Args:
        routes: the calls of the protocol.
        workers: threads that run them; TensorFlow spreads one request over all cores, so more gain nothing.
        key: bearer key that a request must show; "" for none.
        max_request_bytes: a longer body is answered with 413.
        max_waiting: a request is answered with 429 while so many others wait or run.
    """

    def __init__(self, routes: Routes, workers: Executor, key: str, max_request_bytes: int, max_waiting: int):
        self.routes, self.workers, self.key = routes, workers, key
        self.max_request_bytes, self.max_waiting = max_request_bytes, max_waiting
        self._waiting = self._buffered = 0
        self._counts: Counter[int] = Counter()
        self._seconds = 0.0

    async def __call__(self, scope, receive, send) -> None:
        start = time.perf_counter()
        try:
            status, body, kind = await self._respond(scope, receive)
        except Gone:
            return
        except RequestError as error:
            status, body, kind = error.status, to_json({"error": error.message}), JSON
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            status, body, kind = 500, to_json({"error": INTERNAL}), JSON
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *EXTRA_HEADERS.get(status, [])]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._counts[status] += 1
        self._seconds += time.perf_counter() - start

    async def _respond(self, scope, receive) -> Answer:
        method, path = scope["method"], scope["raw_path"].decode("ascii", errors="replace")
        is_call = path.lower().startswith("/v1/")
        allowed = is_allowed(self.key, dict(scope["headers"]).get(b"authorization", b"").decode("latin-1"))
        if query := scope["query_string"].decode("ascii", errors="replace"):
            path = f"{path}?{query}"
        if method == "POST" and is_call and allowed:
            return 200, await self._queued(receive, method, path), JSON
        await self._read(receive, bytearray(), limit=0)
        if method not in METHODS:
            return _page(501, "501 Not Implemented")
        if path == "/health" and method == "GET":
            serving = bool(self.routes.versions.available())
            return (200 if serving else 503), to_json({"serving": serving}), JSON
        if not allowed:
            raise RequestError(401, NEEDS_KEY)
        if path == "/monitoring/prometheus/metrics" and method == "GET":
            return 200, self._metrics(), TEXT
        return (200, self.routes.answer(method, path, b""), JSON) if is_call else _page(404, "404 Not Found")

    async def _queued(self, receive, method: str, path: str) -> bytes:
        """Body of the answer to a call that takes a turn on the workers."""
        if self._waiting >= self.max_waiting:
            await self._read(receive, bytearray(), limit=0)
            raise RequestError(429, f"{self.max_waiting} requests are waiting already; send this one again later.")
        self._waiting += 1
        body = bytearray()
        try:
            length = await self._read(receive, body, self.max_request_bytes)
            if length > self.max_request_bytes:
                raise RequestError(413, f"The request is longer than {self.max_request_bytes} bytes.")
            if length > len(body):
                raise RequestError(429, "The waiting requests fill the memory set aside for them; send this one again.")
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self.workers, self.routes.answer, method, path, body)
        finally:
            self._waiting -= 1
            self._buffered -= len(body)

    async def _read(self, receive, body: bytearray, limit: int) -> int:
        """Read a request's body to its end, into `body` if it fits; its length."""
        length, more = 0, True
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Gone
                    chunk, more = message.get("body", b""), message.get("more_body", False)
                    fits = length == len(body) and length + len(chunk) <= limit
                    length += len(chunk)
                    if fits and self._buffered + len(chunk) <= MAX_BUFFERED_BYTES:
                        body += chunk
                        self._buffered += len(chunk)
                    else:
                        self._buffered -= len(body)
                        body.clear()
        except TimeoutError as error:
            raise RequestError(408, f"The request was not complete after {BODY_SECONDS} seconds.") from error
        return length

    def _metrics(self) -> bytes:
        """Counters in the text format of Prometheus."""
        counts = [f'http_requests_total{{code="{status}"}} {n}' for status, n in sorted(self._counts.items())]
        lines = ["# TYPE http_requests_total counter", *counts]
        lines += ["# TYPE http_request_duration_seconds summary"]
        lines += [f"http_request_duration_seconds_sum {self._seconds:.6f}"]
        lines += [f"http_request_duration_seconds_count {sum(self._counts.values())}"]
        lines += ["# TYPE http_requests_waiting gauge", f"http_requests_waiting {self._waiting}", ""]
        return "\n".join(lines).encode()


def _page(status: int, title: str) -> Answer:
    return status, f"<!DOCTYPE html>\n<title>{title}</title>\n<h1>{title}</h1>\n".encode(), HTML
