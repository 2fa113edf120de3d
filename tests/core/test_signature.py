"""The signature over the raw bytes: what is genuine, and the exact reason for what is not."""

from __future__ import annotations

import base64

import pytest
from pydantic import SecretStr

from gateway.signature import (
    Proof,
    SecretError,
    SignatureError,
    Verifier,
    decode_secret,
    is_message_id,
)
from tests.canaries import OTHER_SECRET, SECRET
from tests.core.builders import BODY, NOW, SVIX_ID, signature, signed

TOLERANCE = 300.0
GOOD = signature().encode()
WRONG = signature(b"another body").encode()
ENCODED = GOOD.removeprefix(b"v1,")
# Of the 44 characters only the 43rd has bits to spare: the next letter decodes to the same.
NOT_CANONICAL = ENCODED[:42] + bytes([ENCODED[42] + 1]) + b"="


def verifier(*secrets: str) -> Verifier:
    return Verifier([SecretStr(secret) for secret in secrets], TOLERANCE)


def verify(
    headers: list[tuple[bytes, bytes]],
    body: bytes = BODY,
    *,
    now: float = NOW,
    secrets: tuple[str, ...] = (SECRET,),
) -> Proof:
    return verifier(*secrets).verify(headers, body, now)


def refusal(
    headers: list[tuple[bytes, bytes]], body: bytes = BODY, *, now: float = NOW
) -> tuple[str, str | None]:
    with pytest.raises(SignatureError) as caught:
        verify(headers, body, now=now)
    return caught.value.reason, caught.value.header


def replaced(name: str, value: bytes | None) -> list[tuple[bytes, bytes]]:
    """Genuine headers, but for one that is replaced or, with None, left out."""
    headers = dict(signed())
    headers.pop(name.encode())
    return [*headers.items(), *([] if value is None else [(name.encode(), value)])]


# Vectors of the Svix documentation and of Standard Webhooks.
@pytest.mark.parametrize(
    ("secret", "svix_id", "timestamp", "body", "entry"),
    [
        (
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "1614265330",
            b'{"test": 2432232314}',
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        ),
        (
            "whsec_plJ3nmyCDGBKInavdOK15jsl",
            "msg_loFOjxBNrRLzqYUf",
            "1731705121",
            b'{"event_type":"ping","data":{"success":true}}',
            "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
        ),
    ],
    ids=["svix", "standard-webhooks"],
)
@pytest.mark.parametrize("family", ["svix", "webhook"])
def test_published_vectors_verify(
    secret: str, svix_id: str, timestamp: str, body: bytes, entry: str, family: str
) -> None:
    names = (f"{family}-id", f"{family}-timestamp", f"{family}-signature")
    values = (svix_id, timestamp, entry)
    headers = [(n.encode(), v.encode()) for n, v in zip(names, values, strict=True)]
    proof = verify(headers, body, now=int(timestamp), secrets=(secret,))
    assert proof == Proof(svix_id, timestamp, entry)


MISSING = [
    ("svix-id", None),
    ("svix-id", b""),
    ("svix-timestamp", None),
    ("svix-timestamp", b""),
    ("svix-signature", None),
    ("svix-signature", b""),
]


@pytest.mark.parametrize(("name", "value"), MISSING)
def test_a_missing_or_empty_header_is_named(name: str, value: bytes | None) -> None:
    assert refusal(replaced(name, value)) == ("missing_header", name)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"svix_id", b"a"), (b"svix_timestamp", b"1"), (b"svix_signature", GOOD)],
        [(b"x-" + name, value) for name, value in signed()],
        [(name + b" ", value) for name, value in signed()],
        [(b"authorization", b"Bearer x"), (b"content-type", b"application/json")],
    ],
    ids=["none", "underscores", "prefixed", "trailing-space", "others"],
)
def test_other_headers_prove_nothing(headers: list[tuple[bytes, bytes]]) -> None:
    assert refusal(headers) == ("missing_header", "svix-id")


