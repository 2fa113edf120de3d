"""`${…}` in values."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.files import MAX_FILE
from gateway.config.interpolation import MAX_TOTAL, Interpolated, Interpolator

ENV = {"V": "value", "EMPTY": "", "NESTED": "${V} $$ {x}", "BAD": "\udc80"}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("${V}", "value"),
        ("a${V}b${V}c", "avaluebvaluec"),
        ("${EMPTY}", ""),
        ("${V:-other}", "value"),
        ("${EMPTY:-other}", "other"),
        ("${NONE:-other}", "other"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b?c}", "a:-b?c"),
        ("${NONE:-clerk.{type}}", "clerk.{type}"),
        ("${V:-clerk.{type}}", "value"),
        ("${V:?never}", "value"),
        ("$${V}", "${V}"),
        ("$$", "$"),
        ("$$$$", "$$"),
        ("cost: $5, $", "cost: $5, $"),
        ("$JS.x", "$JS.x"),
        ("{type}", "{type}"),
        ("${NESTED}", "${V} $$ {x}"),
    ],
)
def test_what_stands_there_is_replaced_once(source: str, text: str) -> None:
    expansion = Interpolator(ENV).expand(source)
    assert (expansion.text, expansion.faults) == (text, ())


@pytest.mark.parametrize(
    ("source", "offset", "message"),
    [
        ("${NONE}", 0, "the variable NONE is not set; set it, or write ${NONE:-default}"),
        ("ab${NONE}", 2, "the variable NONE is not set"),
        ("${NONE:?set it to x}", 0, "the variable NONE is not set: set it to x"),
        ("${EMPTY:?set it to x}", 0, "the variable EMPTY is empty: set it to x"),
        ("${EMPTY:?}", 0, "the variable EMPTY is empty: set it"),
        ("${BAD}", 0, "the variable BAD is not UTF-8 text"),
        ("${}", 0, "not a known form of ${…}"),
        ("${V-x}", 0, "not a known form of ${…}"),
        ("${V:+x}", 0, "not a known form of ${…}"),
        ("${1}", 0, "not a known form of ${…}"),
        ("${ V }", 0, "not a known form of ${…}"),
        ("${NONE:-${V}}", 0, "${…} cannot stand inside another"),
        ("x ${V", 2, "${ is not closed"),
        ("${file:}", 0, "${file:} names no file"),
        ("${file:/nowhere/at/all}", 0, "/nowhere/at/all cannot be read: No such file"),
        ("${file:/}", 0, "/ is not a file"),
        ("${file:a\0b}", 0, "${file:…} does not name a file"),
    ],
)
def test_what_cannot_be_replaced_is_told(source: str, offset: int, message: str) -> None:
    (fault,) = Interpolator(ENV).expand(source).faults
    assert fault.offset == offset
    assert fault.message.startswith(message)


def test_every_fault_of_a_value_is_told() -> None:
    assert [fault.offset for fault in Interpolator({}).expand("${A} ${B} ${C:-c}").faults] == [0, 5]


def test_only_a_reference_makes_text_interpolated() -> None:
    expand = Interpolator(ENV).expand
    assert isinstance(expand("${V}").text, Interpolated)
    assert not isinstance(expand("$$ $x").text, Interpolated)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"hunter2", "hunter2"),
        (b"hunter2\n", "hunter2"),
        (b"hunter2\r\n", "hunter2"),
        (b" two\nlines \n", " two\nlines "),
        (b"\xef\xbb\xbfbom", "bom"),
        (b"${V}$$", "${V}$$"),
        (b"", ""),
        (b"x" * MAX_FILE, "x" * MAX_FILE),
    ],
)
def test_a_file_gives_its_text_without_the_last_newline(
    tmp_path: Path, content: bytes, text: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    expansion = Interpolator(ENV).expand(f"${{file:{path}}}")
    assert (expansion.text, expansion.faults) == (text, ())


def test_a_file_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("first")
    interpolator = Interpolator({})
    assert interpolator.expand(f"${{file:{path}}}").text == "first"
    path.write_text("second")
    assert interpolator.expand(f"${{file:{path}}}").text == "first"


def test_a_file_that_is_too_large_or_no_text_is_refused_by_name(tmp_path: Path) -> None:
    large, binary, pipe = (tmp_path / name for name in ("large", "binary", "pipe"))
    large.write_bytes(b"x" * (MAX_FILE + 1))
    binary.write_bytes(b"\xff\xfe")
    os.mkfifo(pipe)
    expand = Interpolator({}).expand
    for path, message in (
        (large, "is larger than 64 KiB"),
        (binary, "is not UTF-8 text"),
        (pipe, "is not a file"),
    ):
        (fault,) = expand(f"${{file:{path}}}").faults
        assert fault.message == f"{path} {message}"


def test_all_that_is_brought_in_is_bounded() -> None:
    interpolator = Interpolator({"BIG": "x" * (MAX_TOTAL // 2)})
    assert interpolator.expand("${BIG}${BIG}").faults == ()
    (fault,) = interpolator.expand("${BIG}").faults
    assert fault.message.startswith("all ${…} together")


@given(st.text())
def test_any_text_gives_text_and_faults(source: str) -> None:
    expansion = Interpolator(ENV).expand(source)
    assert all(0 <= fault.offset < len(source) for fault in expansion.faults)


@given(st.text())
def test_doubled_dollars_give_the_text_itself(source: str) -> None:
    expansion = Interpolator({}).expand(source.replace("$", "$$"))
    assert (expansion.text, expansion.faults) == (source, ())


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_variable_is_put_in_as_it_is(value: str) -> None:
    assert Interpolator({"V": value}).expand("<${V}>").text == f"<{value}>"
