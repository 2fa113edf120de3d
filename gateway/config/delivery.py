"""The config of delivery: its mode, its ledger of events, and the dead letter."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ConfigDict, Field, JsonValue

from gateway.config.base import Model
from gateway.config.fields import FilePath, Name, NonEmpty, StreamName
from gateway.config.units import Duration, PositiveDuration, Size

__all__ = [
    "A_DESTINATION",
    "DeadLetterConfig",
    "DedupeConfig",
    "DeliveryConfig",
    "InboxConfig",
    "LedgerConfig",
]

A_DESTINATION: Final[dict[str, JsonValue]] = {
    "anyOf": [{"required": ["topic"]}, {"required": ["subject"]}]
}
"""What editors are told; which of the two it is depends on the broker's kind."""


class DedupeConfig(Model):
    """What is a copy, and what is sent again on purpose."""

    window: Duration = Field(
        default=120.0,
        description=(
            "How long after its answer a copy of an event is answered `duplicate`, and nothing is"
            " published; in inbox mode after its last target was settled. Later it counts as"
            " resent on purpose. `0s` turns it off."
        ),
        examples=["2m"],
    )


class LedgerConfig(Model):
    """The memory of events: which targets are settled, and which are owed."""

    store: Literal["memory", "nats-kv"] = Field(
        default="memory",
        description=(
            "`memory` is shared by the workers of `--workers`, and by nothing else; a restart"
            " empties it. `nats-kv` is a key-value bucket of JetStream, which replicas share and"
            " which outlasts a restart. Where it cannot be reached, events are delivered all the"
            " same. Changed, it counts after a restart."
        ),
        examples=["nats-kv"],
    )
    broker: Name | None = Field(
        default=None,
        description="The NATS broker of the `nats-kv` store; it has `jetstream: true`.",
        examples=["bus"],
    )
    bucket: StreamName = Field(
        default="GATEWAY_LEDGER",
        description=(
            "The key-value bucket of the `nats-kv` store. It is created when it is missing; one"
            " that is there is used as it is."
        ),
        examples=["GATEWAY_LEDGER"],
    )
    incomplete_for: PositiveDuration = Field(
        default=108_000.0,
        description=(
            "How long after its last attempt an event is remembered that was not answered 2xx, so"
            " that a retry publishes only to the targets still owed. Svix's last two attempts are"
            " 10h apart."
        ),
        examples=["30h"],
    )
    max_bytes: Size = Field(
        default=64 * 1024 * 1024,
        description=(
            "How large the ledger may grow: that of the workers together, what one of them knows"
            " alone, and a bucket when it is created. When it is full, complete events go first,"
            " the oldest before the others; a bucket takes no more. No event is refused for its"
            " sake."
        ),
        examples=["64MiB"],
    )


class DeadLetterConfig(Model):
    """Where what is refused for good goes, with its original body."""

    model_config = ConfigDict(json_schema_extra=A_DESTINATION)

    broker: Name = Field(description="The name of a broker under `brokers`.", examples=["events"])
    topic: NonEmpty | None = Field(
        default=None,
        description="The Kafka topic, a literal name.",
        examples=["clerk.dead-letter"],
    )
    subject: NonEmpty | None = Field(
        default=None,
        description="The NATS subject, a literal name.",
        examples=["clerk.dead-letter"],
    )
    unredacted: bool = Field(
        default=False,
        description=(
            "Say that dead letters may hold what a target redacts: they have the whole body."
            " Without it `check` warns."
        ),
        examples=[True],
    )


class InboxConfig(Model):
    """The store of inbox mode: events that are answered and not yet delivered everywhere."""

    store: Literal["sqlite", "jetstream"] = Field(
        default="sqlite",
        description=(
            "`sqlite` is a file, for one gateway on one machine. `jetstream` is a replicated stream"
            " of a NATS cluster, which several gateways share. Needs a restart."
        ),
        examples=["jetstream"],
    )
    path: FilePath = Field(
        default="./gateway-inbox.db",
        description=(
            "The file of the `sqlite` store, on a local disk in a directory that exists. Without /"
            " at its beginning it is below the directory that a command is started in. Beside it"
            " come files that end in `-wal`, `-shm`, `.lock` and `.sock`. Needs a restart."
        ),
        examples=["/var/lib/gateway/inbox.db"],
    )
    broker: Name | None = Field(
        default=None,
        description="The NATS broker of the `jetstream` store. Needs a restart.",
        examples=["bus"],
    )
    stream: StreamName = Field(
        default="GATEWAY_INBOX",
        description=(
            "The stream of the `jetstream` store. Subjects that begin with its name and a dot are"
            " its own, and no target may have one. Needs a restart."
        ),
        examples=["GATEWAY_INBOX"],
    )
    max_bytes: Size = Field(
        default=1024**3,
        description=(
            "How much may wait. A full inbox answers 503, and the sender retries. Each event also"
            " takes about 1 kB of memory while it waits."
        ),
        examples=["1GiB"],
    )
    parked_max_bytes: Size = Field(
        default=256 * 1024 * 1024,
        description=(
            "How much may be parked for an operator: what was refused for good, or is older than"
            " `max_age`, and has no dead letter that takes it. When that is full too, it stays"
            " among what waits."
        ),
        examples=["256MiB"],
    )
    max_age: PositiveDuration = Field(
        default=604_800.0,
        description=(
            "How long a target is tried before its event goes to the dead letter, or is parked"
            " where there is none: also while its broker is down, or no longer in the config."
        ),
        examples=["7d"],
    )


class DeliveryConfig(Model):
    """How an event's targets are served."""

    mode: Literal["direct", "inbox"] = Field(
        default="direct",
        description=(
            "`direct` answers when every target has the event, and the sender's retries are the"
            " buffer. `inbox` answers when the event is stored, and delivers it in the background,"
            " in order for each key. Needs a restart."
        ),
        examples=["direct"],
    )
    dedupe: DedupeConfig = Field(
        default=DedupeConfig(),
        description="How long a copy of an event that was answered 2xx is a duplicate.",
        examples=[{"window": "2m"}],
    )
    ledger: LedgerConfig = Field(
        default=LedgerConfig(),
        description="The memory of events, so that a retry repeats only what is owed.",
        examples=[{"store": "memory"}],
    )
    dead_letter: DeadLetterConfig | None = Field(
        default=None,
        description=(
            "Where a record goes that its target refuses for good. Without it such an event is"
            " answered 503, and the sender retries in vain."
        ),
        examples=[{"broker": "events", "topic": "clerk.dead-letter"}],
    )
    inbox: InboxConfig = Field(
        default=InboxConfig(),
        description="The store of inbox mode.",
        examples=[{"store": "sqlite"}],
    )

    @property
    def keeps_book(self) -> bool:
        """Whether the supervisor keeps the ledger of its workers."""
        return self.mode == "direct" and self.ledger.store == "memory"

    @property
    def has_owner(self) -> bool:
        """Whether one process of a tree owns the inbox, and the others work through it."""
        return self.mode == "inbox" and self.inbox.store == "sqlite"
