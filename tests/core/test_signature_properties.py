"""The verifier against the svix library and against chance."""

from __future__ import annotations

import base64
import binascii
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from svix.webhooks import Webhook, WebhookVerificationError

from gateway.signature import SignatureError, Verifier
from tests.canaries import OTHER_SECRET, SECRET
from tests.core.builders import (
    BODY,
    NOW,
    RequestHeaders,
    signature,
    signed,
)

TOLERANCE = 300.0
VERIFIER = Verifier((SecretStr(SECRET),), TOLERANCE)
LIBRARY = Webhook(SECRET)

ids = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
plain_ids = ids.filter(lambda text: "." not in text)
# Clear of the boundary by a second, because the library reads the clock by itself.
offsets = st.integers(-900, 900).filter(lambda offset: abs(abs(offset) - 300) > 1)
bodies = st.text(st.characters(codec="utf-8"), max_size=200).map(str.encode)
secrets = st.sampled_from([SECRET, OTHER_SECRET])


def accepts(headers: RequestHeaders, body: bytes) -> bool:
    try:
        VERIFIER.verify(headers, body, time.time())
    except SignatureError:
        return False
    return True


def library_accepts(headers: RequestHeaders, body: bytes) -> bool:
    """The library's verdict; what escapes from it beside its own error is a refusal, too."""
    shown = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    try:
        LIBRARY.verify(body, shown)
    except (WebhookVerificationError, ValueError, binascii.Error):
        return False
    return True


@given(plain_ids, offsets, bodies, st.tuples(secrets, secrets), st.sampled_from([b"", b" "]))
def test_both_agree_on_what_is_well_formed(
    svix_id: str, offset: int, body: bytes, signers: tuple[str, str], added: bytes
) -> None:
    timestamp = int(time.time()) + offset
    family = "webhook" if offset % 2 else "svix"
    headers = signed(body, secret=signers[0], svix_id=svix_id, timestamp=timestamp, family=family)
    entry = signature(body, secret=signers[1], svix_id=svix_id, timestamp=timestamp)
    headers[2] = (headers[2][0], headers[2][1] + b" v1a,AAAA " + entry.encode())
    expected = SECRET in signers and not added and abs(offset) < 300
    assert accepts(headers, body + added) is expected
    assert library_accepts(headers, body + added) is expected


junk = st.sampled_from(
    [b" ", b",", b".", b"0", b"=", b"+", b"_", b"-", b"v1,", b"\n", b"\x00", b"\xe9", b"1", b"*"]
)


@st.composite
def mangled(draw: st.DrawFn) -> tuple[RequestHeaders, bytes]:
    """A genuine request with a few edits in headers and body, often none that matters."""
    body = draw(bodies)
    svix_id = draw(ids)
    timestamp = draw(st.sampled_from(["{}", "0{}", "{}.0", " {}", "{}_0", "+{}"])).format(
        int(time.time())
    )
    headers = signed(body, svix_id=svix_id, timestamp=timestamp)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(headers) - 1))
        name, value = headers[at]
        cut = draw(st.integers(0, len(value)))
        kept = draw(st.integers(0, 1))
        headers[at] = (name, value[:cut] + draw(junk) + value[cut + kept :])
    if draw(st.booleans()):
        headers.append(draw(st.sampled_from(headers)))
    return headers, body


@given(mangled())
def test_what_is_accepted_the_library_accepts(request_: tuple[RequestHeaders, bytes]) -> None:
    headers, body = request_
    if accepts(headers, body):
        assert library_accepts(headers, body)


names = st.sampled_from(
    [f"{family}-{name}".encode() for family in ("svix", "WEBHOOK") for name in ("id", "timestamp")]
    + [b"svix-signature", b"Webhook-Signature"]
)


@given(st.lists(st.tuples(names | st.binary(max_size=20), st.binary(max_size=80)), max_size=8))
def test_arbitrary_headers_never_raise_anything_else(headers: RequestHeaders) -> None:
    with pytest.raises(SignatureError):
        VERIFIER.verify(headers, BODY, NOW)


@given(st.binary(max_size=60), st.binary(max_size=20), st.binary(max_size=120))
def test_arbitrary_values_never_raise_anything_else(
    svix_id: bytes, timestamp: bytes, entries: bytes
) -> None:
    headers = [(b"svix-id", svix_id), (b"svix-timestamp", timestamp), (b"svix-signature", entries)]
    with pytest.raises(SignatureError):
        VERIFIER.verify(headers, BODY, NOW)


def flip(value: bytes, bit: int) -> bytes:
    at, shift = divmod(bit % (len(value) * 8), 8)
    return value[:at] + bytes([value[at] ^ (1 << shift)]) + value[at + 1 :]


@given(st.integers(0, len(BODY) * 8 - 1))
def test_no_bit_of_the_body_can_be_flipped(bit: int) -> None:
    with pytest.raises(SignatureError, match="no matching signature"):
        VERIFIER.verify(signed(), flip(BODY, bit), NOW)


@pytest.mark.parametrize("at", [0, 1, 2], ids=["id", "timestamp", "signature"])
def test_no_bit_of_a_header_can_be_flipped(at: int) -> None:
    name, value = signed()[at]
    for bit in range(len(value) * 8):
        headers = signed()
        headers[at] = (name, flip(value, bit))
        with pytest.raises(SignatureError):
            VERIFIER.verify(headers, BODY, NOW)


@given(st.binary(min_size=16, max_size=64), st.binary(max_size=300))
def test_any_key_proves_its_own_messages_and_no_other(key: bytes, body: bytes) -> None:
    secret = "whsec_" + base64.b64encode(key).decode()
    verifier = Verifier((SecretStr(secret),), TOLERANCE)
    assert verifier.verify(signed(body, secret=secret), body, NOW).timestamp == str(NOW)
    with pytest.raises(SignatureError, match="no matching signature"):
        verifier.verify(signed(body), body, NOW)
