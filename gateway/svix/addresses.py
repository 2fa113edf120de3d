"""The addresses that Svix sends from, as it publishes them; the list is `addresses.json`.

It is a copy with a date and is used only where the config names it. The signature is what proves
a request; an address that is not in the list, because Svix added it, is refused all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files

import msgspec

__all__ = ["NAME", "PublishedAddresses", "expand", "names", "published"]

NAME = "svix"
"""What stands for the whole list among CIDRs; `svix:eu` is one region of it."""


class PublishedAddresses(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The list, where it is from, and how old the copy is."""

    source: str
    """The page that it was read from."""
    read: str
    """The day it was read on, `2026-11-25`; the page may have been older."""
    regions: Mapping[str, tuple[str, ...]]
    """CIDRs and single addresses by Svix's name of the region."""


@cache
def published() -> PublishedAddresses:
    """Give the list of this version of the gateway."""
    content = (files("gateway.svix") / "addresses.json").read_bytes()
    return msgspec.json.decode(content, type=PublishedAddresses)


def names() -> tuple[str, ...]:
    """Give what may stand among CIDRs: `svix`, and `svix:` with each region."""
    return (NAME, *(f"{NAME}:{region}" for region in published().regions))


def expand(entries: Iterable[str]) -> tuple[str, ...]:
    """Replace `svix` and `svix:<region>` by the CIDRs they stand for; the others stay.

    Raises `KeyError` for a region that is not there, which the config has ruled out.
    """
    regions = published().regions
    found: list[str] = []
    for entry in entries:
        name, colon, region = entry.partition(":")
        if name != NAME:
            found.append(entry)
        elif colon:
            found += regions[region]
        else:
            found += (cidr for cidrs in regions.values() for cidr in cidrs)
    return tuple(found)
