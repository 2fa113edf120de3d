"""uvicorn's protocol with a parser that no request can turn away from HTTP/1.1."""

from __future__ import annotations

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.ingress import Fault
from gateway.server.faults import MALFORMED, FaultError
from gateway.server.heads import without_upgrade

__all__ = ["ParsingProtocol"]


class ParsingProtocol(HttpToolsProtocol):
    """Parses what it is given, past every wish for another protocol (RFC 9110, section 7.8)."""

    _upgrade_ignored = False
    """The head that was parsed last is parsed anew, without its wish; this one counts for nothing.

    Set in `on_headers_complete`, where the parser says `should_upgrade`.
    """

    def parse(self, data: memoryview) -> Fault | None:
        """Parse all of it, or to the first fault, which is given."""
        try:
            while data:
                data = self._parse(data)
        except httptools.HttpParserError as error:
            cause = error.__context__
            return cause.fault if isinstance(cause, FaultError) else MALFORMED
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