BAD_IDS = {
    "space": b"msg 1",
    "leading-space": b" msg_1",
    "trailing-space": b"msg_1 ",
    "tab": b"msg\t1",
    "newline": b"msg_1\n",
    "carriage-return": b"msg_1\r",
    "nul": b"msg\x00",
    "delete": b"msg\x7f",
    "latin-1": b"msg_\xe9",
    "utf-8": "msg_é".encode(),
    "dot-inside": b"msg.1",
    "dot-first": b".msg",
    "dot-last": b"msg.",
    "dot-only": b".",
    "too-long": b"m" * 257,
}
BAD_TIMESTAMPS = {
    "float": b"1800000000.0",
    "exponent": b"18e8",
    "plus": b"+1800000000",
    "minus": b"-1800000000",
    "leading-space": b" 1800000000",
    "trailing-space": b"1800000000 ",
    "newline": b"1800000000\n",
    "underscore": b"1_800_000_000",
    "inner-space": b"1800 000000",
    "leading-zero": b"01800000000",
    "zeros": b"000000000000",
    "hex": b"0x6b49d200",
    "octal": b"0o15322351000",
    "letters": b"now",
    "nan": b"NaN",
    "infinity": b"inf",
    "date": b"2027-01-15T08:00:00Z",
    "milliseconds": b"1800000000000",
    "endless": b"1" * 5000,
    "arabic-digits": "١٨٠٠".encode(),
    "superscript": b"180000000\xb2",
    "nul": b"1800000000\x00",
    "two": b"1800000000,1800000000",
}
BAD_SIGNATURES = {
    "no-version": ENCODED,
    "version-only": b"v1",
    "empty-base64": b"v1,",
    "empty-version": b"," + ENCODED,
    "other-comma": b"v1;" + ENCODED,
    "space-for-comma": b"v1 " + ENCODED,
    "space-after-comma": b"v1, " + ENCODED,
    "upper-case-version": b"V1," + ENCODED,
    "no-letter": b"1," + ENCODED,
    "no-number": b"v," + ENCODED,
    "version-too-long": b"v1234," + ENCODED,
    "version-suffix-too-long": b"v1abcd," + ENCODED,
    "two-commas": b"v1,," + ENCODED,
    "three-parts": b"v1," + ENCODED + b"," + ENCODED,
    "leading-space": b" " + GOOD,
    "trailing-space": GOOD + b" ",
    "double-space": GOOD + b"  " + GOOD,
    "tab": GOOD + b"\t" + GOOD,
    "newline": GOOD + b"\n",
    "comma-separated-list": GOOD + b"," + GOOD,
    "junk-in-base64": b"v1,*" + ENCODED[1:],
    "extra-junk-in-base64": b"v1,*" + ENCODED,
    "newline-in-base64": b"v1," + ENCODED[:20] + b"\n" + ENCODED[20:],
    "unpadded": b"v1," + ENCODED.rstrip(b"="),
    "padded-twice": b"v1," + ENCODED + b"=",
    "padding-inside": b"v1," + ENCODED[:20] + b"=" + ENCODED[21:],
    "31-bytes": b"v1," + base64.b64encode(bytes(31)),
    "33-bytes": b"v1," + base64.b64encode(bytes(33)),
    "url-safe": b"v1," + b"-_" + ENCODED[2:],
    "hex": b"v1," + bytes(32).hex().encode(),
    "latin-1": b"v1,\xe9" + ENCODED[1:],
    "nul": GOOD + b"\x00",
    "junk-after-a-good-one": GOOD + b" junk",
    "junk-before-a-good-one": b"junk " + GOOD,
    "short-one-beside-a-good-one": GOOD + b" v1,AAAA",
    "junk-of-another-version": GOOD + b" v1a,***",
    "too-many": b" ".join([GOOD] * 17),
    "too-long": b"v2," + b"A" * 512 + b" " + b" ".join([b"v2," + b"A" * 400] * 4),
    "endless": b"v1," + b"A" * 100_000,
}
MALFORMED = [
    pytest.param(name, value, id=f"{name}-{case}")
    for name, cases in (
        ("svix-id", BAD_IDS),
        ("svix-timestamp", BAD_TIMESTAMPS),
        ("svix-signature", BAD_SIGNATURES),
    )
    for case, value in cases.items()
]


