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
        pytest.param("10.0.0.1", forwarded("192.0.2.1,,10.1.1.1"), None, id="empty-hop-between"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1", ""), None, id="empty-line-right"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1, _hidden"), None, id="obfuscated"),
        pytest.param("10.0.0.1", forwarded('"192.0.2.1"'), None, id="quoted"),
        pytest.param("10.0.0.1", forwarded('192.0.2.1, "10.1.1.1'), None, id="quote-right"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1, for=10.1.1.1"), None, id="forwarded-form"),
        pytest.param("10.0.0.1", forwarded("8.8.8.8, 192.0.2.1:443"), "192.0.2.1", id="port"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1, 10.1.1.1:1"), "192.0.2.1", id="proxy-port"),
        pytest.param("10.0.0.1", forwarded("[2001:db8::1]:443"), "2001:db8::1", id="ipv6-port"),
        pytest.param("10.0.0.1", forwarded("[2001:db8::1]"), "2001:db8::1", id="brackets"),
        pytest.param("10.0.0.1", forwarded("[::ffff:192.0.2.1]:1"), "192.0.2.1", id="mapped-port"),
        pytest.param("10.0.0.1", forwarded("2001:db8::1:443"), "2001:db8::1:443", id="no-brackets"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1:"), None, id="port-is-empty"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1:123456"), None, id="port-is-long"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1:http"), None, id="port-is-a-name"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1:1:2"), None, id="two-ports"),
        pytest.param("10.0.0.1", forwarded("[192.0.2.1]:1"), None, id="ipv4-in-brackets"),
        pytest.param("10.0.0.1", forwarded("[2001:db8::1"), None, id="half-a-bracket"),
        pytest.param("10.0.0.1", forwarded("[]:1"), None, id="empty-brackets"),
        pytest.param("10.0.0.1", forwarded("192.0.2.01"), None, id="leading-zero"),
        pytest.param("10.0.0.1", forwarded("3221225985"), None, id="one-number"),
        pytest.param("10.0.0.1", forwarded("192.0.2.0/24"), None, id="a-network"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1 10.1.1.1"), None, id="no-comma"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1\xa0"), None, id="other-whitespace"),
        pytest.param("10.0.0.1", forwarded("192.0.2.1\x0b"), None, id="control-character"),
        pytest.param("10.0.0.1", forwarded("\u00b2.0.2.1"), None, id="digits-of-another-kind"),
        pytest.param("10.0.0.1", forwarded("fe80::1%eth0"), "fe80::1", id="zone"),
        pytest.param("10.0.0.1", forwarded("fe80::1%"), None, id="empty-zone"),
        pytest.param("fd00::1%eth0", forwarded("192.0.2.1"), "192.0.2.1", id="zone-of-the-peer"),
        pytest.param("fe80::1%25eth0", [], "fe80::1", id="zone-of-a-direct-peer"),
        pytest.param("::ffff:10.0.0.1%eth0", forwarded("192.0.2.1"), "192.0.2.1", id="mapped-zone"),
        pytest.param("::ffff:192.0.2.1", forwarded("8.8.8.8"), "192.0.2.1", id="mapped-direct"),
        pytest.param(
            "10.0.0.1",
            forwarded("8.8.8.8", "192.0.2.1, 10.2.2.2", "10.1.1.1"),
            "192.0.2.1",
            id="three-headers",
        ),
        pytest.param(
            "10.0.0.1", forwarded("192.0.2.1", "unknown", "10.1.1.1"), None, id="junk-line"
        ),
        pytest.param(
            "10.0.0.1", forwarded("junk, 192.0.2.1, 10.1.1.1"), "192.0.2.1", id="junk-left"
        ),
        pytest.param("10.0.0.1", forwarded("fe80::1%" + "x" * 100), None, id="long-hop"),
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


