"""Cross checks of the addresses: who may send, and which proxies are believed. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from typing import TypeVar

from gateway.address import Network, parse_address, parse_network
from gateway.config.findings import Finding, View
from gateway.config.models import GatewayConfig
from gateway.config.problems import DocumentPath
from gateway.svix.addresses import NAME, expand

__all__ = ["check_addresses"]

_Family = TypeVar("_Family", IPv4Network, IPv6Network)

_PROXIES: DocumentPath = ("server", "trusted_proxies")


def check_addresses(config: GatewayConfig, view: View) -> Iterator[Finding]:
    """Yield what is wrong or doubtful in `trusted_proxies` and in each `allow_from`."""
    proxies = config.server.trusted_proxies
    yield from _host_bits(_PROXIES, proxies, view)
    everybody = _families_taken_whole([parse_network(cidr) for cidr in proxies])
    if everybody:
        yield Finding(
            _PROXIES,
            f"trusted_proxies: every {' and '.join(everybody)} address is believed, so whoever"
            " connects may write a sender's address of his choice; name the proxies alone",
            "warning",
        )
    for name, source in config.sources.items():
        path: DocumentPath = ("sources", name, "allow_from")
        yield from _host_bits(path, source.allow_from, view)
        if not everybody:
            yield from _inside_proxies(path, source.allow_from, proxies)
        yield from _behind_loopback(path, source.allow_from, config)


def _host_bits(path: DocumentPath, cidrs: tuple[str, ...], view: View) -> Iterator[Finding]:
    """`10.0.0.1/8` is one address to one reader and sixteen million to another: say which."""
    for at, cidr in enumerate(cidrs):
        if _is_exact(cidr):
            continue
        here: DocumentPath = (*path, at)
        advice = "write the network's first address, or the one address without a prefix"
        if not view.positions.is_interpolated(here):
            network, one = ip_network(cidr, strict=False), cidr.partition("/")[0]
            advice = f"write {network} for the network, or {one} for the one address"
        shown = view.show(here, cidr)
        yield Finding(
            here, f"{path[-1]}[{at}]: {shown} is an address with the prefix of a network; {advice}"
        )


def _is_exact(cidr: str) -> bool:
    if cidr.startswith(NAME):
        return True
    try:
        ip_network(cidr)
    except ValueError:
        return False
    return True


def _families_taken_whole(networks: list[Network]) -> list[str]:
    """Name the families of which every address is in the networks, also by halves."""
    whole: list[str] = []
    if any(one.prefixlen == 0 for one in collapse_addresses(_of_family(IPv4Network, networks))):
        whole.append("IPv4")
    if any(one.prefixlen == 0 for one in collapse_addresses(_of_family(IPv6Network, networks))):
        whole.append("IPv6")
    return whole


def _of_family(family: type[_Family], networks: list[Network]) -> list[_Family]:
    return [one for one in networks if isinstance(one, family)]


def _inside_proxies(
    path: DocumentPath, allowed: tuple[str, ...], proxies: tuple[str, ...]
) -> Iterator[Finding]:
    trusted = [parse_network(cidr) for cidr in proxies]
    for at, entry in enumerate(allowed):
        networks = [parse_network(cidr) for cidr in expand((entry,))]
        if all(any(_is_inside(one, other) for other in trusted) for one in networks):
            yield Finding(
                (*path, at),
                f"allow_from[{at}]: these are trusted proxies, which are never the sender, so it"
                " lets nobody in; take it out here or in server.trusted_proxies",
                "warning",
                uses=(_PROXIES,),
            )


def _is_inside(one: Network, other: Network) -> bool:
    if isinstance(one, IPv4Network):
        return isinstance(other, IPv4Network) and one.subnet_of(other)
    return not isinstance(other, IPv4Network) and one.subnet_of(other)


def _behind_loopback(
    path: DocumentPath, allowed: tuple[str, ...], config: GatewayConfig
) -> Iterator[Finding]:
    """On loopback every sender is a proxy of this machine, unless the proxy is told of."""
    server = config.server
    listens_on = parse_address("127.0.0.1" if server.host.lower() == "localhost" else server.host)
    if not allowed or server.trusted_proxies or listens_on is None or not listens_on.is_loopback:
        return
    networks = [parse_network(cidr) for cidr in expand(allowed)]
    if not any(network.network_address.is_loopback for network in networks):
        yield Finding(
            path,
            "allow_from: the server listens on this machine only, where every sender has a"
            " loopback address, so all are refused; add the proxy in front to"
            " server.trusted_proxies",
            "warning",
            uses=(("server", "host"), _PROXIES),
        )
