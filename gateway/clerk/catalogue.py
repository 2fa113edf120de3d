"""Clerk's event types, and the entity that an event belongs to.

The types are those of Clerk's own OpenAPI description of its webhooks (version of 2025-04-15).
New types appear without notice, so the catalogue advises and never decides.

The entity gives the default Kafka key: the events of one user, or of one organization, stay in
order because they share it. `KEY_PATHS` is the whole rule; the entity is what stands before the
first dot of the type, so that a type of tomorrow (`user.somethingNew`) has the key of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from types import MappingProxyType
from typing import Final

__all__ = [
    "ALSO_SEEN",
    "CATALOGUE",
    "KEY_PATHS",
    "OTHER_KEY_PATHS",
    "EventType",
    "did_you_mean",
    "entity_key",
    "entity_key_path",
    "key_paths",
]


@dataclass(frozen=True, slots=True)
class EventType:
    """One type of event that Clerk sends."""

    name: str
    entity: str
    """What stands before the first dot: `user`, `organizationMembership`."""
    description: str


def _types(descriptions: dict[str, str]) -> Mapping[str, EventType]:
    return MappingProxyType(
        {
            name: EventType(name, name.partition(".")[0], description)
            for name, description in descriptions.items()
        }
    )


CATALOGUE: Final = _types(
    {
        "email.created": "Clerk wrote an email, or hands it to you to send",
        "organization.created": "An organization came into being",
        "organization.updated": "An organization's name, picture, limits or metadata changed",
        "organization.deleted": "An organization is gone",
        "organizationDomain.created": "An organization claimed an email domain",
        "organizationDomain.updated": "An organization's domain was verified or enrolls otherwise",
        "organizationDomain.deleted": "An organization gave up an email domain",
        "organizationInvitation.created": "Somebody was invited into an organization",
        "organizationInvitation.accepted": "An invited person joined the organization",
        "organizationInvitation.revoked": "An invitation into an organization was taken back",
        "organizationMembership.created": "A user became a member of an organization",
        "organizationMembership.updated": "A member's role or metadata changed",
        "organizationMembership.deleted": "A user is no longer a member of an organization",
        "paymentAttempt.created": "A charge was started",
        "paymentAttempt.updated": "A charge was paid or failed",
        "permission.created": "A permission was defined",
        "permission.updated": "A permission's name or description changed",
        "permission.deleted": "A permission is gone",
        "role.created": "A role was defined",
        "role.updated": "A role's name or permissions changed",
        "role.deleted": "A role is gone",
        "session.created": "A user signed in",
        "session.pending": "A user signed in and has a task to do before the session is active",
        "session.ended": "A user signed out",
        "session.removed": "A session was removed from its client",
        "session.revoked": "A session was ended from outside: by an administrator or the backend",
        "sms.created": "Clerk wrote a text message, or hands it to you to send",
        "subscription.created": "A payer got a subscription",
        "subscription.updated": "A subscription or one of its items changed",
        "subscription.active": "A subscription became active",
        "subscription.pastDue": "A subscription has an item that is not paid in time",
        "subscriptionItem.abandoned": "A planned item was replaced before it began",
        "subscriptionItem.active": "An item is in force",
        "subscriptionItem.canceled": "An item was canceled and runs to the end of its period",
        "subscriptionItem.ended": "An item is over",
        "subscriptionItem.freeTrialEnding": "An item's free trial is about to end",
        "subscriptionItem.incomplete": "An item waits for its first payment",
        "subscriptionItem.pastDue": "An item's payment is overdue",
        "subscriptionItem.upcoming": "An item is planned to begin later",
        "subscriptionItem.updated": "An item changed in some way",
        "user.created": "A user signed up, or was made by the backend",
        "user.updated": "A user's profile, identifiers, security or metadata changed",
        "user.deleted": "A user is gone",
        "waitlistEntry.created": "Somebody joined the waitlist",
        "waitlistEntry.updated": "A waitlist entry was invited, rejected or completed",
    }
)
"""Every type with a published schema, in the order of Clerk's file."""

