"""Every secret that the tests use, and what stands in their payloads for personal data.

None may ever be in an output: `tests.outputs` looks for them in all that the suite writes. A test
that needs a secret takes it from here, or tells a new one to `remember`.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from urllib.parse import quote

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
"""The secret of the first test vector of Svix."""
OTHER_SECRET = "whsec_plJ3nmyCDGBKInavdOK15jsl"
"""That of the second."""
DOCS_SECRET = "whsec_ZXhhbXBsZSBleGFtcGxlIGV4YW1wbGU="
TOKEN = "admin-token-9f2c41d8"
KAFKA_PASSWORD = "correct-horse-71e0"
KAFKA_OTHER_PASSWORD = "s3cret-of-nobody-22d9"
NATS_SECRET = "open-sesame-4c1b"
"""A nats-server's password, and its token."""
NATS_ODD_PASSWORD = "p@s/%-9d27f1"
"""With characters that a URL must escape."""
NATS_USER_PASSWORD = "hush-hush-80a6"
NATS_GATEWAY_PASSWORD = "open-sesame-4112"
NATS_READER_PASSWORD = "another-word-77c1"
NATS_TOKEN = "token-of-the-bus-8d41"
WRONG_PASSWORD = "not-the-word-93b0"
"""Opens no lock, and is a secret all the same."""
URL_PASSWORD = "hunter2-e5c3b0"
CONFIG_CANARY = "CaNaRyCaNaRyCaNaRy"
"""Stands in config files where a secret should, and in places where none should."""

SHOWN_BY_DEV = "whsec_c2hvd24gb24gcHVycG9zZSBieSBkZXYh"
"""`gateway dev` prints its secret, by contract; so this one is not looked for."""

CANARY = "canary-5b1e77"
"""Stands in every payload of the tests, in the place of somebody's name."""

_SECRETS = {
    name: value
    for name, value in list(globals().items())
    if name.isupper() and isinstance(value, str) and name not in {"CANARY", "SHOWN_BY_DEV"}
}
_PAYLOADS = {
    "CANARY": CANARY,
    # What the sample events of `gateway send` hold in the place of personal data and codes.
    "the sample user's address": "sample.user@example.com",
    "the second user's address": "second.user@example.com",
    "the payer's address": "billing@example.com",
    "the sample user's number": "+12025550123",
    "the sample code": "000000 is your verification code",
    "the sample invitation": "accept-invitation?ticket=sample",
}
_MIN_LENGTH = 8


@dataclass(frozen=True)
class Canary:
    """One value to look for."""

    name: str
    value: bytes
    is_payload: bool
    """A command that shows payloads by contract may write it; a secret, none may."""

    def forms(self) -> frozenset[bytes]:
        """Give the value as it is, and in every encoding that a careless line could have."""
        found = {self.value}
        for raw in filter(None, (self.value, _key(self.value))):
            found |= {raw, raw.hex().encode(), raw.hex().upper().encode()}
            found |= set(_base64(raw))
            found |= {quote(raw, safe="").encode(), repr(raw)[2:-1].encode()}
        bare = self.value.removeprefix(b"whsec_")
        return frozenset({*found, bare})


_remembered: dict[str, Canary] = {}


def remember(name: str, value: str | bytes) -> None:
    """Look for a secret that was made in this run: a seed, a token."""
    raw = value if isinstance(value, bytes) else value.encode()
    assert len(raw) >= _MIN_LENGTH
    _remembered[name] = Canary(name, bytes(raw), is_payload=False)


def canaries() -> list[Canary]:
    """Give all that must not be written."""
    fixed = [Canary(name, value.encode(), is_payload=False) for name, value in _SECRETS.items()]
    payloads = [Canary(name, value.encode(), is_payload=True) for name, value in _PAYLOADS.items()]
    return [*fixed, *payloads, *_remembered.values()]


def _key(value: bytes) -> bytes | None:
    """Give the HMAC key of a signing secret."""
    if not value.startswith(b"whsec_"):
        return None
    try:
        return base64.b64decode(value.removeprefix(b"whsec_"), validate=True)
    except binascii.Error:
        return None


def _base64(raw: bytes) -> list[bytes]:
    """Give what base64 makes of `raw` inside a longer text, at each of its three alignments."""
    found = []
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        # The characters that also depend on what stands before and after.
        first = (0, 2, 3)[before]
        last = len(encoded) - (0, 4, 3)[(before + len(raw)) % 3]
        inside = encoded[first:last]
        found += [inside, inside.translate(bytes.maketrans(b"+/", b"-_"))]
    return found
