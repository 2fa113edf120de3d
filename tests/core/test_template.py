"""`{expr}` in a topic, subject, key or header value."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.routing.expressions import ExpressionError
from gateway.routing.template import Template, TemplateSyntaxError, sanitise, sanitise_type

SCOPE: dict[str, Any] = {
    "type": "user.created",
    "source": "clerk",
    "data": {
        "id": "user_1",
        "n": 7,
        "f": 1.5,
        "yes": True,
        "zero": 0,
        "list": [1],
        "o": {"a": "é"},
    },
}


def text(source: str, scope: dict[str, Any] = SCOPE) -> str:
    return Template(source).text(scope)


def destination(source: str, scope: dict[str, Any] = SCOPE) -> str:
    return Template(source).destination(scope)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", ""),
        ("plain", "plain"),
        ("{data.id}", "user_1"),
        ("a-{data.id}-b", "a-user_1-b"),
        ("{type}{data.id}", "user.createduser_1"),
        ("{ data.id }", "user_1"),
        ("{{", "{"),
        ("}}", "}"),
        ("}", "}"),
        ("a}b", "a}b"),
        ("{{data.id}}", "{data.id}"),
        ("{{{data.id}}}", "{user_1}"),
        ("{data.id}}}", "user_1}"),
        ("{{}}", "{}"),
        ("{data.id || 'x'}", "user_1"),
        ("{data.missing || 'a}b'}", "a}b"),
        ("{data.missing || 'a{b'}", "a{b"),
        (r"{data.missing || 'it\'s }'}", "it's }"),
        ('{data.missing || `"}"`}', "}"),
        ('{data."id"}', "user_1"),
        ("{\"a}b\" || 'c'}", "c"),
        ("{ {x: data.id}.x }", "user_1"),
        ("{ {x: {y: data.id}} | x.y }", "user_1"),
        ("{[data.id, type]}", '["user_1","user.created"]'),
        ("{join('-', [data.id, source])}", "user_1-clerk"),
        ("{data.n}/{data.f}/{data.yes}/{data.zero}", "7/1.5/true/0"),
        ("{data.missing}", ""),
        ("{data.o}", '{"a":"é"}'),
        ("{data.list}", "[1]"),
    ],
)
def test_text(source: str, expected: str) -> None:
    assert text(source) == expected


@pytest.mark.parametrize(
    ("source", "offset", "problem"),
    [
        ("{", 0, "`{` is not closed; for a literal brace write `{{`"),
        ("abc{data.id", 3, "`{` is not closed"),
        ("{data.id || 'x}", 0, "`{` is not closed"),
        ("{'a\\", 0, "`{` is not closed"),
        ("{ {x: a}", 0, "`{` is not closed"),
        ("x{}", 2, "`{}` holds no expression"),
        ("x{  }", 2, "`{}` holds no expression"),
        ("x.{data..id}", 8, "not a JMESPath expression: unexpected '.'"),
        ("x.{   data..id}", 11, "not a JMESPath expression: unexpected '.'"),
        ("{a}{b c}", 6, "not a JMESPath expression: unexpected 'c'"),
        ("{data.}", 6, "not a JMESPath expression: it ends too early"),
    ],
)
def test_what_cannot_be_parsed(source: str, offset: int, problem: str) -> None:
    with pytest.raises(TemplateSyntaxError) as caught:
        Template(source)
    assert (caught.value.source, caught.value.offset) == (source, offset)
    assert caught.value.problem.startswith(problem)


@pytest.mark.parametrize(
    ("source", "prefix", "literal", "fields"),
    [
        ("clerk.users", "clerk.users", True, set()),
        ("", "", True, set()),
        ("{{x}}", "{x}", True, set()),
        ("clerk.{type}", "clerk.", False, {"type"}),
        ("{type}", "", False, {"type"}),
        ("a-{data.unsafe_metadata.x}.{source}", "a-", False, {"data", "unsafe_metadata", "x"}),
    ],
)
def test_what_is_known_of_a_template(
    source: str, prefix: str, literal: bool, fields: set[str]
) -> None:
    template = Template(source)
    assert (template.prefix, template.is_literal, template.source) == (prefix, literal, source)
    assert template.fields >= fields
    assert template.fields - fields <= {"source"}


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()[:8]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("clerk.users", "clerk.users"),
        ("clerk.{type}", "clerk.user.created"),
        ("clerk.{data.id}.x", "clerk.user_1.x"),
        ("clerk.{data.n}.{data.yes}", "clerk.7.true"),
        ("clerk.{data.zero}", "clerk.0"),
        ("clerk.{data.f}", f"clerk.1_5-{digest('1.5')}"),
        ("clerk.{type || 'x'}", f"clerk.user_created-{digest('user.created')}"),
    ],
)
def test_destinations(source: str, expected: str) -> None:
    assert destination(source) == expected


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("Az09_-", "Az09_-"),
        ("a.b", "a_b"),
        ("a b", "a_b"),
        ("*", "_"),
        (">", "_"),
        ("a/b\\c", "a_b_c"),
        ("é", "_"),
        ("\r\n\x00", "___"),
        ("$SYS", "_SYS"),
        ("..", "__"),
        ("😀", "_"),
        ("a" * 129, "a" * 119),
        (".a" * 100, "_a" * 59 + "_"),
    ],
)
def test_values_are_sanitised_and_marked(value: str, token: str) -> None:
    expected = token if token == value else f"{token}-{digest(value)}"
    assert sanitise(value) == expected


@pytest.mark.parametrize(
    ("value", "token"),
    [
        ("user.created", "user.created"),
        ("a.b.c_d-e", "a.b.c_d-e"),
        ("a b.c", "a_b.c"),
        (".", "_"),
        ("..", "__"),
        (".a", "_a"),
        ("a.", "a_"),
        ("a..b", "a_.b"),
        ("a...b", "a__.b"),
        ("a.*.>", "a._._"),
        ("a" * 118 + "." + "b" * 20, "a" * 118),
    ],
)
def test_types_keep_their_dots(value: str, token: str) -> None:
    expected = token if token == value else f"{token}-{digest(value)}"
    assert sanitise_type(value) == expected


@pytest.mark.parametrize("value", ["a-12345678", "launch-20261124", "x-deadbeef", "-12345678"])
def test_values_that_only_end_like_a_mark_stay(value: str) -> None:
    assert sanitise(value) == sanitise_type(value) == value


texts = st.text(st.characters(codec="utf-8"), max_size=140)
near = st.text(st.sampled_from("a._- *>é"), max_size=6)


@given(texts | near, texts | near)
@example("a b", f"a_b-{digest('a b')}")
@example("a" * 129, "a" * 119 + "-" + digest("a" * 129))
@example("a.b", "a_b")
def test_two_values_never_become_one(first: str, second: str) -> None:
    for make in (sanitise, sanitise_type):
        assert (make(first) == make(second)) is (first == second)
        # Not even by writing what another value was made into.
        made = make(first)
        assert make(made) != made or made == first


@given(texts | near)
def test_a_token_is_bounded_and_safe(value: str) -> None:
    assert re.fullmatch("[A-Za-z0-9_-]{0,128}", sanitise(value))
    made = sanitise_type(value)
    assert re.fullmatch("[A-Za-z0-9._-]{0,128}", made)
    assert not value or "" not in made.split(".")


@given(texts | near | st.integers() | st.floats(allow_nan=False), texts)
def test_no_value_leaves_its_prefix(value: Any, event_type: str) -> None:
    """One token stays one token, and what follows the type stands where it stood."""
    scope = {"type": event_type, "data": {"id": value}}
    for source in ("clerk.{data.id}", "clerk-{type}.end", "clerk_{data.id}.{type}"):
        template = Template(source)
        try:
            rendered = template.destination(scope)
        except ExpressionError:
            assert "" in (value, event_type)
            continue
        assert rendered.startswith(template.prefix)
        assert re.fullmatch(r"[A-Za-z0-9._-]+", rendered)
        assert "" not in rendered.split(".")
        if source == "clerk.{data.id}":
            assert rendered.count(".") == 1


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("data.missing", "gave nothing for a destination"),
        ("data.empty", "gave nothing for a destination"),
        ("data.list", "gave a list or an object for a destination"),
        ("data.empty_list", "gave a list or an object for a destination"),
        ("data.object", "gave a list or an object for a destination"),
        ("abs(data.id)", "failed: JMESPathTypeError"),
        ("&data", "gave a value that has no text"),
    ],
)
def test_what_makes_no_destination(expression: str, problem: str) -> None:
    data = {"id": "x", "empty": "", "list": [1], "empty_list": [], "object": {"a": 1}}
    with pytest.raises(ExpressionError) as caught:
        destination("clerk.{" + expression + "}", {"data": data})
    assert (caught.value.source, caught.value.problem) == (expression, problem)


HALF_A_PAIR = '`"\\ud800"`'


@pytest.mark.parametrize(
    "expression", ["&data", "[&data]", "to_number(data.digits)", HALF_A_PAIR, f"[{HALF_A_PAIR}]"]
)
def test_what_has_no_text(expression: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        text("{" + expression + "}", {"data": {"digits": 10**5000}})
    assert caught.value.source == expression
    assert caught.value.problem == "gave a value that has no text"


def test_keys_are_verbatim_and_headers_lose_control_characters() -> None:
    scope = {"data": {"id": "a\r\nb: é *"}}
    template = Template("<{data.id}>")
    assert template.text(scope) == "<a\r\nb: é *>"
    assert template.header(scope) == "<ab: é *>"


@given(st.text(max_size=30) | st.text(st.sampled_from("{}a.'\"`\\ "), max_size=12))
@pytest.mark.filterwarnings("ignore:deprecated string literal syntax")
def test_any_text_is_a_template_or_a_syntax_error(source: str) -> None:
    offset = 0
    try:
        Template(source)
    except TemplateSyntaxError as error:
        offset = error.offset
    assert 0 <= offset <= len(source)


@given(st.text(max_size=40))
def test_escaping_braces_makes_any_text_literal(value: str) -> None:
    template = Template(value.replace("{", "{{").replace("}", "}}"))
    assert template.is_literal
    assert template.text({}) == value
