"""Who is let into the admin port, by the head of the request alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.server.admin.admission import Admission, Denial, Head
from gateway.server.admin.throttle import Throttle

TOKEN = "0123456789abcdef-admin"
RIGHT = (b"authorization", f"Bearer {TOKEN}".encode())
WRONG = (b"authorization", b"Bearer 0123456789abcdef-wrong")
HOST = (b"host", b"localhost:9090")
Header = tuple[bytes, bytes]


def admission(token: str = TOKEN) -> Admission:
    return Admission(lambda: SecretStr(token), {"/livez", "/readyz"}, Throttle())


def head(method: str, path: str, *headers: Header, peer: str = "192.0.2.1") -> Head:
    return Head(method, path, (HOST, *headers), peer)


def word(denial: Denial | None) -> tuple[int, str]:
    return (200, "") if denial is None else (denial.status, denial.reason)


OK = (200, "")
NO_TOKEN = (401, "no_token")
WRONG_TOKEN = (401, "wrong_token")
CROSS_SITE = (403, "cross_site")
BODY = (413, "body_not_taken")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "headers", "expected"),
    [
        ("/livez", (), OK),
        ("/readyz", (), OK),
        ("/readyz", (WRONG,), OK),
        ("/metrics", (), NO_TOKEN),
        ("/metrics", (RIGHT,), OK),
        ("/metrics", (WRONG,), WRONG_TOKEN),
        # What is not public needs the token, whether it exists or not.
        ("/", (), NO_TOKEN),
        ("/console", (), NO_TOKEN),
        ("/livez/", (), NO_TOKEN),
        ("//livez", (), NO_TOKEN),
        ("/LIVEZ", (), NO_TOKEN),
        ("/livez/../metrics", (), NO_TOKEN),
        ("/console", (RIGHT,), OK),
        # A page that only reads may be linked to; what it holds is behind the token.
        ("/metrics", (RIGHT, (b"origin", b"http://evil.example")), OK),
        ("/livez", ((b"content-length", b"0"),), OK),
        ("/livez", ((b"content-length", b"1"),), BODY),
        ("/livez", ((b"content-length", b""),), BODY),
        ("/livez", ((b"content-length", b"0"), (b"content-length", b"5")), BODY),
        ("/metrics", ((b"transfer-encoding", b"chunked"),), BODY),
    ],
)
def test_reading(method: str, path: str, headers: tuple[Header, ...], expected: object) -> None:
    assert word(admission().check(head(method, path, *headers), 0.0)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"Bearer {TOKEN}", OK),
        (f"bearer {TOKEN}", OK),
        (f"BEARER   {TOKEN} ", OK),
        (TOKEN, WRONG_TOKEN),
        ("", WRONG_TOKEN),
        ("Bearer", WRONG_TOKEN),
        ("Bearer ", WRONG_TOKEN),
        (f"Basic {TOKEN}", WRONG_TOKEN),
        (f"Bearer {TOKEN[:-1]}", WRONG_TOKEN),
        (f"Bearer {TOKEN}x", WRONG_TOKEN),
        (f"Bearer {TOKEN.upper()}", WRONG_TOKEN),
        (f"Bearer {TOKEN} {TOKEN}", WRONG_TOKEN),
        (f"Bearer\t{TOKEN}", WRONG_TOKEN),
        (f"Bearer {'x' * 10_000}", WRONG_TOKEN),
        ("Bearer \xff\xfc", WRONG_TOKEN),
    ],
)
def test_the_token(value: str, expected: object) -> None:
    header = (b"authorization", value.encode("latin-1"))
    assert word(admission().check(head("GET", "/metrics", header), 0.0)) == expected


def test_two_tokens_are_none() -> None:
    for pair in ((RIGHT, WRONG), (WRONG, RIGHT), (RIGHT, RIGHT)):
        assert word(admission().check(head("GET", "/metrics", *pair), 0.0)) == WRONG_TOKEN


@pytest.mark.parametrize(
    "header", [(b"cookie", f"token={TOKEN}".encode()), (b"x-token", TOKEN.encode())]
)
def test_the_token_counts_in_no_other_place(header: Header) -> None:
    assert word(admission().check(head("GET", "/metrics", header), 0.0)) == NO_TOKEN
    assert word(admission().check(head("GET", f"/metrics?token={TOKEN}"), 0.0)) == NO_TOKEN
    assert word(admission().check(head("POST", "/replay", header), 0.0)) == NO_TOKEN


@given(st.binary(max_size=80))
def test_no_bytes_but_the_token_are_the_token(value: bytes) -> None:
    header = (b"authorization", value)
    denial = admission().check(head("GET", "/metrics", header), 0.0)
    assert word(denial) == WRONG_TOKEN


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "WEBDAV"])
@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ((RIGHT,), OK),
        ((), NO_TOKEN),
        ((WRONG,), WRONG_TOKEN),
        ((RIGHT, (b"origin", b"http://localhost:9090")), OK),
        ((RIGHT, (b"origin", b"https://LOCALHOST:9090")), OK),
        ((RIGHT, (b"origin", b"http://evil.example")), CROSS_SITE),
        ((RIGHT, (b"origin", b"http://localhost:3000")), CROSS_SITE),
        ((RIGHT, (b"origin", b"http://localhost")), CROSS_SITE),
        ((RIGHT, (b"origin", b"http://localhost:9090.evil.example")), CROSS_SITE),
        ((RIGHT, (b"origin", b"null")), CROSS_SITE),
        ((RIGHT, (b"origin", b"")), CROSS_SITE),
        (
            (RIGHT, (b"origin", b"http://localhost:9090"), (b"origin", b"http://evil.example")),
            CROSS_SITE,
        ),
        ((RIGHT, (b"host", b"evil.example"), (b"origin", b"http://evil.example")), CROSS_SITE),
        ((RIGHT, (b"sec-fetch-site", b"same-origin")), OK),
        ((RIGHT, (b"sec-fetch-site", b"none")), OK),
        ((RIGHT, (b"sec-fetch-site", b"same-site")), CROSS_SITE),
        ((RIGHT, (b"sec-fetch-site", b"cross-site")), CROSS_SITE),
        ((RIGHT, (b"sec-fetch-site", b"anything")), CROSS_SITE),
        (
            (RIGHT, (b"sec-fetch-site", b"same-origin"), (b"origin", b"http://evil.example")),
            CROSS_SITE,
        ),
        ((WRONG, (b"origin", b"http://evil.example")), CROSS_SITE),
        ((RIGHT, (b"content-length", b"2")), BODY),
    ],
)
def test_acting(method: str, headers: tuple[Header, ...], expected: object) -> None:
    for path in ("/livez", "/replay"):
        assert word(admission().check(head(method, path, *headers), 0.0)) == expected


def test_without_a_token_everything_is_read_and_nothing_is_done() -> None:
    open_port = admission("")
    for path in ("/livez", "/metrics", "/console"):
        assert open_port.check(head("GET", path), 0.0) is None
    for headers in ((), (RIGHT,), ((b"authorization", b"Bearer "),)):
        assert word(open_port.check(head("POST", "/replay", *headers), 0.0)) == (
            403,
            "token_not_set",
        )


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:9090",
        "LocalHost.:1",
        "127.0.0.1",
        "127.0.0.1:65535",
        "127.8.8.8",
        "[::1]",
        "[::1]:9090",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]:1",
    ],
)
def test_loopback_names(host: str) -> None:
    request = Head("GET", "/metrics", ((b"host", host.encode()),), "127.0.0.1")
    assert admission("").check(request, 0.0) is None


@pytest.mark.parametrize(
    "hosts",
    [
        (),
        ("",),
        ("evil.example",),
        ("evil.example:9090",),
        ("localhost.evil.example",),
        ("evil.localhost",),
        ("127.0.0.1.evil.example",),
        ("192.0.2.1:9090",),
        ("0.0.0.0:9090",),
        ("[::]:9090",),
        ("[2001:db8::1]",),
        ("::1",),
        ("127.1",),
        ("2130706433",),
        ("localhost:",),
        ("localhost@evil.example",),
        ("localhost:9090 ",),
        ("localh\xf6st",),
        ("localhost", "evil.example"),
        ("localhost", "localhost"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_other_names_are_refused_where_there_is_no_token(
    hosts: tuple[str, ...], method: str
) -> None:
    headers = tuple((b"host", host.encode("latin-1")) for host in hosts)
    request = Head(method, "/livez", headers, "127.0.0.1")
    assert word(admission("").check(request, 0.0)) == (403, "foreign_host")


def test_with_a_token_any_name_will_do() -> None:
    probe = Head("GET", "/readyz", ((b"host", b"10.1.2.3:9090"),), "10.1.2.1")
    scrape = Head("GET", "/metrics", ((b"host", b"gateway.internal"), RIGHT), "10.1.2.1")
    assert admission().check(probe, 0.0) is None
    assert admission().check(scrape, 0.0) is None


def test_guessing_is_slowed_and_then_not_even_looked_at() -> None:
    port = admission()
    guess, right = head("GET", "/metrics", WRONG), head("GET", "/metrics", RIGHT)
    for _ in range(10):
        assert word(port.check(guess, 0.0)) == WRONG_TOKEN
    for request in (guess, right, head("POST", "/replay", RIGHT)):
        denial = port.check(request, 0.5)
        assert denial is not None
        assert word(denial) == (429, "too_many_wrong_tokens")
        assert denial.headers == ((b"retry-after", b"30"),)
    assert port.check(head("GET", "/metrics", RIGHT, peer="192.0.2.2"), 0.5) is None
    assert port.check(head("GET", "/livez", WRONG), 0.5) is None
    assert port.check(right, 30.0) is None
    assert word(port.check(guess, 30.0)) == WRONG_TOKEN
    assert word(port.check(right, 30.0)) == (429, "too_many_wrong_tokens")


def test_a_right_token_does_not_make_up_for_wrong_ones() -> None:
    port = admission()
    for _ in range(10):
        port.check(head("GET", "/metrics", WRONG), 0.0)
        port.check(head("GET", "/metrics", RIGHT), 0.0)
    assert word(port.check(head("GET", "/metrics", RIGHT), 0.0)) == (429, "too_many_wrong_tokens")


def test_one_subnet_is_one_client() -> None:
    port = admission()
    for number in range(10):
        port.check(head("GET", "/metrics", WRONG, peer=f"2001:db8::{number}"), 0.0)
    same = head("GET", "/metrics", RIGHT, peer="2001:db8::ffff:1")
    assert word(port.check(same, 0.0)) == (429, "too_many_wrong_tokens")
    assert port.check(head("GET", "/metrics", RIGHT, peer="2001:db8:0:1::1"), 0.0) is None


def test_to_send_no_token_is_no_guess() -> None:
    port = admission()
    for _ in range(100):
        assert word(port.check(head("GET", "/metrics"), 0.0)) == NO_TOKEN
    assert port.check(head("GET", "/metrics", RIGHT), 0.0) is None


def test_nothing_prints_the_token() -> None:
    assert TOKEN not in repr(admission().__dict__)
