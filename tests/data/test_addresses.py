"""Which addresses count as public."""

import pytest

from tdsp_vision.data.addresses import is_public

PRIVATE = "127.0.0.1 0.0.0.0 10.1.2.3 172.16.0.1 192.168.0.1 169.254.1.1 100.64.0.1 224.0.0.1 240.0.0.1 255.255.255.255"
PRIVATE += " ::1 :: fe80::1%1 fc00::1 ff02::1 ::ffff:10.0.0.1 2002:7f00:1:: 64:ff9b::7f00:1 2001:db8::1"


@pytest.mark.parametrize("address", PRIVATE.split())
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]
)
def test_addresses_that_are_public(address):
    assert is_public(address)
