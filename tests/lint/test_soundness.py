"""What the linter claims is true of the table, on random expressions, tables and events."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from gateway.clerk.catalogue import CATALOGUE
from gateway.clerk.samples import sample
from gateway.clerk.schemas import Steps, event_schema, lookup
from gateway.config.findings import View
from gateway.config.problems import Positions
from gateway.delivery.plan import Plan
from gateway.lint.abstract import interpret
from gateway.lint.finding import Finding
from gateway.lint.guards import implied
from gateway.lint.lint import lint
from gateway.lint.outcome import ANYTHING, Outcome, of_values, truths
from gateway.lint.route import Certain, views
from gateway.routing.compile import compile_table
from gateway.routing.expressions import (
    Expression,
    ExpressionError,
    ExpressionSyntaxError,
    compiled,
    is_true,
)
from gateway.routing.paths import value_at
from gateway.routing.table import scope_of
from tests.canaries import SECRET
from tests.core.builders import config, event, route, target

VIEW = View(Positions({}, {}, frozenset()))
FIELDS = ("a", "b", "c")
LEAVES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, -2, 1.5, "", "x", "y", [], {}]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=3)
    ),
    max_leaves=8,
)
TYPES = ("user.created", "user.updated", "user.x", "session.ended", "x.y")
DOCUMENTS = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES)}, optional={"data": VALUES, "a": VALUES, "source": VALUES}
)

PATHS = st.sampled_from(
    ["a", "data", "data.a", "data.a.b", "data.b[0]", "data.c[-1].a", "type", "source", "svix_id"]
)
LITERALS = st.sampled_from(
    ["'x'", "''", "`null`", "`true`", "`false`", "`0`", "`1.5`", "`[]`", "`[1]`", "`{}`"]
    + [f"'{one}'" for one in (*TYPES, "clerk", "shop", "r1")]
)


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    comparators = st.sampled_from(["==", "!=", "<", ">", "<=", ">="])
    return st.one_of(
        st.builds("({} {} {})".format, inner, comparators, inner),
        st.builds("({} && {})".format, inner, inner),
        st.builds("({} || {})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("({})[?{}].a".format, inner, inner),
        st.builds("({})[*].b".format, inner),
        st.builds("({})[].b".format, inner),
        st.builds("({}).*.c".format, inner),
        st.builds("({})[0:2]".format, inner),
        st.builds("({}) | [0]".format, inner),
        st.builds("({}) | a".format, inner),
        st.builds("[{}, {}]".format, inner, inner),
        st.builds("{{a: {}}}".format, inner),
        st.builds(
            "{}({})".format,
            st.sampled_from(
                ["abs", "avg", "keys", "length", "max", "min", "not_null", "reverse", "sort", "sum",
                 "to_array", "to_number", "to_string", "type", "values", "nonsense", "merge"]
            ),
            inner,
        ),
        st.builds(
            "{}({}, {})".format,
            st.sampled_from(
                ["contains", "starts_with", "ends_with", "join", "not_null", "merge", "abs"]
            ),
            inner,
            inner,
        ),
        st.builds("sort_by({}, &{})".format, inner, PATHS),
        st.builds("map(&{}, {})".format, PATHS, inner),
    )  # fmt: skip


EXPRESSIONS = st.recursive(PATHS | LITERALS, larger, max_leaves=6)


class Nothing:
    """No facts at all."""

    def at(self, _: Steps, __: int = 0) -> Outcome:
        return ANYTHING

    def may_equal(self, _: Steps, __: object) -> bool:
        return True


class Exact:
    """Everything there is to know of one document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def at(self, place: Steps, _: int = 0) -> Outcome:
        return ANYTHING if None in place else of_values((value_at(place, self.document),))

    def may_equal(self, place: Steps, value: object) -> bool:
        # As JMESPath, to which 1 and true are not equal.
        values = self.at(place).values
        return values is None or json.dumps(values[0]) == json.dumps(value) or values[0] == value


def compile_or_skip(text: str) -> Expression:
    try:
        return compiled(text)
    except ExpressionSyntaxError:
        assume(False)
        raise


