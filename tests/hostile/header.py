"""Headers that are not the ones the scheme names, or that would steer what stands around it."""

from __future__ import annotations

from collections.abc import Callable

from tests.canaries import TOKEN
from tests.e2e.client import event
from tests.e2e.gateway_process import PATH
from tests.hostile.row import Request, Row, control, genuine, v1

Make = Callable[[Request], Request | bytes]
_FORGED = v1(bytes(32))
_CLOSED = b"POST /closed HTTP/1.1"
"""The path of a source whose `allow_from` does not name the sender."""
_ALLOWED = b"203.0.113.7"


def _row(name: str, what: str, reason: str, make: Make) -> Row:
    return Row(name, what, make, 401, reason)


def _id(name: str, what: str, svix_id: Callable[[Request], bytes]) -> Row:
    return _row(name, what, "malformed_header", lambda r: r.genuinely(svix_id=svix_id(r)))


def _named(name: str, what: str, change: Callable[[bytes], bytes]) -> Row:
    return _row(name, what, "missing_header", lambda r: r.rename(change))


def _http(name: str, what: str, make: Make) -> Row:
    return Row(name, what, make, 400, "malformed_http")


def _trusted(name: str, what: str, header: str, value: bytes) -> Row:
    """A forged request with a header that other systems trust."""
    return _row(name, what, "no_matching_signature", lambda r: r.sign(_FORGED).add(header, value))


def _from_elsewhere(name: str, what: str, *headers: tuple[str, bytes]) -> Row:
    def make(r: Request) -> Request:
        for header, value in headers:
            r = r.add(header, value)
        return r.to(_CLOSED)

    return Row(name, what, make, 401, "address_not_allowed")


def _boundary_in_text(r: Request) -> Request:
    """An old message whose text holds a newer timestamp and a whole body, split there anew."""
    inner = event(nonce="inner")
    outer = b'{"data":{"first_name":"x.%b.' % r.stamp + inner + b'"}}'
    old = genuine(outer).genuinely(stamp=b"%d" % (r.now - 86_400))
    moved = old.id + b"." + old.stamp + b"." + outer.split(b"." + r.stamp)[0]
    return old.set("svix-id", moved).set("svix-timestamp", r.stamp).carry(
        outer.split(r.stamp + b".", 1)[1])  # fmt: skip


def _boundary_right(r: Request) -> Request:
    """The timestamp taken into the id, and the body's first digits as the timestamp."""
    old = genuine(b"%b.%b" % (r.stamp, event())).genuinely(stamp=b"1700000000")
    body = old.body.split(b".", 1)[1]
    moved = old.set("svix-id", old.id + b"." + old.stamp)
    return moved.set("svix-timestamp", r.stamp).carry(body)


