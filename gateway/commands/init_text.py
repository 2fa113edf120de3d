"""What `gateway init` writes: a commented config and its tests, as text. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from gateway.clerk.catalogue import entity_key
from gateway.clerk.samples import sample

__all__ = ["GROUPS", "SECRET_VARIABLE", "Answers", "config_text", "example", "suite_text"]

SECRET_VARIABLE: Final = "CLERK_WEBHOOK_SIGNING_SECRET"  # noqa: S105 - the name of a variable

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "users": ("user",),
    "organizations": (
        *("organization", "organizationDomain"),
        *("organizationInvitation", "organizationMembership"),
    ),
    "sessions": ("session",),
    "billing": ("subscription", "subscriptionItem", "paymentAttempt"),
    "messages": ("email", "sms"),
    "roles": ("role", "permission"),
    "signups": ("waitlistEntry", "invitation"),
}
"""The entities of Clerk's catalogue that go one way, by what their topic is called."""

_WHAT: Final = {
    "users": "Users: sign-up, profile, deletion.",
    "organizations": "Organizations with their members, invitations and domains, in order.",
    "sessions": "Sessions: sign-in, sign-out, revocation. Often the most events of all.",
    "billing": "Subscriptions and payments, in order for each payer.",
    "messages": "Emails and text messages. They hold one-time codes: limit who may read this.",
    "roles": "Roles and permissions.",
    "signups": "The waitlist, and invitations to sign up.",
}
_EXAMPLES: Final = {
    "users": "user.created",
    "organizations": "organizationMembership.created",
    "sessions": "session.created",
    "billing": "subscription.created",
    "messages": "email.created",
    "roles": "role.created",
    "signups": "waitlistEntry.created",
}


class Answers(msgspec.Struct, frozen=True):
    """What the user has chosen."""

    brokers: Literal["kafka", "nats", "both"] = "both"
    kafka_servers: tuple[str, ...] = ("localhost:9092",)
    nats_servers: tuple[str, ...] = ("nats://localhost:4222",)
    events: tuple[str, ...] = ()
    """Names of `GROUPS`; empty stands for every event there is."""
    layout: Literal["entity", "single"] = "entity"
    create_topics: bool = False
    create_stream: bool = True
    mode: Literal["direct", "inbox"] = "direct"
    dead_letter: bool = True

    @property
    def kafka(self) -> bool:
        """Whether there is a Kafka."""
        return self.brokers != "nats"

    @property
    def nats(self) -> bool:
        """Whether there is a NATS."""
        return self.brokers != "kafka"

    @property
    def routes(self) -> tuple[str, ...]:
        """The names of the routes, which are those of the groups, or one for everything."""
        if self.layout == "single":
            return ("events",)
        return self.events or tuple(GROUPS)


def config_text(answers: Answers, schema: str | None) -> str:
    """Write the config; `schema` is the file that an editor completes by, or None."""
    return "\n".join([*_head(schema), *_sources(), *_brokers(answers), *_routes(answers)]) + (
        "\n" + "\n".join(_delivery(answers)) + "\n"
    )


def suite_text(answers: Answers, schema: str | None) -> str:
    """Write tests of that config which reach all of it."""
    lines = [*_modeline(schema), "# Tests of the routes; `gateway test` runs them.", "tests:"]
    chosen = answers.events or tuple(GROUPS)
    for route in answers.routes:
        for group in chosen if answers.layout == "single" else (route,):
            lines += _test(answers, route, _EXAMPLES[group])
    left_out = [group for group in GROUPS if group not in chosen]
    if left_out:
        event = _EXAMPLES[left_out[0]]
        lines += [f"  - name: {event} goes nowhere", f"    event: {event}", "    expect: none"]
    return "\n".join(lines) + "\n"


def example(answers: Answers) -> str:
    """Give a type of event that the config has a route for."""
    return _EXAMPLES[(answers.events or tuple(GROUPS))[0]]


def _modeline(schema: str | None) -> list[str]:
    return [] if schema is None else [f"# yaml-language-server: $schema={schema}"]


def _head(schema: str | None) -> list[str]:
    return [
        *_modeline(schema),
        "# The config of clerk-event-gateway. What is not here has its default.",
        "",
    ]


