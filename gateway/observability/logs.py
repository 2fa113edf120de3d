"""Structured logs on standard error: JSON lines, or aligned text for people.

No line ever holds a body, a header value other than the svix-id, a secret or a token. Lines at
info are written in batches, because one write per event costs as much as verifying it.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import sys
import time
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any, BinaryIO, Literal

import msgspec
import structlog

from gateway.metadata import rfc3339

__all__ = ["EventLog", "LogWriter", "configure", "log_bug"]

Level = Literal["debug", "info", "warning", "error"]
Style = Literal["json", "console"]

_FLUSH_BYTES = 16 * 1024
_FLUSH_SECONDS = 0.2
_LEVELS: dict[Level, int] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_QUIET = ("uvicorn.error", "uvicorn.access", "aiokafka", "nats", "httpx", "asyncio", "litestar")


class LogWriter:
    """A sink that gathers info lines for a moment and writes anything more urgent at once."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        atexit.register(self.flush)

    def write(self, line: bytes, *, urgent: bool) -> None:
        """Take one line; `urgent` ones go out now, and so does all that has gathered."""
        self._lines.append(line)
        self._size += len(line)
        if urgent or self._size >= _FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._flush_soon()

    def flush(self) -> None:
        """Write what is gathered. A closed stream is not an error: there is nobody to tell."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines, self._size = self._lines, [], 0
        if not lines:
            return
        with suppress(OSError, ValueError):
            self._stream.write(b"".join(lines))
            self._stream.flush()

    def _flush_soon(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
        else:
            self._timer = loop.call_later(_FLUSH_SECONDS, self.flush)


class EventLog:
    """The log of requests. It does what structlog would, at a third of the price per event."""

    __slots__ = ("_encode", "_level", "_log", "_writer")

    def __init__(self) -> None:
        """Use what `configure` has set up."""
        self._writer, self._level, style = _configured
        self._encode = msgspec.json.Encoder().encode if style == "json" else None
        self._log = structlog.get_logger()

    def write(self, level: Literal["info", "warning"], fields: dict[str, Any]) -> None:
        """Write one `event` line, unless the log's level is above `level`."""
        if _LEVELS[level] < _LEVELS[self._level]:
            return
        if self._encode is None:
            getattr(self._log, level)("event", **fields)
            return
        line = {"timestamp": rfc3339(time.time()), "level": level, "event": "event", **fields}
        self._writer.write(self._encode(line) + b"\n", urgent=level != "info")


class _Logger:
    """What structlog calls with a rendered line."""

    __slots__ = ("_writer",)

    def __init__(self, writer: LogWriter) -> None:
        self._writer = writer

    def info(self, line: str | bytes) -> None:
        self._writer.write(_encoded(line), urgent=False)

    def error(self, line: str | bytes) -> None:
        self._writer.write(_encoded(line), urgent=True)

    debug = info
    warning = error
    critical = error
    msg = info


_configured: tuple[LogWriter, Level, Style] = (LogWriter(sys.stderr.buffer), "info", "json")


def _encoded(line: str | bytes) -> bytes:
    data = line if isinstance(line, bytes) else line.encode("utf-8", "backslashreplace")
    return data + b"\n"


def configure(level: Level, style: Style, stream: BinaryIO | None = None) -> LogWriter:
    """Set up structlog and route the standard library's loggers through it.

    Once per process, before anything logs; `stream` is standard error unless given.
    """
    global _configured  # noqa: PLW0603 - a process has one log
    writer = LogWriter(stream or sys.stderr.buffer)
    _configured = (writer, level, style)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _renderer(style),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Logger(writer),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Bridge()]
    root.setLevel(level.upper())
    for name in _QUIET:
        quiet = logging.getLogger(name)
        quiet.handlers.clear()
        quiet.propagate = True
        quiet.setLevel(logging.ERROR)
    return writer


def _renderer(style: str) -> Callable[[Any, str, MutableMapping[str, Any]], str | bytes]:
    if style == "console":
        return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    encode = msgspec.json.Encoder(enc_hook=str).encode
    return lambda _logger, _method, line: encode(line)


class _Bridge(logging.Handler):
    """Hands the libraries' log records to structlog: message and logger, never a traceback.

    A traceback's last line may quote what a library was given; the class of the error does not.
    """

    def emit(self, record: logging.LogRecord) -> None:
        fields: dict[str, Any] = {"logger": record.name}
        if record.exc_info and record.exc_info[0]:
            fields["error"] = record.exc_info[0].__name__
        try:
            message = record.getMessage().splitlines()[0][:500]
        except (TypeError, ValueError, IndexError):
            message = str(record.msg)[:500]
        log = structlog.get_logger()
        log.log(record.levelno, message, **fields)


def log_bug(where: str, error: BaseException) -> None:
    """Tell of a bug by the error's class and place; its message may quote what nobody may see."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code if trace is not None else None
    at = f"{code.co_filename}:{trace.tb_lineno}" if code and trace else "unknown"
    structlog.get_logger().error("bug", where=where, error=type(error).__name__, at=at)
