"""Who is let into the admin port: decided by the head of a request, before anything is routed.

Everything needs the token unless it is named here as public, so that a page which is added later
is locked until somebody decides otherwise. Pure: the time is an argument.
"""

from __future__ import annotations

import hmac
import math
import re
from collections.abc import Callable, Collection, Sequence

import msgspec
from pydantic import SecretStr

from gateway.address import parse_address
from gateway.server.admin.throttle import Throttle, client_of

__all__ = ["READS", "Admission", "Denial", "Head"]

READS = frozenset({"GET", "HEAD"})
"""Methods that change nothing; all others are actions."""

_HOST = re.compile(
    r"(?:(localhost)\.?|([0-9.]+)|\[([0-9a-f:.]+)\])(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE
)
_OWN_SITE = frozenset({b"same-origin", b"none"})
"""Of `Sec-Fetch-Site`. `same-site` is not among them: another port of one host is one site."""

Headers = Sequence[tuple[bytes, bytes]]


class Head(msgspec.Struct, frozen=True):
    """What is known of a request before its body."""

    method: str
    path: str
    headers: Headers
    """Names in lower case."""
    peer: str | None
    """The other end's address."""


class Denial(msgspec.Struct, frozen=True):
    """Why a request is not let in, and what it is answered."""

    status: int
    reason: str
    """A bounded word, for logs and metrics."""
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


_CHALLENGE = ((b"www-authenticate", b"Bearer"),)
_FOREIGN_HOST = Denial(
    403,
    "foreign_host",
    "without admin.token this port answers to localhost and loopback addresses only",
)
_CROSS_SITE = Denial(403, "cross_site", "this request comes from the page of another site")
_BODY = Denial(413, "body_not_taken", "this port takes no body", ((b"connection", b"close"),))
_TOKEN_NOT_SET = Denial(403, "token_not_set", "actions need admin.token in the config")
_NO_TOKEN = Denial(
    401, "no_token", "a bearer token is needed: admin.token in the config", _CHALLENGE
)
_WRONG_TOKEN = Denial(401, "wrong_token", "this is not admin.token of the config", _CHALLENGE)


class Admission:
    """The rules of one admin port, and its memory of wrong tokens."""

    def __init__(
        self, token: Callable[[], SecretStr], public: Collection[str], throttle: Throttle
    ) -> None:
        """Take what gives the token that counts now, and the paths that may be read without it.

        Empty token: the port is loopback's. Without a token everything can be read, by loopback
        names alone, and no action is taken.
        """
        self._token = token
        self._public = frozenset(public)
        self._throttle = throttle

    def check(self, head: Head, now: float) -> Denial | None:
        """Tell why a request is not let in, or None; `now` is monotonic seconds."""
        if not self._token().get_secret_value() and not _is_for_loopback(head.headers):
            return _FOREIGN_HOST
        if _has_body(head.headers):
            return _BODY
        if head.method in READS:
            return None if head.path in self._public else self._check_token(head, now, read=True)
        if _is_cross_site(head.headers):
            return _CROSS_SITE
        return self._check_token(head, now, read=False)

    def _check_token(self, head: Head, now: float, *, read: bool) -> Denial | None:
        token = self._token().get_secret_value().encode()
        if not token:
            return None if read else _TOKEN_NOT_SET
        given = _values(head.headers, b"authorization")
        if not given:
            return _NO_TOKEN
        client = client_of(head.peer)
        wait = self._throttle.wait(client, now)
        if wait > 0:
            return _throttled(wait)
        if len(given) == 1 and _is_token(given[0], token):
            return None
        self._throttle.failed(client, now)
        return _WRONG_TOKEN


def _throttled(wait: float) -> Denial:
    seconds = math.ceil(wait)
    return Denial(
        429,
        "too_many_wrong_tokens",
        f"too many wrong tokens from this address; try again in {seconds} s",
        ((b"retry-after", b"%d" % seconds),),
    )


def _is_token(authorization: bytes, token: bytes) -> bool:
    scheme, _, given = authorization.partition(b" ")
    # Whether the scheme is right is no secret; the rest takes the same time whatever it holds.
    return hmac.compare_digest(given.strip(b" "), token) and scheme.lower() == b"bearer"


def _is_for_loopback(headers: Headers) -> bool:
    """Tell whether the URL has a loopback name.

    A page can point a name of its own at 127.0.0.1 (DNS rebinding) and is then of one origin with
    this port, but its requests still carry that name.
    """
    hosts = _values(headers, b"host")
    found = _HOST.fullmatch(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
    if found is None:
        return False
    address = parse_address(found[2] or found[3] or "127.0.0.1")
    return address is not None and address.is_loopback


def _is_cross_site(headers: Headers) -> bool:
    """Tell whether a browser says that another site's page sends this.

    Programs that are no browsers send neither header.
    """
    if any(site.lower() not in _OWN_SITE for site in _values(headers, b"sec-fetch-site")):
        return True
    host = b",".join(_values(headers, b"host")).lower()
    own = {b"http://" + host, b"https://" + host}
    return any(origin.lower() not in own for origin in _values(headers, b"origin"))


def _has_body(headers: Headers) -> bool:
    lengths = _values(headers, b"content-length")
    return bool(_values(headers, b"transfer-encoding")) or any(set(one) != {48} for one in lengths)


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value for name, value in headers if name == wanted]
