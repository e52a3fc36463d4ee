"""HTTP GET for the remote sources: patient, with time and size bounded, and not into a private network where guarded.

Each attempt ends in one of three ways: the whole body (bytes), `TryAgain` (the trouble may pass: HTTP 408, 425, 429
or 5xx, a timeout, a cut connection) or `FetchError` (it will not). Proxies and certificates of the environment
(`HTTPS_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE`) are used, but no proxy for hosts that are at home.
"""

import ipaddress
import json
import random
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, select_proxy

MAX_REDIRECTS = 5
MAX_PAGE_BYTES = 50_000_000  # of one answer of an API
MAX_ERROR_BYTES = 2000  # of what a server says beside an error
PASSING = {408, 425, 429}  # beside 5xx
USER_AGENT = "tdsp-vision/0.1 (image classification walkthrough)"
TROUBLES = {  # in this order: a refused connection counts as a timeout as well
    (urllib3.exceptions.NameResolutionError, socket.gaierror): "the host name cannot be resolved",
    (requests.exceptions.SSLError,): "no secure connection: the certificate or the handshake failed",
    (urllib3.exceptions.NewConnectionError,): "no connection: refused or not reachable",
    (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError): "no answer in time",
}
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # holds an IPv4 address in its last four bytes (RFC 6052)


class FetchError(ValueError):
    """Something could not be fetched; the message is the reason, `status` the HTTP status (0: there was none)."""

    def __init__(self, reason: str, status: int = 0, body: str = ""):
        super().__init__(reason)
        self.status, self.body = status, body


class TryAgain(FetchError):
    """A trouble that may pass; `wait` is how many seconds the server asked for (None: it did not)."""

    def __init__(self, reason: str, status: int = 0, wait: float | None = None):
        super().__init__(reason, status)
        self.wait = wait


@dataclass(frozen=True)
class Patience:
    """When to wait, and for how long: all times in seconds. `sleep` is there to be replaced in tests."""

    attempts: int = 5
    connect_timeout: float = 10
    read_timeout: float = 30  # without a single byte
    deadline: float = 300  # for one file with all its attempts
    backoff: float = 1  # before the second attempt; doubles with each further one, with jitter
    longest_wait: float = 60  # whatever `Retry-After` says
    sleep: Callable[[float], None] = time.sleep


class Client:
    """GET requests from any thread, one `requests.Session` for each.

    Args:
        patience: timeouts, attempts and waits.
        guarded: connect to public addresses only.
    """

    def __init__(self, patience: Patience | None = None, guarded: bool = False):
        self.patience, self.guarded = patience or Patience(), guarded
        self._local = threading.local()

    def json(self, url: str, params: dict | None = None) -> dict:
        """The JSON object at `url`, patiently; FetchError if it cannot be had, or is something else."""

        def accept(content: bytes) -> dict:
            """The object; TryAgain where the next answer may be one."""
            try:
                answer = json.loads(content)
            except ValueError as error:
                raise TryAgain("the answer is not JSON") from error
            if not isinstance(answer, dict):
                raise FetchError(f"the answer is a JSON {type(answer).__name__}, not an object")
            return answer

        return self.get(url, MAX_PAGE_BYTES, params, accept)

    def get(self, url: str, max_bytes: int, params: dict | None = None, accept: Callable[[bytes], object] = bytes):
        """What `accept` makes of the body at `url`, asked for again after each `TryAgain`, also one of `accept`.

        Raises:
            FetchError: the last trouble, when attempts or time are used up; or a body longer than `max_bytes`.
        """
        patience, stop = self.patience, time.monotonic() + self.patience.deadline
        for number in range(patience.attempts):
            try:
                return accept(self._attempt(url, stop, max_bytes, params))
            except TryAgain as trouble:
                wait = patience.backoff * 2**number * random.uniform(0.5, 1)  # threads must not come back together
                wait = min(wait if trouble.wait is None else trouble.wait, patience.longest_wait)
                if number + 1 == patience.attempts or time.monotonic() + wait > stop:
                    raise FetchError(f"{trouble} ({number + 1} attempts)", trouble.status) from trouble
            patience.sleep(wait)

    def _attempt(self, url: str, stop: float, max_bytes: int, params: dict | None) -> bytes:
        timeout = (self.patience.connect_timeout, self.patience.read_timeout)
        options = {"timeout": timeout, "stream": True, "allow_redirects": False}
        try:
            for _ in range(MAX_REDIRECTS + 1):
                if urlsplit(url).scheme not in ("http", "https"):
                    raise FetchError(f"{url!r} is neither http nor https")
                proxied = bool(get_environ_proxies(url))
                none = dict.fromkeys(("http", "https", "all")) if proxied and is_private_host(url) else {}
                with self._session().get(url, params=params, proxies=none, **options) as response:
                    target = self._session().get_redirect_target(response)
                    if target is None:
                        return _whole_body(response, stop, max_bytes)
                    url, params = urljoin(response.url, target), None
        except FetchError:
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _named(error) from error
        raise FetchError(f"more than {MAX_REDIRECTS} redirects")

    def _session(self) -> requests.Session:
        if not hasattr(self._local, "session"):
            session = self._local.session = requests.Session()
            session.headers["User-Agent"] = USER_AGENT
            session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # each request stands for itself
            if self.guarded:
                session.mount("http://", PublicOnly())
                session.mount("https://", PublicOnly())
        return self._local.session


