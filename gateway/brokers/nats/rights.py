"""What a login may publish to, as the server tells it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.brokers.base import Need
from gateway.brokers.nats.errors import ConnectionLost, Denied
from gateway.brokers.nats.jetstream import Requests
from gateway.brokers.nats.subjects import covers, overlaps, takes


class Rules(msgspec.Struct, frozen=True):
    """Patterns that a login may and may not publish to; no `allow` allows all."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None

    def permit(self, subject: str) -> bool:
        """Whether `subject` may be published to; of a form, some of what it stands for."""
        if any(covers(pattern, subject) for pattern in self.deny or ()):
            return False
        return self.allow is None or any(overlaps(pattern, subject) for pattern in self.allow)


class _Permissions(msgspec.Struct, frozen=True):
    publish: Rules = Rules()


class _User(msgspec.Struct, frozen=True):
    permissions: _Permissions | None = None


class _UserInfo(msgspec.Struct, frozen=True):
    """The answer to `$SYS.REQ.USER.INFO`."""

    data: _User = _User()


async def rules_of(requests: Requests, timeout: float) -> Rules | None:
    """Ask what this login may publish to; None where the server does not say, as old ones do.

    Raises `Denied` where the login may not even ask.
    """
    try:
        answer = await requests.ask("$SYS.REQ.USER.INFO", None, timeout)
        info = msgspec.json.decode(answer or b"{}", type=_UserInfo)
    except Denied:
        raise
    except (ConnectionLost, msgspec.MsgspecError):
        return None
    return info.data.permissions.publish if info.data.permissions is not None else Rules()


def refused(rules: Rules, need: Need) -> Sequence[str]:
    """Give the subjects of a need that the login may not publish to; as far as they are known."""
    if need.expected:
        return [subject for subject in need.expected if not rules.permit(subject)]
    if not need.templated:
        return [] if rules.permit(need.destination) else [need.destination]
    # A denied pattern may be about other subjects than those that come.
    allowed = rules.allow is None or any(takes(pattern, need) for pattern in rules.allow)
    return [] if allowed else [f"{need.destination}*"]
