"""Request lines, hosts and upgrades that are not HTTP/1.1, or no way to a source; and protocols
that are none of HTTP. Rows of the class framing."""

from __future__ import annotations

import struct
from collections.abc import Callable

from tests.e2e.gateway_process import PATH
from tests.hostile.row import Request, Row, v1

Make = Callable[[Request], Request | bytes]
_PATH = PATH.encode()
_FORGED = v1(bytes(32))
_PROXY_V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1" + struct.pack("!HH", 1, 2)


def _bad(name: str, what: str, make: Make) -> Row:
    return Row(name, what, make, 400, "malformed_http")


def _forged(name: str, what: str, make: Make) -> Row:
    return Row(name, what, lambda r: make(r.sign(_FORGED)), 401, "no_matching_signature")


def _line(name: str, what: str, line: bytes) -> Row:
    return _bad(name, what, lambda r: r.to(line))


def _path(name: str, what: str, target: bytes) -> Row:
    """A genuine request to what is not the path of a source."""
    return Row(name, what, lambda r: r.to(b"POST " + target + b" HTTP/1.1"),
               404, "unknown_path")  # fmt: skip


def _method(name: str, what: str, method: bytes) -> Row:
    return Row(name, what, lambda r: r.to(method + b" " + _PATH + b" HTTP/1.1"), 405, "not_post")


def _bytes(name: str, what: str, sent: bytes) -> Row:
    return _bad(name, what, lambda _: sent)


def _lf_only(r: Request) -> bytes:
    head, body = r.raw().split(b"\r\n\r\n", 1)
    return head.replace(b"\r\n", b"\n") + b"\n\n" + body


LINES = (
    _line("no-version", "HTTP/0.9", b"POST " + _PATH),
    _bytes("http-0-9-get", "HTTP/0.9 as it was", b"GET " + _PATH + b"\r\n\r\n"),
    _line("version-0-9", "a version of 0.9", b"POST " + _PATH + b" HTTP/0.9"),
    _line("version-2", "a version of 2.0", b"POST " + _PATH + b" HTTP/2.0"),
    _line("version-1-2", "a version of 1.2", b"POST " + _PATH + b" HTTP/1.2"),
    _line("version-3-7", "a version of 3.7", b"POST " + _PATH + b" HTTP/3.7"),
    _line("version-1", "a version without its minor", b"POST " + _PATH + b" HTTP/1"),
    _line("version-two-digits", "a version of 1.10", b"POST " + _PATH + b" HTTP/1.10"),
    _line("version-zero", "a version of 01.1", b"POST " + _PATH + b" HTTP/01.1"),
    _line("version-lower", "http/1.1", b"POST " + _PATH + b" http/1.1"),
    _line("version-space", "a space after the version", b"POST " + _PATH + b" HTTP/1.1 "),
    _line("version-inner-space", "a space in the version", b"POST " + _PATH + b" HTTP/ 1.1"),
    _line("version-https", "another protocol", b"POST " + _PATH + b" HTTPS/1.1"),
    _line("version-icecast", "Icecast's, which some parsers take", b"POST " + _PATH + b" ICE/1.0"),
    _line("version-text-after", "text after the version", b"POST " + _PATH + b" HTTP/1.1 x"),
    _line("tabs", "tabs for the spaces", b"POST\t" + _PATH + b"\tHTTP/1.1"),
    _line("space-first", "a space before the method", b" POST " + _PATH + b" HTTP/1.1"),
    _line("space-in-path", "a space in the path", b"POST " + _PATH + b" x HTTP/1.1"),
    _line("nul-in-path", "a NUL in the path", b"POST " + _PATH + b"\0 HTTP/1.1"),
    _line("control-in-path", "a control character", b"POST " + _PATH + b"\x01 HTTP/1.1"),
    _line("raw-latin-1", "a byte of Latin-1 in the path", b"POST " + _PATH + b"\xe9 HTTP/1.1"),
    _line("raw-utf-8", "a letter of UTF-8 in the path",
          b"POST " + _PATH + "é".encode() + b" HTTP/1.1"),
    _line("cr-in-path", "a carriage return in the path", b"POST " + _PATH + b"\r HTTP/1.1"),
    _line("no-target", "no target", b"POST HTTP/1.1"),
    _line("relative", "a target without its slash", b"POST webhooks/clerk HTTP/1.1"),
    _line("backslash", "a backslash for the first slash", b"POST \\webhooks/clerk HTTP/1.1"),
    _line("method-lower", "post", b"post " + _PATH + b" HTTP/1.1"),
    _line("method-mixed", "Post", b"Post " + _PATH + b" HTTP/1.1"),
    _line("method-unknown", "a method that nobody knows", b"FORGE " + _PATH + b" HTTP/1.1"),
    _line("method-longer", "POSTX", b"POSTX " + _PATH + b" HTTP/1.1"),
    _line("method-nul", "a NUL after the method", b"POST\0 " + _PATH + b" HTTP/1.1"),
    _line("method-none", "no method", b" " + _PATH + b" HTTP/1.1"),
    _line("absolute-no-path", "the absolute form, no path", b"POST http://localhost HTTP/1.1"),
    _line("connect", "CONNECT to another host", b"CONNECT localhost:80 HTTP/1.1"),
    _line("connect-path", "CONNECT to the path", b"CONNECT " + _PATH + b" HTTP/1.1"),
    _line("connect-absolute", "CONNECT to a URL",
          b"CONNECT http://localhost" + _PATH + b" HTTP/1.1"),
    _line("fragment", "a fragment in the target", b"POST " + _PATH + b"#x HTTP/1.1"),
    _bad("lf-lines", "bare LFs for line ends", _lf_only),
    _bad("cr-lines", "bare CRs for line ends",
         lambda r: r.raw().replace(b"\r\n", b"\r")),
    _bad("lf-before-body", "a bare LF before the body",
         lambda r: r.raw().replace(b"\r\n\r\n", b"\r\n\n", 1)),
    _bad("lf-after-line", "a bare LF after the request line",
         lambda r: r.raw().replace(b"\r\n", b"\n", 1)),
    _bad("no-host", "no Host", lambda r: r.drop("Host")),
    _bad("two-hosts", "two Hosts", lambda r: r.add("Host", b"example.com")),
    _bad("two-equal-hosts", "two Hosts, equal", lambda r: r.add("Host", b"localhost")),
    _bad("host-with-space", "a Host with a space inside", lambda r: r.set("Host", b"local host")),
    _bad("host-with-path", "a Host with a path", lambda r: r.set("Host", b"localhost/webhooks")),
    _bad("host-with-user", "a Host with a user", lambda r: r.set("Host", b"a@localhost")),
    _bad("host-list", "a Host of two", lambda r: r.set("Host", b"localhost, example.com")),
)  # fmt: skip

