"""Signatures that are not the one over these bytes, or not written as the scheme has it."""

from __future__ import annotations

import base64
from collections.abc import Callable

from tests.e2e.gateway_process import PATH
from tests.hostile import mac
from tests.hostile.row import Request, Row, control, flip, v1

Make = Callable[[Request], Request | bytes]


def _wrong(name: str, what: str, make: Make) -> Row:
    return Row(name, what, make, 401, "no_matching_signature")


def _malformed(name: str, what: str, make: Make) -> Row:
    return Row(name, what, make, 401, "malformed_header")


def _missing(name: str, what: str, make: Make) -> Row:
    return Row(name, what, make, 401, "missing_header")


def _list(name: str, what: str, value: Callable[[Request], bytes]) -> Row:
    return _malformed(name, what, lambda r: r.sign(value(r)))


def _swap_spare_bits(r: Request) -> Request:
    """Of the 44 characters the 43rd has two bits to spare: the next one decodes to the same."""
    return r.sign(b"v1," + r.encoded[:42] + bytes([r.encoded[42] + 1]) + b"=")


def _has_symbol(r: Request) -> bool:
    return b"+" in r.encoded or b"/" in r.encoded


def _url_alphabet(r: Request) -> Request:
    r = r.where(_has_symbol)
    return r.sign(r.entry.replace(b"+", b"-").replace(b"/", b"_"))


BITS = (
    _wrong("first-bit", "the MAC's first bit flipped", lambda r: r.sign(v1(flip(r.mac, 0)))),
    _wrong("middle-bit", "its middle bit flipped", lambda r: r.sign(v1(flip(r.mac, 128)))),
    _wrong("last-bit", "its last bit flipped", lambda r: r.sign(v1(flip(r.mac, 255)))),
    _wrong("spare-bits", "base64 with other spare bits, the same MAC decoded", _swap_spare_bits),
    _wrong("case", "base64 in the other case", lambda r: r.sign(b"v1," + r.encoded.swapcase())),
    _wrong("reversed", "the MAC's bytes backwards", lambda r: r.sign(v1(r.mac[::-1]))),
    _wrong("complement", "every bit flipped", lambda r: r.sign(v1(bytes(b ^ 255 for b in r.mac)))),
    _wrong("zeros", "a MAC of zeros", lambda r: r.sign(v1(bytes(32)))),
    _wrong("ones", "a MAC of ones", lambda r: r.sign(v1(b"\xff" * 32))),
    _wrong(
        "tail-zeroed",
        "a MAC right in 31 bytes",
        lambda r: r.sign(v1(r.mac[:31] + bytes([r.mac[31] ^ 255]))),
    ),
    _wrong(
        "head-zeroed",
        "a MAC wrong in its first byte alone",
        lambda r: r.sign(v1(bytes([r.mac[0] ^ 255]) + r.mac[1:])),
    ),
)

LENGTHS = (
    _list("truncated-31", "the first 31 bytes of the MAC", lambda r: v1(r.mac[:31])),
    _list("truncated-16", "the first half of the MAC", lambda r: v1(r.mac[:16])),
    _list("truncated-1", "one byte of the MAC", lambda r: v1(r.mac[:1])),
    _list("extended-33", "the MAC and one byte more", lambda r: v1(r.mac + b"\0")),
    _list("doubled", "the MAC twice in one base64", lambda r: v1(r.mac * 2)),
    _list("nothing", "`v1,` and nothing", lambda _: b"v1,"),
    _list("no-padding", "base64 without its `=`", lambda r: r.entry[:-1]),
    _list("two-paddings", "base64 with `==`", lambda r: r.entry + b"="),
    _list("padding-alone", "`v1,=`", lambda _: b"v1,="),
    _list("padding-first", "`=` before the base64", lambda r: b"v1,=" + r.encoded[:-1]),
    _list("padding-inside", "`=` in the middle", lambda r: r.entry[:20] + b"=" + r.entry[20:]),
    _list("one-character-less", "43 of the 44 characters", lambda r: r.entry[:-2] + b"="),
    _list("endless", "600 characters of base64", lambda _: b"v1," + b"A" * 600),
    _list("one-huge-entry", "3 kB of base64, the right one first", lambda r: r.entry + b"A" * 3000),
)

