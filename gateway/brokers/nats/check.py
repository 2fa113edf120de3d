"""What `gateway check --connect` says of a NATS system and of each subject on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from gateway.brokers.base import BrokerOptionsError, Finding, Need
from gateway.brokers.nats.errors import CONNECT_ERRORS, ConnectionLost, Denied, connection_problem
from gateway.brokers.nats.jetstream import ApiRefused, StreamConfigView
from gateway.brokers.nats.options import ClientOptions, client_options
from gateway.brokers.nats.session import Session
from gateway.brokers.nats.subjects import filter_of, matches, takes

if TYPE_CHECKING:
    from gateway.config.models import NatsConfig

_WITHIN = 10.0
_ANSWER_WITHIN = 2.0
_GOOD_REPLICAS = 3
_PROBE = "0" * 32
"""A key as the ledger has them."""

Severity = Literal["ok", "warning", "error"]


class _Rules(msgspec.Struct, frozen=True):
    """Patterns that a login may and may not publish to; no `allow` allows all."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] | None = None


class _Permissions(msgspec.Struct, frozen=True):
    publish: _Rules = _Rules()


class _User(msgspec.Struct, frozen=True):
    permissions: _Permissions | None = None


class _UserInfo(msgspec.Struct, frozen=True):
    """The answer to `$SYS.REQ.USER.INFO`."""

    data: _User = _User()


async def check_system(broker: str, config: NatsConfig, needs: Sequence[Need]) -> list[Finding]:
    """Look at the server, and at the streams and subjects of `needs`, within ten seconds."""
    try:
        options = client_options(broker, config)
    except BrokerOptionsError as error:
        return [Finding("error", broker, str(error))]
    try:
        async with asyncio.timeout(_WITHIN):
            session = await Session.open(options)
            try:
                return await _Check(options, config, needs, session).findings()
            finally:
                await session.close()
    except Denied as denied:
        return [Finding("error", broker, denied.problem)]
    except CONNECT_ERRORS as error:
        where = ", ".join(str(server) for server in options.servers)
        problem = connection_problem(options, error)
        return [Finding("unreachable", broker, f"cannot use the server at {where}: {problem}")]


