"""The list of Svix's addresses: what it holds, and what its names stand for."""

from __future__ import annotations

from datetime import date
from ipaddress import ip_address, ip_network

import pytest

from gateway.address import Networks
from gateway.svix.addresses import expand, names, published


def test_the_list_says_where_it_is_from_and_of_which_day() -> None:
    listed = published()
    assert listed.source == "https://docs.svix.com/receiving/source-ips"
    assert date.fromisoformat(listed.read) >= date(2026, 11, 25)


def test_every_entry_is_public_exact_and_there_once() -> None:
    entries = [entry for region in published().regions.values() for entry in region]
    assert len(entries) == 23
    assert len(set(entries)) == len(entries)
    for entry in entries:
        network = ip_network(entry)
        assert network.is_global
        assert network.num_addresses in {1, 2 ** (128 - 56)}


def test_names() -> None:
    regions = ("us", "us-east", "eu", "au", "ca", "in")
    assert names() == ("svix", *(f"svix:{region}" for region in regions))


def test_a_region_is_part_of_the_whole_and_cidrs_stay() -> None:
    assert expand(["svix:us-east"]) == ("54.164.207.221", "54.90.7.123", "2600:1f28:37:4000::/56")
    assert expand(["192.0.2.0/24", "svix:in", "::1"]) == (
        "192.0.2.0/24",
        *published().regions["in"],
        "::1",
    )
    assert set(expand(["svix"])) == {cidr for name in names()[1:] for cidr in expand([name])}
    assert expand([]) == ()


@pytest.mark.parametrize("name", ["svix:", "svix:mars"])
def test_a_region_that_is_not_there(name: str) -> None:
    with pytest.raises(KeyError):
        expand([name])


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("svix", "52.215.16.239", "52.215.16.240"),
        ("svix:eu", "2a05:d028:17:80ff::1", "2a05:d028:17:8100::1"),
        ("svix:us", "44.228.126.217", "52.215.16.239"),
    ],
)
def test_who_is_in_it(name: str, inside: str, outside: str) -> None:
    networks = Networks(expand([name]))
    assert ip_address(inside) in networks
    assert ip_address(outside) not in networks