class PublicOnly(HTTPAdapter):
    """Resolves a host once, checks all its addresses, and connects to the one it checked.

    If the name were resolved again for the connection, it could meanwhile mean another address (DNS rebinding).
    The Host header, and for https the name in the handshake and in the certificate, stay those of the URL. A proxy
    connects by itself, so there the check is all that can be done, where the name is known here at all.
    """

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        """The connection pool for a request: of the checked address, under the URL's own name, or of the proxy."""
        where, options = self.build_connection_pool_key_attributes(request, verify, cert)
        host = where["host"]
        try:
            found = _addresses(host)
        except (OSError, UnicodeError):
            if not select_proxy(request.url, proxies):
                raise
            found = []
        refused = [address for address in found if not is_public(address)]
        if refused:
            raise FetchError(f"{host} has the address {refused[0]}, which is not public")
        if select_proxy(request.url, proxies):
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        where["host"] = min(found, key=lambda address: ":" in address)  # IPv4 where there is one
        if where["scheme"] == "https":
            options |= {"server_hostname": host, "assert_hostname": host}
        request.headers["Host"] = urlsplit(request.url).netloc.rpartition("@")[2]
        return self.poolmanager.connection_from_host(**where, pool_kwargs=options)


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not private, loopback, link-local, multicast, reserved."""
    ip = ipaddress.ip_address(address)
    if ip.version == 6:
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def is_private_host(url: str) -> bool:
    """Whether the host of `url` is known here and has an address that is not public."""
    try:
        return not all(is_public(address) for address in _addresses(urlsplit(url).hostname or ""))
    except (OSError, ValueError):
        return False


def _addresses(host: str) -> list[str]:
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    return [entry[4][0] for entry in found]


def _whole_body(response: requests.Response, stop: float, max_bytes: int) -> bytes:
    """The body as it comes in, of an error only its beginning: `read1` returns what is there, so no trickle outlasts
    `stop`.
    """
    content, bad = bytearray(), response.status_code != 200
    while chunk := response.raw.read1(65_536, decode_content=True):
        content += chunk
        if bad and len(content) > MAX_ERROR_BYTES:
            break
        if len(content) > max_bytes:
            raise FetchError(f"more than {max_bytes:,} bytes")
        if time.monotonic() > stop:
            raise FetchError("too slow: not complete within the time for one file")
    if bad:
        status, reason = response.status_code, f"HTTP {response.status_code} {response.reason or ''}".strip()
        if status in PASSING or status >= 500:
            raise TryAgain(reason, status, retry_after(response.headers.get("Retry-After")))
        raise FetchError(reason, status, content[:MAX_ERROR_BYTES].decode("utf-8", "replace"))
    return bytes(content)


def retry_after(value: str | None) -> float | None:
    """Seconds that a `Retry-After` header asks for, given in seconds or as a date (RFC 9110, 10.2.3); else None."""
    if value is None or (value.strip().isascii() and value.strip().isdigit()):
        return value and float(value)
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (date.replace(tzinfo=date.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _named(error: Exception) -> FetchError:
    """The same trouble in words that are the same on every run; messages of the libraries hold memory addresses."""
    cause = getattr(error.args[0] if error.args else None, "reason", None) or error
    for kinds, reason in TROUBLES.items():
        if isinstance(error, kinds) or isinstance(cause, kinds):
            return TryAgain(reason)
    return FetchError("not a valid URL") if isinstance(error, ValueError) else TryAgain("the connection was cut")
