"""Signature and address headers by their grammar: nearly right, repeated, of both families.

Unlike arbitrary bytes these get past the first checks, so that the later ones are tried too.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import ip_address

import pytest
from hypothesis import assume, given, settings
from hypothesis import event as note
from hypothesis import strategies as st
from pydantic import SecretStr
from svix.webhooks import Webhook, WebhookVerificationError

from gateway.address import Networks, client_address
from gateway.signature import Proof, SignatureError, Verifier
from tests.canaries import OTHER_SECRET, SECRET
from tests.core.builders import (
    BODY,
    NOW,
    SVIX_ID,
    RequestHeaders,
    signature,
    signed,
)

TOLERANCE = 300
THIRD_SECRET = "whsec_" + "QUJD" * 8
VERIFIER = Verifier((SecretStr(SECRET), SecretStr(OTHER_SECRET)), TOLERANCE)
REASONS = {
    "missing_header",
    "conflicting_header",
    "malformed_header",
    "timestamp_too_old",
    "timestamp_too_new",
    "no_matching_signature",
}
SLOTS = ("id", "timestamp", "signature")


@st.composite
def mostly(draw: st.DrawFn, usual: st.SearchStrategy[str], *others: st.SearchStrategy[str]) -> str:
    """Draw the usual nine times out of ten, so that requests with no fault or one are common."""
    drawn: str = draw(st.one_of(*others) if is_rare(draw) else usual)
    return drawn


def is_rare(draw: st.DrawFn) -> bool:
    """Tell, one time out of ten, that it is so."""
    return draw(st.integers(0, 9)) == 7


# --- the grammar

visible = st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=".")
good_ids = st.text(visible, min_size=1, max_size=30) | st.sampled_from([SVIX_ID, "m" * 256])
near_ids = st.sampled_from(
    ["", ".", "msg.1", "msg 1", " msg", "msg\t", "msg\xe9", "m" * 257, "\x7f"]
)
good_offsets = st.integers(-TOLERANCE, TOLERANCE)
far_offsets = st.sampled_from([-(10**9), -86_400, -301, 301, 86_400, 10**9])
near_forms = st.sampled_from(
    ["{}.0", "{}.", " {}", "{} ", "+{}", "-{}", "0{}", "{}000", "{}e0", "0x{}", "{},{}", "{}_0", ""]
)
bodies = st.sampled_from([BODY, b"", b"{}", b"1.2.3"]) | st.text(max_size=40).map(
    lambda text: text.encode(errors="replace")
)
signers = st.sampled_from([SECRET, OTHER_SECRET])
families = st.sampled_from(["svix", "webhook"])
cases: st.SearchStrategy[Callable[[str], str]] = st.sampled_from(
    [str.lower, str.lower, str.title, str.upper]
)
near_names = st.sampled_from(["svix_{}", "x-svix-{}", "svix-{} ", "svix{}", "{}", "svix-{}-2"])


@dataclass(frozen=True)
class Message:
    """What a sender means to send."""

    svix_id: str
    timestamp: str
    body: bytes

    def entry(self, secret: str) -> str:
        """Sign it, by code that shares nothing with the gateway's."""
        return signature(self.body, secret=secret, svix_id=self.svix_id, timestamp=self.timestamp)


def good_messages(now: int = NOW) -> st.SearchStrategy[Message]:
    """Messages that are genuine at this time."""
    return st.builds(Message, good_ids, good_offsets.map(lambda off: str(now + off)), bodies)


@st.composite
def messages(draw: st.DrawFn, now: int = NOW) -> Message:
    """A message, in two cases of three with one thing nearly right: its id or its timestamp."""
    good = draw(good_messages(now))
    fault = draw(st.sampled_from(["none", "id", "timestamp"]))
    if fault == "id":
        return replace(good, svix_id=draw(near_ids))
    far = far_offsets.map(lambda offset: str(now + offset))
    near = near_forms.map(lambda form: form.format(now, now))
    return replace(good, timestamp=draw(far | near)) if fault == "timestamp" else good


