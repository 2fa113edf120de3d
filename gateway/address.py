"""Where a request really came from, behind proxies that are trusted to say so. Pure.

One rule for what is read: what a trusted proxy wrote and cannot be understood ends the search
with "cannot tell", which is refused. To skip it would move on to text that the sender wrote.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from itertools import islice

__all__ = ["Address", "Network", "Networks", "client_address", "parse_address", "parse_network"]

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAX_HOPS = 32
"""Entries of X-Forwarded-For that are looked at; real chains have two or three."""
_MAX_HOP = 64
"""Characters of one entry; the longest address with a port has 53."""
_MAPPED_PREFIX = 96
"""RFC 4291, 2.5.5.2: `::ffff:0:0/96` holds the IPv4 addresses."""

# An address as some proxies write it: with its port, or in brackets. An IPv6 address needs brackets
# for a port (RFC 3986, 3.2.2): without them the port would be its last group.
_DRESSED = re.compile(r"([0-9.]+):[0-9]{1,5}|\[([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\](?::[0-9]{1,5})?")


class Networks:
    """A list of CIDRs; immutable.

    An IPv4 address mapped into IPv6 counts as IPv4, among the networks too: `10.0.0.1` is in
    `::ffff:10.0.0.0/104`, and not in `::/0`.
    """

    __slots__ = ("_networks",)

    def __init__(self, cidrs: Sequence[str]) -> None:
        """Take CIDRs or single addresses; raises `ValueError`, which the config has ruled out."""
        self._networks = tuple(parse_network(cidr) for cidr in cidrs)

    def __bool__(self) -> bool:
        return bool(self._networks)

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)


def client_address(
    peer: str | None, headers: Iterable[tuple[bytes, bytes]], trusted: Networks
) -> Address | None:
    """Give the sender's address, or None where it cannot be told.

    `peer` is the other end of the connection. While it is a trusted proxy, `X-Forwarded-For` is
    read from the right, one hop at a time, up to the first address that is no trusted proxy;
    what stands left of that the sender may have written himself. None where a trusted proxy wrote
    something else than an address, wrote nothing, or the chain has more than 32 hops.
    """
    address = parse_address(peer or "")
    if address is None or address not in trusted:
        return address
    for hop in islice(_hops(headers), _MAX_HOPS):
        address = _parse_hop(hop)
        if address is None or address not in trusted:
            return address
    return None


def parse_address(text: str) -> Address | None:
    """Read one address, or give None.

    A mapped IPv4 address becomes IPv4. A zone (`fe80::1%eth0`) is left out: it names an
    interface of the machine that wrote it.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def parse_network(cidr: str) -> Network:
    """Read a CIDR or a single address; bits beyond the prefix are dropped. Raises `ValueError`.

    A network of mapped IPv4 addresses becomes IPv4. A zone is an error: a network has none.
    """
    if "%" in cidr:
        raise ValueError("a network has no zone")
    network = ip_network(cidr, strict=False)
    if isinstance(network, IPv4Network) or network.prefixlen < _MAPPED_PREFIX:
        return network
    mapped = network.network_address.ipv4_mapped
    return network if mapped is None else IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX))


def _hops(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """Give the entries from right to left: the last line is the nearest proxy's (RFC 9110, 5.3)."""
    lines = [value for name, value in headers if name.lower() == b"x-forwarded-for"]
    for line in reversed(lines):
        yield from reversed(line.rsplit(b",", _MAX_HOPS))


def _parse_hop(hop: bytes) -> Address | None:
    """Read one entry: an address, which may have a port.

    None for everything else: empty, `unknown`, a name that hides the address (`_x`), and text in
    quotes, where a comma would be no separator.
    """
    text = hop.strip(b" \t").decode("latin-1")
    if len(text) > _MAX_HOP:
        return None
    dressed = _DRESSED.fullmatch(text)
    return parse_address(text if dressed is None else dressed[1] or dressed[2])
