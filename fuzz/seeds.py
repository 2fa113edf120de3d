"""The inputs that fuzzing begins with: genuine samples, and one or more of each hostile class."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from fuzz.documents import TYPES
from fuzz.forgeries import FORGERIES
from fuzz.modes import LETTERS, MODES, MOODS, POLICIES
from fuzz.service import PATH
from gateway.clerk.catalogue import CATALOGUE
from gateway.clerk.samples import sample
from virtual.loop import EPOCH

__all__ = ["seeds", "write_seeds"]

_RAW, _FORGED, _GENUINE = (bytes([at]) for at in range(len(MODES)))
_SPLIT = 0x20
"""In the flags of `fuzz.choices.manner`: one place to split at."""
_SLOW, _LINGER, _LEAVE, _SHUT = 0x04, 0x10, 0x02, 0x01
_POST = b"POST %b HTTP/1.1\r\nHost: h\r\n" % PATH.encode()
_SIGNED = b"svix-id: msg_2b\r\nsvix-timestamp: %d\r\nsvix-signature: v1,%b=\r\n" % (
    EPOCH,
    b"A" * 43,
)
_LENGTH = b"Content-Length: 2\r\n\r\n{}"
_CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

REQUESTS: dict[str, bytes] = {
    "forged": _POST + _SIGNED + _LENGTH,
    "unsigned": _POST + _LENGTH,
    "path": b"POST /other?a=%41 HTTP/1.1\r\nHost: h\r\n" + _LENGTH,
    "path-escaped": b"POST /webhooks/%63lerk HTTP/1.1\r\nHost: h\r\n" + _LENGTH,
    "path-absolute": b"POST http://h%b HTTP/1.1\r\nHost: h\r\n" % PATH.encode() + _LENGTH,
    "method-get": b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % PATH.encode(),
    "method-head": b"HEAD %b HTTP/1.1\r\nHost: h\r\n\r\n" % PATH.encode(),
    "method-connect": b"CONNECT h:443 HTTP/1.1\r\nHost: h\r\n\r\n",
    "method-options": b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    "version-10": b"POST %b HTTP/1.0\r\n" % PATH.encode() + _LENGTH,
    "version-2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "not-http": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    "length-none": _POST + b"\r\n",
    "length-text": _POST + b"Content-Length: 0x2\r\n\r\n{}",
    "length-negative": _POST + b"Content-Length: -1\r\n\r\n{}",
    "length-huge": _POST + b"Content-Length: 99999999999999999999\r\n\r\n{}",
    "length-over": _POST + b"Content-Length: 4097\r\n\r\n{}",
    "length-twice": _POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length-and-chunked": _POST + b"Content-Length: 2\r\n" + _CHUNKED + b"0\r\n\r\n",
    "body-short": _POST + b"Content-Length: 9\r\n\r\n{}",
    "chunked": _POST + _SIGNED + _CHUNKED + b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    "chunk-trailer": _POST + _CHUNKED + b"2;a=b\r\n{}\r\n0\r\nsvix-id: a\r\n\r\n",
    "chunk-malformed": _POST + _CHUNKED + b"2\r\n{}\r\nzz\r\n",
    "chunk-huge": _POST + _CHUNKED + b"ffffffffffffffff1\r\n{}",
    "expect": _POST + b"Expect: 100-continue\r\n" + _LENGTH,
    "upgrade": _POST + b"Connection: upgrade\r\nUpgrade: websocket\r\n" + _LENGTH,
    "header-folded": _POST + b"svix-id: a\r\n b\r\n" + _LENGTH,
    "header-without-colon": _POST + b"svix-id\r\n" + _LENGTH,
    "header-control": _POST + b"svix-id: a\x00b\r\n" + _LENGTH,
    "header-latin": _POST + b"svix-id: \xe9\xff\r\n" + _LENGTH,
    "pipelined": (_POST + _SIGNED + _LENGTH) * 3,
    "pipelined-then-junk": _POST + _SIGNED + _LENGTH + b"junk\r\n\r\n",
    "close": _POST + b"Connection: close\r\n" + _LENGTH + _POST + _LENGTH,
    "head-short": _POST + b"svix-id: ms",
}
"""What a client might send that holds no secret."""

REPEATED: dict[str, tuple[bytes, bytes, bytes]] = {
    "head-flood": (_POST, b"a: " + b"b" * 60 + b"\r\n", _LENGTH),
    "url-flood": (b"POST /", b"a" * 60, b" HTTP/1.1\r\nHost: h\r\n\r\n"),
    "chunk-flood": (_POST + _CHUNKED, b"a\r\n0123456789\r\n", b"0\r\n\r\n"),
    "trailer-flood": (_POST + _CHUNKED + b"0\r\n", b"a: " + b"b" * 60 + b"\r\n", b"\r\n"),
    "pipeline-flood": (b"", _POST + _LENGTH, b"GET / HTTP/1.1\r\n\r\n"),
    "newline-flood": (b"", b"\r\n" * 30, _POST + _LENGTH),
}
"""What is sent before, again and again, and after."""

BODIES: dict[str, bytes] = {
    "empty": b"",
    "not-json": b"{",
    "array": b"[]",
    "no-type": b"{}",
    "type-null": b'{"type":null}',
    "type-long": json.dumps({"type": "a" * 257}).encode(),
    "type-dots": b'{"type":"a..b.","data":{}}',
    "type-wild": b'{"type":"user.>*","data":{"id":"a/../b"}}',
    "type-unicode": '{"type":"user.\u00e9\u2028","data":{"id":"\u0000\u0085"}}'.encode(),
    "latin": b'{"type":"user.\xe9"}',
    "bom": b'\xef\xbb\xbf{"type":"user.created"}',
    "surrogate": b'{"type":"user.created","data":{"id":"\\ud800"}}',
    "twice": b'{"type":"a","type":"user.created"}',
    "huge": b'{"type":"user.created","timestamp":1' + b"0" * 200 + b"}",
    "infinite": b'{"type":"user.created","timestamp":1e999}',
    "nan": b'{"type":"user.created","timestamp":NaN}',
    "deep": b'{"type":"organization.created","data":' + b"[" * 150 + b"]" * 150 + b"}",
    "unmatched": b'{"type":"session.created","data":{}}',
    "enterprise": b'{"type":"organization.updated","data":{"id":"org_1","private_metadata":{"a":1},'
    b'"public_metadata":{"tier":"enterprise"},"members":[{"email":"a"},1]}}',
    "tenant": b'{"type":"user.updated","timestamp":1800000000123,"data":{"id":"user_1",'
    b'"private_metadata":1,"public_metadata":{"tenant":"a.b/c"}}}',
    "tenant-list": b'{"type":"a","data":{"public_metadata":{"tenant":["a"]}}}',
    "tenant-number": b'{"type":"a","data":{"public_metadata":{"tenant":12}}}',
    "tenant-shadow": b'{"type":"a","route":"x","source":"y","svix_id":"z",'
    b'"data":{"public_metadata":{"tenant":"t\\r\\nx: y"}}}',
    "ranked": b'{"type":"email.created","data":{"members":[{"rank":3,"email":"a"},{"rank":2}]}}',
    "ranked-mixed": b'{"type":"email.created","data":{"members":[{"rank":3},{"rank":"a"}]}}',
    "ranked-float": b'{"type":"waitlistEntry.created","data":{"members":[{"rank":1.5e3}]}}',
}


def seeds() -> Iterator[tuple[str, bytes]]:
    """Give every seed with a name of its own."""
    yield from _raw()
    for at, forge in enumerate(FORGERIES):
        for number, body in enumerate((b"{}", BODIES["tenant"], b" " * 4097)):
            for framing in (0, 160):
                choices = bytes([0, at, framing, number * 73, number, number])
                yield f"forged-{forge.__name__}-{number}-{framing}", _FORGED + choices + body
    yield from _genuine()


def write_seeds(directory: Path) -> int:
    """Write the seeds into a directory, each as a file; give their number."""
    directory.mkdir(parents=True, exist_ok=True)
    found = dict(seeds())
    for name, data in found.items():
        (directory / name).write_bytes(data)
    return len(found)


def _raw() -> Iterator[tuple[str, bytes]]:
    whole, once = b"\x00", b"\x00"
    for name, data in REQUESTS.items():
        yield f"raw-{name}", _RAW + whole + once + data
    for flags in (_SLOW, _LEAVE, _SHUT, _SPLIT, _SPLIT | _LINGER, _SPLIT | _SLOW | _LEAVE):
        places = b"\x90" * (flags // _SPLIT)
        for name in ("forged", "chunked", "pipelined", "body-short", "expect"):
            seed = _RAW + bytes([flags]) + places + once + REQUESTS[name]
            yield f"raw-{name}-{flags}", seed
    for name, (before, middle, after) in REPEATED.items():
        data = before + middle + after
        # The smallest 256ths that cut at least there; what else gets repeated does no harm.
        cuts = [-(-256 * place // len(data)) for place in (len(before), len(before + middle))]
        places = bytes(min(cut, 255) for cut in cuts)
        yield f"raw-{name}", _RAW + bytes([_SPLIT * 2]) + places + b"\xff" + data


def _genuine() -> Iterator[tuple[str, bytes]]:
    bodies = {name: sample(name, EPOCH * 1000) for name in CATALOGUE} | BODIES
    for number, (name, body) in enumerate(bodies.items()):
        policy, letter = number % len(POLICIES), number % len(LETTERS)
        setup = bytes([0, 0, policy, letter, number, number * 9 % 256, 0])
        yield f"genuine-{name}", _GENUINE + setup + b"\x06msg_2b" + b"\x00\x00" + body
    for mood in range(len(MOODS)):
        for letter in range(len(LETTERS)):
            setup = bytes([0, mood, 0, letter, 0, 128, 1, 0, 0xC0, 0])
            yield f"genuine-mood-{mood}-{letter}", _GENUINE + setup + BODIES["tenant"]
    for kind in range(16):
        for at in range(len(TYPES)):
            setup = bytes([0, 0, 0, 0, 0, 128, 1, 0, 0, 1])
            values = bytes([at, at, 0x0D, kind, 3]) + b"a/b" + bytes([kind, 2, kind, 1]) * 12
            yield f"genuine-built-{kind}-{at}", _GENUINE + setup + values