UNTRUSTED = st.sampled_from(["192.0.2.1", "2001:db8::1", "::ffff:198.51.100.7", "192.0.2.9:99"])
TRUSTED = st.sampled_from(["10.1.1.1", "fd00::5", "::ffff:10.2.2.2", "10.3.3.3:80", "[fd00::6]:8"])
UNREADABLE = st.sampled_from(["", "unknown", "_x", '"10.1.1.1"', "10.1.1", "for=10.1.1.1"])
ANY_HOP = st.one_of(UNTRUSTED, TRUSTED, UNREADABLE, st.text("01.:a[]_, \t", max_size=12))
ALLOWED = Networks(["192.0.2.0/24", "2001:db8::/32"])


def lines_of(hops: list[str]) -> st.SearchStrategy[RequestHeaders]:
    """Spread the entries over one or more header lines, in order."""
    between = max(0, len(hops) - 1)
    separators = st.sampled_from([",", ", ", " ,\t", "\n"])

    def joined(chosen: list[str]) -> RequestHeaders:
        parts = [hop + end for hop, end in zip(hops, [*chosen, ""], strict=False)]
        return forwarded(*"".join(parts).split("\n"))

    return st.lists(separators, min_size=between, max_size=between).map(joined)


@given(st.data(), st.lists(ANY_HOP, max_size=6), UNTRUSTED, st.lists(TRUSTED, max_size=4))
def test_what_the_sender_writes_left_of_the_proxies_counts_for_nothing(
    data: st.DataObject, forged: list[str], sender: str, proxies: list[str]
) -> None:
    appended = [sender, *proxies]
    honest = found("10.0.0.1", data.draw(lines_of(appended)))
    assert honest is not None
    assert found("10.0.0.1", data.draw(lines_of([*forged, *appended]))) == honest


@given(
    st.data(),
    st.lists(ANY_HOP, max_size=40),
    UNTRUSTED | UNREADABLE,
    st.lists(TRUSTED, max_size=4),
)
def test_no_hop_of_the_senders_turns_refused_into_allowed(
    data: st.DataObject, forged: list[str], sender: str, proxies: list[str]
) -> None:
    def allowed(hops: list[str]) -> bool:
        address = client_address("10.0.0.1", data.draw(lines_of(hops)), PROXIES)
        return address is not None and address in ALLOWED

    assert allowed([*forged, sender, *proxies]) == allowed([sender, *proxies])


@given(st.data(), st.lists(ANY_HOP, max_size=4), UNREADABLE, st.lists(TRUSTED, max_size=4))
def test_what_a_trusted_proxy_wrote_and_cannot_be_read_ends_the_search(
    data: st.DataObject, left: list[str], unreadable: str, proxies: list[str]
) -> None:
    assert found("10.0.0.1", data.draw(lines_of([*left, unreadable, *proxies]))) is None


@given(st.data(), st.lists(ANY_HOP, max_size=8))
def test_a_peer_that_is_no_proxy_is_the_sender_whatever_it_writes(
    data: st.DataObject, hops: list[str]
) -> None:
    assert found("192.0.2.1", data.draw(lines_of(hops))) == "192.0.2.1"


def test_lines_of_several_names_in_between_do_not_change_the_order() -> None:
    headers = forwarded("8.8.8.8", "192.0.2.1")
    mixed = [(b"host", b"x"), headers[0], (b"x-real-ip", b"9.9.9.9"), headers[1], (b"via", b"a,b")]
    assert found("10.0.0.1", mixed) == "192.0.2.1"


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
        ("::ffff:10.0.0.0/104", "10.255.0.1", "11.0.0.1"),
        ("::ffff:192.0.2.7", "192.0.2.7", "192.0.2.8"),
        ("::ffff:0:0/96", "203.0.113.1", "::1"),
        ("::ffff:10.0.0.1/104", "10.9.9.9", "11.0.0.1"),
        ("::/0", "2001:db8::1", "203.0.113.1"),
        ("::/64", "::ffff", "203.0.113.1"),
        ("2600:1f24:64:8000::/56", "2600:1f24:64:80ff::1", "2600:1f24:64:8100::1"),
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


@pytest.mark.parametrize(
    "cidr",
    ["", "example.com", "192.0.2.0/33", "192.0.2", "fe80::%eth0/10", "[::1]", "1.2.3.4:5", "svix"],
)
def test_what_is_no_network(cidr: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear|not permitted|Expected|no zone"):
        Networks([cidr])
