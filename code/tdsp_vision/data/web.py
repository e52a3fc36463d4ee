"""HTTP GET for the remote sources: patient, with time and size bounded, and not into a private network where guarded.

Each attempt ends in one of three ways: the whole body (bytes), `TryAgain` (the trouble may pass: HTTP 408, 425, 429
or 5xx, a timeout, a cut connection) or `FetchError` (it will not). Proxies and certificates of the environment
(`HTTPS_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE`) are used, but no proxy for hosts that are at home.
"""

import ipaddress
import random
import re
import socket
import time
from collections.abc import Callable
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import select_proxy

MAX_REDIRECTS = 5
MAX_BYTES = 100_000_000  # of one answer
MAX_ERROR_BYTES = 2000  # of what a server says beside an error
LONGEST_WAIT = 60  # seconds, whatever `Retry-After` says
PASSING = {408, 425, 429}  # beside 5xx
USER_AGENT = "tdsp-vision/0.2 (image classification walkthrough)"


class FetchError(ValueError):
    """Something could not be fetched; the message is the reason, with what the server said beside an error of HTTP."""


class TryAgain(ValueError):
    """A trouble that may pass, and how many seconds the server asked to wait."""

    wait = None


class Client:
    """GET requests from any thread.

    Args:
        attempts: how often something is asked for; the waits between them double from one second on, with jitter.
        timeout: seconds without a connection or a single byte.
        deadline: seconds for one file with all its attempts.
        guarded: connect to public addresses only.
    """

    def __init__(self, attempts: int = 5, timeout: float = 30, deadline: float = 300, guarded: bool = False):
        self.attempts, self.timeout, self.deadline = attempts, timeout, deadline
        self.session = requests.Session()
        self.session.headers["User-Agent"] = USER_AGENT
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # threads would share them unlocked
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, Adapter(guarded))

    def get(self, url: str, params: dict | None = None, accept: Callable = bytes, max_bytes: int = MAX_BYTES):
        """What `accept` makes of the body at `url`.

        A server in trouble sends half a file or a page with an apology, so what `accept` refuses by a ValueError is
        asked for again, like all that may pass.

        Raises:
            FetchError: the last trouble, when attempts or time are used up; or a body longer than `max_bytes`.
        """
        stop = time.monotonic() + self.deadline
        for number in range(1, self.attempts + 1):
            try:
                return accept(self._attempt(url, params, stop, max_bytes))
            except FetchError:
                raise
            except ValueError as trouble:
                asked = getattr(trouble, "wait", None)
                wait = min(asked or 2 ** (number - 1) * random.uniform(0.5, 1), LONGEST_WAIT)  # not all threads at once
                if number == self.attempts or time.monotonic() + wait > stop:
                    raise FetchError(f"{trouble} ({number} attempts)") from trouble
            time.sleep(wait)

    def _attempt(self, url: str, params: dict | None, stop: float, max_bytes: int) -> bytes:
        options = {"stream": True, "allow_redirects": False, "timeout": self.timeout}
        try:
            for _ in range(MAX_REDIRECTS + 1):
                with self.session.get(url, params=params, **options) as response:
                    target = self.session.get_redirect_target(response)
                    if target is None:
                        return _whole_body(response, stop, max_bytes)
                    url, params = urljoin(response.url, target), None
        except (FetchError, TryAgain):
            raise
        except ValueError as error:
            raise FetchError("not a valid URL of http or https") from error
        except (OSError, urllib3.exceptions.HTTPError) as error:
            # its kind only, such as "read timeout error": messages of the libraries hold memory addresses
            cause = getattr(error.args[0] if error.args else None, "reason", None) or error
            raise TryAgain(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(cause).__name__).lower()) from error
        raise FetchError(f"more than {MAX_REDIRECTS} redirects")


class Adapter(HTTPAdapter):
    """Looks up a host once, checks all its addresses, and where guarded connects to the one it checked.

    If the name were looked up again for the connection, it could meanwhile mean another address (DNS rebinding).
    The Host header, and for https the name in the handshake and in the certificate, stay those of the URL. A proxy
    connects by itself, so there the check is all that can be done, where the name is known here at all.
    """

    def __init__(self, guarded: bool):
        super().__init__(pool_maxsize=64)
        self.guarded = guarded

    def send(self, request, proxies=None, **options):
        """Send a request, without a proxy to a host at home; FetchError instead, where guarded."""
        host = urlsplit(request.url).hostname
        try:
            found = [entry[4][0] for entry in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError):
            found = []
        private = [address for address in found if not is_public(address)]
        if private and self.guarded:
            raise FetchError(f"{host} has the address {private[0]}, which is not public")
        proxies = {} if private else proxies
        request.address = None
        if self.guarded and not select_proxy(request.url, proxies):
            if not found:
                raise TryAgain("name resolution error")
            request.address = min(found, key=lambda address: ":" in address)  # IPv4 where there is one
        return super().send(request, proxies=proxies, **options)

    def build_connection_pool_key_attributes(self, request, verify, cert=None):
        """Where to connect: to the checked address, under the URL's own name, or as usual."""
        where, options = super().build_connection_pool_key_attributes(request, verify, cert)
        if request.address:
            options["server_hostname"], where["host"] = where["host"], request.address
            request.headers["Host"] = urlsplit(request.url).netloc.rpartition("@")[2]
        return where, options


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the public internet: not private, loopback, link-local, multicast, reserved.

    Reserved are also the ranges of IPv6 that hold an address of IPv4 inside.
    """
    ip = ipaddress.ip_address(address)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or getattr(ip, "sixtofour", None))


def _whole_body(response: requests.Response, stop: float, max_bytes: int) -> bytes:
    """The body as it comes in, of an error only its beginning: `read1` returns what is there, so no trickle outlasts
    `stop`.
    """
    content, good = bytearray(), response.status_code == 200
    limit = max_bytes if good else MAX_ERROR_BYTES
    while len(content) <= limit and (chunk := response.raw.read1(65_536, decode_content=True)):
        content += chunk
        if time.monotonic() > stop:
            raise FetchError("too slow: not complete within the time for one file")
    if good and len(content) > limit:
        raise FetchError(f"more than {max_bytes:,} bytes")
    if good:
        return bytes(content)
    passes = response.status_code in PASSING or response.status_code >= 500
    said = " ".join(content[:MAX_ERROR_BYTES].decode("utf-8", "replace").split())
    said = f" ({said})" if said and not said.startswith("<") else ""  # a page of HTML tells nothing
    error = (TryAgain if passes else FetchError)(f"HTTP {response.status_code} {response.reason or ''}".strip() + said)
    wait = response.headers.get("Retry-After", "")
    error.wait = int(wait) if wait.isdecimal() else None  # a date is as good as nothing
    raise error