def junk_entries(message: Message) -> st.SearchStrategy[str]:
    """Entries that look like a signature, or nearly, and are not one of this message."""
    right = message.entry(SECRET)
    encoded = right.removeprefix("v1,")
    near = [
        message.entry(THIRD_SECRET),
        replace(message, body=message.body + b"x").entry(SECRET),
        replace(message, svix_id=message.svix_id + "x").entry(SECRET),
        *(f"{version},{encoded}" for version in ("v1a", "v2", "V1", "v", "")),
        *(encoded, f"v1{encoded}", f"v1, {encoded}", f"v1;{encoded}", f'"{right}"'),
        *(right[:-1], right + "=", right[:-2] + "=", right.swapcase(), right + "\xe9"),
        *("", "v1", "v1,", "v1,=", "v1a,AAAA", "v99,b", "v1," + "A" * 513, "junk", ","),
    ]
    genuine = {message.entry(SECRET), message.entry(OTHER_SECRET)}
    return st.sampled_from(near) | st.text(visible, max_size=50).filter(
        lambda text: text not in genuine
    )


@st.composite
def signature_lists(draw: st.DrawFn, message: Message) -> str:
    """A list of entries, mostly with a right one, joined mostly as the scheme has it."""
    right = signers.map(message.entry)
    harmless = st.sampled_from(["v1a,AAAA", "v2,b", message.entry(THIRD_SECRET)])
    entries = draw(st.lists(st.one_of(right, right, harmless), min_size=1, max_size=6))
    if is_rare(draw):
        entries.insert(draw(st.integers(0, len(entries))), draw(junk_entries(message)))
    entries *= draw(st.sampled_from([1] * 8 + [2, 17]))
    return draw(st.sampled_from([" "] * 12 + ["  ", ",", ", ", "\t", ";"])).join(entries)


@st.composite
def requests(draw: st.DrawFn, message: Message) -> RequestHeaders:
    """The three headers of a message in any order and family, some repeated or misnamed."""
    values = (message.svix_id, message.timestamp, draw(signature_lists(message)))
    headers: list[tuple[str, str]] = []
    for slot, value in zip(SLOTS, values, strict=True):
        form = draw(mostly(families.map("{}-{{}}".format), near_names))
        headers.append((draw(cases)(form.format(slot)), value))
        if draw(st.booleans()):
            again = draw(st.sampled_from([value] * 12 + [value + "x", "", "1"]))
            headers.append((draw(cases)(f"{draw(families)}-{slot}"), again))
    return encoded(draw(st.permutations(headers)))


def encoded(headers: list[tuple[str, str]]) -> RequestHeaders:
    """Headers as they come from the wire."""
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]


# --- what is asked of it


def verdict(headers: RequestHeaders, body: bytes, now: float = NOW) -> Proof | None:
    """The proof, or None. Fails the test on any exception but the one, and on other words."""
    try:
        return VERIFIER.verify(headers, body, now)
    except SignatureError as error:
        refusal = error.reason
    assert refusal in REASONS
    return None


def the_one(headers: RequestHeaders, slot: str) -> str:
    """The one value that all headers of this name have, whatever their family."""
    names = {f"svix-{slot}".encode(), f"webhook-{slot}".encode()}
    (value,) = {value for name, value in headers if name.lower() in names}
    return value.decode("ascii")


def right_entries(svix_id: str, timestamp: str, body: bytes) -> set[str]:
    """The entry that each secret gives, by code that shares nothing with the gateway's."""
    return {
        signature(body, secret=secret, svix_id=svix_id, timestamp=timestamp)
        for secret in (SECRET, OTHER_SECRET)
    }


