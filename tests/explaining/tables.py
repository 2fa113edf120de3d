"""Random configs and bodies, made to meet: routes that share destinations, conditions that some
events fulfil, templates that some events break.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from gateway.clerk.catalogue import ALSO_SEEN, CATALOGUE
from gateway.clerk.samples import sample
from tests.canaries import SECRET

Config = dict[str, Any]

TYPES = [
    *("user.created", "user.updated", "user.deleted", "organization.created"),
    *("organizationMembership.created", "session.created", "email.created"),
    *("subscription.created", "paymentAttempt.updated", "organizationDomain.deleted"),
]
assert set(TYPES) <= set(CATALOGUE)
ODD_TYPES = [
    *(*ALSO_SEEN, "user", "user.", "user.created.twice", "invoice.paid", "USER.created"),
    *("user created!", "*", "user.*", ".user..x.", "b\u00fccher.neu", "x" * 200, "x" * 300),
]
PATTERNS = [
    *("*", "user.*", "user.created", "user.deleted", "organization.*", "session.*", "invoice.paid"),
    *("organizationMembership.*", "subscription.*", "paymentAttempt.*", "user.created.twice"),
]
VALUES: list[Any] = [
    *(
        "pro",
        "pro.plus",
        "pro_plus",
        "*",
        "",
        " blank ",
        "a b",
        "caf\u00e9",
        "\u202e",
        ">",
        "$JS.API",
    ),
    *("line\nbreak", "nul\u0000", "tab\there", "x" * 200, "long" * 2500, "\U0001f511", "-", "--"),
    *(None, True, False, 0, 7, -1.5, 10**15, [], ["pro"], {}, {"a": 1}, ["a", ["b"]]),
]
"""What stands in the fields that conditions and templates read."""

_ATOMS = [
    *("data.plan == 'pro'", "'pro' != data.plan", "data.plan", "data.none", "type", "@"),
    *("!(data.plan)", "!data.plan", "data.n > `3`", "data.n <= `0`", "data.plan == `7`"),
    *("data.items[?ok].name", "length(data.items) > `1`", "data.items[0].name == 'b'"),
    *("data.items[*].name | [0] == 'a'", "data.items[-1].ok", "data.tags[]", "data.*.a"),
    *("contains(data.tags, 'a')", "starts_with(type, 'user.')", "abs(data.plan) > `1`"),
    *("source == 'main'", "route == 'r1'", "svix_id == 'msg_explained'", "data.source == 'main'"),
    *("to_string(data.plan) == '7'", "{x: data.plan}.x == 'pro'", "[data.n, type][1]"),
    *("`true`", "`0`", "''", "'x'", "sort(data.items)", "max_by(data.items, &n).name == 'b'"),
]
_PLACES = [
    *("{type}", "{type}", "{data.plan}", "{data.plan || data.id}", "{source}", "{route}"),
    *("{to_string(data.n)}", "{data.id}.x", "{data.none}", "{abs(data.plan)}", "{data.items}"),
]
_KEYS = [
    *("fixed", "{data.plan}", "{data.organization.id || data.id}", "{data.none}", "{data.items}"),
    *("{type}/{data.n}", "{join(',', data.tags)}", "{{{data.n}}}"),
]
_HEADERS = [
    *("v", "{data.plan}", "{source}/{route}", "{data.none}", "x{data.plan}y", "{data.items}"),
    *("{to_array(data.plan)}", "{abs(data.plan)}", " blank "),
]
_TOO_MANY = {"x-one": "h" * 5000, "X-Two": "h" * 5000}
_NO_EVENTS = [b"", b"[]", b"null", b"{", b'{"type":7}', b'{"type":""}', b"\xff", b'"user.created"']
_REDACT = ["data.plan", "data.items.name", "data.id", "data", "data.none.x", "type", "data.tags"]


@dataclass(frozen=True)
class Place:
    """Where the records of a table go; each table on a real broker needs places of its own."""

    prefix: str = "x"

    @property
    def letters(self) -> str:
        return f"{self.prefix}.letters"


@st.composite
def configs(draw: st.DrawFn, place: Place) -> Config:
    """Give configs that load: several sources, brokers of both kinds, one to five routes."""
    sources = draw(_sources())
    made: list[dict[str, Any]] = []
    routes = [
        draw(_routes(place, f"r{at}", list(sources), made)) for at in range(draw(st.integers(1, 5)))
    ]
    letters = draw(st.sampled_from([None, "events", "bus"]))
    policies = ["accept", "reject", *(["dead_letter"] if letters else [])]
    delivery: dict[str, Any] = {"mode": "direct"}
    if letters is not None:
        field = "topic" if letters == "events" else "subject"
        delivery["dead_letter"] = {"broker": letters, field: place.letters, "unredacted": True}
    return {
        "server": {"max_body": draw(st.sampled_from([*["512KiB"] * 7, "2KiB"]))},
        "headers": {"signature": draw(st.booleans())},
        "sources": sources,
        "brokers": {
            "events": {"kind": "kafka", "servers": ["localhost:9092"]},
            "bus": {"kind": "nats", "servers": ["nats://localhost:4222"]},
            "spare": {"kind": "nats", "servers": ["nats://localhost:4222"]},
        },
        "routes": routes,
        "unmatched": draw(st.sampled_from(policies)),
        "delivery": delivery,
    }


@st.composite
def _sources(draw: st.DrawFn) -> dict[str, Any]:
    shared = {"secrets": [SECRET], "abort_permanent": draw(st.booleans())}
    main: dict[str, Any] = {"path": "/main", **shared}
    if draw(st.booleans()):
        main["uri"] = "https://example.com/clerk"
    others = {
        "other": {"kind": "svix", "path": "/other", "type": "data.kind || type", **shared},
        "third": {"kind": "standard-webhooks", "path": "/third", **shared},
    }
    names = draw(st.lists(st.sampled_from(sorted(others)), unique=True))
    return {"main": main, **{name: others[name] for name in names}}


@st.composite
def _routes(
    draw: st.DrawFn, place: Place, name: str, sources: list[str], made: list[dict[str, Any]]
) -> dict[str, Any]:
    patterns = st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3)
    route: dict[str, Any] = {
        "name": name,
        "events": draw(st.one_of(patterns, st.just(["*"]), st.just(["*"]))),
    }
    if draw(st.integers(0, 3)) == 0:
        route["exclude"] = draw(patterns)
    if draw(st.integers(0, 2)) == 0:
        chosen = st.lists(st.sampled_from(sources), min_size=1, unique=True)
        route["sources"] = draw(chosen)
    if draw(st.booleans()):
        route["when"] = draw(conditions())
    targets = [draw(_targets(place, made)) for _ in range(draw(st.integers(1, 3)))]
    return {**route, "targets": targets}


def conditions() -> st.SearchStrategy[str]:
    """Give JMESPath of atoms, `&&`, `||` and `!`."""
    pair = st.sampled_from(["({0}) && ({1})", "({0}) || ({1})", "!({0})"])
    return st.recursive(
        st.sampled_from(_ATOMS),
        lambda inner: st.builds(lambda form, a, b: form.format(a, b), pair, inner, inner),
        max_leaves=4,
    )


@st.composite
def _targets(draw: st.DrawFn, place: Place, made: list[dict[str, Any]]) -> dict[str, Any]:
    if made and draw(st.integers(0, 2)) == 0:
        # The same in another order is the same record.
        return _reversed(draw(st.sampled_from(made)))
    broker = draw(st.sampled_from(["events", "events", "bus", "bus", "spare"]))
    if draw(st.booleans()):
        destination = f"{place.prefix}.{draw(st.sampled_from(['a', 'user.created']))}"
    else:
        # Now and then what no broker takes, which nothing tells until it is rendered.
        ends = st.sampled_from(["", "", "", ".x{data.n}", ".user_"])
        destination = f"{place.prefix}.{draw(st.sampled_from(_PLACES))}{draw(ends)}"
    where = {"broker": broker, "topic" if broker == "events" else "subject": destination}
    # The same literal destination with another rendering is an error in the file.
    met = [one for one in made if "{" not in destination and where.items() <= one.items()]
    target = _reversed(met[0]) if met else {**where, **draw(_renderings())}
    made.append(target)
    return target


def _reversed(rendering: dict[str, Any]) -> dict[str, Any]:
    turned = dict(rendering)
    if "redact" in turned:
        turned["redact"] = turned["redact"][::-1]
    if "headers" in turned:
        turned["headers"] = dict(reversed(turned["headers"].items()))
    return turned


@st.composite
def _renderings(draw: st.DrawFn) -> dict[str, Any]:
    rendering: dict[str, Any] = {}
    if draw(st.integers(0, 3)) == 0:
        rendering["key"] = draw(st.sampled_from(_KEYS))
    if draw(st.integers(0, 3)) == 0:
        names = st.sampled_from(["x-one", "X-Two", "x-three"])
        some = st.dictionaries(names, st.sampled_from(_HEADERS), max_size=2)
        rendering["headers"] = draw(st.one_of(some, some, some, st.just(_TOO_MANY)))
    payload = draw(st.sampled_from(["original", "original", "original", "data", "cloudevents"]))
    if payload != "original":
        rendering["payload"] = payload
        rendering["redact"] = draw(st.lists(st.sampled_from(_REDACT), max_size=4))
    return rendering


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Give bodies: samples with changes, other types, none, and what is no event at all."""
    if draw(st.integers(0, 11)) == 0:
        no_event = [
            b"",
            b"[]",
            b"null",
            b"{",
            b'{"type":7}',
            b'{"type":""}',
            b"\xff",
            b'"user.created"',
        ]
        return draw(st.sampled_from(no_event))
    document = json.loads(sample(draw(st.sampled_from(TYPES)), 1_700_000_000_123))
    if draw(st.integers(0, 2)) == 0:
        document["type"] = draw(st.sampled_from(ODD_TYPES))
    if draw(st.integers(0, 23)) == 0:
        del document["type"]
    if draw(st.integers(0, 23)) == 0:
        document["data"] = draw(st.sampled_from(VALUES))
    else:
        document["data"].update(draw(_changes()))
    if draw(st.integers(0, 3)) == 0:
        document.update(source="spoofed", route="spoofed", svix_id="spoofed")
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    return draw(st.sampled_from(["", " ", "\n"])).encode() + text.encode()