def within(outcome: Outcome, expression: Expression, document: dict[str, Any]) -> None:
    """Assert that what an expression gives is among what it was said to give."""
    try:
        value = expression.evaluate(document)
    except ExpressionError:
        assert "error" in outcome.kinds, outcome
        return
    (kind,) = of_values((value,)).kinds if type(value).__name__ != "_Expression" else ("expref",)
    assert kind in outcome.kinds, (value, outcome)
    assert outcome.values is None or value in outcome.values, (value, outcome)
    assert outcome.may_be_blank or value not in ("", [], {}), (value, outcome)
    assert is_true(value) in truths(outcome), (value, outcome)


@settings(max_examples=400, deadline=None)
@given(EXPRESSIONS, DOCUMENTS)
@example("(data.a || `[]`)[?a == 'x'].a", {"type": "x.y", "data": {"a": ""}})
def test_what_an_expression_gives_is_among_what_it_can_give(
    text: str, document: dict[str, Any]
) -> None:
    expression = compile_or_skip(text)
    for facts in (Nothing(), Exact(document)):
        within(interpret(expression, facts).outcome, expression, document)


@settings(max_examples=400, deadline=None)
@given(EXPRESSIONS, DOCUMENTS)
def test_what_a_condition_implies_is_there(text: str, document: dict[str, Any]) -> None:
    expression = compile_or_skip(text)
    try:
        truth = is_true(expression.evaluate(document))
    except ExpressionError:
        assume(False)
    for place, is_filled in implied(expression.tree, truth, ()).items():
        value = value_at(place, document)
        assert value is not None, place
        assert is_true(value) or not is_filled, place


PATTERNS = st.sampled_from(["*", "user.*", "user.created", "user.updated", "session.*", "x.y"])
CONDITIONS = st.sampled_from(
    ["data.a", "data.a == 'x'", "data.a  == 'x'", "type == 'user.created'", "source == 'shop'",
     "`false`", "abs(data.a)", "abs(type)", "route == 'r1'", "type == 'x.y' && data.a"]
)  # fmt: skip
TARGETS = st.sampled_from(
    [
        target("events", "t.all"),
        target("events", "t.{type}"),
        target("events", "t.{ type }"),
        target("events", "t.{data.a}"),
        target("events", "t.{route}"),
        target("bus", "t.{type}", key="{data.b}"),
        target("bus", "t.all", headers={"x-a": "{data.a}"}),
        target("bus", "t.all", payload="data"),
    ]
)
ROUTES = st.lists(
    st.fixed_dictionaries(
        {
            "events": st.lists(PATTERNS, min_size=1, max_size=3),
            "targets": st.lists(TARGETS, min_size=1, max_size=3),
        },
        optional={
            "exclude": st.lists(PATTERNS, max_size=2),
            "sources": st.lists(st.sampled_from(["clerk", "shop"]), min_size=1, max_size=2),
            "when": CONDITIONS | EXPRESSIONS,
        },
    ),
    min_size=1,
    max_size=5,
)
SOURCES = {
    "clerk": {"secrets": [SECRET]},
    "shop": {"kind": "svix", "path": "/shop", "secrets": [SECRET]},
}
ARRIVALS = st.lists(
    st.tuples(st.sampled_from(["clerk", "shop"]), DOCUMENTS), min_size=1, max_size=6
)