@pytest.mark.parametrize(("name", "value"), MALFORMED)
def test_a_malformed_header_is_named(name: str, value: bytes) -> None:
    assert refusal(replaced(name, value)) == ("malformed_header", name)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(WRONG, id="another-body"),
        pytest.param(signature(secret=OTHER_SECRET).encode(), id="another-secret"),
        pytest.param(b"v1," + NOT_CANONICAL, id="base64-not-canonical"),
        pytest.param(b"v1a," + ENCODED, id="unknown-version"),
        pytest.param(b"v2," + ENCODED, id="later-version"),
        pytest.param(b"v11," + ENCODED, id="version-that-begins-with-1"),
        pytest.param(b"v0," + ENCODED, id="earlier-version"),
        pytest.param(b" ".join([WRONG] * 16), id="sixteen-wrong"),
        pytest.param(b"v1," + ENCODED.swapcase(), id="other-case"),
    ],
)
def test_a_well_formed_signature_that_does_not_match(value: bytes) -> None:
    assert refusal(replaced("svix-signature", value)) == (
        "no_matching_signature",
        "svix-signature",
    )


def test_the_not_canonical_base64_decodes_to_the_same_bytes() -> None:
    assert NOT_CANONICAL != ENCODED
    assert base64.b64decode(NOT_CANONICAL) == base64.b64decode(ENCODED)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(GOOD + b" " + WRONG, id="first"),
        pytest.param(WRONG + b" " + GOOD, id="last"),
        pytest.param(b"v1a,c2ln_-+/= " + GOOD + b" v2,x", id="among-unknown-versions"),
        pytest.param(b" ".join([WRONG] * 15 + [GOOD]), id="sixteenth"),
        pytest.param(GOOD + b" " + GOOD, id="twice"),
    ],
)
def test_one_matching_entry_is_enough(value: bytes) -> None:
    assert verify(replaced("svix-signature", value)).signature == value.decode()


@pytest.mark.parametrize("family", ["svix", "webhook"])
@pytest.mark.parametrize("change", [bytes.lower, bytes.upper, bytes.title, bytes.swapcase])
def test_header_names_in_any_case(family: str, change: type[bytes]) -> None:
    headers = [(bytes(change(name)), value) for name, value in signed(family=family)]
    assert verify(headers).id == SVIX_ID


def test_families_may_be_mixed_and_repeated_while_they_agree() -> None:
    svix, webhook = signed(), signed(family="webhook")
    assert verify([svix[0], webhook[1], svix[2]]) == verify(svix)
    assert verify([*svix, *webhook, *svix]) == verify(svix)


CONFLICTS = [
    (name, other, value)
    for name, value in (("id", b"msg_other"), ("timestamp", b"1800000001"), ("signature", WRONG))
    for other in (f"svix-{name}", f"webhook-{name}", f"SVIX-{name}")
]


@pytest.mark.parametrize(("name", "other", "value"), CONFLICTS)
@pytest.mark.parametrize("first", [True, False])
def test_repeats_that_differ_are_refused_in_either_order(
    name: str, other: str, value: bytes, first: bool
) -> None:
    extra = [(other.encode(), value)]
    headers = [*extra, *signed()] if first else [*signed(), *extra]
    assert refusal(headers) == ("conflicting_header", f"svix-{name}")


def test_an_empty_repeat_differs() -> None:
    assert refusal([(b"svix-id", b""), *signed()]) == ("conflicting_header", "svix-id")


@pytest.mark.parametrize("svix_id", ["m", "m" * 256, "!#$%&'()*+,-/:;<=>?@[]^_`{|}~"])
def test_ids_of_visible_ascii(svix_id: str) -> None:
    assert verify(signed(svix_id=svix_id)).id == svix_id


@pytest.mark.parametrize(
    "body", [b"", b"\xff\xfe\x00", b".", BODY * 2000], ids=["empty", "binary", "dot", "large"]
)
def test_any_bytes_can_be_proven(body: bytes) -> None:
    assert verify(signed(body), body).id == SVIX_ID


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        (0, None),
        (300, None),
        (300.001, "timestamp_too_old"),
        (100_000_000, "timestamp_too_old"),
        (-300, None),
        (-300.001, "timestamp_too_new"),
        (-100_000_000, "timestamp_too_new"),
    ],
)
def test_the_tolerance_holds_both_ways_to_the_boundary(age: float, reason: str | None) -> None:
    if reason is None:
        assert verify(signed(), now=NOW + age).timestamp == str(NOW)
    else:
        assert refusal(signed(), now=NOW + age) == (reason, "svix-timestamp")


@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        ("1", "timestamp_too_old"),
        ("999999999999", "timestamp_too_new"),
    ],
)
def test_a_genuine_signature_of_another_age(timestamp: str, reason: str) -> None:
    assert refusal(signed(timestamp=timestamp)) == (reason, "svix-timestamp")


