"""Connect to public addresses only: a list of URLs from somebody else must not reach into the network at home."""

import ipaddress
import socket
from urllib.parse import urlsplit

from requests.adapters import HTTPAdapter

from tdsp_vision.data.patience import FetchError

NAT64 = ipaddress.ip_network("64:ff9b::/96")  # holds an IPv4 address in its last four bytes (RFC 6052)


class PublicOnly(HTTPAdapter):
    """Resolves a host once, checks all its addresses, and connects to the one it checked.

    If the name were resolved again for the connection, it could meanwhile mean another address (DNS rebinding).
    The Host header, and for https the name in the handshake and in the certificate, stay those of the URL.
    """

    def get_connection_with_tls_context(self, request, verify, proxies=None, cert=None):
        """The connection pool for a request: of the checked address, under the URL's own name."""
        where, options = self.build_connection_pool_key_attributes(request, verify, cert)
        host = where["host"]
        where["host"] = public_address(host)
        if where["scheme"] == "https":
            options |= {"server_hostname": host, "assert_hostname": host}
        request.headers["Host"] = urlsplit(request.url).netloc.rpartition("@")[2]
        return self.poolmanager.connection_from_host(**where, pool_kwargs=options)


def public_address(host: str) -> str:
    """An IP address of `host`, IPv4 where there is one.

    Raises:
        FetchError: if one of its addresses is not public.
        OSError, UnicodeError: if it has none.
    """
    found = _addresses(host)
    refused = [address for address in found if not is_public(address)]
    if refused:
        raise FetchError(f"{host} has the address {refused[0]}, which is not public")
    return min(found, key=lambda address: ":" in address)


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
    except (OSError, UnicodeError):
        return False


def _addresses(host: str) -> list[str]:
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    return [entry[4][0] for entry in found]
