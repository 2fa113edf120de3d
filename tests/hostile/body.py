"""Bodies that are not the bytes that were signed, and signed bytes that are no event."""

from __future__ import annotations

import base64
import gzip
import json
import unicodedata
import zlib
from collections.abc import Callable
from urllib.parse import quote_plus

from tests.canaries import CANARY
from tests.e2e.client import event
from tests.hostile.row import MAX_BODY, Request, Row, chunk, control, genuine

_ACCENTED = f'{{"type":"user.created","data":{{"id":"user_1","name":"{CANARY} é"}}}}'


def _changed(name: str, what: str, change: Callable[[bytes], bytes]) -> Row:
    """Change the body under a signature of the body before."""
    return Row(
        name, f"changed: {what}", lambda r: r.carry(change(r.body)), 401, "no_matching_signature"
    )


def _from(name: str, what: str, body: str, change: Callable[[str], str]) -> Row:
    def make(_: Request) -> Request:
        changed = change(body).encode()
        assert changed != body.encode()
        return genuine(body.encode()).carry(changed)

    return Row(name, what, make, 401, "no_matching_signature")


def _signed(name: str, what: str, body: bytes, reason: str) -> Row:
    """A body that the real key has signed."""
    return Row(name, what, lambda r: r.genuinely(body=body), 400, reason)


def _no_json(name: str, what: str, body: bytes) -> Row:
    return _signed(name, what, body, "not_json")


def _value(name: str, what: str, value: bytes) -> Row:
    """A body whose `data` is one odd value."""
    return _no_json(name, f"data: {what}", b'{"type":"user.created","data":' + value + b"}")


def _no_type(name: str, what: str, body: bytes) -> Row:
    return _signed(name, f"no type: {what}", body, "no_type")


def _reencoded(body: bytes, **how: object) -> bytes:
    return json.dumps(json.loads(body), **how).encode()  # type: ignore[arg-type]  # json's own names


def _reordered(body: bytes) -> bytes:
    return json.dumps(dict(reversed(json.loads(body).items()))).encode()


def _multipart(body: bytes) -> bytes:
    part = b'--x\r\nContent-Disposition: form-data; name="payload"\r\n\r\n'
    return part + body + b"\r\n--x--\r\n"


