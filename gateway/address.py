"""Where a request really came from, behind proxies that are trusted to say so. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

__all__ = ["Networks", "client_address"]

_MAX_HOPS = 32

Address = IPv4Address | IPv6Address


class Networks:
    """A list of CIDRs; immutable. An IPv4 address mapped into IPv6 counts as IPv4."""

    __slots__ = ("_networks",)

    def __init__(self, cidrs: Sequence[str]) -> None:
        """Take CIDRs or single addresses; raises `ValueError`, which the config has ruled out."""
        self._networks: tuple[IPv4Network | IPv6Network, ...] = tuple(
            ip_network(cidr, strict=False) for cidr in cidrs
        )

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
    what stands left of that the sender may have written himself.
    """
    address = _parse(peer or "")
    if address is None or address not in trusted:
        return address
    hops = b",".join(value for name, value in headers if name.lower() == b"x-forwarded-for")
    for hop in reversed(hops.split(b",")[-_MAX_HOPS:]):
        address = _parse(hop.decode("latin-1").strip())
        if address is None or address not in trusted:
            return address
    return None


def _parse(text: str) -> Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