class _Check:
    """One look at one system."""

    def __init__(
        self, options: ClientOptions, config: NatsConfig, needs: Sequence[Need], session: Session
    ) -> None:
        self._broker = options.broker
        self._options = options
        self._connection = session.connection
        self._config = config
        self._needs = needs
        self._requests = session.requests
        self._max_payload = session.connection.max_payload
        self._version = ".".join(map(str, session.connection.version))
        self._streams: dict[str, StreamConfigView] = {}

    async def findings(self) -> list[Finding]:
        """Everything there is to say. Raises `ConnectionLost` when the server goes away."""
        found = [Finding("ok", self._broker, f"nats-server {self._version} answers")]
        found += self._in_the_clear()
        found += [self._too_large(need) for need in self._needs if self._exceeds(need)]
        if self._config.jetstream:
            found += await self._jetstream()
        return found + await self._not_permitted()

    def _in_the_clear(self) -> list[Finding]:
        sent = self._options.sent_in_the_clear
        if self._connection.secured or not sent:
            return []
        message = f"without tls {sent} is sent in the clear; set tls"
        return [Finding("warning", self._broker, message)]

    def _exceeds(self, need: Need) -> bool:
        return need.record_bytes > self._max_payload

    def _too_large(self, need: Need) -> Finding:
        message = (
            f"max_payload of the server is {self._max_payload}, and a record may have"
            f" {need.record_bytes} bytes; raise it there, or lower server.max_body"
            f" (used by {need.used_by})"
        )
        return Finding("error", _name(need), message)

    async def _jetstream(self) -> list[Finding]:
        try:
            problem = await self._requests.jetstream_problem(_ANSWER_WITHIN)
            if problem:
                message = (
                    f"{problem}; enable it there, or set brokers.{self._broker}.jetstream: false"
                    " for core NATS, which is at most once"
                )
                return [Finding("error", self._broker, message)]
            found = [finding for need in self._needs for finding in await self._need(need)]
        except ApiRefused as refused:
            return [Finding("error", self._broker, str(refused))]
        except Denied as denied:
            if self._connection.denied:
                raise
            return [self._unseen(denied)]
        for stream in self._streams.values():
            found += _stream_findings(stream)
        if self._streams:
            found.append(self._interval_sync())
        return found

    def _unseen(self, denied: Denied) -> Finding:
        # Publishing needs no right to ask; creating streams does.
        severity: Severity = "error" if self._config.streams else "warning"
        purpose = "created or checked" if self._config.streams else "checked"
        return Finding(severity, self._broker, f"{denied.problem}, so that streams are {purpose}")

    async def _need(self, need: Need) -> list[Finding]:
        # The server's filter knows whole tokens only; `takes` also looks at a begun one.
        names = await self._requests.streams_of(filter_of(need), _ANSWER_WITHIN)
        streams = [stream for name in names if (stream := await self._stream(name)) is not None]
        fitting = [s for s in streams if any(takes(subject, need) for subject in s.subjects)]
        if not fitting:
            return [self._no_stream(need)]
        for stream in fitting:
            self._streams[stream.name] = stream
        return [finding for stream in fitting for finding in _fit(stream, need)]

    async def _stream(self, name: str) -> StreamConfigView | None:
        known = self._streams.get(name)
        return known or await self._requests.stream(name, _ANSWER_WITHIN)

    def _no_stream(self, need: Need) -> Finding:
        for stream in self._config.streams:
            if any(takes(subject, need) for subject in stream.subjects):
                message = (
                    f"stream {stream.name} does not exist; it is created when the gateway starts"
                    f" (used by {need.used_by})"
                )
                return Finding("warning", _name(need), message)
        message = (
            f"no stream takes this subject; create one, or name it in"
            f" brokers.{self._broker}.streams (used by {need.used_by})"
        )
        return Finding("error", _name(need), message)

    def _interval_sync(self) -> Finding:
        message = (
            "JetStream acknowledges before it syncs to disk (every 2 minutes unless the server"
            " sets jetstream.sync_interval): a power loss of all replicas at once can lose what"
            " came last"
        )
        return Finding("warning", self._broker, message)

    async def _not_permitted(self) -> list[Finding]:
        try:
            answer = await self._requests.ask("$SYS.REQ.USER.INFO", None, _ANSWER_WITHIN)
            info = msgspec.json.decode(answer or b"{}", type=_UserInfo)
        except Denied as denied:
            message = f"{denied.problem}, so that permissions are checked"
            return [Finding("warning", self._broker, message)]
        except (ConnectionLost, msgspec.MsgspecError):
            return []  # old servers do not answer this
        if info.data.permissions is None:
            return []
        rules = info.data.permissions.publish
        return [
            Finding(
                "error",
                _name(need),
                f"the login may not publish to it; allow it on the server (used by {need.used_by})",
            )
            for need in self._needs
            if not _permitted(rules, need)
        ]


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
        answer = await session.requests.ask("$SYS.REQ.USER.INFO", None, _ANSWER_WITHIN)
        info = msgspec.json.decode(answer or b"{}", type=_UserInfo)
    except (ConnectionLost, msgspec.MsgspecError):
        return findings  # told of the broker
    rules = info.data.permissions.publish if info.data.permissions is not None else _Rules()
    for subject in subjects:
        if not _permitted(rules, Need(subject, False, 0, "")):
            message = f"the login may not publish to {subject}; allow it on the server"
            findings.append(Finding("error", about, message))
    return findings


def _bucket_faults(stream: StreamConfigView, about: str, max_age: float) -> list[Finding]:
    faults: list[tuple[Severity, str]] = []
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


def _permitted(rules: _Rules, need: Need) -> bool:
    if rules.allow is not None and not any(takes(pattern, need) for pattern in rules.allow):
        return False
    # For a template a denied pattern may be about other subjects than those that come.
    denied = rules.deny or ()
    return need.templated or not any(matches(pattern, need.destination) for pattern in denied)


def _fit(stream: StreamConfigView, need: Need) -> list[Finding]:
    """What is to be said of one subject in one stream that takes it."""
    if 0 <= stream.max_msg_size < need.record_bytes:
        message = (
            f"max_msg_size of stream {stream.name} is {stream.max_msg_size}, and a record may"
            f" have {need.record_bytes} bytes; raise it, or lower server.max_body"
            f" (used by {need.used_by})"
        )
        return [Finding("error", _name(need), message)]
    return [Finding("ok", _name(need), f"stream {stream.name} takes it")]


def _stream_findings(stream: StreamConfigView) -> list[Finding]:
    faults: list[tuple[Severity, str]] = []
    if stream.no_ack:
        faults.append(("error", "no_ack is set, so no publish is ever acknowledged; unset it"))
    if stream.sealed:
        faults.append(("error", "it is sealed and takes no more records"))
    if stream.num_replicas < _GOOD_REPLICAS:
        copies = "one replica" if stream.num_replicas == 1 else f"{stream.num_replicas} replicas"
        faults.append(("warning", f"{copies}: 3 survive the loss of a server; set num_replicas"))
    if stream.storage == "memory":
        faults.append(("warning", "memory storage: a restart of its servers loses the records"))
    if stream.retention == "interest":
        message = "interest retention: what comes while there is no consumer is dropped"
        faults.append(("warning", message))
    return [Finding(severity, f"stream {stream.name}", text) for severity, text in faults]


def _name(need: Need) -> str:
    return f"{need.destination}*" if need.templated else need.destination