@st.composite
def _changes(draw: st.DrawFn) -> dict[str, Any]:
    items = st.fixed_dictionaries(
        {"name": st.sampled_from(["a", "b"])},
        optional={"ok": st.booleans(), "n": st.integers(0, 9)},
    )
    values = st.sampled_from(VALUES)
    changes = {
        "plan": st.one_of(st.sampled_from(["pro", "a", "letters"]), values),
        "n": st.one_of(st.integers(-3, 9), values),
        "id": st.one_of(st.sampled_from(["user_1", "y" * 600]), values),
        "tags": st.one_of(st.lists(st.sampled_from(["a", "b"]), max_size=3), values),
        "items": st.one_of(st.lists(items, max_size=3), values),
        "source": st.just("main"),
        "kind": st.sampled_from(["user.created", "invoice.paid", "", None]),
        "organization": st.one_of(st.just({"id": "org_9"}), values),
        "user_id": values,
        "payer": st.one_of(st.just({"organization_id": "", "user_id": "user_7"}), values),
        "updated_at": st.sampled_from([0, 1_700_000_000, 1_700_000_000_000, "then", 10**30]),
    }
    chosen = {"plan", *draw(st.sets(st.sampled_from(sorted(changes)), max_size=5))}
    return {name: draw(changes[name]) for name in sorted(chosen)}


def requests(config: Config, count: int) -> st.SearchStrategy[list[tuple[str, bytes]]]:
    """Give so many bodies, each with the source that it comes to."""
    one = st.tuples(st.sampled_from(sorted(config["sources"])), bodies())
    return st.lists(one, min_size=count, max_size=count)
