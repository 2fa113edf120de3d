"""Questions to a server and their answers, and the few of JetStream's API that are needed.

https://docs.nats.io/reference/reference-protocols/nats_api_reference
"""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import Any, Protocol, TypeVar

import msgspec
from nats.aio.msg import Msg

from gateway import GatewayError
from gateway.brokers.nats.connection import Connection
from gateway.brokers.nats.errors import ApiError, ConnectionLost, Denied
from gateway.brokers.nats.protocol import NO_RESPONDERS

STREAM_NOT_FOUND = 10059
_NO_MESSAGE = {10037, 10043}
"""Nothing found by sequence or subject; a sequence that is not there any more."""
_NOT_DELETED = 10057
"""Any failure to delete; that there was nothing to delete is told in words only."""

_INBOX_BYTES = 16


class PubAck(msgspec.Struct, frozen=True):
    """The answer to a publish: where the record is, or an error."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: ApiError | None = None


class SubjectMapping(msgspec.Struct, frozen=True):
    """From which subjects to which, of `subject_transform` and of `republish`."""

    src: str = ""
    """Empty: all."""
    dest: str = ""
    headers_only: bool = False


class StreamSource(msgspec.Struct, frozen=True):
    """Another stream whose records a stream gathers."""

    name: str = ""


class StreamConfigView(msgspec.Struct, frozen=True):
    """What matters here of a stream's configuration. -1 and 0 mean no limit."""

    name: str
    subjects: tuple[str, ...] = ()
    storage: str = "file"
    retention: str = "limits"
    num_replicas: int = 1
    max_msg_size: int = -1
    no_ack: bool = False
    sealed: bool = False
    discard: str = "old"
    max_msgs_per_subject: int = -1
    max_bytes: int = -1
    max_age: int = 0
    """Nanoseconds."""
    allow_msg_ttl: bool = False
    deny_delete: bool = False
    discard_new_per_subject: bool = False
    max_msgs: int = -1
    allow_msg_counter: bool = False
    subject_transform: SubjectMapping | None = None
    republish: SubjectMapping | None = None
    sources: tuple[StreamSource, ...] = ()


class StreamState(msgspec.Struct, frozen=True):
    """What a stream holds."""

    first_seq: int = 0
    last_seq: int = 0


class StreamView(msgspec.Struct, frozen=True):
    """A stream's configuration and what it holds, of the answer to STREAM.INFO."""

    config: StreamConfigView = StreamConfigView("")
    state: StreamState = StreamState()
    ts: str = ""
    """The server's time of the answer, as in `StoredMessage`; servers before 2.10 leave it out."""
    error: ApiError | None = None


class StoredMessage(msgspec.Struct, frozen=True):
    """One message of a stream, as STREAM.MSG.GET gives it; msgspec reads its base64."""

    subject: str
    seq: int
    time: str
    """RFC 3339, UTC, nanoseconds."""
    hdrs: bytes = b""
    data: bytes = b""


class MessageAnswer(msgspec.Struct, frozen=True):
    """The answer to STREAM.MSG.GET."""

    message: StoredMessage | None = None
    error: ApiError | None = None


class StreamInfo(msgspec.Struct, frozen=True):
    """The answer to STREAM.INFO and STREAM.CREATE."""

    config: StreamConfigView | None = None
    error: ApiError | None = None


class StreamNames(msgspec.Struct, frozen=True):
    """The answer to STREAM.NAMES."""

    streams: tuple[str, ...] | None = None
    error: ApiError | None = None


class Answer(msgspec.Struct, frozen=True):
    """The answer to a question of which only success matters."""

    error: ApiError | None = None


class ApiRefused(GatewayError):
    """JetStream's API answered with an error."""

    def __init__(self, error: ApiError) -> None:
        self.error = error
        super().__init__(f"JetStream refused: {error.description} ({error.err_code})")