IDS = (
    _id("id-dot", "an id with a dot, signed so: it could be split anew", lambda _: b"msg.1"),
    _id("id-dot-last", "a dot at the end", lambda r: r.id + b"."),
    _row("boundary-right", "the split moved right, over an old signature", "malformed_header",
         _boundary_right),
    _row("boundary-in-text", "the split moved into text of the body", "malformed_header",
         _boundary_in_text),
    _id("id-space", "a space inside", lambda _: b"msg 1"),
    _id("id-tab", "a tab inside", lambda _: b"msg\t1"),
    _id("id-latin-1", "a letter of Latin-1", lambda r: r.id + b"\xe9"),
    _id("id-utf-8", "a letter of UTF-8", lambda r: r.id + "é".encode()),
    _http("id-delete", "a DEL", lambda r: r.genuinely(svix_id=r.id + b"\x7f")),
    _http("id-escape", "a terminal's escape, for who reads the log",
          lambda r: r.genuinely(svix_id=b"\x1b[2J" + r.id)),
    _id("id-too-long", "257 characters", lambda _: b"m" * 257),
    _id("id-huge", "20 kB", lambda _: b"m" * 20_000),
    _id("id-list", "two ids by comma and space", lambda r: r.id + b", " + r.id),
    _row("id-space-after", "a space after it, signed without", "malformed_header",
         lambda r: r.set("svix-id", r.id + b" ")),
    _row("id-absent", "no id", "missing_header", lambda r: r.drop("svix-id")),
    _row("id-empty", "an empty id, signed so", "missing_header",
         lambda r: r.genuinely(svix_id=b"")),
    _row("id-upper", "the id in upper case, signature unchanged", "no_matching_signature",
         lambda r: r.set("svix-id", r.id.upper())),
    _row("id-longer", "one character more", "no_matching_signature",
         lambda r: r.set("svix-id", r.id + b"x")),
    _row("id-shorter", "one character less", "no_matching_signature",
         lambda r: r.set("svix-id", r.id[:-1])),
    _row("id-other", "a new id on an old delivery, to pass for a new event",
         "no_matching_signature", lambda r: r.set("svix-id", b"msg_new")),
    _row("id-twice", "twice, different", "conflicting_header", lambda r: r.add("svix-id", b"x")),
    _row("id-twice-first", "twice, the wrong one first", "conflicting_header",
         lambda r: r.first("SVIX-ID", b"x")),
    _row("id-both-families", "another id in the other family", "conflicting_header",
         lambda r: r.add("webhook-id", b"x")),
    _http("id-nul", "a NUL inside", lambda r: r.genuinely(svix_id=b"msg\x001")),
)  # fmt: skip

NAMES = (
    _named("underscores", "`svix_id`, which CGI makes the same", lambda n: n.replace(b"-", b"_")),
    _named("dots", "`svix.id`", lambda n: n.replace(b"-", b".")),
    _named("no-hyphen", "`svixid`", lambda n: n.replace(b"-", b"")),
    _named("two-hyphens", "`svix--id`", lambda n: n.replace(b"-", b"--")),
    _named("x-prefix", "`x-svix-id`", lambda n: b"x-" + n),
    _named("http-prefix", "`HTTP_SVIX_ID`",
           lambda n: b"HTTP_" + n.upper().replace(b"-", b"_")),
    _named("suffix", "`svix-id1`", lambda n: n + b"1"),
    _named("percent", "`svix%2Did`", lambda n: n.replace(b"-", b"%2D")),
    _named("hookdeck", "another product's prefix", lambda n: n.replace(b"svix", b"hook")),
    _named("x-forwarded", "`x-forwarded-svix-id`", lambda n: b"x-forwarded-" + n),
    _http("space-before-colon", "`svix-id :`", lambda r: r.rename(lambda n: n + b" ")),
    _http("tab-before-colon", "a tab before the colon", lambda r: r.rename(lambda n: n + b"\t")),
    _http("space-first", "a space before the name, once a folded line",
          lambda r: r.rename(lambda n: b" " + n)),
    _http("name-nul", "a NUL in the name", lambda r: r.rename(lambda n: n + b"\0")),
    _http("name-latin-1", "a byte of Latin-1 in the name", lambda r: r.rename(
        lambda n: n + b"\xe9")),
    _http("name-look-alike", "U+2010 for the hyphen",
          lambda r: r.rename(lambda n: n.replace(b"-", "\u2010".encode()))),
    _http("name-empty", "a header without a name", lambda r: r.add("", b"x")),
    _http("name-quoted", "the name in quotes", lambda r: r.rename(lambda n: b'"' + n + b'"')),
    _http("no-colon", "a line without a colon",
          lambda r: r.raw().replace(b"svix-id: ", b"svix-id ")),
    _http("folded-value", "a value folded over two lines",
          lambda r: r.sign(r.entry[:20] + b"\r\n " + r.entry[20:])),
    _http("folded-empty", "a value on the folded line alone",
          lambda r: r.sign(b"\r\n\t" + r.entry)),
    _http("bare-cr", "a carriage return inside a value",
          lambda r: r.set("svix-id", r.id + b"\rX: y")),
)  # fmt: skip