def test_the_split_of_a_signed_message_cannot_be_moved() -> None:
    """With a dot in the id, text of an old body could become its timestamp."""
    body = f"{NOW}.rest".encode()
    old = signed(body, timestamp=1_600_000_000)
    moved = [(b"svix-id", f"{SVIX_ID}.1600000000".encode()), (b"svix-timestamp", b"%d" % NOW)]
    assert refusal([*moved, old[2]], b"rest") == ("malformed_header", "svix-id")


def test_every_secret_of_the_list_counts() -> None:
    many = tuple("whsec_" + base64.b64encode(bytes([n]) * 24).decode() for n in range(20))
    for secret in many:
        assert verify(signed(secret=secret), secrets=many).id == SVIX_ID
    assert refusal(signed(secret=many[3])) == ("no_matching_signature", "svix-signature")


def test_rotation_takes_the_old_and_the_new_secret_until_the_old_one_goes() -> None:
    both = (OTHER_SECRET, SECRET)
    assert verify(signed(), secrets=both) == verify(signed(), secrets=(SECRET,))
    assert verify(signed(secret=OTHER_SECRET), secrets=both).id == SVIX_ID
    with pytest.raises(SignatureError, match="no matching signature"):
        verify(signed(), secrets=(OTHER_SECRET,))


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        ("whsec_" + "A" * 22 + "==", bytes(16)),
        ("A" * 22 + "==", bytes(16)),
        ("A" * 22, bytes(16)),
        ("  whsec_" + "A" * 32 + "\n", bytes(24)),
        ("whsec_" + "/+" * 16, base64.b64decode("/+" * 16)),
    ],
    ids=["prefixed", "bare", "unpadded", "with-whitespace", "plus-and-slash"],
)
def test_secrets_as_people_paste_them(secret: str, key: bytes) -> None:
    assert decode_secret(SecretStr(secret)).get_secret_value() == key


@pytest.mark.parametrize(
    ("secret", "problem"),
    [
        ("", "is empty"),
        ("whsec_", "is empty"),
        ("   ", "is empty"),
        ("whsec_!" + "A" * 31, "is not base64"),
        ("whsec_" + "A" * 33, "is not base64"),
        ("whsec_" + "_-" * 16, "is not base64"),
        ("whsec_whsec_" + "A" * 32, "is not base64"),
        ("whsec_" + "é" * 32, "is not base64"),
        ("whsec_" + "A" * 20, "is shorter than 16 bytes"),
        ("sk_test_" + "A" * 32, "is not base64"),
    ],
)
def test_what_cannot_be_a_secret(secret: str, problem: str) -> None:
    with pytest.raises(SecretError) as caught:
        decode_secret(SecretStr(secret))
    assert caught.value.problem == problem
    assert len(secret) < 8 or secret not in str(caught.value)


def test_no_secret_is_no_verifier() -> None:
    with pytest.raises(SecretError, match="is missing"):
        Verifier((), TOLERANCE)
    with pytest.raises(SecretError, match="is not base64"):
        verifier(SECRET, "no base64!")


def test_no_secret_shows() -> None:
    under_test = verifier(SECRET)
    shown = f"{under_test!r} {under_test!s}"
    with pytest.raises(SignatureError) as caught:
        under_test.verify(signed(secret=OTHER_SECRET), BODY, NOW)
    shown += f"{caught.value!r} {caught.value!s} {caught.value.__dict__}"
    key = decode_secret(SecretStr(SECRET)).get_secret_value()
    for secret in (SECRET, SECRET.removeprefix("whsec_"), key.hex(), repr(key)[2:-1]):
        assert secret not in shown


@pytest.mark.parametrize("name", ["svix-id", "svix-timestamp", "svix-signature"])
def test_errors_do_not_repeat_what_was_sent(name: str) -> None:
    with pytest.raises(SignatureError) as caught:
        verify(replaced(name, b"shown it must not be"))
    assert str(caught.value) == f"malformed header: {name}"


@pytest.mark.parametrize(
    "value", [b"msg_2b", b"a" * 256, b"", b"a.b", b"a b", b"\xff", b"a\n", b"a" * 5000]
)
def test_an_id_can_be_asked_for_by_what_verification_takes(value: bytes) -> None:
    try:
        name = value.decode()
        verify(signed(svix_id=name))
    except (SignatureError, UnicodeDecodeError):
        assert not is_message_id(value)
    else:
        assert is_message_id(value)
