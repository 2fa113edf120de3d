"""What `gateway check --connect` says of a NATS system and of each subject on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from gateway.brokers.base import BrokerOptionsError, Finding, Need
from gateway.brokers.nats.coverage import Streams, about, clashes, coverage, listed
from gateway.brokers.nats.errors import CONNECT_ERRORS, Denied, connection_problem
from gateway.brokers.nats.jetstream import ApiRefused, StreamConfigView
from gateway.brokers.nats.options import ClientOptions, client_options
from gateway.brokers.nats.rights import refused, rules_of
from gateway.brokers.nats.session import Session
from gateway.brokers.nats.stream_faults import size_fault, stream_faults
from gateway.brokers.nats.subjects import filter_of, takes

if TYPE_CHECKING:
    from gateway.config.models import NatsConfig

_WITHIN = 10.0
_ANSWER_WITHIN = 2.0

Severity = Literal["ok", "warning", "error"]


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
        self._used: dict[str, list[Need]] = {}
        """The needs by the streams that take something of them."""

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
        return Finding("error", about(need), message)

    async def _jetstream(self) -> list[Finding]:
        try:
            problem = await self._requests.jetstream_problem(_ANSWER_WITHIN)
            if problem:
                message = (
                    f"{problem}; enable it there, or set brokers.{self._broker}.jetstream: false"
                    " for core NATS, which is at most once"
                )
                return [Finding("error", self._broker, message)]
            await self._look_up()
            found = [finding for need in self._needs for finding in self._need(need)]
            found += await self._uncreatable()
        except ApiRefused as refused:
            return [Finding("error", self._broker, str(refused))]
        except Denied as denied:
            if self._connection.denied:
                raise
            return [self._unseen(denied)]
        for name, needs in self._used.items():
            found += stream_faults(self._streams[name], needs)
        if self._used:
            found.append(self._interval_sync())
        return found

    def _unseen(self, denied: Denied) -> Finding:
        # Publishing needs no right to ask; creating streams does.
        severity: Severity = "error" if self._config.streams else "warning"
        purpose = "created or checked" if self._config.streams else "checked"
        return Finding(severity, self._broker, f"{denied.problem}, so that streams are {purpose}")

    async def _look_up(self) -> None:
        """Read the streams that may take something of a need, and those of the config."""
        names = [stream.name for stream in self._config.streams]
        for need in self._needs:
            names += await self._requests.streams_of(filter_of(need), _ANSWER_WITHIN)
        for name in dict.fromkeys(names):
            stream = await self._requests.stream(name, _ANSWER_WITHIN)
            if stream is not None:
                self._streams[name] = stream

    def _need(self, need: Need) -> list[Finding]:
        # The server's filter knows whole tokens only; this also looks at a begun one.
        there = {name: stream.subjects for name, stream in self._streams.items()}
        fitting = {n: own for n, own in there.items() if any(takes(one, need) for one in own)}
        named = {stream.name: stream.subjects for stream in self._config.streams}
        streams = Streams(
            broker=self._broker,
            there=fitting,
            planned={name: own for name, own in named.items() if name not in there},
            kept={name: own for name, own in named.items() if name in there},
        )
        for name in fitting:
            self._used.setdefault(name, []).append(need)
        too_small = [size_fault(self._streams[name], need) for name in fitting]
        return [*coverage(need, streams), *(fault for fault in too_small if fault is not None)]

    async def _uncreatable(self) -> list[Finding]:
        """Say which streams of the config cannot be created beside those that are there."""
        found = []
        for stream in self._config.streams:
            if stream.name in self._streams:
                continue
            others = [
                other
                for subject in stream.subjects
                for other in await self._requests.streams_of(subject, _ANSWER_WITHIN)
            ]
            if (clash := clashes(stream.name, stream.subjects, others)) is not None:
                found.append(clash)
        return found

    def _interval_sync(self) -> Finding:
        message = (
            "JetStream acknowledges before it syncs to disk (every 2 minutes unless the server"
            " sets jetstream.sync_interval): a power loss of all replicas at once can lose what"
            " came last"
        )
        return Finding("warning", self._broker, message)

    async def _not_permitted(self) -> list[Finding]:
        try:
            rules = await rules_of(self._requests, _ANSWER_WITHIN)
        except Denied as denied:
            message = f"{denied.problem}, so that permissions are checked"
            return [Finding("warning", self._broker, message)]
        if rules is None:
            return []
        return [
            _forbidden(need, subjects) for need in self._needs if (subjects := refused(rules, need))
        ]


def _forbidden(need: Need, subjects: Sequence[str]) -> Finding:
    what = listed(subjects) if need.expected else "it"
    message = (
        f"the login may not publish to {what}; allow it on the server (used by {need.used_by})"
    )
    return Finding("error", about(need), message)
