"""HTTP GET for the remote sources: redirects, time and size are bounded, proxies and addresses as told.

Each request ends in one of three ways: the whole body (bytes), `TryAgain` (the trouble may pass: HTTP 408, 425, 429
or 5xx, a timeout, a cut connection) or `FetchError` (it will not).
"""

import json
import socket
import threading
import time
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from tdsp_vision.data.addresses import PublicOnly
from tdsp_vision.data.patience import FetchError, Patience, TryAgain, retry_after

MAX_REDIRECTS = 5
MAX_PAGE_BYTES = 50_000_000  # of one answer of an API
PASSING = {408, 425, 429}  # beside 5xx
USER_AGENT = "tdsp-vision/0.1 (image classification walkthrough)"


class Client:
    """GET requests from any thread, one `requests.Session` for each.

    Args:
        patience: timeouts, attempts and waits.
        guarded: connect to public addresses only, without the proxies of the environment.
        direct: do not use the proxies of the environment.
    """

    def __init__(self, patience: Patience | None = None, guarded: bool = False, direct: bool = False):
        self.patience = patience or Patience()
        self.guarded, self.direct = guarded, direct or guarded
        self._local = threading.local()

    def json(self, url: str, params: dict | None = None) -> dict:
        """The JSON object at `url`, patiently.

        Raises:
            FetchError: if it cannot be had, or is something else than a JSON object.
        """

        def attempt(stop: float) -> dict:
            """One try; TryAgain where the next may succeed."""
            content = self.get(url, stop, MAX_PAGE_BYTES, params)
            try:
                answer = json.loads(content)
            except ValueError as error:
                raise TryAgain("the answer is not JSON") from error
            if not isinstance(answer, dict):
                raise FetchError(f"the answer is a JSON {type(answer).__name__}, not an object")
            return answer

        return self.patience.persist(attempt)

    def get(self, url: str, stop: float, max_bytes: int, params: dict | None = None) -> bytes:
        """The whole body at `url`, in one attempt, after at most `MAX_REDIRECTS` redirects.

        Raises:
            TryAgain, FetchError: if there is none, or it is longer than `max_bytes`.
        """
        try:
            for _ in range(MAX_REDIRECTS + 1):
                if urlsplit(url).scheme not in ("http", "https"):
                    raise FetchError(f"{url!r} is neither http nor https")
                with self._session().get(url, params=params, **self._options()) as response:
                    target = self._session().get_redirect_target(response)
                    if target is None:
                        _check_status(response)
                        return _read(response, stop, max_bytes)
                    url, params = urljoin(response.url, target), None
        except FetchError:
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _named(error) from error
        raise FetchError(f"more than {MAX_REDIRECTS} redirects")

    def _options(self) -> dict:
        timeout = (self.patience.connect_timeout, self.patience.read_timeout)
        return {"timeout": timeout, "stream": True, "allow_redirects": False}

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = self._local.session = requests.Session()
            session.trust_env = not self.direct
            session.headers["User-Agent"] = USER_AGENT
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # each request stands for itself
            if self.guarded:
                session.mount("http://", PublicOnly())
                session.mount("https://", PublicOnly())
        return self._local.session


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    reason = f"HTTP {status} {response.reason or ''}".strip()
    if status in PASSING or status >= 500:
        raise TryAgain(reason, status, retry_after(response.headers.get("Retry-After")))
    if status != 200:
        raise FetchError(reason, status, response.raw.read(2000, decode_content=True).decode("utf-8", "replace"))


def _read(response: requests.Response, stop: float, max_bytes: int) -> bytes:
    """The body as it comes in: `read1` returns what is there, so that a trickle cannot outlast `stop`."""
    content = bytearray()
    while chunk := response.raw.read1(65_536, decode_content=True):
        content += chunk
        if len(content) > max_bytes:
            raise FetchError(f"more than {max_bytes:,} bytes")
        if time.monotonic() > stop:
            raise FetchError("too slow: not complete within the time for one file")
    return bytes(content)


def _named(error: Exception) -> FetchError:
    """The same trouble in words that are the same on every run; messages of the libraries hold memory addresses."""
    cause = getattr(error.args[0] if error.args else None, "reason", None) or error
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return TryAgain("no answer in time")
    if isinstance(cause, urllib3.exceptions.NameResolutionError | socket.gaierror):
        return TryAgain("the host name cannot be resolved")
    if isinstance(error, requests.exceptions.SSLError):
        return TryAgain("no secure connection: the certificate or the handshake failed")
    if isinstance(cause, urllib3.exceptions.NewConnectionError):
        return TryAgain("no connection: refused or not reachable")
    if isinstance(error, ValueError):
        return FetchError("not a valid URL")
    return TryAgain("the connection was cut")
