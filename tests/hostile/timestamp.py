"""Times that are no time, or not now. Most are signed with the real key, so that nothing else
is wrong with them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate

from tests.hostile.row import Request, Row, control

Make = Callable[[Request], Request | bytes]
MINUTE, HOUR, DAY, YEAR = 60, 3600, 86_400, 31_557_600


def _old(name: str, what: str, seconds: int) -> Row:
    return Row(name, what, lambda r: r.genuinely(stamp=b"%d" % (r.now - seconds)),
               401, "timestamp_too_old")  # fmt: skip


def _new(name: str, what: str, stamp: Callable[[Request], int]) -> Row:
    return Row(name, what, lambda r: r.genuinely(stamp=b"%d" % stamp(r)),
               401, "timestamp_too_new")  # fmt: skip


def _text(name: str, what: str, stamp: Callable[[Request], bytes]) -> Row:
    return Row(name, what, lambda r: r.genuinely(stamp=stamp(r)), 401, "malformed_header")


def _row(name: str, what: str, reason: str, make: Make) -> Row:
    return Row(name, what, make, 401, reason)


def _iso(r: Request) -> bytes:
    return datetime.fromtimestamp(r.now, UTC).isoformat().encode()


# Clear of the tolerance, which is 5 minutes, by more than a slow machine can lose.
AGE = (
    _old("old-6-minutes", "just over the tolerance", 6 * MINUTE),
    _old("old-1-hour", "an hour old: a clock in summer time", HOUR),
    _old("old-1-day", "a day old", DAY),
    _old("old-1-year", "a year old", YEAR),
    _text("epoch", "0", lambda _: b"0"),
    Row("second-1", "the first second of 1970", lambda r: r.genuinely(stamp=b"1"),
        401, "timestamp_too_old"),
    Row("published-vector", "the timestamp of Svix's documentation",
        lambda r: r.genuinely(stamp=b"1614265330"), 401, "timestamp_too_old"),
    _new("new-6-minutes", "just over the tolerance, ahead", lambda r: r.now + 6 * MINUTE),
    _new("new-1-hour", "an hour ahead", lambda r: r.now + HOUR),
    _new("new-1-year", "a year ahead: a signature kept for later", lambda r: r.now + YEAR),
    _new("last-int32", "2^31 - 1", lambda _: 2**31 - 1),
    _new("int32-wrapped", "now, plus 2^32: now where 32 bits wrap", lambda r: r.now + 2**32),
    _new("tenths", "tenths of a second", lambda r: r.now * 10),
    _new("twelve-digits", "the largest that is read", lambda _: 999_999_999_999),
    _row("refreshed", "an old delivery with the timestamp made new", "no_matching_signature",
         lambda r: r.genuinely(stamp=b"%d" % (r.now - DAY)).set("svix-timestamp", r.stamp)),
    _row("one-second-later", "the next second, signature unchanged", "no_matching_signature",
         lambda r: r.set("svix-timestamp", b"%d" % (r.now + 1))),
    _row("one-second-earlier", "the second before, signature unchanged", "no_matching_signature",
         lambda r: r.set("svix-timestamp", b"%d" % (r.now - 1))),
    _row("old-with-new-date", "a day old, with a `Date` of now", "timestamp_too_old",
         lambda r: r.genuinely(stamp=b"%d" % (r.now - DAY)).add("Date", formatdate(
             usegmt=True).encode())),
    _row("old-in-every-header", "a day old, and now in look-alike headers", "timestamp_too_old",
         lambda r: r.genuinely(stamp=b"%d" % (r.now - DAY)).add("x-svix-timestamp", r.stamp)
         .add("x-timestamp", r.stamp)),
)  # fmt: skip

NUMBERS = (
    _text("milliseconds", "milliseconds", lambda r: r.stamp + b"000"),
    _text("microseconds", "microseconds", lambda r: r.stamp + b"000000"),
    _text("nanoseconds", "nanoseconds", lambda r: r.stamp + b"000000000"),
    _text("int64-last", "2^63 - 1", lambda _: b"%d" % (2**63 - 1)),
    _text("int64-over", "2^63", lambda _: b"%d" % 2**63),
    _text("uint64-wrapped", "now, plus 2^64: now where 64 bits wrap",
          lambda r: b"%d" % (r.now + 2**64)),
    _text("googol", "1 and a hundred zeros", lambda _: b"1" + b"0" * 100),
    _text("endless", "5,000 digits, more than Python reads as a number", lambda _: b"1" * 5000),
    _text("negative", "a minus", lambda r: b"-" + r.stamp),
    _text("minus-zero", "-0", lambda _: b"-0"),
    _text("plus", "a plus", lambda r: b"+" + r.stamp),
    _text("float", "`.0`", lambda r: r.stamp + b".0"),
    _text("fraction", "`.5`", lambda r: r.stamp + b".5"),
    _text("point-after", "a point at the end", lambda r: r.stamp + b"."),
    _text("comma-fraction", "`,5`", lambda r: r.stamp + b",5"),
    _text("exponent", "an exponent", lambda r: r.stamp + b"e0"),
    _text("scientific", "scientific notation", lambda r: b"%.9e" % r.now),
    _text("hex", "hex", lambda r: b"0x%x" % r.now),
    _text("hex-suffix", "hex with an h", lambda r: b"%xh" % r.now),
    _text("octal", "octal", lambda r: b"0o%o" % r.now),
    _text("octal-c", "octal as C has it", lambda r: b"0%o" % r.now),
    _text("binary", "binary", lambda r: bin(r.now).encode()),
    _text("leading-zero", "a leading zero", lambda r: b"0" + r.stamp),
    _text("leading-zeros", "two leading zeros", lambda r: b"00" + r.stamp),
    _text("underscores", "an underscore, as Python takes it",
          lambda r: r.stamp[:4] + b"_" + r.stamp[4:]),
    _text("thousands", "commas between thousands", lambda r: f"{r.now:,}".encode()),
    _text("apostrophes", "apostrophes between thousands",
          lambda r: f"{r.now:,}".replace(",", "'").encode()),
    _text("inner-space", "a space inside", lambda r: r.stamp[:4] + b" " + r.stamp[4:]),
    _text("inner-tab", "a tab inside", lambda r: r.stamp[:4] + b"\t" + r.stamp[4:]),
    _text("full-width", "full-width digits",
          lambda r: "".join(chr(0xFF10 + int(d)) for d in r.stamp.decode()).encode()),
    _text("arabic-indic", "Arabic-Indic digits",
          lambda r: "".join(chr(0x660 + int(d)) for d in r.stamp.decode()).encode()),
    _text("superscript", "a superscript two, which `isdigit` takes",
          lambda r: r.stamp[:-1] + b"\xb2"),
    _text("long-suffix", "Python 2's long", lambda r: r.stamp + b"L"),
    _text("unit", "a unit", lambda r: r.stamp + b"s"),
)  # fmt: skip

WORDS = (
    _text("now", "the word now", lambda _: b"now"),
    _text("nan", "NaN, which no comparison refuses", lambda _: b"NaN"),
    _text("infinity", "inf", lambda _: b"inf"),
    _text("minus-infinity", "-Infinity", lambda _: b"-Infinity"),
    _text("null", "null", lambda _: b"null"),
    _text("true", "true, which is 1", lambda _: b"true"),
    _text("iso", "ISO 8601", _iso),
    _text("http-date", "an HTTP date", lambda r: formatdate(r.now, usegmt=True).encode()),
    _text("quoted", "in quotes", lambda r: b'"' + r.stamp + b'"'),
    _text("list", "a JSON list", lambda r: b"[" + r.stamp + b"]"),
    _text("two-by-comma", "twice, by a comma", lambda r: r.stamp + b"," + r.stamp),
    _text("two-by-space", "twice, by a space", lambda r: r.stamp + b" " + r.stamp),
    _text("old-and-new", "an old one and now", lambda r: b"%d, %d" % (r.now - DAY, r.now)),
    _text("percent", "percent-encoded", lambda r: b"%3" + r.stamp[:1] + r.stamp[1:]),
    _text("expression", "a sum", lambda r: r.stamp + b"+0"),
    _text("space-after", "a space at the end, which `int` strips", lambda r: r.stamp + b" "),
    Row("form-feed", "a form feed at the end, which `int` strips",
        lambda r: r.genuinely(stamp=r.stamp + b"\x0c"), 400, "malformed_http"),
    _text("no-break-space", "U+00A0 at the end, which `int` strips", lambda r: r.stamp + b"\xa0"),
    Row("nul", "a NUL at the end", lambda r: r.genuinely(stamp=r.stamp + b"\0"),
        400, "malformed_http"),
)  # fmt: skip

HEADERS = (
    _row("absent", "no timestamp", "missing_header", lambda r: r.drop("svix-timestamp")),
    _row("empty", "an empty one", "missing_header", lambda r: r.genuinely(stamp=b"")),
    _row("blank", "spaces and tabs", "missing_header", lambda r: r.genuinely(stamp=b" \t ")),
    _row("twice-old-first", "twice: old, then now", "conflicting_header",
         lambda r: r.first("svix-timestamp", b"%d" % (r.now - DAY))),
    _row("twice-new-first", "twice: now, then old", "conflicting_header",
         lambda r: r.add("svix-timestamp", b"%d" % (r.now - DAY))),
    _row("both-families", "old in one family, now in the other", "conflicting_header",
         lambda r: r.add("webhook-timestamp", b"%d" % (r.now - DAY))),
    _row("twice-same-number", "twice, equal as numbers only", "conflicting_header",
         lambda r: r.add("webhook-timestamp", b"0" + r.stamp)),
    _row("as-date", "in a `Date` header alone", "missing_header",
         lambda r: r.drop("svix-timestamp").add("Date", r.stamp)),
)  # fmt: skip

CONTROLS = (
    control("old-4-minutes", "within the tolerance",
            lambda r: r.genuinely(stamp=b"%d" % (r.now - 4 * MINUTE))),
    control("new-4-minutes", "ahead within the tolerance",
            lambda r: r.genuinely(stamp=b"%d" % (r.now + 4 * MINUTE))),
)  # fmt: skip

ROWS = (*AGE, *NUMBERS, *WORDS, *HEADERS, *CONTROLS)
