"""Proof that a webhook is genuine: the Svix signature over its raw bytes.

The scheme is Standard Webhooks (https://www.standardwebhooks.com, section "Signature scheme"),
as Svix sends it: HMAC-SHA256 over `id.timestamp.body`, base64, in a list of `version,signature`.
Pure: bytes and the time in, a `Proof` or a `SignatureError` out.

This is stricter than the svix library on purpose; a differential test holds it to being never
more lenient about a body that is text (the library cannot read another: here its bytes are
proven, and then they are no JSON). Refused here and accepted there:

1. a timestamp that is not plain digits (the library takes floats, spaces and underscores), or
   that begins with a zero (there: signed without it);
2. base64 with junk inside, and a list with a malformed entry (there: an escaping exception);
3. the same header twice with different values (there: the last one wins);
4. a message id with a dot. `id.timestamp.body` splits only one way if the id has none: with
   one, whoever holds an old signed message could move the split into text of the body that an
   end user wrote, and so give old bytes a new timestamp.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

import msgspec
from pydantic import SecretBytes, SecretStr

from gateway import GatewayError

__all__ = [
    "Proof",
    "SecretError",
    "SignatureError",
    "Verifier",
    "decode_secret",
    "is_message_id",
]

_SLOTS = {
    b"svix-id": 0,
    b"webhook-id": 0,
    b"svix-timestamp": 1,
    b"webhook-timestamp": 1,
    b"svix-signature": 2,
    b"webhook-signature": 2,
}
_NAMES = ("svix-id", "svix-timestamp", "svix-signature")

_ID = re.compile(rb"[!-\-/-~]{1,256}").fullmatch  # visible ASCII but the dot
_TIMESTAMP = re.compile(rb"[1-9][0-9]{0,11}").fullmatch
_ENTRY = re.compile(rb"(v[0-9]{1,3}[a-z]{0,3}),([A-Za-z0-9+/=_-]{1,512})").fullmatch
_V1 = re.compile(rb"[A-Za-z0-9+/]{43}=").fullmatch  # base64 of 32 bytes

# Svix sends one entry per active secret; the bounds leave room and keep the work small.
_MAX_SIGNATURE_BYTES = 2048
_MAX_ENTRIES = 16


class SignatureError(GatewayError):
    """The request is not proven genuine: 401.

    Reasons: `missing_header`, `conflicting_header`, `malformed_header`, `timestamp_too_old`,
    `timestamp_too_new`, `no_matching_signature`.
    """

    def __init__(self, reason: str, header: str | None = None) -> None:
        self.reason = reason
        self.header = header
        words = reason.replace("_", " ")
        super().__init__(f"{words}: {header}" if header else words)


class SecretError(GatewayError):
    """A signing secret that cannot be one. The message never holds the secret."""

    def __init__(self, problem: str) -> None:
        self.problem = problem
        super().__init__(
            f"the signing secret {problem}; copy it from the endpoint's page: whsec_ and base64"
        )


def is_message_id(value: bytes) -> bool:
    """Tell whether a sender may use this as `svix-id`."""
    return _ID(value) is not None


class Proof(msgspec.Struct, frozen=True, gc=False):
    """What was proven, verbatim as sent: the message id, the timestamp, the signature list."""

    id: str
    timestamp: str
    signature: str


def decode_secret(secret: SecretStr) -> SecretBytes:
    """Give the HMAC key of a signing secret: `whsec_` + base64, or the base64 alone.

    Raises `SecretError` for anything else, and for a key under 16 bytes, which can be guessed.
    """
    # What fails here is told by a frame that holds no bare secret: error reporters send locals.
    key = _decoded(secret)
    if key is None:
        raise SecretError("is not base64")
    if not key:
        raise SecretError("is empty")
    if len(key) < 16:
        raise SecretError("is shorter than 16 bytes")
    return key


def _decoded(secret: SecretStr) -> SecretBytes | None:
    text = secret.get_secret_value().strip().removeprefix("whsec_")
    try:
        return SecretBytes(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except (binascii.Error, ValueError):
        return None


class Verifier:
    """Checks webhooks against a list of secrets, any one of which may have signed.

    It keeps no key, only the state of an HMAC that was begun with it: there is nothing to print
    or to pickle, and copying that state is faster than keying each time.
    """

    __slots__ = ("_keyed", "_tolerance")

    def __init__(self, secrets: Sequence[SecretStr], tolerance: float) -> None:
        """Take at least one secret, and how old or new a timestamp may be (seconds).

        Raises `SecretError`. There is no way to accept unsigned requests.
        """
        if not secrets:
            raise SecretError("is missing")
        self._keyed = tuple(
            hmac.new(decode_secret(secret).get_secret_value(), digestmod="sha256")
            for secret in secrets
        )
        self._tolerance = tolerance

    def verify(self, headers: Iterable[tuple[bytes, bytes]], body: bytes, now: float) -> Proof:
        """Return the proof that `body` is what was signed, or raise `SignatureError`.

        `headers` are the request's, in any case; `body` its raw bytes; `now` Unix seconds.
        """
        id_, timestamp, signature = _read(headers)
        entries = _split(signature)
        age = now - int(timestamp)
        if age > self._tolerance:
            raise SignatureError("timestamp_too_old", _NAMES[1])
        if -age > self._tolerance:
            raise SignatureError("timestamp_too_new", _NAMES[1])
        content = b"%b.%b.%b" % (id_, timestamp, body)
        if not self._matches(content, entries):
            raise SignatureError("no_matching_signature", _NAMES[2])
        return Proof(id_.decode("ascii"), timestamp.decode("ascii"), signature.decode("ascii"))

    def _matches(self, content: bytes, entries: Sequence[bytes]) -> bool:
        for keyed in self._keyed:
            mac = keyed.copy()
            mac.update(content)
            expected = base64.b64encode(mac.digest())
            for entry in entries:
                if hmac.compare_digest(expected, entry):
                    return True
        return False


def _read(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes, bytes]:
    """Find the three signature headers, of either family; repeats must agree."""
    found: list[bytes | None] = [None, None, None]
    for name, value in headers:
        slot = _SLOTS.get(name)
        if slot is None and (slot := _SLOTS.get(name.lower())) is None:
            continue
        if found[slot] is not None and found[slot] != value:
            raise SignatureError("conflicting_header", _NAMES[slot])
        found[slot] = value
    id_, timestamp, signature = found
    if not id_ or not timestamp or not signature:
        _missing(found)
    if not _ID(id_):
        raise SignatureError("malformed_header", _NAMES[0])
    if not _TIMESTAMP(timestamp):
        raise SignatureError("malformed_header", _NAMES[1])
    return id_, timestamp, signature


def _missing(found: Sequence[bytes | None]) -> NoReturn:
    first = next(slot for slot, value in enumerate(found) if not value)
    raise SignatureError("missing_header", _NAMES[first])


def _split(signature: bytes) -> list[bytes]:
    """Give the base64 of each `v1` entry; other versions are skipped, junk refused."""
    if len(signature) > _MAX_SIGNATURE_BYTES:
        raise SignatureError("malformed_header", _NAMES[2])
    parts = signature.split(b" ")
    if len(parts) > _MAX_ENTRIES:
        raise SignatureError("malformed_header", _NAMES[2])
    entries = []
    for part in parts:
        entry = _ENTRY(part)
        if entry is None:
            raise SignatureError("malformed_header", _NAMES[2])
        version, encoded = entry.groups()
        if version != b"v1":
            continue
        if not _V1(encoded):
            raise SignatureError("malformed_header", _NAMES[2])
        entries.append(encoded)
    return entries
