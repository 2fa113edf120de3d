"""What `gateway inbox` decides without any broker: what is replayed, listed and shown."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from gateway.brokers.letters import Letter
from gateway.commands.inbox_batch import NotDone
from gateway.commands.inbox_places import How, StorePlace
from gateway.commands.inbox_resolve import NotReplayed, Routing, resolve
from gateway.commands.inbox_select import Filter, instant
from gateway.commands.inbox_view import age, escaped, item_json, row, show_text, table
from gateway.delivery.dead_letter import DeadLetter
from gateway.delivery.inbox.fake import FakeStore
from gateway.delivery.inbox.letters import Item, of_letter
from gateway.delivery.inbox.record import Record
from gateway.delivery.inbox.store import Held, Parked
from gateway.delivery.plan import Plan, Refusal
from gateway.event import Sender, read_event
from gateway.routing.match import Pattern
from tests.commands.letters import SENDER, Proof
from tests.core.builders import route, target
from tests.core.builders import table as routing_table
from tests.inbox.harness import FeedLog

NOW = 1_800_000_000.0
BODY = b'{"data":{"id":"user_1","private_metadata":{"a":1}},"object":"event","type":"user.created"}'


def item(
    broker: str = "events",
    destination: str = "clerk.users",
    *,
    kind: Any = "kafka",
    body: bytes = BODY,
    routes: tuple[str, ...] = ("users",),
    sender: Sender = SENDER,
    **changes: Any,
) -> Item:
    """Make a letter as the gateway does, and read it back; `changes` are of the letter."""
    read = read_event(Proof("msg_1"), body, sender, NOW)
    refusal = Refusal(routes, broker, destination, "too_large", "a detail")
    plan = Plan(read.key, body, read.metadata, (), ())
    made = DeadLetter("events", kind, "letters").letter(plan, refusal, destination)
    letter = Letter("0-1", made.value, made.headers, made.key, NOW - 90)
    return of_letter(msgspec.structs.replace(letter, **changes), kind)


def replayed(one: Item, *routes: dict[str, Any], reroute: bool = False, **more: Any) -> Any:
    """Give the places that a replay publishes to, or why it does not."""
    routing = Routing(routing_table(*routes, **more), {"clerk": SENDER})
    plan = resolve(one, routing, reroute=reroute)
    if isinstance(plan, NotReplayed):
        return plan.word
    return [(assigned.broker, assigned.message.destination) for assigned in plan.assignments]


USERS = ("events", "clerk.users")
BUS = ("bus", "clerk.bus")
AUDIT = ("events", "audit")
T_USERS, T_BUS, T_AUDIT = target(*USERS), target(*BUS), target(*AUDIT)
R_AUDIT = route(T_AUDIT, name="audit")


@pytest.mark.parametrize(
    ("routes", "plain", "rerouted"),
    [
        pytest.param([route(T_USERS)], [USERS], [USERS], id="as it was"),
        pytest.param([route(T_USERS, T_BUS)], [USERS], [USERS], id="its target alone"),
        pytest.param([route(T_USERS, name="renamed")], [USERS], [USERS], id="route renamed"),
        pytest.param([route(T_BUS), R_AUDIT], "no_target", [BUS], id="target replaced"),
        pytest.param(
            [route(T_BUS, name="new"), R_AUDIT], "no_target", [BUS, AUDIT], id="route gone"
        ),
        pytest.param([route(events=["session.*"])], "no_target", "unmatched", id="no route"),
        pytest.param(
            [route(target("events", "clerk.{data.missing}"))],
            "no_target",
            "still_refused",
            id="another template that gives nothing",
        ),
    ],
)
def test_where_a_letter_goes(routes: list[dict[str, Any]], plain: object, rerouted: object) -> None:
    assert replayed(item(), *routes) == plain
    assert replayed(item(), *routes, reroute=True) == rerouted


def test_a_letter_of_no_route_goes_to_all_on_demand() -> None:
    one = item("", "", routes=())
    assert replayed(one, route(T_USERS), R_AUDIT) == "no_target"
    assert replayed(one, route(T_USERS), R_AUDIT, reroute=True) == [USERS, AUDIT]


def test_a_template_that_still_gives_nothing_is_told() -> None:
    one = item("events", "clerk.{data.missing}")
    assert replayed(one, route(target("events", "clerk.{data.missing}"))) == "still_refused"


def test_of_two_records_for_one_place_the_one_of_its_routes_is_sent() -> None:
    first = route(target("events", "clerk.{data.id}", headers={"x": "1"}), name="first")
    second = route(target("events", "clerk.{data.id}", headers={"x": "2"}), name="second")
    routing = Routing(routing_table(first, second), {"clerk": SENDER})
    one = item("events", "clerk.user_1", routes=("second",))
    plan = resolve(one, routing, reroute=False)
    assert isinstance(plan, Plan)
    (assigned,) = plan.assignments
    assert ("x", "2") in assigned.message.headers


@pytest.mark.parametrize("kind", ["kafka", "nats"])
def test_what_is_replayed_is_what_the_gateway_would_have_sent(kind: str) -> None:
    """Value, key, headers and dedupe id, with the metadata of the first time."""
    changed = target(payload="data", redact=["data.private_metadata"], key="k-{data.id}")
    made = routing_table(route(changed))
    read = read_event(Proof("msg_1"), BODY, SENDER, NOW)
    # The letter says what the source was called then; the config may call it otherwise now.
    renamed = msgspec.structs.replace(SENDER, uri="other/uri")
    plan = resolve(item(kind=kind), Routing(made, {"clerk": renamed}), reroute=False)
    assert isinstance(plan, Plan)
    assert plan.assignments == made.plan(read).assignments


def test_a_signature_that_is_not_to_travel_does_not() -> None:
    hidden = msgspec.structs.replace(SENDER, signature=False)
    plan = resolve(item(), Routing(routing_table(), {"clerk": hidden}), reroute=False)
    assert isinstance(plan, Plan)
    assert plan.metadata.signature is None


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"headers": ()}, "not_a_letter"),
        ({"value": b"not json"}, "not_an_event"),
        ({"value": b"[]"}, "not_an_event"),
    ],
)
def test_what_cannot_be_replayed(changes: dict[str, Any], word: str) -> None:
    assert replayed(item(**changes)) == word
    assert replayed(item(**changes), reroute=True) == word


def test_a_source_that_the_config_has_no_more() -> None:
    other = msgspec.structs.replace(SENDER, name="gone")
    assert replayed(item(sender=other)) == "no_source"


def test_a_long_destination_is_found_though_the_letter_names_its_beginning() -> None:
    subject = "clerk." + "x" * 900
    one = item("bus", subject, kind="nats")
    assert len(one.targets[0]) == 512
    assert replayed(one, route(target("bus", subject))) == [("bus", subject)]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, True),
        ({"state": "dead-letter"}, True),
        ({"state": "parked"}, False),
        ({"type": Pattern(["user.*"])}, True),
        ({"type": Pattern(["session.*"])}, False),
        ({"route": "users"}, True),
        ({"route": "user"}, False),
        ({"source": "clerk"}, True),
        ({"source": "other"}, False),
        ({"since": NOW - 90}, True),
        ({"since": NOW - 89}, False),
        ({"until": NOW - 90}, False),
        ({"until": NOW - 89}, True),
        ({"type": Pattern(["user.*"]), "route": "audit"}, False),
    ],
)
def test_filters(given: dict[str, Any], taken: bool) -> None:
    assert Filter(**given).takes(item()) is taken


@pytest.mark.parametrize(
    ("kept", "usual", "with_kept"),
    [("", True, True), ("partial", True, True), ("replayed", False, True)],
)
def test_what_was_dealt_with_is_left_out(kept: Any, usual: bool, with_kept: bool) -> None:
    one = msgspec.structs.replace(item(), kept=kept)
    assert Filter().takes(one) is usual
    assert Filter(kept=True).takes(one) is with_kept


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2h", NOW - 7200),
        ("90s", NOW - 90),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
        ("2027-01-15T08:00:00", NOW),
        ("2027-01-15", NOW - 8 * 3600),
        ("20270115", None),
        ("2", None),
        ("yesterday", None),
        ("2027-13-01", None),
        ("", None),
    ],
)
def test_instants(text: str, expected: float | None) -> None:
    assert instant(text, NOW) == expected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (86_400 * 9, "9d")],
)
def test_ages(seconds: float, text: str) -> None:
    assert age(seconds) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ä", "plain ä"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc", "a\\nb\\tc"),
        ("\x9b5n", "\\x9b5n"),
        ("\u202e", "\\u202e"),
        ("\ud800", "\\ud800"),
    ],
)
def test_nothing_steers_the_terminal(text: str, expected: str) -> None:
    assert escaped(text) == expected
    line = item_json(msgspec.structs.replace(item(), detail=text + "\x7f"), NOW)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["detail"] == text + "\x7f"


def test_a_table_is_laid_out_by_its_widest_cells() -> None:
    wide = msgspec.structs.replace(item(), id="0-1000", targets=("events/" + "x" * 100,))
    head, first, second = table([row(item(), NOW), row(wide, NOW)])
    at = head.index("REASON")
    assert first[at:].startswith("too_large")
    assert second[at:].startswith("too_large")
    assert "…" in second
    assert second.index("dead-letter") == first.index("dead-letter")


def test_a_body_is_shown_as_text_that_steers_nothing() -> None:
    lines = show_text(item(value=b'{"a":\n\t"\x1b[2J\xff"}'), NOW, body=True)
    assert lines[-2:] == ['{"a":', '\t"\\x1b[2J\\xff"}']


ROUTES = [route(T_USERS, T_BUS), R_AUDIT]


def record(*routes: dict[str, Any]) -> Record:
    """Make what the inbox keeps of an event, by a table."""
    read = read_event(Proof("msg_1"), BODY, SENDER, NOW)
    return Record(routing_table(*(routes or ROUTES)).plan(read), NOW)


async def opened(*parked: int, **how: bool) -> tuple[FakeStore, StorePlace]:
    """Give a store with one record, of which these targets are parked."""
    store = FakeStore()
    feed = FeedLog()
    await store.start(feed)
    await store.put(record())
    (entry,) = feed.entries.values()
    owed = entry.owed
    for at in parked:
        owed &= ~(1 << at)
        await store.park(entry.ref, owed, Parked(record(), at, "no_stream", "a detail", NOW))
    routing = Routing(routing_table(route(target("bus", "clerk.moved"))), {"clerk": SENDER})
    return store, StorePlace("the inbox", store, routing, How(**how))


async def test_what_the_inbox_holds_looks_like_letters() -> None:
    _, place = await opened(1)
    items = {one.state: one async for one in place.items()}
    pending, parked = items["pending"], items["parked"]
    assert pending.targets == ("events/clerk.users", "events/audit")
    assert (pending.routes, pending.reason) == (("users", "audit"), "")
    assert (parked.targets, parked.routes) == (("bus/clerk.bus",), ("users",))
    assert (parked.reason, parked.detail, parked.kept) == ("no_stream", "a detail", "")
    assert dict(parked.headers[0][1])["ce-id"] == "msg_1"
    assert [one.id async for one in place.items({parked.id})] == [parked.id]
    assert Filter("parked", Pattern(["user.*"]), "users").takes(parked)
    assert json.loads(item_json(pending, NOW))["svix_id"] == "msg_1"


async def test_what_is_parked_is_put_back_and_what_waits_is_left() -> None:
    _, place = await opened(1)
    items = {one.state: one async for one in place.items()}
    with pytest.raises(NotDone, match="pending: the gateway delivers it"):
        await place.replay(items["pending"])
    await place.replay(items["parked"])
    # Run twice, it is delivered once more at the most.
    with pytest.raises(NotDone, match="not_found: it is not parked any more"):
        await place.replay(items["parked"])
    left = [one async for one in place.items()]
    assert [one.state for one in left] == ["pending", "pending"]
    assert ("bus/clerk.bus",) in {one.targets for one in left}


async def test_what_is_parked_is_rerouted_on_demand() -> None:
    _, place = await opened(1, reroute=True)
    (parked,) = [one async for one in place.items() if one.state == "parked"]
    assert place.planned(parked) == ["bus/clerk.moved"]
    await place.replay(parked)
    (again,) = [one async for one in place.items() if one.targets == ("bus/clerk.moved",)]
    assert isinstance(again.origin, Held)
    (assigned,) = again.origin.record.plan.assignments
    assert assigned.message.dedupe_id.endswith(".r1")
    assert again.origin.record.replay == 1


async def test_what_the_inbox_holds_is_discarded_once() -> None:
    _, place = await opened(1)
    for one in [item async for item in place.items()]:
        await place.discard(one)
        with pytest.raises(NotDone, match="in_flight: it is being published now, or is gone"):
            await place.discard(one)
    assert [one async for one in place.items()] == []
