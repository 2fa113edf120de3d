"""Routes and targets that add nothing."""

from __future__ import annotations

import pytest

from tests.lint.told import TWO_SOURCES, marked, told

ALL = "targets: [{broker: events, topic: t.all}]"
ROUTES = [
    # The same under another name, at whatever place.
    (
        ['{name: a, events: ["user.*"], T}', '‸{name: b, events: ["user.*"], T}'],
        ["duplicate-route"],
    ),
    (
        ["{name: a, events: [a.b, c.d], T}", "‸{name: b, events: [c.d, a.b], T}"],
        ["duplicate-route"],
    ),
    # Less than another takes.
    (['‸{name: a, events: ["user.*"], T}', '{name: b, events: ["*"], T}'], ["shadowed-route"]),
    (
        ['{name: a, events: ["user.*"], T}', "‸{name: b, events: [user.created], T}"],
        ["shadowed-route"],
    ),
    (
        ['{name: a, events: ["user.*"], T}', '‸{name: b, events: ["user.*"], when: data.a, T}'],
        ["shadowed-route"],
    ),
    (
        [
            '{name: a, events: ["*"], exclude: ["user.*"], T}',
            '‸{name: b, events: ["*"], exclude: ["user.*", a.b], T}',
        ],
        ["shadowed-route"],
    ),
    (
        ['{name: a, events: ["*"], exclude: ["user.*"], T}', '‸{name: b, events: ["a.*"], T}'],
        ["shadowed-route"],
    ),
    (
        [
            '‸{name: a, events: ["user.*"], when: "data.a", T}',
            '{name: b, events: ["*"], when: "data.a ", T}',
        ],
        ["shadowed-route"],
    ),
    (
        [
            '‸{name: a, events: ["user.*"], sources: [clerk], T}',
            '{name: b, events: ["user.*"], T}',
        ],
        ["shadowed-route"],
    ),
    # Each adds something.
    (['{name: a, events: ["user.*"], T}', '{name: b, events: ["session.*"], T}'], []),
    (['{name: a, events: ["user.*"], T}', "{name: b, events: [user.created, x.y], T}"], []),
    (
        [
            '{name: a, events: ["*"], exclude: [user.created], T}',
            '{name: b, events: ["user.*"], T}',
        ],
        [],
    ),
    (
        [
            '{name: a, events: ["user.*"], when: "data.a", T}',
            '{name: b, events: ["user.*"], when: "data.b", T}',
        ],
        [],
    ),
    (
        [
            '{name: a, events: ["user.*"], when: "route && data.a", T}',
            '{name: b, events: [user.created], when: "route && data.a", T}',
        ],
        [],
    ),
    (
        [
            '{name: a, events: ["user.*"], sources: [clerk], T}',
            "{name: b, events: [user.created], sources: [shop], T}",
        ],
        [],
    ),
]
TARGETS = [
    ("events, topic: 't.{type}'", "events, topic: 't.{ type }'", "duplicate-target"),
    (
        "events, topic: t, key: '{data.id}'",
        "events, topic: t, key: '{data.id}'",
        "duplicate-target",
    ),
    ("bus, subject: t", "events, topic: t", None),
    ("events, topic: 't.{type}'", "events, topic: 't.{data.id}'", None),
    ("events, topic: 't.{type}'", "events, topic: 't.{type}', key: x", None),
    ("events, topic: 't.{type}'", "events, topic: 't.{type}', payload: data", None),
    ("events, topic: 't.{type}'", "events, topic: 't.{type}', headers: {x-a: b}", None),
]


def routes(*texts: str) -> str:
    lines = "".join(f"  - {text.replace('T}', ALL + '}')}\n" for text in texts)
    return f"routes:\n{lines}{TWO_SOURCES}"


@pytest.mark.parametrize(("texts", "expected"), ROUTES)
def test_routes(texts: list[str], expected: list[str]) -> None:
    text = routes(*texts)
    found = told(text)
    assert [rule for _, rule, _ in found] == expected
    assert [place for place, _, _ in found] == marked(text)


@pytest.mark.parametrize(("one", "other", "rule"), TARGETS)
def test_targets(one: str, other: str, rule: str | None) -> None:
    mark = "" if rule is None else "‸"
    targets = f"[{{broker: {one}}}, {mark}{{broker: {other}}}]"
    text = routes(f'{{name: a, events: ["user.*"], targets: {targets}}}')
    found = told(text)
    assert [rule for _, rule, _ in found] == ([] if rule is None else [rule])
    assert [place for place, _, _ in found] == marked(text)


def test_a_route_with_another_target_of_its_own_stays() -> None:
    text = routes(
        '{name: a, events: ["*"], T}',
        '{name: b, events: ["user.*"], targets: [‸{broker: events, topic: t.all},'
        " {broker: events, topic: t.users}]}",
    )
    ((place, rule, words),) = told(text)
    assert (place, rule) == (marked(text)[0], "shadowed-target")
    assert words == (
        'this target adds nothing: the route "a" (line 2 column 5) takes all of these events and'
        " publishes the same; remove it, or give it another destination, key, payload or header"
    )


def test_a_route_may_be_needless_because_of_several() -> None:
    text = routes(
        '{name: a, events: ["*"], targets: [{broker: events, topic: "x.{type}"}]}',
        '{name: b, events: ["user.*"], targets: [{broker: events, topic: "y.{type}"}]}',
        '‸{name: c, events: [user.created], targets: [{broker: events, topic: "x.{type}"},'
        ' {broker: events, topic: "y.{type}"}]}',
    )
    ((place, rule, words),) = told(text)
    assert (place, rule) == (marked(text)[0], "shadowed-route")
    assert words.startswith(
        'this route adds nothing: the route "a" (line 2 column 5) and the route "b" (line 3'
        " column 5) take all of its events and publish the same"
    )


def test_what_names_its_own_route_is_never_the_same() -> None:
    target = '[{broker: events, topic: "t.{route}"}]'
    text = routes(
        f'{{name: a, events: ["*"], targets: {target}}}',
        f'{{name: b, events: ["*"], targets: {target}}}',
    )
    assert told(text) == []


def test_the_name_of_another_route_is_not_shown_where_it_came_from_outside() -> None:
    text = routes(
        '{name: "${NAME}", events: ["*"], T}',
        '‸{name: b, events: ["user.*"], T}',
    )
    ((_, _, words),) = told(text, {"NAME": "hushhush"})
    assert words.startswith("this route adds nothing: the route at line 2 column 5 takes all")


@pytest.mark.parametrize(
    ("make", "count"),
    [
        ('{{name: r{0}, events: ["user.*"], T}}', 999),
        ('{{name: r{0}, events: ["*"], exclude: ["x{0}.*"], T}}', 0),
        ('{{name: r{0}, events: ["user.*"], when: "data.public_metadata.x == \'{0}\'", T}}', 0),
    ],
)
def test_a_thousand_routes_to_one_topic(make: str, count: int) -> None:
    found = told(routes(*(make.format(at) for at in range(1000))))
    assert len(found) == count


def test_what_is_not_compared_is_told() -> None:
    one = '{{name: r{0}, events: ["*"], exclude: ["x{0}.*"], T}}'
    notes = told(routes(*(one.format(at) for at in range(1000))), notes=True)
    assert [rule for _, rule, _ in notes if rule != "unrouted-events"] == ["too-many"]