PLACES = (
    _row("none", "no signature headers", "missing_header",
         lambda r: r.drop("svix-id", "svix-timestamp", "svix-signature")),
    _row("in-the-query", "all three in the query", "missing_header",
         lambda r: r.drop("svix-id", "svix-timestamp", "svix-signature").to(
             b"POST %b?svix-id=%b&svix-timestamp=%b&svix-signature=%b HTTP/1.1"
             % (PATH.encode(), r.id, r.stamp, r.entry))),
    _row("in-the-trailer", "all three after the last chunk", "missing_header",
         lambda r: r.drop("svix-id", "svix-timestamp", "svix-signature").chunked(
             b"%x\r\n%b\r\n0\r\nsvix-id: %b\r\nsvix-timestamp: %b\r\nsvix-signature: %b\r\n\r\n"
             % (len(r.body), r.body, r.id, r.stamp, r.entry))),
    _row("trailer-over-header", "a forged head, the right signature after the last chunk",
         "no_matching_signature", lambda r: r.sign(_FORGED).chunked(
             b"%x\r\n%b\r\n0\r\nsvix-signature: %b\r\n\r\n" % (len(r.body), r.body, r.entry))),
    _row("in-connection", "the signature named as hop-by-hop, forged",
         "no_matching_signature", lambda r: r.sign(_FORGED).add(
             "Connection", b"keep-alive, svix-signature")),
    _row("half-of-each", "id of one family, the rest missing", "missing_header",
         lambda r: r.drop("svix-id", "svix-timestamp").add("webhook-id", r.id)),
)  # fmt: skip

TRUST = (
    _trusted("verified", "a proxy's word that it has verified", "x-webhook-verified", b"true"),
    _trusted("bearer", "the admin port's token", "Authorization", b"Bearer " + TOKEN.encode()),
    _trusted("basic", "admin by password", "Authorization", b"Basic YWRtaW46YWRtaW4="),
    _trusted("jwt-none", "a token of the algorithm none", "Authorization",
             b"Bearer eyJhbGciOiJub25lIn0.e30."),
    _trusted("cookie", "a session", "Cookie", b"__session=admin; admin=1"),
    _trusted("our-header", "a header that records carry", "gateway-source", b"clerk"),
    _trusted("cloudevents", "CloudEvents in the head", "ce-type", b"user.created"),
    _trusted("dead-letter", "a header of dead letters", "gateway-dead-letter-reason", b"x"),
    _trusted("loopback", "said to come from here", "X-Forwarded-For", b"127.0.0.1"),
    _trusted("client-cert", "a proxy's word on a client certificate",
             "X-Client-Cert-Verify", b"SUCCESS"),
    _trusted("user-agent", "Svix's user agent", "User-Agent", b"Svix-Webhooks/1.0"),
    _trusted("debug", "a debugging switch", "X-Debug", b"1"),
    _trusted("log4shell", "a look-up for who logs headers", "User-Agent",
             b"${jndi:ldap://127.0.0.1/a}"),
    _trusted("interpolation", "an interpolation of our config", "X-Note",
             b"${CLERK_WEBHOOK_SIGNING_SECRET}"),
    _trusted("shellshock", "a function for a shell", "X-Note", b"() { :;}; echo x"),
)  # fmt: skip