ALSO_SEEN: Final = _types(
    {
        "subscriptionItem.created": "An item was added to a subscription",
        "invitation.created": "Somebody was invited to sign up",
        "invitation.accepted": "An invited person signed up",
        "invitation.revoked": "An invitation to sign up was taken back",
    }
)
"""Types that arrive although no schema of them is published."""

_PAYER: Final = ("data.payer.organization_id", "data.payer.user_id", "data.id")

KEY_PATHS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "email": ("data.user_id", "data.id"),
        "organization": ("data.id",),
        "organizationDomain": ("data.organization_id", "data.id"),
        "organizationInvitation": ("data.organization_id", "data.id"),
        # A membership without its organization still has events of its own to keep in order.
        "organizationMembership": ("data.organization.id", "data.id"),
        "paymentAttempt": _PAYER,
        "permission": ("data.id",),
        "role": ("data.id",),
        "session": ("data.user_id", "data.id"),
        "sms": ("data.user_id", "data.id"),
        "subscription": _PAYER,
        "subscriptionItem": _PAYER,
        "user": ("data.id",),
        "waitlistEntry": ("data.id",),
    }
)
"""Where each entity's key is, in order of preference: the first that is there and not empty.

Clerk leaves a field that does not apply out, or sends it as null or as "". A deleted domain, for
one, has nothing but its own id.
"""

OTHER_KEY_PATHS: Final = ("data.id",)
"""The key of an entity that is not in `KEY_PATHS`."""

_Steps = tuple[tuple[str | None, str, str], ...]


def _compile(paths: tuple[str, ...]) -> _Steps:
    """`data.payer.user_id` becomes (`payer`, `user_id`): no path is deeper than that."""
    steps = []
    for path in paths:
        _data, *holder, field = path.split(".")
        steps.append((holder[0] if holder else None, field, path))
    return tuple(steps)


_STEPS: Final = {entity: _compile(paths) for entity, paths in KEY_PATHS.items()}
_OTHER_STEPS: Final = _compile(OTHER_KEY_PATHS)


def key_paths(event_type: str) -> tuple[str, ...]:
    """Where the key of this type is looked for, in order, as dotted paths into the event."""
    return KEY_PATHS.get(event_type.partition(".")[0], OTHER_KEY_PATHS)


def entity_key(event_type: str, data: object) -> str | None:
    """Return the default Kafka key: the id of the entity that the event belongs to.

    `data` is the event's `data`, of any type. None when no path leads to a non-empty string or
    a number that is not zero.
    """
    found = _find(event_type, data)
    return found[0] if found else None


def entity_key_path(event_type: str, data: object) -> str | None:
    """Return the path that gave `entity_key`, such as `data.organization.id`, or None."""
    found = _find(event_type, data)
    return found[1] if found else None


def _find(event_type: str, data: object) -> tuple[str, str] | None:
    if type(data) is not dict:
        return None
    for holder, field, path in _STEPS.get(event_type.partition(".")[0], _OTHER_STEPS):
        fields = data if holder is None else data.get(holder)
        if type(fields) is not dict:
            continue
        value = fields.get(field)
        if type(value) is str and value:
            return value, path
        # Exactly int: true is an int to Python and is no id.
        if type(value) is int and value:
            return str(value), path
    return None


_MAX_NAME = 100
"""Characters. The comparison is quadratic, and no type is half as long."""
_CLOSE = 0.8
"""Similarity of 0 to 1: one slip of the pen in a type passes, another word does not."""


def _by_lower_case() -> dict[str, str]:
    names = [*CATALOGUE, *ALSO_SEEN]
    globs = [f"{name.partition('.')[0]}.*" for name in names]
    return {name.lower(): name for name in (*names, *globs)}


_KNOWN: Final = _by_lower_case()


@lru_cache(maxsize=1024)
def did_you_mean(name: str) -> str | None:
    """Return the known type, or `prefix.*`, that is close to `name` and not the same.

    None when `name` is known, when nothing is close, and for a name of over 100 characters.
    """
    lower = name.lower()
    if len(name) > _MAX_NAME or _KNOWN.get(lower) == name:
        return None
    is_glob = name.endswith(".*")
    candidates = [known for known in _KNOWN if known.endswith(".*") is is_glob]
    close = get_close_matches(lower, candidates, n=1, cutoff=_CLOSE)
    return _KNOWN[close[0]] if close else None