def _sources() -> list[str]:
    return [
        "# Who sends webhooks. Consumers see the name in ce_source, so choose it to last.",
        "sources:",
        "  clerk:",
        "    path: /webhooks/clerk           # the path of the endpoint's URL in Clerk's dashboard",
        "    # From the endpoint's page in the dashboard. Two of them while a secret is rotated.",
        f'    secrets: ["${{{SECRET_VARIABLE}:?set it to the endpoint\'s signing secret}}"]',
        "",
    ]


def _brokers(answers: Answers) -> Iterator[str]:
    yield "# Where events can go. The names are yours."
    yield "brokers:"
    if answers.kafka:
        yield "  events:"
        yield "    kind: kafka"
        yield f"    servers: {_list(answers.kafka_servers)}"
        yield "    # tls: {ca_file: /etc/gateway/ca.pem}"
        yield "    # sasl:"
        yield "    #   mechanism: SCRAM-SHA-512"
        yield "    #   username: gateway"
        yield '    #   password: "${KAFKA_PASSWORD}"'
        yield from _topics(answers)
    if answers.nats:
        yield "  bus:"
        yield "    kind: nats"
        yield f"    servers: {_list(answers.nats_servers)}"
        yield "    # credentials_file: /run/secrets/gateway.creds"
        if answers.create_stream:
            yield "    streams:                        # created at start when missing"
            yield '      - {name: CLERK, subjects: ["clerk.>"]}     # replicas: 3 in a cluster'
        else:
            yield "    # A stream that takes clerk.> must be there; `check --connect` looks for it."
    yield ""


def _topics(answers: Answers) -> Iterator[str]:
    if not answers.create_topics:
        yield "    # The topics must be there; `check --connect` looks for them."
        return
    alone = len(answers.kafka_servers) == 1
    factor = 1 if alone else 3
    why = "one broker; 3 in production" if alone else "survives the loss of a machine"
    yield f"    topics: {{create: true, replication_factor: {factor}}}     # {why}"


def _routes(answers: Answers) -> Iterator[str]:
    yield "# Which events go where. Every route that matches delivers. The key of a record is the"
    yield "# user, organization or payer that it belongs to, so the events of each stay in order."
    yield "routes:"
    for route in answers.routes:
        if route in _WHAT:
            yield f"  # {_WHAT[route]}"
        yield f"  - name: {route}"
        yield f"    events: {_list(_patterns(answers, route))}"
        yield "    targets:"
        if answers.kafka:
            yield f"      - {{broker: events, topic: clerk.{route}}}"
        if answers.nats:
            yield f'      - {{broker: bus, subject: "{_subject(answers)}"}}'
    yield ""


def _subject(answers: Answers) -> str:
    return "clerk.events" if answers.layout == "single" else "clerk.{type}"


def _patterns(answers: Answers, route: str) -> tuple[str, ...]:
    if answers.layout == "single" and not answers.events:
        return ("*",)
    groups = answers.events if answers.layout == "single" else (route,)
    return tuple(f"{entity}.*" for group in groups for entity in GROUPS[group])


def _delivery(answers: Answers) -> Iterator[str]:
    yield "# A genuine event that no route takes: accept (200) | dead_letter (200) | reject (422)."
    yield "unmatched: accept"
    yield ""
    yield "delivery:"
    if answers.mode == "inbox":
        yield "  mode: inbox                       # answered once it is on disk, then delivered"
        yield "  inbox: {path: ./gateway-inbox.db, max_bytes: 1GiB}     # on a local disk"
    else:
        yield "  mode: direct                      # answered once every target has the event"
    if answers.dead_letter:
        yield "  # Where records go that their target refuses for good."
        yield f"  dead_letter: {_letter(answers)}"
    else:
        yield "  # Without a dead letter, what is refused for good is 503, and retried in vain."


def _letter(answers: Answers) -> str:
    if answers.kafka:
        return "{broker: events, topic: clerk.dead-letter}"
    return "{broker: bus, subject: clerk.dead-letter}"


def _test(answers: Answers, route: str, event: str) -> Iterator[str]:
    body: dict[str, Any] = json.loads(sample(event, 0))
    key = entity_key(event, body["data"])
    yield f"  - name: {event} goes to {route}, by the key of what it belongs to"
    yield f"    event: {event}"
    yield "    expect:"
    if answers.kafka:
        yield f"      - {{broker: events, topic: clerk.{route}, key: {key}}}"
    if answers.nats:
        subject = _subject(answers).replace("{type}", event)
        yield f"      - {{broker: bus, subject: {subject}}}"


def _list(values: Sequence[str]) -> str:
    return json.dumps(list(values), ensure_ascii=False)
