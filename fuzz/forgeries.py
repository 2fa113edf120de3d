"""Ways to forge a signed request, from nearly right to noise.

Each takes the real secrets, which no forger has, so that what it makes is wrong in one place
only. It gives the headers, named without their family, the body, and whether the result is forged
for certain; where not, chance may have made it genuine, and `fuzz.oracle` says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fuzz.choices import Choices, Headers
from fuzz.oracle import TOLERANCE, sign
from virtual.loop import EPOCH

__all__ = ["FORGERIES", "Forged", "Forgery"]

Forged = tuple[Headers, bytes, bool]
Forgery = Callable[[Sequence[bytes], Choices], Forged]

_ID = b"msg_2b"
_NOW = b"%d" % EPOCH
_ODD_TIMES = (
    b"0%b",
    b"+%b",
    b"%b.0",
    b"%b.",
    b"%be0",
    b"0x%b",
    b"%b_0",
    b"-%b",
    b"%b,%b",
    b"%b\xb2",
)
_OTHER_FORMS = (
    *(b"v2,%b", b"v1a,%b", b"V1,%b", b"v01,%b", b"%b", b"v1%b", b"v1;%b", b"v1,v1,%b", b",%b"),
    # A list with the right entry and a malformed one.
    *(b"v1,%b ,", b"v1,%b v1", b"v1,%b v1,=%b", b"v1,%b v1,", b"v1,%b  v1,%b", b"v1,%b!"),
)
_UNSENDABLE = bytes([*range(9), *range(10, 32), 127])
"""What ends a header or makes it no HTTP."""


def wrong_key(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """Signed with a key that is not ours; a longer or shorter one too."""
    key, body = choices.text() + b"not ours", choices.rest()
    return _headers(b"v1," + sign(key, _ID, _NOW, body)), body, key not in secrets


def other_body(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """The signature of a body that differs by what is added to its end, or by one bit."""
    key, flip, more = choices.pick(secrets), choices.byte(), choices.text()
    body = choices.rest()
    signed = bytearray(body + more)
    if not more and body:
        signed[flip * len(body) // 256] ^= 1 << flip % 8
    elif not more:
        signed += b" "
    return _headers(b"v1," + sign(key, _ID, _NOW, bytes(signed))), body, True


def other_id(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """The signature of another message with the same body."""
    key, svix_id = choices.pick(secrets), _sendable(choices.text())
    body = choices.rest()
    entry = b"v1," + sign(key, _ID, _NOW, body)
    return _headers(entry, svix_id=svix_id), body, svix_id.strip() != _ID


def other_timestamp(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """An old signature under a new timestamp."""
    key, age = choices.pick(secrets), 1 + choices.byte()
    body = choices.rest()
    entry = b"v1," + sign(key, _ID, b"%d" % (EPOCH - age), body)
    return _headers(entry), body, True


def out_of_time(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """Signed with our key, but too long ago, or in the future."""
    key, sign_of_time = choices.pick(secrets), choices.pick((1, -1))
    by = TOLERANCE + 1 + choices.byte() * choices.byte() ** 3
    body, stamp = choices.rest(), b"%d" % (EPOCH + sign_of_time * by)
    entry = b"v1," + sign(key, _ID, stamp, body)
    return _headers(entry, stamp=stamp), body, True


def odd_timestamp(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """The right time in a form that is not plain digits, and signed as it is written."""
    form = choices.pick(_ODD_TIMES)
    key, stamp = choices.pick(secrets), form.replace(b"%b", _NOW)
    body = choices.rest()
    entry = b"v1," + sign(key, _ID, stamp, body)
    return _headers(entry, stamp=stamp), body, True


def dotted_id(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """A message id with a dot, signed with our key: what is signed splits in more than one way."""
    key, tail = choices.pick(secrets), _sendable(choices.text()).strip()
    svix_id, body = _ID + b"." + tail, choices.rest()
    entry = b"v1," + sign(key, svix_id, _NOW, body)
    return _headers(entry, svix_id=svix_id), body, True


def shifted_split(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """The bytes that were signed, split anew: part of the body becomes timestamp and id."""
    key, old = choices.pick(secrets), b"%d" % (EPOCH - 10_000)
    tail = choices.rest()
    entry = b"v1," + sign(key, _ID, old, b"." + _NOW + b"." + tail)
    return _headers(entry, svix_id=_ID + b"." + old + b"."), tail, True


def twice(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """All is right, but one header is there twice, with another value."""
    key, at, first = choices.pick(secrets), choices.byte() % 3, choices.byte() % 2
    value, body = _sendable(choices.text()).strip(), choices.rest()
    headers = _headers(b"v1," + sign(key, _ID, _NOW, body))
    if value == headers[at][1]:
        value += b"0"
    headers.insert(0 if first else 3, (headers[at][0], value))
    return headers, body, True


def left_out(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """One header is not there, or is empty."""
    key, at, empty = choices.pick(secrets), choices.byte() % 3, choices.byte() % 2
    body = choices.rest()
    headers = _headers(b"v1," + sign(key, _ID, _NOW, body))
    if empty:
        headers[at] = (headers[at][0], b"")
    else:
        del headers[at]
    return headers, body, True


def other_version(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """The right signature under a version that is not ours, or in a list with a malformed one."""
    key = choices.pick(secrets)
    form = choices.pick(_OTHER_FORMS)
    body = choices.rest()
    return _headers(form.replace(b"%b", sign(key, _ID, _NOW, body))), body, True


def spoilt(secrets: Sequence[bytes], choices: Choices) -> Forged:
    """The right signature with a few of its bytes replaced, or cut out."""
    key, start, stop = choices.pick(secrets), choices.byte() % 48, choices.byte() % 48
    put, body = _sendable(choices.text()), choices.rest()
    entry = b"v1," + sign(key, _ID, _NOW, body)
    return _headers(entry[:start] + put + entry[max(start, stop) :]), body, False


def noise(_: Sequence[bytes], choices: Choices) -> Forged:
    """Any three values, each repeated up to 255 times."""
    values = [_sendable(choices.text() * (choices.byte() or 1)) for _ in range(3)]
    return _headers(values[2], svix_id=values[0], stamp=values[1]), choices.rest(), False


FORGERIES: tuple[Forgery, ...] = (
    wrong_key,
    other_body,
    other_id,
    other_timestamp,
    out_of_time,
    odd_timestamp,
    dotted_id,
    shifted_split,
    twice,
    left_out,
    other_version,
    spoilt,
    noise,
)


def _headers(signature: bytes, *, svix_id: bytes = _ID, stamp: bytes = _NOW) -> Headers:
    return [(b"id", svix_id), (b"timestamp", stamp), (b"signature", signature)]


def _sendable(value: bytes) -> bytes:
    return value.translate(None, _UNSENDABLE)
