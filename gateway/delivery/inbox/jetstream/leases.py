"""Who dispatches which partition: what is known of sessions and leases, and what follows. Pure.

Every replica has a *session* with a sign of life that it renews, and a lease names the session
that holds a partition. A session ends when it says so, or when another replica has seen no sign
for half of its term, has written that it doubts it, and sees no answer for the other half. Every
write names the number of the one that it follows, so the server takes a renewal or the end, never
both: who ended a session may take its leases, and who was ended learns it from the answer to its
next renewal at the latest.

A doubt is what makes reading enough where no sign can be written, for the storage is full. Nobody
ends a session less than half a term after a doubt was stored. So a holder that reads, from a
leader that had a quorum after the reading began, that its last message is neither a doubt nor the
end, holds for less than half a term from when it began to read.

No clock is compared with another one: an observer counts from when it saw the sign, which is
later than when it was sent; the holder counts from when it sent it.
"""

from __future__ import annotations

import msgspec

__all__ = ["Book", "Lease", "Sign", "Steps", "quota"]


_DOUBTED_AFTER = 0.5
"""Parts of a term without a sign until a session is doubted, and from then until it is ended."""


class Sign(msgspec.Struct, frozen=True):
    """The body of a session's message."""

    term: float
    """Seconds that the session lives without another sign."""
    ended: bool = False
    doubted: bool = False
    """Another replica wrote this: it asks for a sign."""


class Lease(msgspec.Struct, frozen=True):
    """A partition's lease as it was last seen."""

    seq: int
    session: str
    """Empty: given back."""


class _Session(msgspec.Struct, frozen=True):
    seq: int
    sign: Sign
    seen_at: float


class Steps(msgspec.Struct, frozen=True):
    """What a replica has to do now, each with the number of the message that it follows from.

    A write follows that very message. What has come since is another state of affairs: a lease
    that was free may be taken by now, and a session that was silent have given a sign.
    """

    doubt: dict[str, int] = {}
    """Sessions that are asked for a sign of life."""
    end: dict[str, int] = {}
    """Sessions that gave none."""
    take: dict[int, int] = {}
    """Partitions that nobody holds, as many as it lacks."""
    give: tuple[int, ...] = ()
    """Partitions that it holds and another one lacks."""
    forget: dict[str, int] = {}
    """Ended sessions that no lease names any more."""


class Book:
    """All sessions and leases, as far as they have been seen."""

    def __init__(self, partitions: int, term: float) -> None:
        self._partitions = partitions
        self._term = term
        self._sessions: dict[str, _Session] = {}
        self._leases: dict[int, Lease] = {}

    def saw_session(self, session: str, seq: int, sign: Sign, now: float) -> None:
        """Note a session's message; an older one than the last is passed over."""
        known = self._sessions.get(session)
        if known is None or seq > known.seq:
            self._sessions[session] = _Session(seq, sign, now)

    def saw_lease(self, partition: int, seq: int, session: str, now: float) -> None:
        """Note a lease's message, and a session that was not known, which gets a whole term."""
        known = self._leases.get(partition)
        if partition >= self._partitions or (known is not None and seq <= known.seq):
            return
        self._leases[partition] = Lease(seq, session)
        if session and session not in self._sessions:
            self._sessions[session] = _Session(0, Sign(self._term), now)

    def excuse(self, now: float) -> None:
        """Count every silence from now: nobody could write a sign."""
        self._sessions = {
            name: msgspec.structs.replace(one, seen_at=now) for name, one in self._sessions.items()
        }

    def gone(self, session: str) -> None:
        """Note that a session's message is there no more: it had ended."""
        self._sessions.pop(session, None)

    def session_seq(self, session: str) -> int:
        """The number of a session's last message; 0 if it has none."""
        known = self._sessions.get(session)
        return known.seq if known is not None else 0

    def term(self, session: str) -> float:
        """The seconds that a session lives without a sign, by its own word."""
        known = self._sessions.get(session)
        return known.sign.term if known is not None else self._term

    def lease(self, partition: int) -> Lease:
        """The lease of a partition; one that never was has number 0."""
        return self._leases.get(partition, Lease(0, ""))

    def alive(self) -> list[str]:
        """The sessions that have not ended."""
        return sorted(name for name, one in self._sessions.items() if not one.sign.ended)

    def held_by(self, session: str) -> set[int]:
        """The partitions whose leases name a session."""
        return {at for at, lease in self._leases.items() if lease.session == session}

    def steps(self, me: str, now: float) -> Steps:
        """What the replica with session `me` does now, so that each has its share."""
        alive = set(self.alive())
        silent = {
            name: one
            for name, one in self._sessions.items()
            if name != me and name in alive and now - one.seen_at > one.sign.term * _DOUBTED_AFTER
        }
        mine = self.held_by(me)
        share = quota(sorted(alive | {me}), me, self._partitions)
        free = [at for at in range(self._partitions) if self.lease(at).session not in alive]
        # Each begins elsewhere, so that two seldom reach for the same one.
        start = sorted(alive | {me}).index(me) * self._partitions // len(alive | {me})
        free = [at for at in free if at >= start] + [at for at in free if at < start]
        named = {lease.session for lease in self._leases.values()}
        return Steps(
            doubt={name: one.seq for name, one in silent.items() if not one.sign.doubted},
            end={name: one.seq for name, one in silent.items() if one.sign.doubted},
            take={at: self.lease(at).seq for at in free[: max(0, share - len(mine))]},
            give=tuple(sorted(mine)[share:]),
            forget={name: self.session_seq(name) for name in set(self._sessions) - alive - named},
        )


def quota(sessions: list[str], me: str, partitions: int) -> int:
    """How many partitions a session holds when all have their share; they add up to all."""
    each, rest = divmod(partitions, len(sessions))
    return each + (sessions.index(me) < rest)
