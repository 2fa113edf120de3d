"""What an input is taken for: raw bytes of a connection, a forged request, a genuine one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fuzz.choices import Choices, Headers, Manner, manner, request, send
from fuzz.documents import build_body
from fuzz.forgeries import FORGERIES
from fuzz.genuine import Sent, judge_genuine
from fuzz.judge import Answer, ViolationError, judge, judge_buffers, judge_forged
from fuzz.oracle import could_be_genuine, sign
from fuzz.service import MAX_BODY, MAX_HEAD, Letter, Mood, Policy, Service, Setup
from virtual.loop import EPOCH

__all__ = ["MODES", "Mode", "run_forged", "run_genuine", "run_raw"]

Mode = Callable[[Service, Choices], list[Answer]]

MARGIN = 2048
"""Bytes around the limit of a head within which both sides of it are right: what counts as its
size is the server's own matter."""

POLICIES: tuple[Policy, ...] = ("accept", "dead_letter", "reject")
LETTERS: tuple[Letter, ...] = ("kafka", "nats", "none")
# Brokers are well in most inputs: what is wrong with them is the fan-out's matter, not the edge's.
MOODS: tuple[tuple[Mood, Mood], ...] = (
    *((("well", "well"),) * 11),
    ("down", "well"),
    ("well", "refuses"),
    ("refuses", "well"),
    ("fails", "well"),
    ("well", "silent"),
)


def run_raw(service: Service, choices: Choices) -> list[Answer]:
    """The input is what a client sends. The secret is random, so none of it can be genuine."""
    how = manner(choices, ("wait", "shut", "leave", "reset"), repeats=True)
    wire = service.connect(Setup(), slow=how.slow)
    largest = send(service.loop, wire, choices.rest(), how)
    judge_buffers(service, wire, largest)
    answers = judge(service, wire, client_left=how.end != "wait")
    judge_forged(service, answers)
    return answers


def run_forged(service: Service, choices: Choices) -> list[Answer]:
    """A well-formed POST to the right path, forged in one of many ways."""
    how = manner(choices)
    forge = choices.pick(FORGERIES)
    framing = choices.byte()
    families = choices.byte()
    fields, body, certain = forge(service.secrets, choices)
    headers = [
        (_FAMILIES[families >> 2 * at & 3] + b"-" + name, value)
        for at, (name, value) in enumerate(fields)
    ]
    sent = request(headers, body, framing)
    answers = _exchange(service, Setup(), sent, how)
    size = sum(len(name) + len(value) for name, value in headers)
    if not certain and could_be_genuine(service.secrets, headers, body):
        return answers
    judge_forged(service, answers)
    allowed = {413 if len(body) > MAX_BODY else 401}
    if size > MAX_HEAD + MARGIN:
        allowed = {431}
    elif size > MAX_HEAD - MARGIN:
        allowed.add(431)
    if len(answers) != 1 or answers[0].status not in allowed:
        raise ViolationError(f"forged by {forge.__name__}, and answered {answers}, not {allowed}")
    return answers


def run_genuine(service: Service, choices: Choices) -> list[Answer]:
    """A POST that we sign: the body is fuzzed, and all that the scheme leaves free."""
    how = manner(choices)
    events, bus = choices.pick(MOODS)
    setup = Setup(choices.pick(POLICIES), choices.pick(LETTERS), events, bus)
    key = choices.pick(service.secrets)
    stamp = b"%d" % (EPOCH - 300 + choices.byte() * 600 // 255)
    family = choices.pick((b"svix", b"Webhook"))
    svix_id = bytes(_VISIBLE[byte % len(_VISIBLE)] for byte in choices.text()) or b"msg"
    framing, is_built = choices.byte(), choices.byte() % 2
    body = (build_body(choices) if is_built else choices.rest())[:MAX_BODY]
    signature = b"v1," + sign(key, svix_id, stamp, body)
    headers: Headers = [
        (family + b"-id", svix_id),
        (family + b"-timestamp", stamp),
        (family + b"-signature", signature),
    ]
    answers = _exchange(service, setup, request(headers, body, framing), how)
    proven = [value.decode() for _, value in headers]
    judge_genuine(service, setup, Sent(body, *proven), answers)
    return answers


MODES: Mapping[str, Mode] = {"raw": run_raw, "forged": run_forged, "genuine": run_genuine}
"""By name; an input's first byte picks one, unless the run is of one only."""

_FAMILIES = (b"svix", b"webhook", b"Svix", b"WEBHOOK")
# Of visible ASCII, which an id may have, all but the dot.
_VISIBLE = bytes(code for code in range(0x21, 0x7F) if code != ord("."))


def _exchange(service: Service, setup: Setup, sent: bytes, how: Manner) -> list[Answer]:
    wire = service.connect(setup, slow=how.slow)
    judge_buffers(service, wire, send(service.loop, wire, sent, how))
    return judge(service, wire, client_left=False)