class Answered(Protocol):
    """What every answer of the API may hold."""

    @property
    def error(self) -> ApiError | None:
        """Why the server refused."""
        ...


A = TypeVar("A", bound=Answered)


def is_gone(error: ApiError) -> bool:
    """Tell whether a message could not be deleted because it is not there, or no more."""
    nothing = error.err_code == _NOT_DELETED and error.description == "no message found"
    return nothing or error.err_code in _NO_MESSAGE


def new_inbox() -> str:
    """A subject prefix for answers that nobody else has; ends in a dot."""
    return f"_INBOX.{secrets.token_urlsafe(_INBOX_BYTES)}."


def nobody(msg: Msg) -> bool:
    """Whether an answer is the server's: nobody listens where that was published."""
    return not msg.data and (msg.headers or {}).get("Status") == NO_RESPONDERS


class Requests:
    """Asks questions on one connection. Every wait is bounded by the caller's timeout, in seconds.

    Methods raise `ConnectionLost`, also when no answer comes in time, and `Denied`, which is one,
    where the login lacks a right.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._prefix = new_inbox()
        self._waiting: dict[str, tuple[str, asyncio.Future[bytes | None]]] = {}
        self._count = 0
        self._subscribed = False

    def fail(self, problem: str) -> None:
        """End every question: the connection is gone."""
        kind = Denied if self._connection.denied else ConnectionLost
        for _, future in self._waiting.values():
            if not future.done():
                future.set_exception(kind(problem))

    def denied(self, subject: str) -> None:
        """End the questions to a subject that may not be published to."""
        for asked, future in self._waiting.values():
            if asked.lower() == subject and not future.done():
                problem = f"the login may not publish to {asked}; allow it on the server"
                future.set_exception(Denied(problem))

    async def settled(self, timeout: float) -> None:
        """Wait until the server has handled all that was written before."""
        token, future = self._expect("")
        self._connection.ping(partial(self._end, token, None))
        await self._answer(token, future, timeout)

    async def ask(self, subject: str, body: Any, timeout: float) -> bytes | None:
        """Ask `subject`; `body` becomes JSON, None an empty one. None: nobody answers there."""
        payload = b"" if body is None else msgspec.json.encode(body)
        return await self._request(subject, None, payload, timeout)

    async def store(
        self, subject: str, headers: dict[str, str], value: bytes, timeout: float
    ) -> PubAck:
        """Publish to a stream, and give its answer: an error in it is not raised."""
        answer = await self._request(subject, headers, value, timeout)
        if answer is None:
            raise ApiRefused(ApiError(503, 0, f"no stream takes {subject}, or it has no leader"))
        return _decode(answer, PubAck)

    async def last(self, stream: str, subject: str, timeout: float) -> StoredMessage | None:
        """The last message of a subject, from the leader; None where there is none.

        Also raises `ApiRefused`.
        """
        return await self.message(stream, {"last_by_subj": subject}, timeout)

    async def streams_of(self, subject: str, timeout: float) -> tuple[str, ...]:
        """The names of the streams that take what `subject` (or pattern) takes.

        Also raises `ApiRefused`.
        """
        found = await self.api("STREAM.NAMES", {"subject": subject}, StreamNames, timeout)
        return found.streams or ()

    async def stream(self, name: str, timeout: float) -> StreamConfigView | None:
        """The configuration of a stream; None where there is none. Also raises `ApiRefused`."""
        try:
            info = await self.api(f"STREAM.INFO.{name}", None, StreamInfo, timeout)
        except ApiRefused as refused:
            if refused.error.err_code == STREAM_NOT_FOUND:
                return None
            raise
        return info.config

    async def stream_state(self, name: str, timeout: float) -> StreamView:
        """The configuration of a stream, and what it holds now. Also raises `ApiRefused`."""
        return await self.api(f"STREAM.INFO.{name}", None, StreamView, timeout)

    async def message(
        self, stream: str, wanted: dict[str, Any], timeout: float
    ) -> StoredMessage | None:
        """The message with the sequence `seq`, or with `next_by_subj` the first from there on.

        None where there is none. Also raises `ApiRefused`.
        """
        try:
            return (
                await self.api(f"STREAM.MSG.GET.{stream}", wanted, MessageAnswer, timeout)
            ).message
        except ApiRefused as refused:
            if refused.error.err_code in _NO_MESSAGE:
                return None
            raise

    async def delete_message(self, stream: str, seq: int, timeout: float, *, erase: bool) -> None:
        """Delete a message; fine when it is not there. `erase` overwrites what was on the disk.

        Also raises `ApiRefused`.
        """
        body = {"seq": seq, "no_erase": not erase}
        try:
            await self.api(f"STREAM.MSG.DELETE.{stream}", body, Answer, timeout)
        except ApiRefused as refused:
            if not is_gone(refused.error):
                raise

    async def create_stream(self, config: dict[str, Any], timeout: float) -> None:
        """Create a stream; fine when it exists just so. Also raises `ApiRefused`."""
        await self.api(f"STREAM.CREATE.{config['name']}", config, StreamInfo, timeout)

    async def create_consumer(self, stream: str, config: dict[str, Any], timeout: float) -> None:
        """Create an ephemeral consumer, named in `config`. Also raises `ApiRefused`."""
        body = {"stream_name": stream, "config": config, "action": "create"}
        await self.api(f"CONSUMER.CREATE.{stream}.{config['name']}", body, Answer, timeout)

    async def jetstream_problem(self, timeout: float) -> str:
        """Why JetStream cannot be used with this login; empty when it can."""
        answer = await self.ask("$JS.API.INFO", None, timeout)
        if answer is None:
            return "JetStream is not enabled on the server"
        error = _decode(answer, Answer).error
        return "" if error is None else error.description

    async def api(self, name: str, body: Any, kind: type[A], timeout: float) -> A:
        """Ask JetStream's API: `api("STREAM.INFO.<name>", …)`. Also raises `ApiRefused`."""
        answer = await self.ask(f"$JS.API.{name}", body, timeout)
        if answer is None:
            raise ApiRefused(ApiError(503, 0, "JetStream does not answer; is it enabled?"))
        decoded = _decode(answer, kind)
        if decoded.error is not None:
            raise ApiRefused(decoded.error)
        return decoded

    async def _request(
        self, subject: str, headers: dict[str, str] | None, payload: bytes, timeout: float
    ) -> bytes | None:
        token, future = self._expect(subject)
        if not self._subscribed:
            self._subscribed = True
            self._connection.subscribe(f"{self._prefix}*", self._answered)
        self._connection.publish(subject, self._prefix + token, headers, payload)
        return await self._answer(token, future, timeout)

    def _expect(self, subject: str) -> tuple[str, asyncio.Future[bytes | None]]:
        if self._connection.ended:
            raise ConnectionLost("not connected")
        self._count += 1
        token = str(self._count)
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting[token] = (subject, future)
        return token, future

    async def _answer(
        self, token: str, future: asyncio.Future[bytes | None], timeout: float
    ) -> bytes | None:
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as error:
            raise ConnectionLost("no answer in time") from error
        finally:
            del self._waiting[token]

    def _answered(self, msg: Msg) -> None:
        self._end(msg.subject[len(self._prefix) :], None if nobody(msg) else msg.data)

    def _end(self, token: str, answer: bytes | None) -> None:
        waiting = self._waiting.get(token)
        if waiting is not None and not waiting[1].done():
            waiting[1].set_result(answer)


def _decode(answer: bytes, kind: type[A]) -> A:
    try:
        return msgspec.json.decode(answer, type=kind)
    except msgspec.MsgspecError as error:
        raise ApiRefused(ApiError(0, 0, "an answer that is not JetStream's")) from error
