"""How often one client may guess the token. Pure: the time is an argument."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Network

from gateway.address import parse_address

__all__ = ["Throttle", "client_of"]

_ATTEMPTS = 10
_REFILL = 30.0
"""Seconds until one more attempt: 2,880 a day, where a token of 64 hex digits has 2^256 values."""
_MAX_CLIENTS = 4096
_SUBNET = 64
"""Bits of an IPv6 address that tell clients apart: one subscriber has a whole /64 (RFC 6177)."""


class Throttle:
    """Wrong tokens by client: so many at once, then one in a while; others are not affected.

    It keeps one number for each client, the time until which its wrong tokens would last if they
    were spent evenly (the generic cell rate algorithm). Of more clients than it can keep, the one
    whose last wrong token is the longest ago is forgotten. Whoever has thousands of addresses gains
    attempts by that; to refuse the clients that are not kept would let him lock everybody out.
    """

    __slots__ = ("_attempts", "_max_clients", "_refill", "_until")

    def __init__(
        self,
        attempts: int = _ATTEMPTS,
        refill: float = _REFILL,
        max_clients: int = _MAX_CLIENTS,
    ) -> None:
        """Take the attempts at once, the seconds until one more, and how many clients are kept."""
        self._attempts = attempts
        self._refill = refill
        self._max_clients = max_clients
        # In the order of the last wrong token.
        self._until: dict[str, float] = {}

    def wait(self, client: str, now: float) -> float:
        """Give the seconds until this client may try again; 0 is at once."""
        until = self._until.get(client, now)
        return max(0.0, until - now - (self._attempts - 1) * self._refill)

    def failed(self, client: str, now: float) -> None:
        """Count a wrong token."""
        until = max(self._until.pop(client, now), now) + self._refill
        if len(self._until) >= self._max_clients:
            del self._until[next(iter(self._until))]
        self._until[client] = until

    def __len__(self) -> int:
        return len(self._until)


def client_of(peer: str | None) -> str:
    """Give what tells clients apart: an IPv4 address, or the /64 of an IPv6 one.

    Connections that have no address, as those of a Unix socket, are one client.
    """
    address = parse_address(peer or "")
    if address is None:
        return "unknown"
    if isinstance(address, IPv4Address):
        return str(address)
    return str(IPv6Network((int(address), _SUBNET), strict=False))
