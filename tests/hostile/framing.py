"""HTTP that two readers could read differently, or that is no HTTP/1.1 at all.

Whatever a proxy in front made of these bytes, the gateway must not find another request in them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tests.e2e.gateway_process import PATH
from tests.hostile import request_line
from tests.hostile.row import MAX_BODY, Request, Row, chunk, control, genuine, v1

Make = Callable[[Request], Request | bytes]
_PATH = PATH.encode()
_FORGED = v1(bytes(32))
_END = b"0\r\n\r\n"
_HUGE = 12 * MAX_BODY
"""Bytes around a small body; `max_head` bounds them, and one read of the socket."""


def _bad(name: str, what: str, make: Make) -> Row:
    return Row(name, what, make, 400, "malformed_http")


def _bad_body(name: str, what: str, wire: Callable[[bytes], bytes]) -> Row:
    """Bad chunks after a good head: the outcome is counted for the source."""
    return Row(name, f"chunks: {what}", lambda r: r.chunked(wire(r.body)), 400, "malformed_http")


def _length(name: str, what: str, *values: bytes) -> Row:
    """`Content-Length` as it must not be; `%d` is the true length."""
    return _bad(
        name,
        f"length: {what}",
        lambda r: r.sized(*(v.replace(b"%d", b"%d" % len(r.body)) for v in values)),
    )


def _coding(name: str, what: str, coding: bytes) -> Row:
    """`Transfer-Encoding` as it must not be, over a body in good chunks."""
    return _bad(name, f"coding: {what}", lambda r: r.chunked(coding=coding))


def _both(r: Request, *more: tuple[bytes, bytes]) -> Request:
    """A chunked body with a length, too."""
    chunked = r.chunked()
    return dataclasses.replace(
        chunked, length=((b"Content-Length", b"%d" % len(chunked.body)), *more)
    )


LENGTHS = (
    _length("length-plus", "a plus", b"+%d"),
    _length("length-minus", "a minus", b"-%d"),
    _length("length-minus-zero", "-0", b"-0"),
    _length("length-float", "a float", b"%d.0"),
    _length("length-exponent", "an exponent", b"1e2"),
    _length("length-hex", "hex", b"0x10"),
    _length("length-underscore", "an underscore", b"1_0"),
    _length("length-inner-space", "a space inside", b"1 0"),
    _length("length-list-equal", "a list of one value twice", b"%d, %d"),
    _length("length-list-different", "a list of two values", b"%d, 0"),
    _length("length-semicolon", "a parameter", b"%d;q=1"),
    _length("length-quoted", "in quotes", b'"%d"'),
    _length("length-empty", "empty", b""),
    _length("length-word", "a word", b"chunked"),
    _length("length-full-width", "full-width digits", "\uff11\uff10".encode()),
    _length("length-superscript", "a superscript", b"1\xb2"),
    _length("length-overflow", "2^64", b"18446744073709551616"),
    _bad("length-wrapped", "length: 2^64 and the true length",
         lambda r: r.sized(b"%d" % (2**64 + len(r.body)))),
    _length("length-endless", "5,000 digits", b"9" * 5000),
    _length("length-twice-different", "twice, the second 0", b"%d", b"0"),
    _length("length-twice-zero-first", "twice, the first 0", b"0", b"%d"),
    _length("length-twice-equal", "twice, equal", b"%d", b"%d"),
    _bad("length-name-space", "length: a space before its colon", lambda r: r.sized().add(
        "Content-Length ", b"%d" % len(r.body))),
    _bad("length-folded", "length: folded over two lines", lambda r: r.sized(
        b"\r\n %d" % len(r.body))),
    Row("length-underscored", "`Content_Length`, which is none",
        lambda r: r.sized().add("Content_Length", b"%d" % len(r.body)),
        401, "no_matching_signature", then=((400, "malformed_http"),)),
    Row("length-short", "a length of half the body",
        lambda r: r.sized(b"%d" % (len(r.body) // 2)),
        401, "no_matching_signature", then=((400, "malformed_http"),)),
    Row("length-int64", "2^63 - 1", lambda r: r.sized(b"9223372036854775807"),
        413, "body_too_large"),
    Row("length-uint64", "2^64 - 1", lambda r: r.sized(b"18446744073709551615"),
        413, "body_too_large"),
)  # fmt: skip

CODINGS = (
    _bad("cl-te", "a length and chunks", _both),
    _bad("te-cl", "chunks, and then a length",
         lambda r: r.chunked().add("Content-Length", b"3")),
    _bad("cl-0-te", "a length of 0 and chunks",
         lambda r: r.first("Content-Length", b"0").chunked()),
    _coding("te-unknown", "a coding that nobody knows", b"xchunked"),
    _coding("te-identity", "identity", b"identity"),
    _coding("te-identity-last", "chunked, and then identity", b"chunked, identity"),
    _coding("te-gzip", "gzip without chunks", b"gzip"),
    _coding("te-gzip-last", "chunked, and then gzip", b"chunked, gzip"),
    _coding("te-gzip-first", "gzip, and then chunked: nothing here unpacks it", b"gzip, chunked"),
    _coding("te-twice-in-list", "chunked, chunked", b"chunked, chunked"),
    _coding("te-empty", "empty", b""),
    _coding("te-quoted", "in quotes", b'"chunked"'),
    _coding("te-parameter", "a parameter", b"chunked;a=b"),
    _coding("te-vertical-tab", "a vertical tab before it", b"\x0bchunked"),
    _coding("te-nul", "a NUL after it", b"chunked\0"),
    _coding("te-letter", "a letter before it", b"x chunked"),
    _coding("te-space-after", "a space after it", b"chunked "),
    _coding("te-tab-after", "a tab after it", b"chunked\t"),
    _coding("te-comma", "a comma before it", b",chunked"),
    _coding("te-comma-after", "a comma after it", b"chunked,"),
    _coding("te-cut", "cut short", b"chunke"),
    _coding("te-look-alike", "a long s's case mapping", "chun\u212aed".encode()),
    _bad("te-twice", "twice, the second identity",
         lambda r: r.chunked().add("Transfer-Encoding", b"identity")),
    _bad("te-twice-other-first", "twice, the first identity",
         lambda r: r.first("Transfer-Encoding", b"identity").chunked()),
    _bad("te-twice-equal", "twice chunked",
         lambda r: r.chunked().add("Transfer-Encoding", b"chunked")),
    _bad("te-name-space", "coding: a space before its colon", lambda r: r.sized().add(
        "Transfer-Encoding ", b"chunked").carry(chunk(r.body) + _END)),
    _bad("te-folded", "coding: folded over two lines", lambda r: r.chunked(coding=b"\r\n chunked")),
    _bad("te-bare-lf", "after a bare LF in another value", lambda r: r.sized().add(
        "X-Pad", b"x\nTransfer-Encoding: chunked").carry(chunk(r.body) + _END)),
    _bad("te-bare-cr", "after a bare CR in another value", lambda r: r.sized().add(
        "X-Pad", b"x\rTransfer-Encoding: chunked").carry(chunk(r.body) + _END)),
    _bad("te-http-1-0", "chunks in HTTP/1.0, which has none",
         lambda r: r.chunked().to(b"POST " + _PATH + b" HTTP/1.0")),
    Row("te-underscored", "`Transfer_Encoding`, which is none",
        lambda r: r.sized().add("Transfer_Encoding", b"chunked").carry(chunk(r.body) + _END),
        401, "no_matching_signature", then=((400, "malformed_http"),)),
)  # fmt: skip

CHUNKS = (
    _bad_body("chunk-no-number", "a size that is none", lambda b: b"zz\r\n" + b),
    _bad_body("chunk-negative", "a minus", lambda b: chunk(b, b"-%x" % len(b)) + _END),
    _bad_body("chunk-plus", "a plus", lambda b: chunk(b, b"+%x" % len(b)) + _END),
    _bad_body("chunk-0x", "0x before it", lambda b: chunk(b, b"0x%x" % len(b)) + _END),
    _bad_body("chunk-space-first", "a space before it", lambda b: chunk(b, b" %x" % len(b)) + _END),
    _bad_body("chunk-space-after", "a space after it", lambda b: chunk(b, b"%x " % len(b)) + _END),
    _bad_body("chunk-tab-after", "a tab after it", lambda b: chunk(b, b"%x\t" % len(b)) + _END),
    _bad_body("chunk-underscore", "an underscore", lambda b: chunk(b, b"1_0") + _END),
    _bad_body("chunk-comma", "a comma", lambda b: chunk(b, b"%x,0" % len(b)) + _END),
    _bad_body("chunk-overflow", "2^64", lambda b: chunk(b, b"10000000000000000") + _END),
    _bad_body("chunk-wrapped", "2^64 and the true size",
              lambda b: chunk(b, b"1%016x" % len(b)) + _END),
    _bad_body("chunk-empty-size", "no size", lambda b: chunk(b, b"") + _END),
    _bad_body("chunk-extension-alone", "an extension and no size",
              lambda b: chunk(b, b";a=b") + _END),
    _bad_body("chunk-size-short", "a size of one less than the chunk",
              lambda b: chunk(b, b"%x" % (len(b) - 1)) + _END),
    _bad_body("chunk-no-crlf", "no line end after the chunk",
              lambda b: b"%x\r\n" % len(b) + b + _END),
    _bad_body("chunk-lf-after-size", "a bare LF after the size",
              lambda b: b"%x\n" % len(b) + b + b"\r\n" + _END),
    _bad_body("chunk-cr-after-size", "a bare CR after the size",
              lambda b: b"%x\r" % len(b) + b + b"\r\n" + _END),
    _bad_body("chunk-lf-after-data", "a bare LF after the chunk",
              lambda b: b"%x\r\n" % len(b) + b + b"\n" + _END),
    _bad_body("chunk-lf-in-extension", "a bare LF in an extension, which hides a size",
              lambda b: b"%x;\n" % len(b) + b + b"\r\n" + _END),
    _bad_body("chunk-last-lf", "bare LFs at the end",
              lambda b: chunk(b) + b"0\n\n"),
    _bad_body("chunk-nul-extension", "a NUL in an extension",
              lambda b: chunk(b, b"%x;a=\0" % len(b)) + _END),
    _bad_body("trailer-no-colon", "a trailer without a colon",
              lambda b: chunk(b) + b"0\r\nno colon\r\n\r\n"),
    _bad_body("trailer-space", "a trailer with a space before its colon",
              lambda b: chunk(b) + b"0\r\nX : y\r\n\r\n"),
    Row("extension-huge", "an extension that never ends",
        lambda r: r.chunked(chunk(r.body, b"%x;a=" % len(r.body) + b"x" * _HUGE) + _END),
        431, "head_too_large"),
    Row("trailer-huge", "a trailer that never ends",
        lambda r: r.chunked(chunk(r.body) + b"0\r\nX: " + b"x" * _HUGE + b"\r\n\r\n"),
        431, "head_too_large"),
    Row("trailers-many", "trailers that never end",
        lambda r: r.chunked(chunk(r.body) + b"0\r\n" + b"X: y\r\n" * (_HUGE // 6) + b"\r\n"),
        431, "head_too_large"),
    Row("chunk-huge", "one chunk of 2^63 - 1 bytes",
        lambda r: r.chunked(chunk(r.body, b"7fffffffffffffff")), 408, "body_too_slow"),
    Row("chunk-never-last", "no last chunk", lambda r: r.chunked(chunk(r.body)),
        408, "body_too_slow"),
    Row("chunk-forged", "good chunks, a forged signature", lambda r: r.sign(_FORGED).chunked(),
        401, "no_matching_signature"),
    Row("chunk-size-in-body", "chunks read as a plain body, signed so",
        lambda r: r.genuinely(body=chunk(r.body) + _END), 400, "not_json"),
)  # fmt: skip


SMUGGLED = (
    Row("request-in-body", "a genuine request in the body of a forged one",
        lambda r: r.sign(_FORGED).carry(r.raw()), 401, "no_matching_signature"),
    Row("request-in-signed-body", "a genuine request in a signed body",
        lambda r: r.genuinely(body=genuine().raw()), 400, "not_json"),
    Row("request-in-put", "a genuine request in the body of a PUT",
        lambda r: r.to(b"PUT " + _PATH + b" HTTP/1.1").carry(r.raw()), 405, "not_post"),
    Row("request-in-get", "a genuine request in the body of a GET",
        lambda r: r.to(b"GET " + _PATH + b" HTTP/1.1").carry(r.raw()), 405, "not_post"),
    Row("request-in-unknown", "a genuine request in the body of one to nowhere",
        lambda r: r.to(b"POST /nowhere HTTP/1.1").carry(r.raw()), 404, "unknown_path"),
    Row("request-in-too-large", "a genuine request after a length that is too large",
        lambda r: r.carry(r.raw()).sized(b"999999"), 413, "body_too_large"),
    _bad("request-after-cl-te", "a genuine request behind a length and chunks",
         lambda r: _both(r.carry(b"")).raw() + r.raw()),
    _bad("request-after-bad-length", "a genuine request behind a bad length",
         lambda r: r.carry(r.raw()).sized(b"+0")),
    _bad("request-after-bad-coding", "a genuine request behind a bad coding",
         lambda r: r.chunked(_END + r.raw(), b"xchunked")),
    _bad("request-in-header", "a genuine request in a header's value, by bare LFs",
         lambda r: r.first("X-Pad", b"x\n\n" + r.raw().replace(b"\r\n", b"\n"))),
    Row("request-after-bad-chunk", "a genuine request behind a bad chunk",
        lambda r: r.chunked(b"zz\r\n" + r.raw()), 400, "malformed_http"),
    Row("request-in-extension", "a genuine request in a chunk's extension",
        lambda r: r.chunked(b"0;a=" + r.raw()), 400, "malformed_http"),
    Row("request-in-trailer", "a genuine request in a trailer",
        lambda r: r.chunked(_END[:3] + r.raw()), 400, "malformed_http"),
    Row("request-after-close", "a genuine request after one that ends the connection",
        lambda r: r.sign(_FORGED).add("Connection", b"close").raw() + r.raw(),
        401, "no_matching_signature"),
    Row("forged-pipelined", "two forged requests at once", lambda r: r.sign(_FORGED).raw() * 2,
        401, "no_matching_signature", then=((401, "no_matching_signature"),)),
    Row("forged-then-garbage", "a forged request, then no HTTP",
        lambda r: r.sign(_FORGED).raw() + b"\0\0\r\n\r\n",
        401, "no_matching_signature", then=((400, "malformed_http"),)),
)  # fmt: skip

CONTROLS = (
    control("chunked", "a body in chunks", lambda r: r.chunked()),
    control("chunked-upper", "`CHUNKED`", lambda r: r.chunked(coding=b"CHUNKED")),
    control("chunk-extension", "a chunk with an extension",
            lambda r: r.chunked(chunk(r.body, b"%x;a=b" % len(r.body)) + _END)),
    control("chunk-leading-zeros", "a size with leading zeros",
            lambda r: r.chunked(chunk(r.body, b"000%x" % len(r.body)) + _END)),
    control("length-leading-zeros", "a length with leading zeros, which HTTP allows",
            lambda r: r.sized(b"000%d" % len(r.body))),
    control("absolute-form", "the absolute form",
            lambda r: r.to(b"POST http://localhost" + _PATH + b" HTTP/1.1")),
    control("two-spaces", "two spaces around the path, which HTTP lets a reader take",
            lambda r: r.to(b"POST  " + _PATH + b"  HTTP/1.1")),
    control("with-query", "a query, which counts for nothing",
            lambda r: r.to(b"POST " + _PATH + b"?svix-id=x&a=%00 HTTP/1.1")),
    control("encoded-letter", "an encoded letter, which is the letter",
            lambda r: r.to(b"POST /webhooks/cler%6B HTTP/1.1")),
    control("http-1-0", "HTTP/1.0 with a length",
            lambda r: r.to(b"POST " + _PATH + b" HTTP/1.0")),
    control("version-rtsp", "RTSP/1.0, which the parser cannot tell from HTTP/1.0",
            lambda r: r.to(b"POST " + _PATH + b" RTSP/1.0")),
    control("empty-lines-first", "empty lines before the request, which HTTP allows",
            lambda r: b"\r\n\r\n" + r.raw()),
    control("expect", "100-continue", lambda r: r.add("Expect", b"100-continue")),
    control("genuine-h2c", "an upgrade to HTTP/2 that is not taken up", lambda r: r.add(
        "Connection", b"Upgrade, HTTP2-Settings").add("Upgrade", b"h2c")),
    control("genuine-websocket", "an upgrade to a websocket that is not taken up",
            lambda r: r.add("Connection", b"Upgrade").add("Upgrade", b"websocket")),
)  # fmt: skip

ROWS = (
    *LENGTHS, *CODINGS, *CHUNKS, *request_line.ROWS, *SMUGGLED, *CONTROLS,
)  # fmt: skip