ENCODINGS = (
    _malformed("base64url", "`-` and `_` for `+` and `/`", _url_alphabet),
    _list("percent", "base64 percent-encoded", lambda r: b"v1," + r.encoded[:-1] + b"%3D"),
    _list("hex", "the MAC in hex", lambda r: b"v1," + r.mac.hex().encode()),
    _list("hex-upper", "in upper-case hex", lambda r: b"v1," + r.mac.hex().upper().encode()),
    _list("base32", "the MAC in base32", lambda r: b"v1," + base64.b32encode(r.mac)),
    _list("base85", "the MAC in ASCII85", lambda r: b"v1," + base64.a85encode(r.mac)),
    _list("base64-of-hex", "base64 of the hex", lambda r: v1(r.mac.hex().encode())),
    _list("base64-twice", "base64 of the base64", lambda r: v1(r.encoded)),
    _list("quoted", "the entry in quotes", lambda r: b'"' + r.entry + b'"'),
    _list("quoted-base64", "the base64 in quotes", lambda r: b'v1,"' + r.encoded + b'"'),
    _list("json-list", "the list as JSON", lambda r: b'["' + r.entry + b'"]'),
    _list(
        "junk-inside",
        "base64 with a `*` inside, which lenient decoders skip",
        lambda r: r.entry[:10] + b"*" + r.entry[10:],
    ),
    _list("newline-escaped", "a backslash and an n at the end", lambda r: r.entry + b"\\n"),
    _list("latin-1", "a byte of Latin-1 at the end", lambda r: r.entry + b"\xe9"),
    _list("utf-8", "a letter of UTF-8 inside", lambda r: r.entry[:9] + "é".encode() + r.entry[9:]),
    _list("full-width-comma", "U+FF0C for the comma", lambda r: "v1\uff0c".encode() + r.encoded),
    _list("invalid-utf-8", "bytes that are no UTF-8", lambda r: r.entry + b"\xff\xfe"),
    _list("no-break-space", "U+00A0 before it", lambda r: b"\xc2\xa0" + r.entry),
    Row("nul", "a NUL at the end", lambda r: r.sign(r.entry + b"\0"), 400, "malformed_http"),
)

VERSIONS = (
    _wrong("v1a", "the right MAC as `v1a`", lambda r: r.sign(b"v1a," + r.encoded)),
    _wrong("v2", "as `v2`", lambda r: r.sign(b"v2," + r.encoded)),
    _wrong("v0", "as `v0`", lambda r: r.sign(b"v0," + r.encoded)),
    _wrong("v01", "as `v01`", lambda r: r.sign(b"v01," + r.encoded)),
    _wrong("v11", "as `v11`", lambda r: r.sign(b"v11," + r.encoded)),
    _list("upper-v1", "as `V1`", lambda r: b"V1," + r.encoded),
    _list("v1-point-0", "as `v1.0`", lambda r: b"v1.0," + r.encoded),
    _list("v-minus-1", "as `v-1`", lambda r: b"v-1," + r.encoded),
    _list("version-letter", "as `vl`, the letter l", lambda r: b"vl," + r.encoded),
    _list("version-look-alike", "U+0475 for the v", lambda r: "\u04751,".encode() + r.encoded),
    _list("version-none", "base64 without a version", lambda r: r.encoded),
    _list("version-empty", "a comma before the base64", lambda r: b"," + r.encoded),
    _list("version-alone", "`v1` alone", lambda _: b"v1"),
    _list("version-number", "`1` for `v1`", lambda r: b"1," + r.encoded),
    _list("version-twice", "`v1,v1,`", lambda r: b"v1," + r.entry),
    _list("algorithm-none", "`none` for a signature", lambda _: b"none"),
    _list("version-none-word", "`none,` and the MAC", lambda r: b"none," + r.encoded),
    _list("equals", "`v1=` for `v1,`", lambda r: b"v1=" + r.encoded),
    _list("semicolon", "`v1;` for `v1,`", lambda r: b"v1;" + r.encoded),
    _list("colon", "`v1:` for `v1,`", lambda r: b"v1:" + r.encoded),
    _list("two-commas", "`v1,,`", lambda r: b"v1,," + r.encoded),
    _list("github", "as GitHub writes it", lambda r: b"sha256=" + r.mac.hex().encode()),
    _list(
        "stripe", "as Stripe writes it", lambda r: b"t=" + r.stamp + b",v1=" + r.mac.hex().encode()
    ),
    _list("wildcard", "`v1,*`", lambda _: b"v1,*"),
    _list("sql", "a condition that is always true", lambda _: b"v1,' OR '1'='1"),
)

SPACES = (
    _list("space-after-comma", "`v1, base64`", lambda r: b"v1, " + r.encoded),
    _list("space-before-comma", "`v1 ,base64`", lambda r: b"v1 ," + r.encoded),
    _list("space-for-comma", "`v1 base64`", lambda r: b"v1 " + r.encoded),
    _list("two-spaces", "two spaces between entries", lambda r: r.entry + b"  " + r.entry),
    _list("tab-between", "a tab between entries", lambda r: r.entry + b"\t" + r.entry),
    _list(
        "comma-between",
        "a comma between entries, as joined headers have it",
        lambda r: r.entry + b"," + r.entry,
    ),
    _list(
        "comma-space-between",
        "comma and space between entries",
        lambda r: r.entry + b", " + r.entry,
    ),
    _list("semicolon-between", "a semicolon between entries", lambda r: r.entry + b";" + r.entry),
    _list("space-after", "a space at the end", lambda r: r.entry + b" "),
    _list("tab-after", "a tab at the end", lambda r: r.entry + b"\t"),
    _list(
        "space-inside", "a space within the base64", lambda r: r.entry[:20] + b" " + r.entry[20:]
    ),
)

