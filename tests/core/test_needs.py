"""What the brokers must have for a table, and which destinations templates will give."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.brokers.base import Need
from gateway.brokers.nats.subjects import covers, overlaps
from gateway.clerk.catalogue import CATALOGUE
from gateway.routing.needs import needs_of
from tests.canaries import SECRET
from tests.core.builders import event, route, table, target

TYPES = {"clerk": ("user.created", "user.deleted", "session.created")}


def forms(
    destination: str, types: dict[str, tuple[str, ...]] | None = None, **of_route: Any
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Give what one template is expected to give, and what for types that are new."""
    compiled = table(route(target("bus", destination), **of_route))
    (need,) = needs_of(compiled, 100, types or TYPES)["bus"]
    return need.expected, need.later


def test_destinations_are_gathered_by_broker_and_prefix() -> None:
    compiled = table(
        route(target(), target("bus", "clerk.{type}"), name="a"),
        route(target(), target(), target("bus", "clerk.x"), name="b"),
        route(target("bus", "clerk.{data.id}"), name="c"),
    )
    assert needs_of(compiled, 100) == {
        "events": [Need("clerk.users", False, 100, "route a, b")],
        "bus": [
            Need("clerk.", True, 100, "route a, c"),
            Need("clerk.x", False, 100, "route b"),
        ],
    }


def test_a_type_gives_what_is_known_of_the_routes_types() -> None:
    every = ("c.user.created", "c.user.deleted", "c.session.created")
    assert forms("c.{type}") == (every, ("c.*.*",))
    assert forms("c.{type}", events=["user.*"]) == (every[:2], ("c.user.*",))
    assert forms("c.{type}", events=["user.created"]) == (every[:1], ())
    assert forms("c.{type}", exclude=["user.*"]) == (every[2:], ("c.*.*",))


def test_an_exact_type_is_known_though_no_catalogue_has_it() -> None:
    assert forms("c.{type}", events=["invoice.paid"]) == (("c.invoice.paid",), ())


def test_what_only_the_event_knows_is_a_wildcard() -> None:
    assert forms("c.{data.id}") == (("c.*",), ())
    assert forms("c.x-{data.id}.{type}", events=["user.created"]) == (("c.x-*.user.created",), ())
    assert forms("c.{type || 'none'}") == (("c.*",), ())


def test_source_and_route_are_known() -> None:
    assert forms("c.{source}.{route}", name="all") == (("c.clerk.all",), ())


def test_a_route_of_other_sources_knows_nothing_of_these_types() -> None:
    sources = {name: {"path": f"/{name}", "secrets": [SECRET]} for name in "ab"}
    compiled = table(route(target("bus", "c.{type}"), sources=["b"]), sources=sources)
    (need,) = needs_of(compiled, 100, {"a": ("user.created",), "b": ("order.paid",)})["bus"]
    assert need.expected == ("c.order.paid",)


VALUES = st.one_of(st.text(min_size=1), st.integers(), st.sampled_from(["a.b", "*", ">", "x-1"]))
TEMPLATES = st.sampled_from(
    ["c.{type}", "c.{data.v}", "c.x-{data.v}.{type}", "c.{type}.{data.v}-y", "c.{source}.{data.v}"]
)


@given(TEMPLATES, st.sampled_from(sorted(CATALOGUE)), VALUES)
def test_every_known_type_renders_one_of_the_forms(
    template: str, event_type: str, value: str | int
) -> None:
    compiled = table(route(target("bus", template)))
    (need,) = needs_of(compiled, 100, {"clerk": tuple(CATALOGUE)})["bus"]
    plan = compiled.plan(event({"type": event_type, "data": {"v": value}}))
    for assignment in plan.assignments:
        subject = assignment.message.destination
        assert any(overlaps(subject, form) for form in need.expected)
        wide = (
            ".".join("*" if "*" in token else token for token in form.split("."))
            for form in need.expected
        )
        assert any(covers(pattern, subject) for pattern in wide)