@settings(max_examples=200)
@given(messages(), st.data())
def test_only_what_an_independent_hmac_agrees_to_is_accepted(
    message: Message, data: st.DataObject
) -> None:
    headers = data.draw(requests(message))
    proof = verdict(headers, message.body)
    note("accepted" if proof else "refused")
    if proof is None:
        return
    svix_id, timestamp, entries = (the_one(headers, slot) for slot in SLOTS)
    assert proof == Proof(svix_id, timestamp, entries)
    assert right_entries(svix_id, timestamp, message.body) & set(entries.split(" "))
    assert abs(NOW - int(timestamp)) <= TOLERANCE
    assert "." not in svix_id


@given(good_messages(), families, cases, signers, st.data())
def test_what_is_right_is_accepted(
    message: Message, family: str, case: Callable[[str], str], secret: str, data: st.DataObject
) -> None:
    harmless = st.sampled_from(["v1a,AAAA", "v2,b", message.entry(THIRD_SECRET)])
    others = data.draw(st.lists(harmless, max_size=15))
    entries = " ".join(data.draw(st.permutations([*others, message.entry(secret)])))
    values = (message.svix_id, message.timestamp, entries)
    named = [(case(f"{family}-{slot}"), value) for slot, value in zip(SLOTS, values, strict=True)]
    assert verdict(encoded(named), message.body) == Proof(*values)


@settings(max_examples=200)
@given(st.data())
def test_the_library_accepts_what_is_accepted(data: st.DataObject) -> None:
    # The library reads the clock by itself.
    now = int(time.time())
    message = data.draw(messages(now))
    headers = data.draw(requests(message))
    proof = verdict(headers, message.body, now)
    note("accepted" if proof else "refused")
    # What is just within the tolerance now may be over it when the library looks.
    if proof is None or abs(now - int(proof.timestamp)) > TOLERANCE - 60:
        return
    # It wants all three of one family; that ours may be mixed is the contract's.
    shown = {f"svix-{slot}": the_one(headers, slot) for slot in SLOTS}
    verdicts = []
    for secret in (SECRET, OTHER_SECRET):
        try:
            Webhook(secret).verify(message.body, shown)
        except WebhookVerificationError:
            verdicts.append(False)
        else:
            verdicts.append(True)
    assert any(verdicts)


@settings(max_examples=200)
@given(messages(), st.data())
def test_junk_never_makes_a_refused_request_pass(message: Message, data: st.DataObject) -> None:
    headers = data.draw(requests(message))
    assume(verdict(headers, message.body) is None)
    genuine = {message.svix_id, message.timestamp}
    names = st.builds("{}-{}".format, families, st.sampled_from(SLOTS)) | near_names
    values = junk_entries(message).filter(lambda value: value not in genuine)
    for name, value in data.draw(st.lists(st.tuples(names, values), min_size=1, max_size=4)):
        headers.insert(data.draw(st.integers(0, len(headers))), encoded([(name, value)])[0])
        assert verdict(headers, message.body) is None


@settings(max_examples=200)
@given(good_messages(), st.data())
def test_no_list_of_wrong_entries_passes(message: Message, data: st.DataObject) -> None:
    entries = data.draw(st.lists(junk_entries(message), min_size=1, max_size=16))
    values = (message.svix_id, message.timestamp, " ".join(entries))
    genuine = right_entries(message.svix_id, message.timestamp, message.body)
    # Two halves of junk may happen to stand for one right entry, as in "v1," and its base64.
    assume(not genuine & set(values[2].split(" ")))
    named = [(f"svix-{slot}", value) for slot, value in zip(SLOTS, values, strict=True)]
    assert verdict(encoded(named), message.body) is None


@given(good_messages(), st.integers(0, 30))
def test_no_id_with_a_dot_passes(message: Message, at: int) -> None:
    dotted = replace(message, svix_id=message.svix_id[:at] + "." + message.svix_id[at:])
    values = (dotted.svix_id, dotted.timestamp, dotted.entry(SECRET))
    named = [(f"svix-{slot}", value) for slot, value in zip(SLOTS, values, strict=True)]
    assert verdict(encoded(named), dotted.body) is None


