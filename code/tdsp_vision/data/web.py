"""HTTP GET for the remote sources: patient, with time and size bounded, and not into a private network where guarded.

Each attempt ends in one of three ways: the whole body (bytes), `TryAgain` (the trouble may pass: HTTP 408, 425, 429
or 5xx, a timeout, a cut connection) or `FetchError` (it will not). Proxies and certificates of the environment
(`HTTPS_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE`) are used, but no proxy for hosts that are at home.
"""

import ipaddress
import json
import random
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
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
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # holds an IPv4 address in its last four bytes (RFC 6052)


class FetchError(ValueError):
    """Something could not be fetched; the message is the reason, `body` what the server said beside an error."""

    def __init__(self, reason: str, body: str = ""):
        super().__init__(reason)
        self.body = body


class TryAgain(FetchError):
    """A trouble that may pass; `wait` is how many seconds the server asked for (None: it did not)."""

    wait: float | None = None


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
    """GET requests from any thread.

    Args:
        patience: timeouts, attempts and waits.
        guarded: connect to public addresses only.
    """

    def __init__(self, patience: Patience | None = None, guarded: bool = False):
        self.patience, self.session = patience or Patience(), requests.Session()
        self.session.headers["User-Agent"] = USER_AGENT
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # each request stands for itself
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, (PublicOnly if guarded else HTTPAdapter)(pool_maxsize=64))

    def json(self, url: str, params: dict | None = None) -> dict:
        """The JSON object at `url`, patiently; FetchError if it cannot be had, or is something else."""

        def accept(content: bytes) -> dict:
            """The object; a server in trouble answers with a page, so it is asked again."""
            try:
                return dict(json.loads(content).items())
            except (ValueError, AttributeError) as error:
                raise TryAgain("the answer is not a JSON object") from error

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
                    raise FetchError(f"{trouble} ({number + 1} attempts)") from trouble
            patience.sleep(wait)

    def _attempt(self, url: str, stop: float, max_bytes: int, params: dict | None) -> bytes:
        timeout = (self.patience.connect_timeout, self.patience.read_timeout)
        options = {"timeout": timeout, "stream": True, "allow_redirects": False}
        try:
            for _ in range(MAX_REDIRECTS + 1):
                at_home = get_environ_proxies(url) and is_private_host(url)
                none = dict.fromkeys(("http", "https", "all")) if at_home else {}
                with self.session.get(url, params=params, proxies=none, **options) as response:
                    target = self.session.get_redirect_target(response)
                    if target is None:
                        return _whole_body(response, stop, max_bytes)
                    url, params = urljoin(response.url, target), None
        except FetchError:
            raise
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            raise _named(error) from error
        raise FetchError(f"more than {MAX_REDIRECTS} redirects")


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
                raise TryAgain("name resolution error") from None
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
    if not bad:
        return bytes(content)
    reason = f"HTTP {response.status_code} {response.reason or ''}".strip()
    if response.status_code not in PASSING and response.status_code < 500:
        raise FetchError(reason, content[:MAX_ERROR_BYTES].decode("utf-8", "replace"))
    trouble = TryAgain(reason)
    with suppress(urllib3.exceptions.InvalidHeader):  # neither seconds nor a date
        trouble.wait = urllib3.Retry().get_retry_after(response.raw)
    raise trouble


def _named(error: Exception) -> FetchError:
    """The same trouble in words that are the same on every run; messages of the libraries hold memory addresses."""
    if isinstance(error, ValueError):
        return FetchError("not a valid URL of http or https")
    cause = getattr(error.args[0] if error.args else None, "reason", None) or error
    return TryAgain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(cause).__name__).lower())  # such as "read timeout error"
