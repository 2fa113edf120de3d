"""What a table does, written down as a test, passes; changed in any one thing, it fails."""

from __future__ import annotations

import json
import tempfile
from copy import deepcopy
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.app import sent_headers
from gateway.routing.explain import explain
from gateway.specimen import specimen
from gateway.testing.coverage import cover
from gateway.testing.events import NOW
from gateway.testing.outcomes import outcomes_of
from gateway.testing.rules import Setting
from gateway.testing.run import Result, run_suite
from tests.testing.settings import setting, suite

BROKERS = {
    "events": {"kind": "kafka", "servers": ["localhost:9092"]},
    "more": {"kind": "kafka", "servers": ["localhost:9192"]},
    "bus": {"kind": "nats", "servers": ["nats://localhost:4222"]},
}
PATTERNS = ("*", "user.*", "session.*", "user.created")
DESTINATIONS = ("t.{type}", "t.{data.plan}", "t.{data.id}", "t.fixed", "t.user_1")
CONDITIONS = (None, "data.plan == 'pro'", "data.id", "abs(type)", "source == 'clerk'")
MORE: tuple[dict[str, Any], ...] = (
    {},
    {"key": "{data.plan}"},
    {"headers": {"x-plan": "{data.plan}", "x-route": "{route}"}},
    {"payload": "data", "redact": ["data.plan"]},
    {"payload": "cloudevents"},
)


@st.composite
def targets(draw: st.DrawFn) -> dict[str, Any]:
    """A target; a literal destination has one rendering, as the config wants it."""
    broker = draw(st.sampled_from(sorted(BROKERS)))
    destination = draw(st.sampled_from(DESTINATIONS))
    more = draw(st.sampled_from(MORE)) if "{" in destination else {}
    place = "subject" if broker == "bus" else "topic"
    return {"broker": broker, place: destination, **more}


@st.composite
def routes(draw: st.DrawFn) -> list[dict[str, Any]]:
    """A few routes."""
    count = draw(st.integers(1, 3))
    made = []
    for at in range(count):
        route: dict[str, Any] = {
            "name": f"r{at}",
            "events": [draw(st.sampled_from(PATTERNS))],
            "targets": draw(st.lists(targets(), min_size=1, max_size=3)),
        }
        when = draw(st.sampled_from(CONDITIONS))
        made.append(route if when is None else {**route, "when": when})
    return made


BODIES = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["user.created", "user.x y", "session.created"]),
        "data": st.fixed_dictionaries(
            {"id": st.sampled_from(["user_1", "", "é\x01"])},
            optional={"plan": st.sampled_from(["pro", "", None, 7, True, 1, [1, 1.5]])},
        ),
    }
)


def recorded(made: Setting, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Write down what the table does with an event, every field of it."""
    event = specimen(made.senders["clerk"], json.dumps(body).encode(), NOW, "msg_test")
    plan = explain(made.table, event).plan
    expect: list[dict[str, Any]] = []
    for one in plan.assignments:
        place = "topic" if made.brokers[one.broker] == "kafka" else "subject"
        value = json.loads(one.message.value)
        expect.append(
            {
                "broker": one.broker,
                place: one.message.destination,
                "routes": list(one.routes),
                "key": one.message.key,
                "headers": dict(sent_headers(made.brokers[one.broker], one.message) or ()),
                "value": value if isinstance(value, dict) else {},
            }
        )
    for refusal in plan.refusals:
        place = "topic" if made.brokers[refusal.broker] == "kafka" else "subject"
        expect.append(
            {
                "broker": refusal.broker,
                place: refusal.destination,
                "routes": list(refusal.routes),
                "refused": refusal.reason,
            }
        )
    return expect


def outcome(directory: Path, table: list[dict[str, Any]], case: dict[str, Any]) -> Result:
    """Load a test and run it."""
    changes = {"brokers": BROKERS, "routes": table}
    text = json.dumps({"tests": [{"name": "t", **case}]})
    loaded = suite(directory, text, **changes)
    (result,) = run_suite(loaded, setting(directory, **changes), lambda: 0.0)
    return result


@st.composite
def mutations(draw: st.DrawFn, expect: list[dict[str, Any]], names: list[str]) -> list[Any]:
    """The expectations with one thing changed."""
    changed = deepcopy(expect)
    at = draw(st.integers(0, len(expect) - 1))
    one = changed[at]
    field = draw(st.sampled_from(["gone", "twice", *(name for name in one if one[name])]))
    if field == "gone":
        del changed[at]
    elif field == "twice":
        changed.append(one)
    elif field == "broker":
        others = {"events": "more", "more": "events"}
        one["broker"] = others.get(one["broker"], "events")
        if "subject" in one:
            one["topic"] = one.pop("subject")
    elif field == "routes":
        spare = [name for name in names if name not in one["routes"]]
        one["routes"] = [*one["routes"], spare[0]] if spare else one["routes"][1:]
        if not one["routes"]:
            del changed[at]
    elif field == "refused":
        words = {"expression", "destination", "too_large"} - {one["refused"]}
        one["refused"] = min(words)
    elif field in {"headers", "value"}:
        name = draw(st.sampled_from(sorted(one[field])))
        # A null of the body is told by no value that is another one.
        one[field][name] = draw(st.sampled_from([None, "other"])) if one[field][name] else "other"
    else:
        one[field] += "x"
    return changed


@given(st.data(), routes(), BODIES)
@settings(max_examples=120, suppress_health_check=[HealthCheck.too_slow])
def test_what_a_table_does_passes_and_anything_else_fails(
    data: st.DataObject, table: list[dict[str, Any]], body: dict[str, Any]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        made = setting(directory, brokers=BROKERS, routes=table)
        expect = recorded(made, body)
        passed = outcome(directory, table, {"body": body, "expect": expect})
        assert passed.failures == ()
        assert passed.reached == {
            (told.route.name, end.at)
            for told in explain(
                made.table, specimen(made.senders["clerk"], json.dumps(body).encode(), NOW)
            ).routes
            for end in told.ends
            if not hasattr(end.result, "reason")
        }
        shuffled = data.draw(st.permutations(expect))
        assert outcome(directory, table, {"body": body, "expect": shuffled}).passed
        if not expect:
            return
        changed = data.draw(mutations(expect, [route["name"] for route in table]))
        failed = outcome(directory, table, {"body": body, "expect": changed})
        assert not failed.passed, changed
        covered = cover(made.table, [failed])
        assert (covered.routes.reached, covered.targets.reached) == (0, 0)


@given(routes(), BODIES)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_the_outcomes_are_those_of_the_plan(table: list[dict[str, Any]], body: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        made = setting(Path(name), brokers=BROKERS, routes=table)
    told = explain(
        made.table, specimen(made.senders["clerk"], json.dumps(body).encode(), NOW, "msg_test")
    )
    found = outcomes_of(told, made.sent)
    plan = told.plan
    assert len(found) == len(plan.assignments) + len(plan.refusals)
    for one in found:
        assert one.result in plan.assignments or one.result in plan.refusals
    assert len({target for one in found for target in one.targets}) == sum(
        len(one.targets) for one in found
    )
