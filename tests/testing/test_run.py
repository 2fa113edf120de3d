"""What passes, what fails, and what is told of it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.testing.compare import ABSENT, pairs, same
from gateway.testing.report import details, summary
from gateway.testing.run import Result, run_suite
from gateway.testing.words import printable, shown
from tests.canaries import SECRET
from tests.testing.settings import CONFIG, setting, suite

CREATED = "body: {type: user.created, data: {id: user_1}}"
PRO = (
    "body: {type: organization.created, data: {id: org_1, slug: acme,"
    " public_metadata: {tier: pro, plan: gold}, private_metadata: {note: x}}}"
)
USERS = "{broker: events, topic: clerk.users}"
BUS = "{broker: bus, subject: clerk.user.created}"
ORG = "topic: clerk.orgs.gold"


def results(directory: Path, *cases: str, **changes: Any) -> list[Result]:
    """Run tests without names, each the rest of a mapping between braces."""
    text = "tests:\n" + "".join(f"  - {{name: t{at}, {case}}}\n" for at, case in enumerate(cases))
    clock = itertools.count(0.0, 0.5)
    loaded = suite(directory, text, **changes)
    return list(run_suite(loaded, setting(directory, **changes), lambda: next(clock)))


def told(directory: Path, case: str, **changes: Any) -> list[str]:
    """Give the lines that tell why a test fails; none where it passes."""
    (result,) = results(directory, case, **changes)
    lines = list(details(result, setting(directory, **changes)))
    assert bool(lines) is not result.passed
    return lines


@pytest.mark.parametrize(
    "case",
    [
        f"{CREATED}, expect: [{USERS}, {BUS}]",
        f"{CREATED}, expect: [{BUS}, {USERS}]",
        f"{CREATED}, expect: [{{topic: clerk.users}}, {{subject: clerk.user.created}}]",
        f"{CREATED}, exhaustive: false, expect: [{BUS}]",
        f"{CREATED}, expect: [{{topic: clerk.users, key: user_1, routes: [users]}}, {BUS}]",
        "event: session.created, expect: none",
        "event: session.created, expect: []",
        "event: organization.created, expect: none",
        f"{PRO}, expect: [{{{ORG}, routes: [pro]}}]",
        f"{PRO}, expect: [{{{ORG}, headers: {{x-tenant: acme, x-none: null}}}}]",
        f"{PRO}, expect: [{{{ORG}, value: {{public_metadata: {{tier: pro, plan: gold}}}}}}]",
        f"{PRO}, expect: [{{{ORG}, value: {{private_metadata: null, slug: acme}}}}]",
        f"{PRO}, id: msg_9, expect: [{{{ORG}, headers: {{svix-id: msg_9}}}}]",
        f"{PRO}, unset: [data.public_metadata.plan], expect: "
        "[{topic: 'clerk.orgs.{data.public_metadata.plan}', refused: expression, routes: [pro]}]",
        # The clock stands.
        "event: user.created, exhaustive: false, expect: [{topic: clerk.users, headers:"
        " {ce_time: '2026-01-01T00:00:00.000Z', svix-timestamp: '1767225600',"
        " gateway-received-at: '2026-01-01T00:00:00.000Z'}}]",
    ],
)
def test_what_is_as_expected_passes(case: str, tmp_path: Path) -> None:
    assert told(tmp_path, case) == []


@pytest.mark.parametrize(
    ("expectation", "lines"),
    [
        (
            "topic: clerk.users, key: user_2",
            ['    key  expected "user_2"', '         got      "user_1"'],
        ),
        ("topic: clerk.users, broker: events, routes: [users, pro]", ["users", "pro"]),
        ("topic: clerk.users, headers: {ce_type: x}", ['expected "x"', 'got      "user.created"']),
        ("topic: clerk.users, headers: {ce_type: null}", ["expected nothing", '"user.created"']),
        ("topic: clerk.users, headers: {none: x}", ['expected "x"', "got      nothing"]),
        ("topic: clerk.users, headers: {CE_TYPE: user.created}", ["got      nothing"]),
        ("topic: clerk.users, value: {data.id: user_2}", ['expected "user_2"', '"user_1"']),
        ("topic: clerk.users, value: {data: {id: user_1, x: 1}}", ['got      {"id": "user_1"}']),
        ("topic: clerk.users, value: {data.id: null}", ["expected nothing", '"user_1"']),
        ("topic: clerk.users, value: {data.id.x: a}", ["got      nothing"]),
        ("topic: clerk.users, value: {data.0: a}", ["got      nothing"]),
        ("topic: clerk.users, refused: expression", ['expected "expression"', "nothing"]),
    ],
)
def test_a_field_that_differs_is_shown_with_both(
    expectation: str, lines: list[str], tmp_path: Path
) -> None:
    found = told(tmp_path, f"{CREATED}, expect: [{{{expectation}}}, {BUS}]")
    assert found[0].startswith("  differs in "), found
    assert found[0].endswith("topic clerk.users, line 2")
    assert len(found) == 3
    for line in lines:
        assert line in "\n".join(found)


def test_a_record_that_is_not_expected_is_shown_ready_to_be_expected(tmp_path: Path) -> None:
    assert told(tmp_path, f"{CREATED}, expect: [{USERS}]") == [
        "  published, and not expected",
        "    - {broker: bus, subject: clerk.user.created, key: user_1, routes: [users]}",
    ]


def test_what_is_shown_can_be_pasted(tmp_path: Path) -> None:
    bodies = (
        "{type: user.created, data: {id: 'no'}}",
        "{type: user.created, data: {id: 'a: b, {c}'}}",
        '{type: "user\\u2028created\\e[0m", data: {id: "5"}}',
    )
    routes = [{**CONFIG["routes"][0], "events": ["*"]}]
    for body in bodies:
        case = f"body: {body}, expect: none"
        shown_lines = [line.strip() for line in told(tmp_path, case, routes=routes)]
        pasted = ", ".join(line[2:] for line in shown_lines if line.startswith("- "))
        assert told(tmp_path, f"body: {body}, expect: [{pasted}]", routes=routes) == []


@pytest.mark.parametrize(
    ("case", "lines"),
    [
        (
            "event: organization.created, expect: [{topic: clerk.orgs.gold}]",
            [
                "  not published: topic clerk.orgs.gold, line 2",
                "    route pro does not take it: data.public_metadata.tier == 'pro' is not true;"
                " data.public_metadata.tier is null",
            ],
        ),
        (
            "event: session.created, expect: [{broker: events, topic: clerk.users}]",
            [
                "  not published: events topic clerk.users, line 2",
                '    route users does not take "session.created": no entry of its events does',
            ],
        ),
        (
            "event: session.created, expect: [{topic: clerk.user}]",
            [
                "  not published: topic clerk.user, line 2",
                "    no route has a target with this topic",
            ],
        ),
        (
            "event: session.created, expect: [{subject: clerk.x, routes: [pro]}]",
            [
                "  not published: subject clerk.x, line 2",
                "    no route has a target with this subject",
            ],
        ),
        (
            "event: organization.created, expect:"
            " [{topic: 'clerk.orgs.{data.public_metadata.plan}', refused: expression}]",
            [
                '  nothing refused: topic "clerk.orgs.{data.public_metadata.plan}", line 2',
                "    route pro does not take it: data.public_metadata.tier == 'pro' is not true;"
                " data.public_metadata.tier is null",
            ],
        ),
    ],
)
def test_a_record_that_did_not_come_is_told_with_the_reason(
    case: str, lines: list[str], tmp_path: Path
) -> None:
    assert told(tmp_path, case) == lines


def test_the_source_and_the_exclusion_are_reasons(tmp_path: Path) -> None:
    billing = {"kind": "svix", "path": "/b", "secrets": [SECRET]}
    changes = {
        "sources": {**CONFIG["sources"], "billing": billing},
        "routes": [
            {**CONFIG["routes"][0], "exclude": ["user.deleted"], "sources": ["clerk"]},
            {**CONFIG["routes"][1], "sources": ["clerk"]},
        ],
    }
    users = "expect: [{topic: clerk.users}]"
    cases = (
        (f"event: user.deleted, source: clerk, {users}", 'its exclude has "user.deleted"'),
        (f"event: user.created, source: billing, {users}", "takes no events of source billing"),
        (f"body: {{data: {{}}}}, source: billing, {users}", "takes no event without a type"),
    )
    for case, reason in cases:
        assert told(tmp_path, case, **changes)[1].endswith(reason), case


def test_a_slip_of_the_pen_is_told_beside_what_came(tmp_path: Path) -> None:
    found = told(tmp_path, f"{CREATED}, expect: [{{topic: clerk.user}}, {BUS}]")
    assert found == [
        "  differs in topic: topic clerk.user, line 2",
        '    topic  expected "clerk.user"',
        '           got      "clerk.users"',
    ]


def test_a_record_of_another_route_is_not_told_as_this_one(tmp_path: Path) -> None:
    found = told(tmp_path, f"{CREATED}, expect: [{{topic: clerk.orgs.gold}}, {BUS}]")
    assert [line for line in found if not line.startswith("    ")] == [
        "  not published: topic clerk.orgs.gold, line 2",
        "  published, and not expected",
    ]


def test_a_refusal_that_is_not_expected_is_told_with_its_detail(tmp_path: Path) -> None:
    case = f"{PRO}, unset: [data.public_metadata.plan], expect:"
    assert told(tmp_path, f"{case} none") == [
        "  refused, and not expected",
        '    - {broker: events, topic: "clerk.orgs.{data.public_metadata.plan}",'
        " refused: expression, routes: [pro]}",
        "    the expression `data.public_metadata.plan` gave nothing for a destination",
    ]
    found = told(tmp_path, f"{case} [{{topic: clerk.orgs.gold}}]")
    assert "the expression `data.public_metadata.plan` gave nothing" in found[-1]
    assert any(line.endswith('got      "expression"') for line in found)


def test_a_refusal_is_expected_by_its_template_or_by_what_it_became(tmp_path: Path) -> None:
    headers = {f"x-{at}": "{data.text}" for at in range(3)}
    target = {"broker": "events", "topic": "big.{data.id}", "headers": headers}
    fixed = {"broker": "events", "topic": "big.fixed"}
    changes = {"routes": [{"name": "r", "events": ["*"], "targets": [target, fixed]}]}
    event = "body: {type: a.b, data: {id: ID, text: %s}}" % ("x" * 3000)
    for topic in ("'big.{data.id}'", "big.user_1"):
        refused = f"{{topic: {topic}, refused: too_large}}"
        case = f"{event.replace('ID', 'user_1')}, expect: [{{topic: big.fixed}}, {refused}]"
        assert told(tmp_path, case, **changes) == []
    reserved = "{topic: 'big.{data.id}', refused: destination}"
    case = f"{event.replace('ID', 'fixed')}, expect: [{{topic: big.fixed}}, {reserved}]"
    assert told(tmp_path, case, **changes) == []
    vague = f"{event.replace('ID', 'user_1')}, exhaustive: false, expect: [{{topic: big.user_1}}]"
    assert told(tmp_path, vague, **changes)[0] == ("  differs in refused: topic big.user_1, line 2")


def test_a_name_that_a_broker_can_never_have_is_a_refusal(tmp_path: Path) -> None:
    subject = ".".join(["clerk", *(f"{{data.f{at}}}" for at in range(8))])
    targets = [{"broker": "bus", "subject": subject, "headers": {"x-blank": "{data.f0}  "}}]
    changes = {"routes": [{"name": "r", "events": ["*"], "targets": targets}]}

    def case(length: int, expect: str) -> str:
        fields = ", ".join(f"f{at}: {'a' * length}" for at in range(8))
        return f"body: {{type: a.b, data: {{{fields}}}}}, exhaustive: false, expect: [{expect}]"

    place = f"subject: '{subject}'"
    assert told(tmp_path, case(120, f"{{{place}, refused: destination}}"), **changes) == []
    # As a subscriber gets it: without blanks at the ends, and with the id that NATS dedupes by.
    short = f"subject: clerk{'.a' * 8}"
    assert told(tmp_path, case(1, f"{{{short}, headers: {{x-blank: a}}}}"), **changes) == []
    absent = f"{{{short}, headers: {{Nats-Msg-Id: null}}}}"
    assert "Nats-Msg-Id" in told(tmp_path, case(1, absent), **changes)[0]


def test_a_body_that_is_no_event_fails(tmp_path: Path) -> None:
    assert told(tmp_path, "body: {data: {}}, expect: none") == [
        "  the gateway would answer 400: the body is signed but is no event: no type"
    ]


def test_targets_that_meet_are_one_record(tmp_path: Path) -> None:
    audit = {"name": "audit", "events": ["*"], "targets": CONFIG["routes"][0]["targets"][1:]}
    changes = {"routes": [*CONFIG["routes"], audit]}
    both = "{subject: clerk.user.created, routes: [audit, users]}"
    assert told(tmp_path, f"{CREATED}, expect: [{USERS}, {both}]", **changes) == []
    one = "{subject: clerk.user.created, routes: [users]}"
    found = told(tmp_path, f"{CREATED}, expect: [{USERS}, {one}]", **changes)
    assert found[2].strip() == 'got      ["users", "audit"]'


def test_a_vague_expectation_leaves_the_record_to_a_strict_one(tmp_path: Path) -> None:
    keys = ("{data.id}-a", "{data.id}-b", "{data.id}-c")
    routes = [
        {
            "name": f"r{at}",
            "events": ["*"],
            "targets": [{"broker": "events", "topic": "all.{type}", "key": key}],
        }
        for at, key in enumerate(keys)
    ]
    topic = "topic: all.user.created"
    for order in itertools.permutations(
        (f"{{{topic}}}", f"{{{topic}, key: user_1-a}}", f"{{{topic}, routes: [r1]}}")
    ):
        assert told(tmp_path, f"{CREATED}, expect: [{', '.join(order)}]", routes=routes) == []
    wrong = (
        f"{CREATED}, expect: [{{{topic}, key: user_1-a}}, {{{topic}, key: user_1-a}}, {{{topic}}}]"
    )
    assert told(tmp_path, wrong, routes=routes)[0].startswith("  differs in key")


@given(st.lists(st.lists(st.integers(0, 5), unique=True), max_size=6))
def test_as_many_are_paired_as_can_be(fitting: list[list[int]]) -> None:
    found = pairs(fitting)
    assert all(other in fitting[one] for one, other in found.items())
    assert len(set(found.values())) == len(found)

    def most(one: int, taken: frozenset[int]) -> int:
        if one == len(fitting):
            return 0
        free = [other for other in fitting[one] if other not in taken]
        return max([most(one + 1, taken), *(1 + most(one + 1, taken | {o}) for o in free)])

    assert len(found) == most(0, frozenset())


def test_a_long_chain_of_pairs_needs_no_deep_stack() -> None:
    count = 3000
    fitting = [[at, at + 1] for at in range(count)] + [[0]]
    assert len(pairs(fitting)) == count + 1


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        (True, True, True),
        ("1", 1, False),
        ([1, {"a": 1}], [1.0, {"a": 1}], True),
        ([1, {"a": True}], [1, {"a": 1}], False),
        ([1], [1, 2], False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        ({}, [], False),
        ("nothing", ABSENT, False),
        (None, None, True),
    ],
)
def test_json_is_compared_as_json(one: object, other: object, equal: bool) -> None:
    assert same(one, other) is equal
    assert same(other, one) is equal


def test_a_value_from_outside_the_config_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "outside"
    outside.write_text("zq-header-7")
    condition = tmp_path / "condition"
    condition.write_text("data.id == 'zq-when-7'")
    targets = [
        {"broker": "events", "topic": "a", "headers": {"x-key": f"${{file:{outside}}}"}},
        {"broker": "events", "topic": "b"},
    ]
    routes = [
        {"name": "r", "events": ["*"], "targets": targets[:1]},
        {"name": "s", "events": ["*"], "when": f"${{file:{condition}}}", "targets": targets[1:]},
    ]
    right = f"{CREATED}, expect: [{{topic: a, headers: {{x-key: zq-header-7}}}}]"
    assert told(tmp_path, right, routes=routes) == []
    wrong = f"{CREATED}, expect: [{{topic: a, headers: {{x-key: other}}}}, {{topic: b}}]"
    found = "\n".join(told(tmp_path, wrong, routes=routes))
    assert "zq-" not in found
    assert found.count("a value that came from ${…} and is not shown") == 2


def test_a_terminal_is_not_steered() -> None:
    assert (
        printable("a\x1b[2J\x9b\u202eb\n\U000e0001")
        == "a\\u001b[2J\\u009b\\u202eb\\u000a\\U000e0001"
    )
    assert shown("x" * 1000).endswith("… (1002 characters)")
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert shown(deep).startswith("a value that is nested too deep")


def test_each_test_has_its_time(tmp_path: Path) -> None:
    found = results(tmp_path, "event: session.created, expect: none", f"{CREATED}, expect: none")
    assert [one.seconds for one in found] == [0.5, 0.5]
    assert [one.passed for one in found] == [True, False]


@pytest.mark.parametrize(
    ("passed", "failed", "line"),
    [
        (3, 0, "3 passed in 1.50 s"),
        (3, 1, "3 passed, 1 failed in 1.50 s"),
        (0, 2, "2 failed in 1.50 s"),
    ],
)
def test_the_sum(passed: int, failed: int, line: str) -> None:
    assert summary(passed, failed, 1.5) == line
