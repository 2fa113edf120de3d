"""MACs that are computed by another key, algorithm or content than the scheme's."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable

from tests.canaries import OTHER_SECRET, SECRET
from tests.e2e.gateway_process import PATH
from tests.hostile.row import KEY, Request, Row, sha256, v1

Make = Callable[[Request], Request | bytes]
_OTHER_KEY = base64.b64decode(OTHER_SECRET.removeprefix("whsec_"))


def _wrong(name: str, what: str, make: Make) -> Row:
    return Row(name, what, make, 401, "no_matching_signature")


def _malformed(name: str, what: str, make: Make) -> Row:
    """A MAC of another length than 32 bytes."""
    return Row(name, what, make, 401, "malformed_header")


def _hmac(name: str, what: str, key: bytes) -> Row:
    return _wrong(name, what, lambda r: r.signed_as(key=key))


def _content(name: str, what: str, content: Callable[[Request], bytes]) -> Row:
    return _wrong(name, what, lambda r: r.signed_as(content(r)))


ALGORITHMS = (
    _malformed("md5", "HMAC-MD5", lambda r: r.signed_as(algorithm="md5")),
    _malformed("sha-1", "HMAC-SHA1", lambda r: r.signed_as(algorithm="sha1")),
    _malformed("sha-512", "HMAC-SHA512", lambda r: r.signed_as(algorithm="sha512")),
    _wrong(
        "sha-512-cut",
        "HMAC-SHA512, its first 32 bytes",
        lambda r: r.sign(v1(r.signed_as(algorithm="sha512").mac[:32])),
    ),
    _wrong("sha3-256", "HMAC-SHA3-256", lambda r: r.signed_as(algorithm="sha3_256")),
    _wrong(
        "blake2s",
        "keyed BLAKE2s",
        lambda r: r.sign(v1(hashlib.blake2s(r.content, key=KEY).digest())),
    ),
    _wrong("bare-hash", "SHA-256 without a key", lambda r: r.sign(v1(sha256(r.content)))),
    _wrong(
        "prefix-mac",
        "SHA-256 over key and content, which can be extended",
        lambda r: r.sign(v1(sha256(KEY + r.content))),
    ),
    _wrong(
        "suffix-mac", "SHA-256 over content and key", lambda r: r.sign(v1(sha256(r.content + KEY)))
    ),
    _wrong(
        "hmac-of-hash",
        "HMAC over the hash of the content",
        lambda r: r.signed_as(sha256(r.content)),
    ),
    _wrong("hmac-of-hmac", "HMAC over the HMAC", lambda r: r.signed_as(r.mac)),
)

KEYS = (
    _hmac("key-of-another-endpoint", "another endpoint's secret", _OTHER_KEY),
    _hmac("key-whole-secret", "`whsec_…` as it stands as the key", SECRET.encode()),
    _hmac("key-raw-base64", "the base64 text as the key", SECRET.removeprefix("whsec_").encode()),
    _hmac("key-with-prefix", "`whsec_` before the decoded key", b"whsec_" + KEY),
    _hmac("key-with-newline", "a newline after the key, as from a file", KEY + b"\n"),
    _hmac("key-hex", "the key in hex", KEY.hex().encode()),
    _hmac("key-cut", "the key without its last byte", KEY[:-1]),
    _hmac("key-reversed", "the key backwards", KEY[::-1]),
    _hmac("key-hashed", "the hash of the key", sha256(KEY)),
    _hmac("key-empty", "no key", b""),
    _hmac("key-zeros", "24 zeros", bytes(24)),
    _hmac("key-none", "the word None, as from a variable that is not set", b"None"),
    _hmac("key-placeholder", "the variable's name", b"CLERK_WEBHOOK_SIGNING_SECRET"),
    _wrong("key-id", "the message id as the key", lambda r: r.signed_as(key=r.id)),
    _wrong("key-own-mac", "the last signature as the key", lambda r: r.signed_as(key=r.mac)),
)

CONTENTS = (
    _content("content-body", "the body alone", lambda r: r.body),
    _content("content-id-body", "`id.body`", lambda r: r.id + b"." + r.body),
    _content("content-timestamp-body", "`timestamp.body`", lambda r: r.stamp + b"." + r.body),
    _content(
        "content-id-timestamp", "`id.timestamp.`, no body", lambda r: r.id + b"." + r.stamp + b"."
    ),
    _content("content-empty", "nothing", lambda _: b""),
    _content("content-order", "`timestamp.id.body`", lambda r: b".".join((r.stamp, r.id, r.body))),
    _content(
        "content-backwards", "`body.timestamp.id`", lambda r: b".".join((r.body, r.stamp, r.id))
    ),
    _content("content-colons", "`id:timestamp:body`", lambda r: b":".join((r.id, r.stamp, r.body))),
    _content("content-joined", "no separators", lambda r: r.id + r.stamp + r.body),
    _content(
        "content-newlines", "newlines for the dots", lambda r: b"\n".join((r.id, r.stamp, r.body))
    ),
    _content(
        "content-two-dots", "`id..timestamp.body`", lambda r: r.id + b".." + r.stamp + b"." + r.body
    ),
    _content("content-newline-after", "a newline at the end", lambda r: r.content + b"\n"),
    _content(
        "content-body-hash",
        "the hash of the body",
        lambda r: b".".join((r.id, r.stamp, sha256(r.body).hex().encode())),
    ),
    _content(
        "content-body-base64",
        "the body in base64",
        lambda r: b".".join((r.id, r.stamp, base64.b64encode(r.body))),
    ),
    _content(
        "content-compact",
        "the body without spaces, as a re-encoder would sign it",
        lambda r: b".".join(
            (r.id, r.stamp, json.dumps(json.loads(r.body), separators=(",", ":")).encode())
        ),
    ),
    _content(
        "content-utf-16", "all of it in UTF-16", lambda r: r.content.decode().encode("utf-16")
    ),
    _content(
        "content-upper-id",
        "the id in upper case",
        lambda r: b".".join((r.id.upper(), r.stamp, r.body)),
    ),
    _content(
        "content-milliseconds",
        "the timestamp in milliseconds",
        lambda r: b".".join((r.id, r.stamp + b"000", r.body)),
    ),
    _content(
        "content-with-path",
        "the path first, as others sign",
        lambda r: PATH.encode() + b"." + r.content,
    ),
    _content(
        "content-slack",
        "Slack's `v0:timestamp:body`",
        lambda r: b":".join((b"v0", r.stamp, r.body)),
    ),
)

OTHERS = (
    _content("of-another-body", "a genuine signature of another body",
             lambda r: b".".join((r.id, r.stamp, r.body.replace(b"user_1", b"user_2")))),
    _content("of-another-id", "a genuine signature of another message id",
             lambda r: b".".join((b"msg_another", r.stamp, r.body))),
    _content("of-another-time", "a genuine signature of a second earlier",
             lambda r: b".".join((r.id, b"%d" % (r.now - 1), r.body))),
    _content("of-an-empty-body", "a genuine signature of an empty body",
             lambda r: b".".join((r.id, r.stamp, b""))),
    Row("of-another-source", "another source's genuine request, sent to this path",
        lambda r: r.signed_as(key=_OTHER_KEY).to(b"POST /closed HTTP/1.1"),
        401, "address_not_allowed"),
)  # fmt: skip

ROWS = (*ALGORITHMS, *KEYS, *CONTENTS, *OTHERS)
