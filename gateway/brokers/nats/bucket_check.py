"""What `gateway check --connect` says of the key-value bucket of the ledger."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

from gateway.brokers.base import BrokerOptionsError, Finding
from gateway.brokers.nats.errors import CONNECT_ERRORS, Denied, connection_problem
from gateway.brokers.nats.jetstream import ApiRefused, StreamConfigView
from gateway.brokers.nats.options import client_options
from gateway.brokers.nats.rights import rules_of
from gateway.brokers.nats.session import Session

if TYPE_CHECKING:
    from gateway.config.models import NatsConfig

_WITHIN = 10.0
_ANSWER_WITHIN = 2.0
_GOOD_REPLICAS = 3
_PROBE = "0" * 32
"""A key as the ledger has them."""


async def check_bucket(
    broker: str, config: NatsConfig, bucket: str, max_age: float
) -> list[Finding]:
    """Look whether a key-value bucket can be written, or made, within ten seconds."""
    about = f"bucket {bucket}"
    try:
        options = client_options(broker, config)
    except BrokerOptionsError:
        return []  # told of the broker
    try:
        async with asyncio.timeout(_WITHIN):
            session = await Session.open(options)
            try:
                return await _bucket(session, bucket, max_age)
            finally:
                await session.close()
    except ApiRefused as refused:
        return [Finding("error", about, str(refused))]
    except Denied as denied:
        return [Finding("error", about, denied.problem)]
    except CONNECT_ERRORS as error:
        return [Finding("unreachable", about, connection_problem(options, error))]


async def _bucket(session: Session, bucket: str, max_age: float) -> list[Finding]:
    about, stream = f"bucket {bucket}", f"KV_{bucket}"
    subjects = [f"$KV.{bucket}.{_PROBE}", f"$JS.API.STREAM.MSG.GET.{stream}"]
    found = await session.requests.stream(stream, _ANSWER_WITHIN)
    if found is None:
        subjects.append(f"$JS.API.STREAM.CREATE.{stream}")
        message = "does not exist; it is created when the gateway starts"
        findings = [Finding("warning", about, message)]
    else:
        findings = [Finding("ok", about, "is there"), *_bucket_faults(found, about, max_age)]
    try:
        rules = await rules_of(session.requests, _ANSWER_WITHIN)
    except Denied:
        return findings  # told of the broker
    if rules is None:
        return findings
    for subject in subjects:
        if not rules.permit(subject):
            message = f"the login may not publish to {subject}; allow it on the server"
            findings.append(Finding("error", about, message))
    return findings


def _bucket_faults(stream: StreamConfigView, about: str, max_age: float) -> list[Finding]:
    faults: list[tuple[Literal["warning"], str]] = []
    if stream.max_msgs_per_subject != 1:
        faults.append(("warning", "keeps a history, which nobody reads; set history to 1"))
    if 0 < stream.max_age < max_age * 1e9:
        faults.append(("warning", "forgets before delivery.ledger.incomplete_for; raise max_age"))
    if stream.max_bytes < 0:
        faults.append(("warning", "has no bound; set max_bytes"))
    if not stream.allow_msg_ttl:
        message = "keeps complete events for max_age and is full sooner; set allow_msg_ttl"
        faults.append(("warning", f"{message} (nats-server 2.11)"))
    if stream.num_replicas < _GOOD_REPLICAS:
        faults.append(("warning", "fewer than 3 replicas: without its server nothing is shared"))
    return [Finding(severity, about, message) for severity, message in faults]
