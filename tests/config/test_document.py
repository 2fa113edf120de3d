"""YAML: what is read, what is refused, and where."""

from __future__ import annotations

import pytest

from gateway.config.composition import MAX_DEPTH, MAX_NODES
from gateway.config.document import Document, read_document
from gateway.config.interpolation import Interpolator
from gateway.config.problems import ConfigError, LineIndex, Position, Positions
from tests.config.conftest import marked


def read(text: str) -> Document:
    return read_document(text, "f.yaml", Interpolator({"V": "value"}))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", 1),
        ("a: -1", -1),
        ("a: 1.5", 1.5),
        ("a: true", True),
        ("a: False", False),
        ("a: TRUE", True),
        ("a:", None),
        ("a: ~", None),
        ("a: Null", None),
        ("a: text", "text"),
        ('a: "1"', "1"),
        ("a: 'yes'", "yes"),
        ('a: "true"', "true"),
        ("a: ''", ""),
        ("a: [1, [x]]", [1, ["x"]]),
        ("a: {b: {c: 1}}", {"b": {"c": 1}}),
        ("a: |\n  x\n  y\n", "x\ny\n"),
        # YAML 1.1 would make numbers and dates of these.
        ("a: 12:30", "12:30"),
        ("a: 010", "010"),
        ("a: 0o17", "0o17"),
        ("a: 0x1F", "0x1F"),
        ("a: 1_000", "1_000"),
        ("a: 1e3", "1e3"),
        ("a: .inf", ".inf"),
        ("a: 2026-01-01", "2026-01-01"),
        ("a: 2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("a: =", "="),
        ("a: 123456789012345678901234567890", "123456789012345678901234567890"),
        ("a: &x [1]\nb: *x", [1]),
        ("a: ${V}", "value"),
        ("a: $${V}", "${V}"),
        ("---\na: 1\n...\n", 1),
    ],
)
def test_plain_values_are_those_of_yaml_1_2(text: str, value: object) -> None:
    document = read(text)
    assert document.problems == ()
    assert document.value["a"] == value
    assert isinstance(document.value["a"], type(value))
    assert isinstance(document.value["a"], bool) is isinstance(value, bool)


def test_aliases_stand_for_the_whole_value() -> None:
    assert read("a: &x {k: [1]}\nb: *x").value == {"a": {"k": [1]}, "b": {"k": [1]}}


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("a: ‸yes", 'yes is a boolean in one YAML and text in another; write true, or "yes"'),
        ("a: ‸Off", 'Off is a boolean in one YAML and text in another; write false, or "Off"'),
        ("a: [1, ‸n]", 'n is a boolean in one YAML and text in another; write false, or "n"'),
        ("‸on: 1", 'YAML 1.1 reads the key on as a boolean; write "on"'),
        ("a: 1\nb: 2\n‸a: 3", '"a" is here twice, first on line 1 column 1; remove one'),
        ("x:\n  a: 1\n  ‸a: 1", '"a" is here twice, first on line 2 column 3'),
        ("‸1: x", "a key must be text, this is a number; put it in quotes"),
        ("‸true: x", "a key must be text, this is true or false; put it"),
        ("‸~: x", "a key must be text, this is nothing; put it in quotes"),
        ("‸1.5: x", "a key must be text, this is a number"),
        ("? ‸[a]\n: 1", "a key must be text, not a list or a mapping"),
        ("b: &x {k: 1}\na:\n  ‸<<: *x", "the merge key << is not supported"),
        ("a: ‸${NO}", "the variable NO is not set"),
        ('a: "x ‸${NO}"', "the variable NO is not set"),
        ("a: 'it''s ${NO}'".replace("'it", "‸'it"), "the variable NO is not set"),
    ],
)
def test_a_trap_is_told_at_its_place(text: str, begins: str) -> None:
    plain, line, col = marked(text)
    (problem,) = read(plain).problems
    assert (problem.line, problem.col) == (line, col)
    assert problem.message.startswith(begins)


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        ("‸", "the file is empty"),
        ("‸# nothing\n", "the file is empty"),
        ("a: [1, 2‸", "expected ',' or ']'"),
        ("a: b‸: c", "a colon where none can be"),
        ("a:\n‸\tb: 1", "a tab; indent with spaces"),
        ("a: ‸@x", "a value cannot begin with @; quote it"),
        ("a: ‸`x`", "a value cannot begin with a backquote; quote it"),
        ("a: ‸%x", "a value cannot begin with %; quote it"),
        ("a: ‸- b", "a list entry where none can be"),
        ("a: ‸*x", "an alias of nothing; quote a value that begins with *"),
        ("a: &x 1\nb: ‸&x 2", "an anchor that is here twice"),
        ('a: "\\‸q"', "an unknown escape"),
        ("a: ‸'x", "a quote that is not closed"),
        ("a: 1\n‸---\nb: 2", "a second document"),
        ("a: 1\n‸b\n", "a key without its colon"),
        ("{a: $‸{X}}", "expected ',' or '}', but got '{'; a value with ${…} may need quotes"),
        ("a: x‸\x01y", "a control character that YAML does not allow"),
        ("a: ‸!!int 3", "tags such as !name are not used here"),
        ("a: ‸!x {b: 1}", "tags such as !name are not used here"),
        ('‸"\\ud800": 1', "holds half of a character pair; write the character itself"),
        ('a: ‸"x\\ud800"', "holds half of a character pair"),
        ('a: ‸"x\\U0000dfff"', "holds half of a character pair"),
        ('‸a: "\\UFFFFFFFF"', "not YAML: a character or number that cannot be"),
    ],
)
def test_what_is_no_yaml_is_told_in_plain_words(text: str, begins: str) -> None:
    plain, line, col = marked(text)
    with pytest.raises(ConfigError) as caught:
        read(plain)
    (problem,) = caught.value.problems
    assert problem.message.startswith(begins), problem.message
    assert (problem.line, problem.col) == (line, col)


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_nesting_is_bounded(opening: str) -> None:
    with pytest.raises(ConfigError, match=f"more than {MAX_DEPTH} levels"):
        read(opening * 5000)


