"""Durations and sizes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.config.units import (
    Duration,
    PositiveDuration,
    Size,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("10s", 10.0),
        ("1.5s", 1.5),
        ("2m", 120.0),
        ("30h", 108_000.0),
        ("7d", 604_800.0),
        (" 0s ", 0.0),
    ],
)
def test_a_duration_is_a_number_and_its_unit(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "10", "s", "10 s", "-1s", "1h30m", "10S", "1e3s", "\u0661s", "9" * 20 + "s"]
)
def test_other_text_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1B", 1),
        ("100kB", 100_000),
        ("1MB", 1_000_000),
        ("1GB", 10**9),
        ("512KiB", 524_288),
        ("64MiB", 67_108_864),
        ("1GiB", 1_073_741_824),
    ],
)
def test_a_size_is_a_number_and_perhaps_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "KiB", "1.5MiB", "512KB", "512 KiB", "-1", "1TB", "9" * 16])
def test_other_text_is_no_size(text: str) -> None:
    assert parse_size(text) is None


@given(st.integers(min_value=1, max_value=10**7))
def test_what_is_written_as_duration_reads_the_same(milliseconds: int) -> None:
    written = format_duration(milliseconds / 1000)
    assert parse_duration(written) == pytest.approx(milliseconds / 1000, rel=1e-5)


@given(st.integers(min_value=1, max_value=2**53))
def test_what_is_written_as_size_reads_the_same(size: int) -> None:
    assert len(str(size)) > 15 or parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0ms"), (0.25, "250ms"), (90.0, "90s"), (120.0, "2m"), (86_400.0, "1d"), (1.5, "1.5s")],
)
def test_a_duration_is_written_in_its_largest_whole_unit(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_a_file_must_write_the_unit_and_python_code_gives_seconds() -> None:
    adapter = TypeAdapter[float](Duration)
    assert adapter.validate_python(10) == 10.0
    with pytest.raises(ValidationError, match="write 10s"):
        adapter.validate_python(10, context={"file": True})


@pytest.mark.parametrize("value", [True, "4000d", "x", "-1s", None, []])
def test_what_is_no_duration_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[float](Duration).validate_python(value, strict=True)


def test_zero_is_a_duration_and_no_positive_one() -> None:
    assert TypeAdapter[float](Duration).validate_python("0s") == 0.0
    with pytest.raises(ValidationError):
        TypeAdapter[float](PositiveDuration).validate_python("0s")


@pytest.mark.parametrize("value", [True, 1.5, 0, -1, "0", "x", 2**53 + 1, None])
def test_what_is_no_size_is_refused(value: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter[int](Size).validate_python(value, strict=True)


def test_the_schemas_tell_how_they_are_written() -> None:
    duration = TypeAdapter[float](Duration).json_schema()
    assert duration["type"] == "string"
    assert duration["pattern"].startswith("^")
    assert "10s" in duration["patternErrorMessage"]
    size = TypeAdapter[int](Size).json_schema()
    assert {option["type"] for option in size["anyOf"]} == {"integer", "string"}
    assert "512KiB" in size["anyOf"][0]["patternErrorMessage"]
