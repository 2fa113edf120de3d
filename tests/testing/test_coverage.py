"""What counts as reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.testing.coverage import Coverage, Tally, cover
from tests.testing.settings import CONFIG, setting
from tests.testing.test_run import BUS, CREATED, PRO, USERS, results

BOTH = f"{CREATED}, expect: [{USERS}, {BUS}]"
ORG = f"{PRO}, expect: [{{topic: clerk.orgs.gold}}]"
FREE = "event: organization.created, expect: none"
REFUSED = (
    f"{PRO}, unset: [data.public_metadata.plan], expect:"
    " [{topic: 'clerk.orgs.{data.public_metadata.plan}', refused: expression}]"
)


def covered(directory: Path, *cases: str, **changes: Any) -> Coverage:
    return cover(setting(directory, **changes).table, results(directory, *cases, **changes))


@pytest.mark.parametrize(
    ("cases", "tallies"),
    [
        ((BOTH, ORG, FREE), "2/2 3/3 1/1"),
        ((BOTH, ORG), "2/2 3/3 0/1"),
        ((BOTH, FREE), "1/2 2/3 0/1"),
        # What a test does not expect, it does not reach.
        ((f"{CREATED}, exhaustive: false, expect: [{BUS}]",), "1/2 1/3 0/1"),
        # A refusal shows no record.
        ((BOTH, REFUSED, FREE), "1/2 2/3 0/1"),
        # A test that fails shows nothing.
        ((f"{CREATED}, expect: [{USERS}]",), "0/2 0/3 0/1"),
        (("event: session.created, expect: none",), "0/2 0/3 0/1"),
    ],
)
def test_what_is_reached(cases: tuple[str, ...], tallies: str, tmp_path: Path) -> None:
    found = covered(tmp_path, *cases)
    assert f"{found.routes} {found.targets} {found.conditions}" == tallies
    assert (found.percent == 100) is (found.gaps == ())


def test_a_condition_counts_as_false_only_where_a_record_would_have_failed_the_test(
    tmp_path: Path,
) -> None:
    audit = {"name": "audit", "events": ["*"], "targets": [{"broker": "bus", "subject": "audit"}]}
    changes = {"routes": [CONFIG["routes"][1], audit]}
    expect = "expect: [{subject: audit}]"
    lax = f"event: organization.created, exhaustive: false, {expect}"
    org = f"{PRO}, exhaustive: false, expect: [{{topic: clerk.orgs.gold}}]"
    assert covered(tmp_path, org, lax, **changes).conditions == Tally(0, 1)
    strict = f"event: organization.created, {expect}"
    assert covered(tmp_path, org, strict, **changes).conditions == Tally(1, 1)


def test_each_gap_has_its_place_and_words(tmp_path: Path) -> None:
    nothing = covered(tmp_path, "event: session.created, expect: none")
    assert [(gap.path, gap.message) for gap in nothing.gaps] == [
        (("routes", 0), "no test reaches route users"),
        (("routes", 0, "targets", 0), "no test reaches target events/clerk.users of route users"),
        (("routes", 0, "targets", 1), "no test reaches target bus/clerk.{type} of route users"),
        (("routes", 1), "no test reaches route pro"),
        (("routes", 1, "when"), "no test sees the condition of route pro true or false"),
        (
            ("routes", 1, "targets", 0),
            "no test reaches target events/clerk.orgs.{data.public_metadata.plan} of route pro",
        ),
    ]
    half = covered(tmp_path, BOTH, ORG)
    assert [gap.message for gap in half.gaps] == ["no test sees the condition of route pro false"]
    assert half.percent == pytest.approx(100 * 5 / 6)


def test_a_table_without_routes_is_covered(tmp_path: Path) -> None:
    found = covered(tmp_path, "event: session.created, expect: none", routes=[])
    assert (found.percent, found.gaps) == (100.0, ())


@pytest.mark.parametrize(
    ("true", "false", "tallies"),
    [
        ("", "", "1/2 1/2 0/1"),
        (", routes: [a, b]", "", "2/2 2/2 0/1"),
        (", routes: [a, b]", ", routes: [a]", "2/2 2/2 1/1"),
        ("", ", routes: [a]", "1/2 1/2 0/1"),
    ],
)
def test_a_shared_record_shows_only_routes_that_are_named(
    true: str, false: str, tallies: str, tmp_path: Path
) -> None:
    """It would come without one of them, too, whatever the condition of that is."""
    target = {"broker": "events", "topic": "clerk.x"}
    routes = [
        {"name": "a", "events": ["user.*"], "targets": [target]},
        {"name": "b", "events": ["*"], "when": "data.vip", "targets": [target]},
    ]
    cases = (
        f"event: user.created, set: {{data.vip: true}}, expect: [{{topic: clerk.x{true}}}]",
        f"event: user.created, expect: [{{topic: clerk.x{false}}}]",
    )
    found = covered(tmp_path, *cases, routes=routes)
    assert f"{found.routes} {found.targets} {found.conditions}" == tallies