ADDRESSES = (
    _from_elsewhere("address", "genuine, from an address that is not allowed"),
    _from_elsewhere("xff", "an allowed address told by the sender", ("X-Forwarded-For", _ALLOWED)),
    _from_elsewhere("xff-list", "an allowed one in a list",
                    ("X-Forwarded-For", _ALLOWED + b", 127.0.0.1")),
    _from_elsewhere("xff-twice", "in two headers", ("X-Forwarded-For", _ALLOWED),
                    ("x-forwarded-for", _ALLOWED)),
    _from_elsewhere("xff-flood", "3,000 hops", ("X-Forwarded-For", _ALLOWED + b", 1.1.1.1" * 3000)),
    _from_elsewhere("xff-mapped", "mapped into IPv6",
                    ("X-Forwarded-For", b"::ffff:" + _ALLOWED)),
    _from_elsewhere("xff-junk", "no address at all", ("X-Forwarded-For", b"%s\\x00 ' -- ,,,")),
    _from_elsewhere("real-ip", "nginx's header", ("X-Real-IP", _ALLOWED)),
    _from_elsewhere("forwarded", "RFC 7239", ("Forwarded", b"for=" + _ALLOWED)),
    _from_elsewhere("cloud-headers", "the clouds' headers", ("CF-Connecting-IP", _ALLOWED),
                    ("True-Client-IP", _ALLOWED), ("Fastly-Client-IP", _ALLOWED)),
    _from_elsewhere("client-ip", "other proxies' headers", ("X-Client-IP", _ALLOWED),
                    ("X-Cluster-Client-IP", _ALLOWED), ("X-Originating-IP", _ALLOWED)),
)  # fmt: skip

FLOODS = (
    Row("value-40k", "a value of 40 kB", lambda r: r.first("X-Pad", b"x" * 40_960),
        431, "head_too_large"),
    Row("name-40k", "a name of 40 kB", lambda r: r.first("x" * 40_960, b"x"),
        431, "head_too_large"),
    Row("target-40k", "a query of 40 kB",
        lambda r: r.to(b"POST " + PATH.encode() + b"?" + b"x" * 40_960 + b" HTTP/1.1"),
        431, "head_too_large"),
    Row("headers-2000", "2,000 small headers, 12 kB", lambda r: r.raw().replace(
        b"\r\n\r\n", b"\r\n" + b"a: b\r\n" * 2000 + b"\r\n", 1), 431, "head_too_large"),
    Row("headers-10000", "10,000 small headers", lambda r: r.raw().replace(
        b"\r\n\r\n", b"\r\n" + b"a: b\r\n" * 10_000 + b"\r\n", 1), 431, "head_too_large"),
    Row("signatures-500", "500 signature headers, the last one right",
        lambda r: r.raw().replace(b"svix-signature", b"svix-signature: x\r\n" * 500
                                  + b"svix-signature", 1), 431, "head_too_large"),
    _row("signatures-20", "20 signature headers, the last one right", "conflicting_header",
         lambda r: r.raw().replace(b"svix-signature", b"svix-signature: x\r\n" * 20
                                   + b"svix-signature", 1)),
    _row("pad-20k-forged", "a forged request under the limit", "no_matching_signature",
         lambda r: r.sign(_FORGED).add("X-Pad", b"x" * 20_000)),
)  # fmt: skip


def _webhook(name: bytes) -> bytes:
    return name.replace(b"svix", b"webhook")


CONTROLS = (
    control("webhook-family", "the other family", lambda r: r.rename(_webhook)),
    control("mixed-families", "id of one family, the rest of the other",
            lambda r: r.rename(_webhook, b"svix-id")),
    control("both-families-equal", "both families with the same values",
            lambda r: r.add("webhook-id", r.id).add("webhook-timestamp", r.stamp)
            .add("webhook-signature", r.entry)),
    control("title-case", "names in title case", lambda r: r.rename(bytes.title)),
    control("upper-case", "names in upper case", lambda r: r.rename(bytes.upper)),
    control("spaces-before", "spaces and tabs before the values, which HTTP leaves out",
            lambda r: r.sign(b" \t" + r.entry).set("svix-id", b"  " + r.id)),
    control("unknown-headers", "forty other headers", lambda r: r.raw().replace(
        b"\r\n\r\n", b"\r\n" + b"X-Other: y\r\n" * 40 + b"\r\n", 1)),
)  # fmt: skip

ROWS = (*IDS, *NAMES, *PLACES, *TRUST, *ADDRESSES, *FLOODS, *CONTROLS)
