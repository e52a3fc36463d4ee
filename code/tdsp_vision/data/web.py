"""HTTP GET for the remote sources: patient, with time and size bounded, and not into a private network where guarded.

Each attempt ends in one of three ways: the whole body (bytes), a ValueError (the trouble may pass: HTTP 408, 425, 429
or 5xx, a timeout, a cut connection) or FetchError (it will not). Proxies and certificates of the environment
(`HTTPS_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE`) are used.
"""

import ipaddress
import re
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.cookiejar import DefaultCookiePolicy

import requests
import urllib3
from requests.adapters import HTTPAdapter


class FetchError(ValueError):
    """Something could not be fetched; the message is the reason, with what the server said beside an error of HTTP."""


class Client:
    """GET requests from any thread.

    Args:
        attempts: how often something is asked for; the waits between them double from one second on.
        timeout: seconds without a connection or a single byte.
        deadline: seconds for one file with all its attempts.
        guarded: ask public addresses only.
    """

    def __init__(self, attempts: int = 5, timeout: float = 30, deadline: float = 300, guarded: bool = False):
        self.attempts, self.timeout, self.deadline = attempts, timeout, deadline
        self.session = requests.Session()
        self.session.headers["User-Agent"] = "tdsp-vision/0.2 (image classification walkthrough)"
        self.session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))  # threads would share them unlocked
        self.session.adapters = dict.fromkeys(["http://", "https://"], GuardedAdapter() if guarded else HTTPAdapter())

    def get(self, url: str, params: dict | None = None, accept: Callable = bytes, max_bytes: int = 100_000_000):
        """What `accept` makes of the body at `url`, redirects followed.

        A server in trouble sends half a file or a page with an apology, so what `accept` refuses by a ValueError is
        asked for again, like all that may pass.

        Raises:
            FetchError: the last trouble, when attempts or time are used up; or a body longer than `max_bytes`.
        """
        stop = time.monotonic() + self.deadline
        for number in range(1, self.attempts + 1):
            try:
                return accept(self._attempt(url, params, stop, max_bytes))
            except ValueError as trouble:
                wait = min(getattr(trouble, "wait", None) or 2 ** (number - 1), 60)  # whatever `Retry-After` says
                if isinstance(trouble, FetchError) or number == self.attempts or time.monotonic() + wait > stop:
                    raise FetchError(str(trouble)) from trouble
            time.sleep(wait)

    def _attempt(self, url: str, params: dict | None, stop: float, max_bytes: int) -> bytes:
        hooks = {"response": partial(_read, stop, max_bytes)}
        try:
            return self.session.get(url, params=params, hooks=hooks, stream=True, timeout=self.timeout).content
        except (OSError, urllib3.exceptions.HTTPError) as error:
            if isinstance(error, ValueError):
                raise FetchError("not a valid URL of http or https") from error
            # its kind only, such as "read timeout error": messages of the libraries hold memory addresses
            cause = getattr(error.args[0] if error.args else None, "reason", None) or error
            raise ValueError(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(cause).__name__).lower()) from error


def _read(stop: float, max_bytes: int, response: requests.Response, **_) -> None:
    """Put the body into each response, redirects included, as it comes in; raise for what is no success.

    `read1` returns what is there, so no trickle outlasts `stop`.
    """
    body = bytearray()
    with response:
        while chunk := response.raw.read1(65_536, decode_content=True):
            body += chunk
            if len(body) > max_bytes or time.monotonic() > stop:
                raise FetchError(f"too large or too slow: stopped at {len(body):,} of at most {max_bytes:,} bytes")
    response._content = bytes(body)
    if response.status_code != 200 and not response.is_redirect:
        said = " ".join(re.sub("<[^>]*>", " ", body[:500].decode("utf-8", "replace")).split())
        passes = response.status_code in (408, 425, 429) or response.status_code >= 500
        error = (ValueError if passes else FetchError)(f"HTTP {response.status_code} {response.reason}: {said}")
        error.wait = urllib3.Retry().get_retry_after(response.raw)
        raise error


def refuse_private(host: str, address: str) -> None:
    """FetchError where the address of a host is not of the public internet, but private, loopback, link-local,
    multicast or reserved, as are the ranges of IPv6 that hold an address of IPv4 inside.
    """
    ip = ipaddress.ip_address(address)
    if not ip.is_global or ip.is_multicast or ip.is_reserved or getattr(ip, "sixtofour", None):
        raise FetchError(f"{host} has the address {address}, which is not public")


class Guarded:
    """A connection without a proxy: the address that it reached is checked before it is asked anything.

    A name that was checked before may mean another address a moment later (DNS rebinding).
    """

    def connect(self) -> None:
        """Connect; FetchError, with nothing asked, where that led to an address that is not public."""
        super().connect()
        refuse_private(self.host, self.sock.getpeername()[0])


class GuardedAdapter(HTTPAdapter):
    """Asks public addresses only. A proxy connects by itself, so there names are checked as far as they are known."""

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        """The connections for a request, of which each redirect is one; FetchError where they would be private."""
        host = self.build_connection_pool_key_attributes(request, verify)[0]["host"]
        with suppress(OSError, UnicodeError):  # of a name that is not known here
            for entry in socket.getaddrinfo(host, None):
                refuse_private(host, entry[4][0])
        pool = super().get_connection_with_tls_context(request, verify, proxies, cert)
        if not pool.proxy:
            pool.ConnectionCls = type("GuardedConnection", (Guarded, type(pool).ConnectionCls), {})
        return pool
