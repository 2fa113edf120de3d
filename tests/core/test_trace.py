"""What is told of each target is what is done: `Table.trace` and `Table.plan` agree."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.delivery.plan import Assignment, Refusal
from gateway.event import Event
from gateway.routing.table import Table, Trace
from tests.core.builders import event, route, table, target

CONDITIONS = st.sampled_from(
    [None, None, "data.id", "data.on == 'yes'", "abs(data.on)", "route == 'r1'", "data.x"]
)
KEYS = st.sampled_from(
    [None, None, "{data.id}", "{data.on}", "{join(',', data.on)}", "{data.long}"]
)
MORE: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {},
        {},
        {"payload": "data"},
        {"payload": "cloudevents", "redact": ["data.id"]},
        {"headers": {"x-on": "{data.on}", "x-route": "{route}"}},
        {"headers": {"x-long": "{data.long}"}},
    ]
)
TARGETS = st.builds(
    lambda broker, place, key, more: target(broker, place, **({"key": key} if key else {}), **more),
    st.sampled_from(["events", "bus"]),
    st.sampled_from(["a", "a", "b", "c.{data.id}", "c.{type}", "c.{data.on}", "c.{data.long}"]),
    KEYS,
    MORE,
)
LIMITS = st.fixed_dictionaries(
    {
        "events": st.sampled_from([["*"], ["user.*"], ["user.created"], ["session.*", "user.*"]]),
        "exclude": st.sampled_from([[], [], ["user.deleted"]]),
        "targets": st.lists(TARGETS, min_size=1, max_size=3),
        "when": CONDITIONS,
    }
)
TABLES = st.lists(LIMITS, min_size=1, max_size=4).map(
    lambda all_limits: table(
        *[route(name=f"r{at}", **limits) for at, limits in enumerate(all_limits)]
    )
)
TYPES = st.sampled_from(["user.created", "user.created", "user.deleted", "session.ended", None])
FIELDS: st.SearchStrategy[Any] = st.sampled_from(["yes", "a", "a b", "é", "", None, 7, [1], ["x"]])
LONG = st.sampled_from([0, 100, 5_000, 8_100, 9_000])
"""Characters: none; a few; too many for a destination, for headers with another, for a key."""
EVENTS = st.builds(
    lambda kind, user, on, long: event(
        {
            **({} if kind is None else {"type": kind}),
            "data": {"id": user, "on": on, **({"long": "x" * long} if long else {})},
        }
    ),
    TYPES,
    FIELDS,
    FIELDS,
    LONG,
)


def results(trace: Trace) -> list[Assignment | Refusal]:
    return [one for _, outcomes in trace for one in outcomes or ()]


@given(TABLES, EVENTS)
def test_a_trace_and_a_plan_agree(made: Table, seen: Event) -> None:
    plan, trace = made.trace(seen)
    told = results(trace)
    assert tuple(dict.fromkeys(one for one in told if isinstance(one, Assignment))) == (
        plan.assignments
    )
    # What several targets share is refused once in the plan, after what each is refused by itself.
    refused = [one for one in told if isinstance(one, Refusal)]
    assert set(refused) == set(plan.refusals)
    alone = [one for one in refused if one.reason != "too_large"]
    assert [one for one in plan.refusals if one.reason != "too_large"] == alone
    for one in plan.assignments:
        assert one.routes == tuple(
            dict.fromkeys(route.name for route, outcomes in trace if one in (outcomes or ()))
        )
    assert plan == made.plan(seen)


@given(TABLES, EVENTS)
def test_a_trace_has_each_candidate_once_and_each_of_its_targets(made: Table, seen: Event) -> None:
    plan, trace = made.trace(seen)
    own = {id(one) for one in (*plan.assignments, *plan.refusals)}
    assert {id(one) for one in results(trace)} == own
    candidates = () if seen.type is None else made.candidates(seen.source, seen.type)
    assert tuple(route for route, _ in trace) == candidates
    for route_, outcomes in trace:
        assert outcomes is None or len(outcomes) == len(route_.targets)
        assert route_.when is not None or outcomes is not None
