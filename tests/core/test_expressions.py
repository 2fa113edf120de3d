"""JMESPath over an event: the library's meaning, bounded in work, one kind of error."""

from __future__ import annotations

import json
import time
from typing import Any

import jmespath
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jmespath.functions import Functions

from gateway.routing.expressions import (
    MAX_SOURCE,
    MAX_STEPS,
    Expression,
    ExpressionError,
    ExpressionSyntaxError,
    is_true,
)

DOCUMENT: dict[str, Any] = {
    "type": "user.created",
    "data": {"id": "user_1", "n": 0, "empty": "", "none": None, "list": [1, 2], "deep": {"x": "y"}},
}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("type", "user.created"),
        ("data.id", "user_1"),
        ("data.deep.x", "y"),
        ("data.missing", None),
        ("data.id.x", None),
        ("data.list.x", None),
        ("missing.x.y", None),
        ("data.id == 'user_1'", True),
        ("'user_1' == data.id", True),
        ("data.id != 'user_1'", False),
        ("data.n == '0'", False),
        ("data.empty || data.id", "user_1"),
        ("data.n || data.id", 0),
        ("data.none && data.id", None),
        ("data.id && data.deep.x", "y"),
        ("data.id == 'x' || type == 'user.created'", True),
        ("data.list[0]", 1),
        ("data.n == `0`", True),
        ("length(data.list)", 2),
        ("!(data.none)", True),
        ("!data.none", None),
        ("data.deep | x", "y"),
        ("[data.id, type]", ["user_1", "user.created"]),
        ("data.list[?@ > `1`]", [2]),
        ("data.list[::-1]", [2, 1]),
        ("{id: data.id}", {"id": "user_1"}),
        ('"data"."id"', "user_1"),
        ("@.data.id", "user_1"),
        ("data.id == type", False),
        ("data.n < `1`", True),
        ("data.id && `1`", 1),
    ],
)
def test_values(source: str, expected: Any) -> None:
    assert Expression(source).evaluate(DOCUMENT) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, False),
        (False, False),
        ("", False),
        ([], False),
        ({}, False),
        (True, True),
        (0, True),
        (0.0, True),
        (1, True),
        (" ", True),
        ([0], True),
        ([[]], True),
        ({"": None}, True),
    ],
    ids=repr,
)
def test_truth_is_jmespath_s(value: Any, expected: bool) -> None:
    assert is_true(value) is expected
    assert jmespath.search("x && 'yes'", {"x": value}) == ("yes" if expected else value)


names = st.sampled_from(["a", "b", "c"])
strings = st.sampled_from(["", "a", "b", "0", "True"])
leaves = st.none() | st.booleans() | st.integers(-1, 2) | st.floats(-1, 1) | strings
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=10,
)
documents = st.dictionaries(names, values, max_size=3)
paths = st.lists(names, min_size=1, max_size=3).map(".".join)
comparisons = st.tuples(paths, st.sampled_from(["==", "!="]), strings, st.booleans()).map(
    lambda parts: (
        f"{parts[0]} {parts[1]} '{parts[2]}'" if parts[3] else f"'{parts[2]}' {parts[1]} {parts[0]}"
    )
)
subset = st.recursive(
    paths | comparisons,
    lambda inner: st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(
        lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
    ),
    max_leaves=6,
)


@given(subset, documents)
def test_closures_agree_with_the_library(source: str, document: dict[str, Any]) -> None:
    expression = Expression(source)
    assert expression._evaluate is not None
    assert json.dumps(expression.evaluate(document)) == json.dumps(
        jmespath.search(source, document)
    )


others = st.sampled_from(
    [
        "@",
        "`1`",
        "a[0]",
        "a[*].b",
        "*.a",
        "a[]",
        "length(a)",
        "!a",
        "[a, b]",
        "{x: a}",
        "keys(@)",
        "a[?b]",
        "sort(a)",
        "to_string(@)",
        "map(&a, b)",
        "a[:2]",
        "a < b",
        "not_null(a)",
        "`[1]`",
        "merge(@, a)",
        "reverse(a)",
        "type(b)",
        "a[::0]",
    ]
)
anything = st.recursive(
    subset | others,
    lambda inner: st.tuples(inner, st.sampled_from(["&&", "||", "|", "=="]), inner).map(
        lambda parts: f"({parts[0]}) {parts[1]} ({parts[2]})"
    ),
    max_leaves=4,
)


@given(anything, documents)
def test_what_the_interpreter_runs_agrees_too(source: str, document: dict[str, Any]) -> None:
    try:
        expected = jmespath.search(source, document)
    except (jmespath.exceptions.JMESPathError, TypeError, ValueError):
        with pytest.raises(ExpressionError):
            Expression(source).evaluate(document)
        return
    assert json.dumps(Expression(source).evaluate(document)) == json.dumps(expected)


@pytest.mark.parametrize(
    ("source", "fields", "path"),
    [
        ("type", {"type"}, "type"),
        ("data.unsafe_metadata.x", {"data", "unsafe_metadata", "x"}, "data.unsafe_metadata.x"),
        ("a.b || c", {"a", "b", "c"}, None),
        ("join('-', [a.b, c[0].d])", {"a", "b", "c", "d"}, None),
        ("{x: a}", {"a"}, None),
        ("a[1:2]", {"a"}, None),
        ("a[0].b", {"a", "b"}, None),
        ("@", set(), None),
    ],
)
def test_what_an_expression_reads(source: str, fields: set[str], path: str | None) -> None:
    expression = Expression(source)
    assert expression.fields == fields
    assert (expression.path, expression.source) == (path, source)