CHANGED = (
    _changed("one-byte", "one letter changed", lambda b: b.replace(b"user_1", b"user_2")),
    _changed("one-byte-case", "one letter's case", lambda b: b.replace(b"user_1", b"User_1")),
    _changed("type", "another event type", lambda b: b.replace(b"created", b"deleted")),
    _changed("space-after", "a space at the end", lambda b: b + b" "),
    _changed("space-before", "a space at the beginning", lambda b: b" " + b),
    _changed("newline-after", "a newline at the end, as editors add", lambda b: b + b"\n"),
    _changed("crlf-after", "CR LF at the end", lambda b: b + b"\r\n"),
    _changed("nul-after", "a NUL at the end, where C strings end", lambda b: b + b"\0"),
    _changed("bom-before", "a byte order mark", lambda b: b"\xef\xbb\xbf" + b),
    _changed("compact", "without spaces", lambda b: _reencoded(b, separators=(",", ":"))),
    _changed("indented", "pretty-printed", lambda b: _reencoded(b, indent=2)),
    _changed("key-order", "its keys in another order", _reordered),
    _changed("sorted", "its keys sorted", lambda b: _reencoded(b, sort_keys=True, indent=1)),
    _changed("key-twice", "a second `type` that wins", lambda b: b[:-1] + b', "type": "x"}'),
    _changed("key-twice-first", "a second `data` that loses", lambda b: b'{"data": {}, ' + b[1:]),
    _changed("one-byte-less", "without its last byte", lambda b: b[:-1]),
    _changed("first-half", "its first half", lambda b: b[: len(b) // 2]),
    _changed("emptied", "no body", lambda _: b""),
    _changed("doubled", "the body twice", lambda b: b + b),
    _changed("in-a-list", "within a list", lambda b: b"[" + b + b"]"),
    _changed("as-string", "as a JSON string", lambda b: json.dumps(b.decode()).encode()),
    _changed("base64", "in base64", base64.b64encode),
    _changed("utf-16", "in UTF-16", lambda b: b.decode().encode("utf-16")),
    _changed("escaped", "a letter as an escape", lambda b: b.replace(b"user_1", b"\\u0075ser_1")),
    _changed("number", "a number written as a float", lambda b: b.replace(b"0123,", b"0123.0,")),
    _changed("form", "as a form's field", lambda b: b"payload=" + quote_plus(b).encode()),
    _changed("multipart", "as a part of a form", _multipart),
    _changed("other", "another whole event", lambda _: event("user.deleted")),
    _from("line-endings", "CR LF for its newlines", json.dumps(json.loads(event()), indent=1),
          lambda text: text.replace("\n", "\r\n")),
    _from("normalised", "its accents decomposed", _ACCENTED,
          lambda text: unicodedata.normalize("NFD", text)),
    _from("escaped-accent", "its accents escaped", _ACCENTED,
          lambda text: text.replace("é", "\\u00e9")),
    _from("latin-1", "its accents dropped", _ACCENTED, lambda text: text.replace("é", "e")),
    Row("gzip", "compressed, the signature over the plain text",
        lambda r: r.carry(gzip.compress(r.body)).add("Content-Encoding", b"gzip"),
        401, "no_matching_signature"),
    Row("deflate", "compressed by deflate",
        lambda r: r.carry(zlib.compress(r.body)).add("Content-Encoding", b"deflate"),
        401, "no_matching_signature"),
)  # fmt: skip

NOT_JSON = (
    _no_json("signed-empty", "genuine, and empty", b""),
    _no_json("signed-blank", "spaces", b" \n\t "),
    _no_json("brace", "an open brace", b"{"),
    _no_json("bom", "a byte order mark", b"\xef\xbb\xbf" + event()),
    _no_json("signed-utf-16", "UTF-16", event().decode().encode("utf-16")),
    _no_json("signed-utf-32", "UTF-32", event().decode().encode("utf-32")),
    _no_json("signed-gzip", "gzip", gzip.compress(event(), mtime=0)),
    _no_json("bomb", "a gzip of 50 MB", gzip.compress(bytes(50_000_000), mtime=0)),
    _no_json("signed-form", "a form", b"type=user.created&data=" + CANARY.encode()),
    _no_json("signed-multipart", "a form in parts", _multipart(event())),
    _no_json("xml", "XML with an entity of a file",
             b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><type>&x;</type>'),
    _no_json("yaml", "YAML with a tag of Python", b"type: !!python/object/apply:os.abort []\n"),
    _no_json("pickle", "a pickle", b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    _no_json("msgpack", "MessagePack", b"\x81\xa4type\xacuser.created"),
    _no_json("html", "HTML", b"<html><script>alert(1)</script></html>"),
    _no_json("jwt", "a JWT", b"eyJhbGciOiJub25lIn0.eyJ0eXBlIjoidXNlciJ9."),
    _no_json("single-quotes", "single quotes", b"{'type':'user.created'}"),
    _no_json("bare-key", "a key without quotes", b'{type:"user.created"}'),
    _no_json("trailing-comma", "a comma at the end", b'{"type":"user.created",}'),
    _no_json("comment", "a comment", b'{"type":"user.created"/**/}'),
    _no_json("garbage-after", "letters after the object", b'{"type":"user.created"}xyz'),
    _no_json("nul-after-object", "a NUL after the object", b'{"type":"user.created"}\0'),
    _no_json("two-documents", "two objects", b'{"type":"user.created"}{"type":"user.deleted"}'),
    _no_json("ndjson", "two lines", b'{"type":"user.created"}\n{"type":"user.deleted"}\n'),
    _no_json("json-prefix", "the prefix against script inclusion", b")]}',\n" + event()),
    _no_json("deep-lists", "50,000 open brackets", b"[" * 50_000),
    _no_json("deep-objects", "20,000 open objects", b'{"a":' * 20_000),
    _no_json("deep-and-whole", "50,000 lists in each other, all closed",
             b'{"type":"user.created","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
)  # fmt: skip

VALUES = (
    _value("nan", "NaN", b"NaN"),
    _value("infinity", "Infinity", b"-Infinity"),
    _value("undefined", "undefined", b"undefined"),
    _value("python-none", "None", b"None"),
    _value("upper-true", "TRUE", b"TRUE"),
    _value("leading-zero", "a number with a leading zero", b"007"),
    _value("hex-number", "a number in hex", b"0x1f"),
    _value("plus-number", "a number with a plus", b"+1"),
    _value("no-integer", "`.5`", b".5"),
    _value("no-fraction", "`1.`", b"1."),
    _value("no-exponent", "`1e`", b"1e"),
    _value("overflow", "1e400, which no float holds", b"1e400"),
    _value("control-character", "a control character in a string", b'"a\x01b"'),
    _value("raw-newline", "a newline in a string", b'"a\nb"'),
    _value("raw-nul", "a NUL in a string", b'"a\0b"'),
    _value("bad-escape", "an unknown escape", b'"\\x41"'),
    _value("cut-escape", "an escape cut short", b'"\\u12"'),
    _value("lone-surrogate", "half a pair of surrogates, escaped", b'"\\ud800"'),
    _value("swapped-surrogates", "a pair the wrong way round", b'"\\udc00\\ud800"'),
    _value("raw-surrogate", "a surrogate in UTF-8", b'"\xed\xa0\x80"'),
    _value("invalid-utf-8", "a byte that UTF-8 has not", b'"\xff"'),
    _value("cut-utf-8", "a letter of UTF-8 cut short", b'"\xc3"'),
    _value("overlong-utf-8", "a slash in two bytes", b'"\xc0\xaf"'),
    _value("beyond-unicode", "U+110000", b'"\xf4\x90\x80\x80"'),
    _value("latin-1-letter", "a letter of Latin-1", b'"caf\xe9"'),
)  # fmt: skip

NO_EVENTS = (
    _signed("list", "a list", b'[{"type":"user.created"}]', "not_an_object"),
    _signed("string", "a string", b'"user.created"', "not_an_object"),
    _signed("number-alone", "a number", b"1", "not_an_object"),
    _signed("null", "null", b"null", "not_an_object"),
    _signed("true", "true", b"true", "not_an_object"),
    _no_type("no-members", "an empty object", b"{}"),
    _no_type("type-elsewhere", "a type within `data`", b'{"data":{"type":"user.created"}}'),
    _no_type("type-case", "`Type`", b'{"Type":"user.created"}'),
    _no_type("type-space", "a space in the name `type `", b'{"type ":"user.created"}'),
    _no_type("type-null", "null", b'{"type":null}'),
    _no_type("type-empty", "an empty type", b'{"type":""}'),
    _no_type("type-number", "a number", b'{"type":7}'),
    _no_type("type-false", "false", b'{"type":false}'),
    _no_type("type-list", "a list", b'{"type":["user.created"]}'),
    _no_type("type-object", "an object", b'{"type":{"$ne":null}}'),
    _no_type("type-last-wins", "a type, and then an empty one",
             b'{"type":"user.created","type":""}'),
    _no_type("prototype", "a type by JavaScript's prototype", b'{"__proto__":{"type":"x"}}'),
    _signed("type-257", "257 characters", b'{"type":"' + b"u" * 257 + b'"}', "type_too_long"),
    _signed("type-100k", "100,000 characters", b'{"type":"' + b"u" * 100_000 + b'"}',
            "type_too_long"),
)  # fmt: skip

SIZES = (
    Row("over-limit", "one byte over `max_body`, genuine",
        lambda r: r.genuinely(body=event(size=MAX_BODY + 1)), 413, "body_too_large"),
    Row("over-limit-forged", "ten times `max_body` announced, nothing sent",
        lambda r: r.carry(b"").sized(b"%d" % (10 * MAX_BODY)), 413, "body_too_large"),
    Row("over-limit-chunked", "one byte over `max_body` in chunks, genuine",
        lambda r: r.genuinely(body=event(size=MAX_BODY + 1)).chunked(), 413, "body_too_large"),
    Row("over-limit-small-chunks", "over `max_body` in chunks of 100",
        lambda r: r.chunked(chunk(b"x" * 100) * (MAX_BODY // 100 + 1)), 413, "body_too_large"),
    Row("one-byte-missing", "a length of one more than is sent",
        lambda r: r.sized(b"%d" % (len(r.body) + 1)), 408, "body_too_slow"),
    Row("nothing-sent", "a length, and no body", lambda r: r.sized(b"100").carry(b""),
        408, "body_too_slow"),
    Row("no-length", "a body that no header announces", lambda r: r.sized(),
        401, "no_matching_signature", then=((400, "malformed_http"),)),
)  # fmt: skip

CONTROLS = (
    control("exact-limit", "exactly `max_body`",
            lambda r: r.genuinely(body=event(size=MAX_BODY))),
    control("form-type", "an event under a form's content type",
            lambda r: r.set("Content-Type", b"application/x-www-form-urlencoded")),
    control("type-256", "a type of 256 characters, as long as any may be",
            lambda r: r.genuinely(body=event("u" * 256))),
)  # fmt: skip

ROWS = (*CHANGED, *NOT_JSON, *VALUES, *NO_EVENTS, *SIZES, *CONTROLS)