# --- in constant time


def test_every_candidate_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    genuinely = hmac.compare_digest

    def compare(left: bytes, right: bytes) -> bool:
        compared.append((left, right))
        return genuinely(left, right)

    monkeypatch.setattr("gateway.signature.hmac.compare_digest", compare)
    wrong = [signature(b"%d" % number) for number in range(5)]
    headers = [*signed()[:2], (b"svix-signature", " ".join([*wrong, "v2,b"]).encode())]
    assert verdict(headers, BODY) is None
    right = [signature(BODY, secret=secret) for secret in (SECRET, OTHER_SECRET)]
    expected = {(good, bad) for good in right for bad in wrong}
    assert sorted(compared) == sorted(
        (good.removeprefix("v1,").encode(), bad.removeprefix("v1,").encode())
        for good, bad in expected
    )


@pytest.mark.parametrize("says", [True, False])
def test_nothing_but_that_comparison_decides(monkeypatch: pytest.MonkeyPatch, says: bool) -> None:
    monkeypatch.setattr("gateway.signature.hmac.compare_digest", lambda *_: says)
    forged = [*signed()[:2], (b"svix-signature", signature(b"another").encode())]
    assert (verdict(signed(), BODY) is not None) is says
    assert (verdict(forged, BODY) is not None) is says


# --- X-Forwarded-For

PROXIES = Networks(["10.0.0.0/8", "fd00::/8"])
proxies = st.ip_addresses(v=4, network="10.0.0.0/8") | st.ip_addresses(v=6, network="fd00::/8")
senders = st.ip_addresses().filter(
    lambda address: address not in PROXIES and getattr(address, "ipv4_mapped", None) is None
)
forged_hops = st.text(st.characters(max_codepoint=0xFF), max_size=30) | st.ip_addresses().map(str)
blanks = st.sampled_from(["", " ", "\t", "  "])


@st.composite
def forwarded(draw: st.DrawFn, hops: list[str]) -> RequestHeaders:
    """The hops as one header or several, in any case, with blanks around them."""
    padded = [draw(blanks) + hop + draw(blanks) for hop in hops]
    cut = draw(st.integers(0, len(padded)))
    lines = [",".join(part) for part in (padded[:cut], padded[cut:]) if part]
    return encoded([(draw(cases)("x-forwarded-for"), line) for line in lines])


@given(
    st.lists(forged_hops, max_size=4), senders, st.lists(proxies, max_size=8), proxies, st.data()
)
def test_what_stands_left_of_the_sender_counts_for_nothing(
    forged: list[str], sender: object, chain: list[object], peer: object, data: st.DataObject
) -> None:
    hops = [*forged, str(sender), *map(str, chain)]
    headers = data.draw(forwarded(hops))
    assert client_address(str(peer), headers, PROXIES) == sender


@given(st.lists(forged_hops, max_size=6), senders, st.data())
def test_nobody_but_a_trusted_proxy_may_tell_an_address(
    hops: list[str], peer: object, data: st.DataObject
) -> None:
    assert client_address(str(peer), data.draw(forwarded(hops)), PROXIES) == peer


@given(st.lists(forged_hops, max_size=40), proxies, st.data())
def test_an_address_that_is_told_is_one_of_the_hops(
    hops: list[str], peer: object, data: st.DataObject
) -> None:
    address = client_address(str(peer), data.draw(forwarded(hops)), PROXIES)
    if address is None:
        return
    assert address not in PROXIES
    told = [hop.strip() for line in hops for hop in line.split(",")]
    assert any(is_address(hop, address) for hop in told)


def is_address(text: str, address: object) -> bool:
    """Tell whether this text is that address, also mapped into IPv6."""
    try:
        found = ip_address(text)
    except ValueError:
        return False
    return address in {found, getattr(found, "ipv4_mapped", None)}