TARGETS = (
    _path("slash-after", "a slash at the end", _PATH + b"/"),
    _path("two-slashes", "two slashes inside", b"/webhooks//clerk"),
    _path("two-slashes-first", "two slashes first", b"/" + _PATH),
    _path("dot-segment", "a dot segment", b"/webhooks/./clerk"),
    _path("dot-dot-segment", "a dot-dot segment", b"/webhooks/x/../clerk"),
    _path("dot-dot-encoded", "an encoded dot-dot segment", b"/webhooks/x/%2e%2e/clerk"),
    _path("dot-dot-semicolon", "`..;/`, as some proxies read it", b"/webhooks/x/..;/clerk"),
    _path("parameter", "a path parameter", _PATH + b";a=b"),
    _path("upper", "in upper case", _PATH.upper()),
    _path("encoded-slash", "an encoded slash, which is no slash", b"/webhooks%2fclerk"),
    _path("encoded-slash-upper", "and in upper-case hex", b"/webhooks%2Fclerk"),
    _path("encoded-twice", "encoded twice", b"/webhooks%252fclerk"),
    _path("encoded-nul", "an encoded NUL at the end", _PATH + b"%00"),
    _path("encoded-newline", "an encoded line end", _PATH + b"%0d%0aX:y"),
    _path("encoded-space", "an encoded space", _PATH + b"%20"),
    _path("encoded-question", "an encoded question mark", _PATH + b"%3fa=b"),
    _path("encoded-backslash", "an encoded backslash", b"/webhooks%5cclerk"),
    _path("backslash-inside", "a backslash", b"/webhooks\\clerk"),
    _path("overlong", "a slash in overlong UTF-8", b"/webhooks%c0%afclerk"),
    _path("bad-percent", "a percent without hex", _PATH + b"%zz"),
    _path("cut-percent", "a percent at the end", _PATH + b"%"),
    _path("full-width-slash", "U+FF0F for the slash", b"/webhooks%ef%bc%8fclerk"),
    _path("root", "the root", b"/"),
    _path("asterisk", "the asterisk form", b"*"),
    _path("metrics", "the admin port's path", b"/metrics"),
    _path("prefix", "only its beginning", b"/webhooks"),
    _path("longer", "a name that begins so", _PATH + b"x"),
    _path("file", "a file of the machine", b"/../../../../etc/passwd"),
    _path("absolute-other-path", "the absolute form, another path", b"http://localhost/x"),
    _path("absolute-hides-path", "the path in the user of a URL",
          b"http://webhooks%2fclerk@localhost/"),
    Row("rewrite-headers", "headers that rewrite the path elsewhere",
        lambda r: r.to(b"POST /nowhere HTTP/1.1").add("X-Original-URL", _PATH)
        .add("X-Rewrite-URL", _PATH).add("X-Forwarded-Uri", _PATH),
        404, "unknown_path"),
)  # fmt: skip