def test_the_number_of_values_is_bounded() -> None:
    with pytest.raises(ConfigError, match=f"more than {MAX_NODES}"):
        read("[" + "1," * (MAX_NODES + 1) + "]")


def test_aliases_count_as_what_they_stand_for() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)
    )
    with pytest.raises(ConfigError, match="aliases make this more than"):
        read(bomb)


def test_an_alias_within_its_own_anchor_is_refused() -> None:
    with pytest.raises(ConfigError, match="aliases make this more than"):
        read("a: &a [*a]")


def test_positions_are_those_of_an_editor() -> None:
    positions = read('a: 1\r\nb:\r\n  - "\u2028"\r\n  - é: yy\r\nc: {d: 1}').positions
    assert positions.value(("a",)) == Position(1, 4, 4)
    assert positions.value(("b",)) == Position(3, 3)
    assert positions.value(("b", 0)) == Position(3, 5, 6)
    assert positions.key(("b", 1, "é")) == Position(4, 5, 5)
    assert positions.value(("b", 1, "é")) == Position(4, 8, 8)
    assert positions.key(("b", 0)) == Position(3, 5, 6)
    assert positions.value(("b", 7, "x")) == Position(3, 3)
    assert positions.names(()) == ("a", "b", "c")
    assert ("b", 1) in positions
    assert ("b", 2) not in positions


def test_a_value_with_escapes_or_references_has_no_columns_within() -> None:
    positions = read("""a: "x\\ty"\nb: 'it''s'\nc: x${V}\nd: |\n  x\ne: x\n  y\nf: $$x""").positions
    assert all(positions.value((key,)).text_col is None for key in "abcdef")
    assert positions.is_interpolated(("c",))
    assert not positions.is_interpolated(("f",))


def test_lines_end_in_any_of_the_three_ways() -> None:
    lines = LineIndex("a\nb\r\nc\rd")
    assert [lines.position(at) for at in (0, 2, 5, 7)] == [(1, 1), (2, 1), (3, 1), (4, 1)]


def test_where_nothing_is_known_the_beginning_is_meant() -> None:
    assert Positions({}, {}, frozenset()).value(("a",)) == Position(1, 1)
