"""HTTP to the servers of one model: round-robin, past those that do not answer, patient with those that are full.

A prediction changes nothing on the server, so a request whose connection broke may be sent again.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence

import orjson
import urllib3

TIMEOUT = urllib3.Timeout(connect=5, read=60)  # seconds
REST_SECONDS = 5  # a server that did not answer is passed over for so long
FULL = {429, 503}
FULL_WAITS = (0.2, 0.5, 1, 2, 4)  # seconds, after each round in which every server was full


class ServingError(RuntimeError):
    """The service could not be reached or answered a request with an error."""


class Replicas:
    """Servers that answer the same requests; may be used from several threads at once.

    Args:
        urls: the servers, without a path (`http://127.0.0.1:8501`), or a function that names those of the moment.
        key: bearer key, if they ask for one.

    Raises:
        ValueError: for an empty list.
    """

    def __init__(self, urls: Sequence[str] | Callable[[], Sequence[str]], key: str | None = None):
        if not callable(urls) and not urls:
            raise ValueError("urls is empty; name at least one server, for instance http://127.0.0.1:8501.")
        self.urls = urls if callable(urls) else lambda: urls
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        # urllib3 itself: it takes no proxy from the environment, and half the time of what is built upon it.
        self._http = urllib3.PoolManager(maxsize=32, timeout=TIMEOUT, retries=False)
        self._turn = itertools.count()
        self._rests_until: dict[str, float] = {}

    def call(self, method: str, path: str, body: bytes | None = None) -> dict:
        """The JSON answer of the first server that has one.

        Raises:
            ServingError: if none can be reached, all stay full, or one answers with an error, which it names.
        """
        for wait in (*FULL_WAITS, None):
            answer = self._round(method, path, body)
            if answer.status not in FULL or wait is None:
                break
            time.sleep(wait)
        if answer.status != 200:
            text = answer.data.decode(errors="replace").strip()
            raise ServingError(f"{method} {path} was answered with {answer.status}: {text}")
        return orjson.loads(answer.data)

    def _round(self, method: str, path: str, body: bytes | None) -> urllib3.BaseHTTPResponse:
        """The answer of the first server that is there and not full; else that of a full one."""
        turn, tries, full, problem = next(self._turn), Counter(), None, None
        while url := self._next_url(turn, tries):
            tries[url] += 1
            target = url.rstrip("/") + path
            try:
                answer = self._http.request(method, target, body=body, headers=self._headers, redirect=False)
            except urllib3.exceptions.HTTPError as error:
                self._rests_until[url] = time.monotonic() + REST_SECONDS
                problem = ServingError(f"{method} {target} got no answer: {error}")
                problem.__cause__ = error
                continue
            self._rests_until[url] = 0.0
            if answer.status not in FULL:
                return answer
            full = answer
            tries[url] += 1
        if full is None:
            raise problem or ServingError("There is no server to ask; its deployment has none now.")
        return full

    def _next_url(self, turn: int, tries: Counter) -> str | None:
        """Who is asked next: the servers in turn, those that rest last, and each that broke off a second time, because
        it may just have closed an idle connection, or others have taken its place meanwhile.
        """
        urls = list(self.urls())
        order = [urls[(turn + step) % len(urls)] for step in range(len(urls))]
        left = [url for url in order if tries[url] < 2]
        now = time.monotonic()
        return min(left, key=lambda url: (tries[url], self._rests_until.get(url, 0.0) > now), default=None)