METHODS = (
    _method("get", "GET with everything else genuine", b"GET"),
    _method("put", "PUT", b"PUT"),
    _method("patch", "PATCH", b"PATCH"),
    _method("delete", "DELETE", b"DELETE"),
    _method("options", "OPTIONS", b"OPTIONS"),
    _method("trace", "TRACE, which echoes", b"TRACE"),
    _method("propfind", "WebDAV's PROPFIND", b"PROPFIND"),
    _method("search", "SEARCH", b"SEARCH"),
    _method("query", "QUERY", b"QUERY"),
    _method("purge", "a cache's PURGE", b"PURGE"),
    Row("override-header", "GET, made a POST by headers",
        lambda r: r.to(b"GET " + _PATH + b" HTTP/1.1").add("X-HTTP-Method-Override", b"POST")
        .add("X-HTTP-Method", b"POST").add("X-Method-Override", b"POST"), 405, "not_post"),
    Row("override-query", "GET, made a POST by the query",
        lambda r: r.to(b"GET " + _PATH + b"?_method=POST HTTP/1.1"), 405, "not_post"),
    Row("websocket", "a websocket's opening",
        lambda r: r.carry(b"").sized().to(b"GET " + _PATH + b" HTTP/1.1").add(
            "Connection", b"Upgrade").add("Upgrade", b"websocket").add(
            "Sec-WebSocket-Version", b"13").add("Sec-WebSocket-Key", b"AAAAAAAAAAAAAAAAAAAAAA=="),
        405, "not_post"),
)  # fmt: skip

PROTOCOLS = (
    _bytes("tls-hello", "a TLS hello", b"\x16\x03\x01\0\xa5\x01\0\0\xa1\x03\x03" + bytes(160)),
    _bytes("sslv2-hello", "an SSLv2 hello", b"\x80\x2e\x01\x00\x02" + bytes(43)),
    _bytes("ssh", "an SSH banner", b"SSH-2.0-OpenSSH_9.6\r\n"),
    _bytes("http2", "HTTP/2's preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9)),
    _bad("proxy-v1", "PROXY protocol 1 before a genuine request",
         lambda r: b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\n" + r.raw()),
    _bad("proxy-v2", "PROXY protocol 2 before a genuine request",
         lambda r: _PROXY_V2 + r.raw()),
    _bytes("smtp", "SMTP", b"EHLO example.com\r\nMAIL FROM:<a@example.com>\r\n"),
    _bytes("redis", "Redis", b"*1\r\n$8\r\nFLUSHALL\r\n"),
    _bytes("nats", "NATS", b'CONNECT {"verbose":false}\r\nPUB hostile.x 1\r\nx\r\n'),
    _bytes("kafka", "a Kafka request", struct.pack("!IHHIH", 10, 18, 0, 1, 0)),
    _bytes("socks5", "SOCKS 5", b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\1\0\x50"),
    _bytes("mqtt", "MQTT", b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04abcd"),
    _bytes("ajp", "AJP", b"\x12\x34\0\x0f\x02\x04\0\x08HTTP/1.1"),
    _bytes("response", "a response for a request", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    _bytes("json", "JSON", b'{"type":"user.created"}\r\n\r\n'),
    _bytes("zeros", "zeros", bytes(64)),
    _bad("bom", "a byte order mark before the request", lambda r: b"\xef\xbb\xbf" + r.raw()),
    _bad("letter-first", "a letter before the request", lambda r: b"x" + r.raw()),
)  # fmt: skip

UPGRADES = (
    _forged("h2c", "an upgrade to HTTP/2, forged", lambda r: r.add(
        "Connection", b"Upgrade, HTTP2-Settings").add("Upgrade", b"h2c").add(
        "HTTP2-Settings", b"AAMAAABkAAQAAP__")),
    _forged("websocket-post", "an upgrade to a websocket by POST, forged",
            lambda r: r.add("Connection", b"Upgrade").add("Upgrade", b"websocket")),
    _forged("upgrade-tls", "an upgrade to TLS, forged",
            lambda r: r.add("Connection", b"Upgrade").add("Upgrade", b"TLS/1.0")),
    _forged("upgrade-alone", "`Upgrade` without `Connection`, forged",
            lambda r: r.add("Upgrade", b"h2c")),
    _forged("expect-forged", "100-continue, forged", lambda r: r.add("Expect", b"100-continue")),
    _forged("expect-other", "an expectation that nobody knows, forged",
            lambda r: r.add("Expect", b"x=1")),
    _forged("te", "`TE: trailers`, forged", lambda r: r.add("TE", b"trailers")),
    _forged("http-1-0-forged", "HTTP/1.0, forged",
            lambda r: r.to(b"POST " + _PATH + b" HTTP/1.0")),
    _forged("early-data", "a word on TLS's early data, forged",
            lambda r: r.add("Early-Data", b"1")),
    _forged("range", "a range, forged", lambda r: r.add("Range", b"bytes=0-1").add(
        "Content-Range", b"bytes 0-1/2")),
    Row("expect-too-large", "100-continue for more than is taken",
        lambda r: r.add("Expect", b"100-continue").sized(b"999999").carry(b""),
        413, "body_too_large"),
)  # fmt: skip

ROWS = (*LINES, *TARGETS, *METHODS, *PROTOCOLS, *UPGRADES)
