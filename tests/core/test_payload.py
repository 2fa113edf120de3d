"""The value of a record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.routing.payload import redact, render_payload
from tests.core.builders import event

USER = {"id": "user_1", "private_metadata": {"plan": "x"}, "emails": [{"id": 1, "code": 2}, "y"]}
DOCUMENT: dict[str, Any] = {"type": "user.created", "data": USER, "object": "event"}


def test_original_is_the_body_itself() -> None:
    an_event = event(DOCUMENT)
    assert render_payload(an_event, "original", (), "k") is an_event.body


def test_data_is_what_stands_under_data() -> None:
    assert json.loads(render_payload(event(DOCUMENT), "data", (), "k")) == USER
    assert render_payload(event({"type": "x"}), "data", (), "k") == b"null"


def test_cloudevents_is_the_whole_event_with_its_key() -> None:
    rendered = json.loads(render_payload(event(DOCUMENT), "cloudevents", (), "k"))
    assert rendered["data"] == DOCUMENT
    assert rendered["partitionkey"] == "k"


@pytest.mark.parametrize("payload", ["data", "cloudevents"])
def test_what_is_redacted_is_nowhere_in_the_value(payload: Any) -> None:
    paths = (("data", "private_metadata"), ("data", "emails", "code"))
    rendered = render_payload(event(DOCUMENT), payload, paths, "k")
    assert b"private_metadata" not in rendered
    assert b"code" not in rendered
    assert b"user_1" in rendered


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (("a",), {"l": [{"x": 1, "y": 2}, 3]}),
        (("a", "b"), {"a": {}, "l": [{"x": 1, "y": 2}, 3]}),
        (("l", "x"), {"a": {"b": 1}, "l": [{"y": 2}, 3]}),
        (("missing",), {"a": {"b": 1}, "l": [{"x": 1, "y": 2}, 3]}),
        (("a", "missing", "x"), {"a": {"b": 1}, "l": [{"x": 1, "y": 2}, 3]}),
        (("a", "b", "x"), {"a": {"b": 1}, "l": [{"x": 1, "y": 2}, 3]}),
    ],
)
def test_redacting_gives_a_copy(path: tuple[str, ...], expected: dict[str, Any]) -> None:
    document: dict[str, Any] = {"a": {"b": 1}, "l": [{"x": 1, "y": 2}, 3]}
    before = json.dumps(document)
    assert redact(document, [path]) == expected
    assert json.dumps(document) == before


def test_lists_of_lists_are_redacted_too() -> None:
    assert redact({"l": [[{"x": 1}], [{"x": 2, "y": 3}]]}, [("l", "x")]) == {
        "l": [[{}], [{"y": 3}]]
    }
