"""What the inbox keeps of an event outlives the process that wrote it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.brokers.base import Message
from gateway.delivery.inbox.record import (
    FORM,
    Record,
    RecordError,
    decode,
    encode,
    replayed,
    targets,
)
from gateway.delivery.plan import Assignment, Plan, Refusal
from tests.core.builders import metadata

NOW = 1_800_000_000.0
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
ASSIGNMENTS = st.builds(
    Assignment,
    st.lists(TEXT, max_size=2).map(tuple),
    TEXT,
    st.builds(
        Message,
        TEXT,
        st.binary(max_size=8) | st.just(b"body"),
        st.lists(st.tuples(TEXT, TEXT), max_size=2).map(tuple),
        TEXT,
        TEXT | st.none(),
    ),
    TEXT,
    st.sampled_from([None, "kafka", "nats"]),
)
REFUSALS = st.builds(Refusal, st.lists(TEXT, max_size=2).map(tuple), TEXT, TEXT, TEXT, TEXT)
RECORDS = st.builds(
    Record,
    st.builds(
        Plan,
        TEXT,
        st.just(b"body"),
        st.just(metadata()),
        st.lists(ASSIGNMENTS, max_size=3).map(tuple),
        st.lists(REFUSALS, max_size=3).map(tuple),
    ),
    st.floats(0, 4e9),
    st.integers(0, 9),
    TEXT,
)


def record(replay: int = 0) -> Record:
    assignments = tuple(
        Assignment((broker,), broker, Message("users", b"body", (), f"msg.{broker}", key))
        for broker, key in (("events", "user_1"), ("bus", None))
    )
    refusals = (Refusal(("orgs",), "bus", "clerk.{x}", "expression", "gave nothing"),)
    return Record(Plan("user_9", b"body", metadata(), assignments, refusals), NOW, replay)


@given(RECORDS)
def test_what_is_stored_is_read_back(given_: Record) -> None:
    assert decode(encode(given_)) == given_


def test_the_body_is_stored_once() -> None:
    plan = msgspec.structs.replace(record().plan, body=b"x" * 1000)
    same = tuple(
        msgspec.structs.replace(one, message=msgspec.structs.replace(one.message, value=plan.body))
        for one in plan.assignments
    )
    plan = msgspec.structs.replace(plan, assignments=same)
    assert len(encode(Record(plan, NOW))) < 2000


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (b"", "not a record of the inbox"),
        (b"\xc1", "not a record of the inbox"),
        (msgspec.msgpack.encode([]), "not a record of the inbox"),
        (msgspec.msgpack.encode(["x"]), "not a record of the inbox"),
        (msgspec.msgpack.encode({"a": 1}), "not a record of the inbox"),
        (msgspec.msgpack.encode([FORM + 1, "anything"]), f"a record of form {FORM + 1}"),
    ],
)
def test_what_is_no_record_is_refused_by_name(stored: bytes, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        decode(stored)


def test_a_record_of_another_form_is_refused_though_it_has_our_shape() -> None:
    content = msgspec.msgpack.decode(encode(record()))
    content[0] = FORM + 1
    with pytest.raises(RecordError, match=f"reads form {FORM}"):
        decode(msgspec.msgpack.encode(content))


def test_targets_are_numbered_as_the_plan_has_them() -> None:
    events, bus, refused = targets(record())
    assert [one.broker for one in (events, bus, refused)] == ["events", "bus", ""]
    assert [one.destination for one in (events, bus, refused)] == ["users", "users", "clerk.{x}"]
    assert len({one.lane for one in (events, bus, refused)}) == 3


def test_a_lane_is_a_destination_and_a_key() -> None:
    first = targets(record())
    other = msgspec.structs.replace(record().plan, key="user_2", metadata=metadata(id="msg_other"))
    second = targets(Record(other, NOW))
    assert first[0].lane == second[0].lane  # it has a key of its own
    assert first[1].lane != second[1].lane  # the event's key orders it
    assert first[2].lane != second[2].lane  # a letter has no order to keep


def test_subjects_of_one_template_share_a_lane() -> None:
    def lane(subject: str, order: str, key: str = "user_1") -> int:
        message = Message(subject, b"body", (), "msg.bus", key)
        one = Assignment(("users",), "bus", message, order)
        return targets(Record(Plan(key, b"body", metadata(), (one,), ()), NOW))[0].lane

    updated = lane("clerk.user.updated", "clerk.{type}")
    assert updated == lane("clerk.user.deleted", "clerk.{type}")
    assert updated != lane("clerk.user.deleted", "clerk.{type}", "user_2")
    assert updated != lane("clerk.user.updated", "")


def test_a_record_without_an_order_is_read() -> None:
    """As the first files had it: each target was a shorter array."""
    content = msgspec.msgpack.decode(encode(record()))
    content[6] = [one[:-1] for one in content[6]]
    assert decode(msgspec.msgpack.encode(content)) == record()


def test_a_replayed_target_is_a_record_of_its_own() -> None:
    once = replayed(record(), 1, NOW + 5)
    assert (once.replay, once.stored_at) == (1, NOW + 5)
    assert [one.message.dedupe_id for one in once.plan.assignments] == ["msg.bus.r1"]
    assert once.plan.refusals == ()
    twice = replayed(once, 0, NOW + 6)
    assert [one.message.dedupe_id for one in twice.plan.assignments] == ["msg.bus.r2"]
    names = {record().name, once.name, twice.name, replayed(record(), 0, NOW).name}
    assert len(names) == 4


def test_a_replayed_refusal_is_that_refusal_alone() -> None:
    once = replayed(record(), 2, NOW)
    assert (once.plan.assignments, once.plan.refusals) == ((), record().plan.refusals)


def test_replays_of_two_refusals_at_one_place_are_told_apart() -> None:
    twice = msgspec.structs.replace(record().plan, refusals=record().plan.refusals * 2)
    first, second = (replayed(Record(twice, NOW), at, NOW) for at in (2, 3))
    assert first.plan == second.plan
    assert first.name != second.name
    # Also when they are replayed once more, by the place that they have then.
    again = [replayed(one, 0, NOW) for one in (first, second)]
    assert [one.target for one in again] == [first.target, second.target]
    assert len({one.name for one in (first, second, *again)}) == 4
