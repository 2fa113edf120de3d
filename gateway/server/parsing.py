"""uvicorn's protocol with a parser that no request can turn away from HTTP/1.1."""

from __future__ import annotations

import time

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.ingress import Fault
from gateway.server.faults import MALFORMED, FaultError
from gateway.server.heads import without_upgrade

__all__ = ["ParsingProtocol"]

_PIECE = 16 * 1024
"""Bytes that are parsed before it is looked at what they have made; uvloop reads 256,000."""


class ParsingProtocol(HttpToolsProtocol):
    """Parses what it is given, past every wish for another protocol (RFC 9110, section 7.8)."""

    _upgrade_ignored = False
    """The head that was parsed last is parsed anew, without its wish; this one counts for nothing.

    Set in `on_headers_complete`, where the parser says `should_upgrade`.
    """

    def data_received(self, data: bytes) -> None:
        """Take it in pieces, so that whatever is too much is refused before it is large.

        In memory a header is twenty times its bytes, and one that is not whole is the parser's.
        """
        # The event loop's own clock, unrounded: uvloop's `time()` counts milliseconds.
        whole, now = memoryview(data), time.monotonic()
        for begin in range(0, len(data), _PIECE):
            self.take(whole[begin : begin + _PIECE], now)

    def take(self, data: memoryview, now: float) -> None:
        """Parse a piece of what has arrived `now`, and look at what it has made."""
        raise NotImplementedError

    def forget_head(self) -> None:
        """Let go of what was taken of a head. Nothing can be parsed any more."""
        self.url, self.headers = b"", []
        self.scope = self.parser = None  # type: ignore[assignment]  # as uvicorn does at the end

    def parse(self, data: memoryview) -> Fault | None:
        """Parse all of it, or to the first fault, which is given."""
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserError as error:
            return _fault_of(error)
        return None

    def _parse(self, data: memoryview) -> memoryview:
        """Parse, and give what is left: that behind a head which asks for another protocol.

        The parser takes what follows for the other protocol, so another parser gets the head
        without the wish.
        """
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = data[upgrade.args[0] :]
        else:
            return data[:0]
        version = self.parser.get_http_version().encode()
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)
        head = without_upgrade(line, self.headers)
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._upgrade_ignored = False
        self.parser.feed_data(head)
        return rest


def _fault_of(error: httptools.HttpParserError) -> Fault:
    # Not in `parse`: the error's traceback leads to the frame of that, and with the error in it
    # they would be a ring that holds the received bytes until the garbage is collected.
    cause = error.__context__
    return cause.fault if isinstance(cause, FaultError) else MALFORMED
