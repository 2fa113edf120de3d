"""Where a request came from, and whether it may."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.address import Networks, client_address
from tests.core.builders import RequestHeaders

PROXIES = Networks(["10.0.0.0/8", "fd00::/8"])
NONE = Networks([])


def forwarded(*values: str) -> RequestHeaders:
    return [(b"x-forwarded-for", value.encode("latin-1")) for value in values]


def found(peer: str | None, headers: RequestHeaders, trusted: Networks = PROXIES) -> str | None:
    address = client_address(peer, headers, trusted)
    return None if address is None else str(address)


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        pytest.param("192.0.2.1", [], "192.0.2.1", id="direct"),
        pytest.param("192.0.2.1", forwarded("198.51.100.9"), "192.0.2.1", id="peer-not-trusted"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1"), "192.0.2.1", id="one-proxy"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1, 10.1.1.1"), "192.0.2.1", id="two-proxies"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1", "10.1.1.1"), "192.0.2.1", id="two-headers"),
        pytest.param("10.0.0.1", forwarded("8.8.8.8, 192.0.2.1"), "192.0.2.1", id="left-is-forged"),
        pytest.param("10.0.0.1", forwarded("8.8.8.8", "192.0.2.1"), "192.0.2.1", id="forged-line"),
        pytest.param("10.0.0.1", forwarded(" 192.0.2.1\t"), "192.0.2.1", id="whitespace"),
        pytest.param("fd00::1", forwarded("2001:db8::1"), "2001:db8::1", id="ipv6"),
        pytest.param("::ffff:10.0.0.1", forwarded("192.0.2.1"), "192.0.2.1", id="mapped-proxy"),
        pytest.param("10.0.0.1", forwarded("::ffff:192.0.2.1"), "192.0.2.1", id="mapped-sender"),
        pytest.param("10.0.0.1", [(b"X-Forwarded-FOR", b"192.0.2.1")], "192.0.2.1", id="case"),
        pytest.param("10.0.0.1", [(b"forwarded", b"for=192.0.2.1")], None, id="another-header"),
        pytest.param("10.0.0.1", [], None, id="no-header"),
        pytest.param("10.0.0.1", forwarded(""), None, id="empty-header"),
        pytest.param("10.0.0.1", forwarded("10.2.2.2"), None, id="proxies-only"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1, unknown"), None, id="junk-right"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1,"), None, id="empty-hop-right"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1:443"), None, id="with-port"),
        pytest.param("10.0.0.1", forwarded("\xe9"), None, id="not-ascii"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1" + ",10.1.1.1" * 32), None, id="endless"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1" + ",10.1.1.1" * 31), "192.0.2.1", id="32"),
        pytest.param("/run/gateway.sock", [], None, id="socket"),
        pytest.param("", [], None, id="empty-peer"),
        pytest.param(None, forwarded("192.0.2.1"), None, id="no-peer"),
    ],
)
def test_the_address_of_the_sender(
    peer: str | None, headers: RequestHeaders, expected: str | None
) -> None:
    assert found(peer, headers) == expected


def test_without_trusted_proxies_only_the_peer_counts() -> None:
    assert found("10.0.0.1", forwarded("192.0.2.1"), NONE) == "10.0.0.1"


@given(st.lists(st.binary(max_size=40), max_size=5), st.text(max_size=20))
def test_what_is_sent_never_raises(values: list[bytes], peer: str) -> None:
    headers = [(b"x-forwarded-for", value) for value in values]
    client_address(peer, headers, PROXIES)
    address = client_address("10.0.0.1", headers, PROXIES)
    assert address is None or address not in PROXIES


@pytest.mark.parametrize(
    ("cidr", "inside", "outside"),
    [
        ("192.0.2.0/24", "192.0.2.255", "192.0.3.0"),
        ("192.0.2.7/24", "192.0.2.1", "192.0.3.7"),
        ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("2001:db8::/32", "2001:db8::1", "2001:db9::1"),
        ("0.0.0.0/0", "203.0.113.1", "::1"),
        ("::1", "::1", "127.0.0.1"),
    ],
)
def test_networks(cidr: str, inside: str, outside: str) -> None:
    networks = Networks(["198.18.0.0/15", cidr])
    assert ip_address(inside) in networks
    assert ip_address(outside) not in networks


def test_an_empty_list_of_networks_is_false_and_holds_nothing() -> None:
    assert not NONE
    assert PROXIES
    assert ip_address("192.0.2.1") not in NONE


@pytest.mark.parametrize("cidr", ["", "example.com", "192.0.2.0/33", "192.0.2"])
def test_what_is_no_network(cidr: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|not permitted|Expected"):
        Networks([cidr])
