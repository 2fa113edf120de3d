"""What `gateway check --connect` says of the streams of the inbox."""

from __future__ import annotations

import asyncio

from gateway.brokers.base import Finding
from gateway.brokers.nats.errors import CONNECT_ERRORS, connection_problem
from gateway.brokers.nats.jetstream import ApiRefused
from gateway.brokers.nats.options import ClientOptions
from gateway.brokers.nats.session import Session
from gateway.delivery.inbox.jetstream.layout import Layout, StreamSettings, differing
from gateway.delivery.inbox.jetstream.provision import NEEDED_VERSION, streams_of
from gateway.delivery.inbox.store import Bounds, InboxUnusableError

__all__ = ["check_streams"]

_WITHIN = 10.0
_ANSWER_WITHIN = 2.0
_GOOD_REPLICAS = 3


async def check_streams(
    options: ClientOptions, stream: str, bounds: Bounds, record_bytes: int
) -> list[Finding]:
    """Look at the streams, or at whether they can be created; nothing is changed.

    `record_bytes` is the largest record that may be stored.
    """
    about = f"inbox {stream}"
    try:
        async with asyncio.timeout(_WITHIN):
            session = await Session.open(options)
            try:
                return await _findings(session, about, Layout(stream), bounds, record_bytes)
            finally:
                await session.close()
    except InboxUnusableError as error:
        return [Finding("error", about, str(error))]
    except ApiRefused as refused:
        return [Finding("error", about, str(refused))]
    except CONNECT_ERRORS as error:
        return [Finding("unreachable", about, connection_problem(options, error))]


async def _findings(
    session: Session, about: str, layout: Layout, bounds: Bounds, record_bytes: int
) -> list[Finding]:
    version = session.connection.version
    if version and version < NEEDED_VERSION:
        needed = ".".join(map(str, NEEDED_VERSION))
        return [Finding("error", about, f"it needs nats-server {needed}; update the server")]
    if problem := await session.requests.jetstream_problem(_ANSWER_WITHIN):
        return [Finding("error", about, f"{problem}; enable it there, or write store: sqlite")]
    found = []
    if record_bytes > session.connection.max_payload:
        message = (
            f"max_payload of the server is {session.connection.max_payload}, and a stored event"
            f" may have {record_bytes} bytes; raise it there, or lower server.max_body"
        )
        found.append(Finding("error", about, message))
    layout, there = await streams_of(session.requests, layout, bounds)
    wanted = {settings["name"]: settings for settings in layout.settings(bounds, 1)}
    if not there:
        return [*found, await _creatable(session, about, layout)]
    for name, settings in there.items():
        found += _stream(settings)
        changes = differing(settings, wanted[name])
        if changes:
            told = " and ".join(changes)
            message = f"{told} will be the config's when the gateway starts"
            found.append(Finding("ok", f"stream {name}", message))
    if len(there) < len(wanted):
        missing = " and ".join(sorted(wanted.keys() - there))
        message = f"{missing} will be created when the gateway starts"
        found.append(Finding("ok", about, message))
    return found


async def _creatable(session: Session, about: str, layout: Layout) -> Finding:
    taken = set(await session.requests.streams_of(f"{layout.stream}.>", _ANSWER_WITHIN))
    if taken:
        message = (
            f"stream {' and '.join(sorted(taken))} takes its subjects {layout.stream}.>; set"
            " delivery.inbox.stream to another name, or mend that stream"
        )
        return Finding("error", about, message)
    return Finding("ok", about, "its streams do not exist; the gateway creates them")


def _stream(settings: StreamSettings) -> list[Finding]:
    about = f"stream {settings.name}"
    if settings.num_replicas >= _GOOD_REPLICAS:
        return [Finding("ok", about, f"is there, with {settings.num_replicas} replicas")]
    copies = "one replica" if settings.num_replicas == 1 else f"{settings.num_replicas} replicas"
    message = f"{copies}: 3 survive the loss of a server; set num_replicas"
    return [Finding("warning", about, message)]