LISTS = (
    _wrong(
        "sixteen-wrong",
        "as many wrong entries as are read",
        lambda r: r.sign(b" ".join(v1(flip(r.mac, bit)) for bit in range(16))),
    ),
    _list(
        "seventeen",
        "one entry too many, the right one last",
        lambda r: b" ".join([v1(flip(r.mac, bit)) for bit in range(16)] + [r.entry]),
    ),
    _list("flood", "300 short entries and the right one", lambda r: b"v2,A " * 300 + r.entry),
    _list("right-then-junk", "the right entry, then junk", lambda r: r.entry + b" junk"),
    _list("junk-then-right", "junk, then the right entry", lambda r: b"junk " + r.entry),
    _list(
        "right-then-bad-v1",
        "the right entry, then a `v1` of other length",
        lambda r: r.entry + b" v1,AAAA",
    ),
    _wrong(
        "other-versions-alone",
        "a list without any `v1`",
        lambda r: r.sign(b"v1a,AAAA v2,BBBB v3,CCCC"),
    ),
    _wrong(
        "halves",
        "the MAC's halves in two entries, zeros for the rest",
        lambda r: r.sign(v1(r.mac[:16] + bytes(16)) + b" " + v1(bytes(16) + r.mac[16:])),
    ),
    Row(
        "twice-right-first",
        "the header twice, first right, then wrong",
        lambda r: r.add("svix-signature", v1(bytes(32))),
        401,
        "conflicting_header",
    ),
    Row(
        "twice-wrong-first",
        "the header twice, first wrong, then right",
        lambda r: r.first("svix-signature", v1(bytes(32))),
        401,
        "conflicting_header",
    ),
    Row(
        "both-families",
        "another value in the other family's header",
        lambda r: r.add("webhook-signature", v1(bytes(32))),
        401,
        "conflicting_header",
    ),
    Row(
        "twice-one-empty",
        "the header twice, once empty",
        lambda r: r.add("svix-signature", b""),
        401,
        "conflicting_header",
    ),
    Row(
        "split-over-two",
        "two entries, each in a header of its own",
        lambda r: r.add("svix-signature", b"v1a,AAAA"),
        401,
        "conflicting_header",
    ),
)

ABSENT = (
    _missing("absent", "no signature", lambda r: r.drop("svix-signature")),
    _missing("empty", "an empty signature", lambda r: r.sign(b"")),
    _missing("blank", "a signature of spaces", lambda r: r.sign(b"   ")),
    _missing(
        "in-the-query",
        "the signature in the query",
        lambda r: r.drop("svix-signature").to(
            b"POST " + PATH.encode() + b"?svix-signature=" + r.entry + b" HTTP/1.1"
        ),
    ),
    _missing(
        "as-authorization",
        "the signature as a bearer token",
        lambda r: r.drop("svix-signature").add("Authorization", b"Bearer " + r.entry),
    ),
    _missing(
        "as-cookie",
        "the signature as a cookie",
        lambda r: r.drop("svix-signature").add("Cookie", b"svix-signature=" + r.encoded),
    ),
    _missing(
        "as-github-header",
        "the signature in GitHub's header",
        lambda r: r.rename(lambda _: b"X-Hub-Signature-256", b"svix-signature"),
    ),
    _missing(
        "in-the-trailer",
        "the signature after the last chunk",
        lambda r: r.drop("svix-signature").chunked(
            b"%x\r\n%b\r\n0\r\nsvix-signature: %b\r\n\r\n" % (len(r.body), r.body, r.entry)
        ),
    ),
)

CONTROLS = (
    control("plain", "a genuine request", lambda r: r),
    control(
        "list",
        "the right entry among wrong ones and other versions",
        lambda r: r.sign(b"v1a,AAAA " + v1(bytes(32)) + b" " + r.entry),
    ),
    control(
        "sixteen",
        "the right entry as the last of sixteen",
        lambda r: r.sign(b" ".join([v1(flip(r.mac, b)) for b in range(15)] + [r.entry])),
    ),
    control(
        "twice-equal", "the header twice with one value", lambda r: r.add("Svix-Signature", r.entry)
    ),
)

ROWS = (
    *BITS, *LENGTHS, *ENCODINGS, *mac.ROWS, *VERSIONS, *SPACES,
    *LISTS, *ABSENT, *CONTROLS,
)  # fmt: skip