def named(routes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for one in routes:
        if "when" in one:
            compile_or_skip(one["when"])
    return [
        route(*one["targets"], **{k: v for k, v in one.items() if k != "targets"}, name=f"r{at}")
        for at, one in enumerate(routes)
    ]


def found_in(routes: list[dict[str, Any]], rule: str) -> list[Finding]:
    whole = config(*routes, sources=SOURCES)
    return [one for one in lint(whole, compile_table(whole), VIEW) if one.rule == rule]


def published(plan: Plan) -> set[tuple[Any, ...]]:
    """Give the records of a plan, without the names of its routes."""
    return {
        (
            one.broker,
            one.message.destination,
            one.message.key,
            one.message.value,
            tuple(pair for pair in one.message.headers if pair[0] != "gateway-route"),
        )
        for one in plan.assignments
    }


@settings(max_examples=150, deadline=None)
@given(ROUTES, ARRIVALS)
def test_without_what_adds_nothing_the_same_is_published(
    drawn: list[dict[str, Any]], arrivals: list[tuple[str, dict[str, Any]]]
) -> None:
    routes = named(drawn)
    kept: list[Any] = copy.deepcopy(routes)
    rules = ("shadowed-route", "duplicate-route", "shadowed-target", "duplicate-target")
    needless = [one for rule in rules for one in found_in(routes, rule)]
    for finding in needless:
        at = int(finding.path[1])
        if kept[at] is None:
            continue
        if len(finding.path) > 2:
            kept[at]["targets"][int(finding.path[3])] = None
        else:
            kept[at] = None
    less = [
        {**one, "targets": [other for other in one["targets"] if other is not None]}
        for one in kept
        if one is not None
    ]
    assert less
    before, after = (compile_table(config(*some, sources=SOURCES)) for some in (routes, less))
    for source, document in arrivals:
        happened = event(document, source=source)
        assert published(before.plan(happened)) == published(after.plan(happened)), needless


@settings(max_examples=150, deadline=None)
@given(ROUTES, ARRIVALS)
def test_what_never_matches_matches_nothing_and_what_is_always_true_holds_nothing_back(
    drawn: list[dict[str, Any]], arrivals: list[tuple[str, dict[str, Any]]]
) -> None:
    routes = named(drawn)
    whole = config(*routes, sources=SOURCES)
    table = compile_table(whole)
    seen = views(whole, table)
    for source, document in arrivals:
        happened = event(document, source=source)
        taken = {one.name: outcomes for one, outcomes in table.trace(happened)[1]}
        for view in seen:
            outcomes = taken.get(view.route.name)
            if view.route.when is None or view.route.name not in taken:
                continue
            told = interpret(view.route.when, Certain(view)).outcome
            within(told, view.route.when, scope_of(happened, view.route.name))
            if "error" not in told.kinds and truths(told) == {False}:
                assert outcomes is None
            if "error" not in told.kinds and truths(told) == {True}:
                assert outcomes is not None
    for finding in found_in(routes, "never-matches"):
        if finding.path[2:] == ("exclude",):
            for source, document in arrivals:
                takers = [one.name for one, _ in table.trace(event(document, source=source))[1]]
                assert f"r{finding.path[1]}" not in takers


# --- by the schemas: every event that they accept


def places(value: Any, steps: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield steps
    inner = dict(enumerate(value)) if isinstance(value, list) else value
    for name, below in inner.items() if isinstance(inner, dict) else ():
        yield from places(below, (*steps, name))


def changed(document: Any, steps: tuple[str | int, ...], how: Any) -> None:
    """Take out what is at a place, or put something else there."""
    holder = value_at(steps[:-1], document)
    if isinstance(holder, dict) and steps[-1] in holder:
        if how is places:
            del holder[steps[-1]]
        else:
            holder[steps[-1]] = how


VALIDATORS = {name: Draft7Validator(dict(event_schema(name) or {})) for name in CATALOGUE}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(CATALOGUE)), st.data())
def test_what_the_schemas_say_of_a_place_is_true_of_every_event_they_accept(
    event_type: str, data: st.DataObject
) -> None:
    document = json.loads(sample(event_type, 1_800_000_000_000))
    every = [one for one in places(document) if one not in {(), ("data",), ("data", "id")}]
    for _ in range(data.draw(st.integers(0, 3))):
        steps = data.draw(st.sampled_from(every))
        changed(document, steps, data.draw(st.sampled_from([places, None, "", {}, [], 7])))
    assume(VALIDATORS[event_type].is_valid(document))
    for steps in every:
        found = lookup(event_type, steps)
        assert found is not None
        value = value_at(steps, document)
        if found.status == "missing":
            assert value is None, steps
        (kind,) = of_values((value,)).kinds
        kind = "boolean" if kind in {"true", "false"} else kind
        assert kind in found.kinds, (steps, value)
        assert found.values is None or value in found.values, (steps, value)


def test_no_place_of_a_sample_is_told_as_unknown() -> None:
    routes: list[dict[str, Any]] = []
    for event_type in CATALOGUE:
        document = json.loads(sample(event_type, 1_800_000_000_000))
        every = [one for one in places(document) if one and all(isinstance(s, str) for s in one)]
        when = " || ".join(".".join(map(str, one)) for one in every[:25])
        routes.append(route(target("events", "t"), name=f"r{len(routes)}", events=[event_type]))
        routes[-1]["when"] = when
    assert found_in(routes, "unknown-field") == []