@pytest.mark.parametrize(
    ("source", "offset", "problem"),
    [
        ("", 0, "Invalid JMESPath expression: cannot be empty"),
        ("data.", 5, "it ends too early"),
        ("data..id", 5, "unexpected '.' at character 6"),
        ("data.id = 'x'", 8, "unexpected '=' at character 9; write =="),
        ("a and b", 2, "unexpected 'and' at character 3; write &&"),
        ("a or b", 2, "unexpected 'or' at character 3; write ||"),
        ("data id", 5, "unexpected 'id' at character 6"),
        ("data.id == 'x", 11, "unexpected"),
        ("(a", 2, "it ends too early"),
        ("a)", 1, "unexpected ')' at character 2"),
        ("a ? b", 2, "unexpected"),
        ("a" * (MAX_SOURCE + 1), 0, f"longer than {MAX_SOURCE} characters"),
        ("!" * 100 + "a", 0, "nested more than 48 levels deep"),
        ("(" * 500 + "a" + ")" * 500, 0, "nested too deeply"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_cannot_be_parsed(source: str, offset: int, problem: str) -> None:
    with pytest.raises(ExpressionSyntaxError) as caught:
        Expression(source)
    assert caught.value.problem.startswith(problem)
    assert caught.value.offset == offset
    assert caught.value.source == source
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_text_compared_with_a_number_is_told_in_words() -> None:
    with pytest.raises(ExpressionError) as caught:
        Expression("data.amount > `100`").evaluate({"data": {"amount": "secret"}})
    assert "failed: it compares text with a number" in str(caught.value)
    assert "secret" not in str(caught.value)


FAILING = [
    "abs(data.id)",
    "no_such_function(data)",
    "length(data.n)",
    "length()",
    "sort_by(data.list, &missing)",
    "max_by(data.mixed, &@)",
    "join(data.n, data.list)",
    "data.list[::0]",
    "to_number('nan') | ceil(@)",
    "to_number('1e999') | floor(@)",
    "sum(data.mixed)",
    "avg(['a'])",
    "data.mixed[?abs(@) > `1`]",
]


@pytest.mark.parametrize("source", FAILING)
def test_what_fails_names_the_expression_and_no_value(source: str) -> None:
    document = {"data": {"id": "SECRET", "n": 1, "list": [{"a": 1}], "mixed": ["SECRET", 2]}}
    with pytest.raises(ExpressionError) as caught:
        Expression(source).evaluate(document)
    assert caught.value.source == source
    assert source in str(caught.value)
    assert "SECRET" not in str(caught.value)


BIG: dict[str, Any] = {
    "data": {
        "list": list(range(200_000)),
        "pairs": [[n, n] for n in range(1000)],
        "objects": [{"x": str(n)} for n in range(30_000)],
    }
}


@pytest.mark.parametrize(
    "source",
    [
        "map(&to_string(@), data.list)",
        "data.list[*].a",
        "data.objects[*].x",
        "data.objects[?x == '1']",
        "data.objects[].x",
        "data.list[?@ > `5`]",
        "sort_by(data.objects, &x)",
        "max_by(data.objects, &x)",
        "data.pairs[*][*].[*]" + ".[*]" * 20,
        "data.* | [].x",
    ],
)
def test_work_over_big_values_is_bounded(source: str) -> None:
    expression = Expression(source)
    started = time.process_time()
    with pytest.raises(ExpressionError, match=f"took more than {MAX_STEPS} steps"):
        expression.evaluate(BIG)
    # Generous for a slow machine; without the bound some of these run for minutes.
    assert time.process_time() - started < 2


def test_function_calls_weigh_what_they_look_through() -> None:
    expression = Expression("data.list[?contains(@, 'x')]")
    assert expression.evaluate({"data": {"list": ["y"] * 3000, "more": "y" * 500_000}}) == []
    with pytest.raises(ExpressionError, match="steps"):
        expression.evaluate({"data": {"list": ["y" * 50_000] * 3000}})


def test_evaluations_do_not_share_their_budget() -> None:
    expression = Expression("data.objects[*].x")
    document = {"data": {"objects": [{"x": 1}] * 5000}}
    for _ in range(5):
        assert len(expression.evaluate(document)) == 5000


def test_deep_values_do_not_exhaust_the_stack() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert Expression("data.a.a || 'x'").evaluate({"data": deep}) is not None
    for source in ("to_string(data)", "data == data.a"):
        with pytest.raises(ExpressionError, match="RecursionError"):
            Expression(source).evaluate({"data": deep})


operators = [*".,:[]{}()*@&|!<>=?^#\\$é-0\"'`", "&&", "||", "==", "!=", "[?", "[]", "<=", ">="]
functions = [f"{name}(" for name in Functions.FUNCTION_TABLE]
literals = ["`1`", '`"x"`', "`{}`", "`[`", "'x'", "'it\\'s'", '"q"', '"\\u0041"', "-1", "99999"]
tokens = st.sampled_from([*operators, *functions, *literals, "&a", "a", "b", "data", "type"])


@pytest.mark.filterwarnings("ignore:deprecated string literal syntax")
@given(st.lists(tokens, max_size=12).map(" ".join) | st.text(max_size=30), documents)
def test_any_text_is_an_expression_or_a_syntax_error(source: str, document: dict[str, Any]) -> None:
    offset, reported = 0, source
    try:
        Expression(source).evaluate(document)
    except ExpressionSyntaxError as error:
        offset = error.offset
    except ExpressionError as error:
        reported = error.source
    assert 0 <= offset <= len(source)
    assert reported == source
