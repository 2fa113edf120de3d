"""What a topic and a subject may be called. Pure text in, a problem in words or None out.

Kafka: `org.apache.kafka.common.internals.Topic`. NATS: https://docs.nats.io/nats-concepts/subjects
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

__all__ = [
    "MAX_SUBJECT",
    "MAX_TOPIC",
    "continuation_problem",
    "literal_beginning",
    "subject_problem",
    "template_problem",
    "topic_problem",
]

MAX_TOPIC: Final = 249
MAX_SUBJECT: Final = 900
"""Of up to 4 bytes each: NATS closes a connection whose control line has more than 4,096."""
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]*")
_PLACEHOLDER: Final = re.compile(r"(?:[^{]|\{\{)*+\{")
_BLANK: Final = re.compile(r"[\s\x00-\x1f\x7f]")
_EXTRA_DOT: Final = "a subject has no empty token; remove the extra dot"
_DOT_AT_END: Final = "a subject cannot end in a dot; remove it"


def literal_beginning(template: str) -> tuple[str, bool]:
    """Give the literal before the first `{placeholder}`, and whether that is the whole.

    `{{` and `}}` stand for one brace, as in `gateway.routing.template`.
    """
    placeholder = _PLACEHOLDER.match(template)
    end = len(template) if placeholder is None else placeholder.end() - 1
    return template[:end].replace("{{", "{").replace("}}", "}"), placeholder is None


def topic_problem(topic: str) -> str | None:
    """Say why Kafka, or this gateway, does not take a literal topic."""
    if topic in {".", ".."}:
        return "a topic cannot be called . or .."
    if len(topic) > MAX_TOPIC:
        return f"a topic has at most {MAX_TOPIC} characters"
    return _topic_text_problem(topic)


def subject_problem(subject: str) -> str | None:
    """Say why NATS, or this gateway, does not take a literal subject to publish to."""
    if len(subject) > MAX_SUBJECT:
        return f"a subject has at most {MAX_SUBJECT} characters"
    if subject.endswith("."):
        return _DOT_AT_END
    return _subject_text_problem(subject)


def template_problem(beginning: str, kind: str) -> str | None:
    """Say why a template must not begin with this literal; `kind` is `kafka` or `nats`.

    Without a literal of its own a template could be rendered into any destination there is.
    """
    if not beginning:
        return "what stands before the first { must not be empty; write clerk.{type}"
    if beginning[-1] not in "._-":
        return "what stands before the first { must end in . - or _; write clerk.{type}"
    return _topic_text_problem(beginning) if kind == "kafka" else _subject_text_problem(beginning)


def continuation_problem(literals: Sequence[str], kind: str, *, ends: bool) -> str | None:
    """Say why a template must not have these literals behind its first placeholder.

    `ends`: the last of them ends the template. No broker could have what it would render.
    """
    if kind == "kafka":
        return _topic_characters_problem("".join(literals))
    problem = _subject_characters_problem("".join(literals))
    if problem is not None:
        return problem
    if any(".." in text for text in literals):
        return _EXTRA_DOT
    return _DOT_AT_END if ends and literals[-1].endswith(".") else None


def _topic_characters_problem(text: str) -> str | None:
    fits = _TOPIC.fullmatch(text)
    return None if fits else "a topic is made of letters, digits, dots, _ and -"


def _topic_text_problem(text: str) -> str | None:
    problem = _topic_characters_problem(text)
    if problem is not None:
        return problem
    if text.startswith("__"):
        return "topics that begin with __ are Kafka's own; choose another name"
    return None


def _subject_characters_problem(text: str) -> str | None:
    if _BLANK.search(text):
        return "a subject has no spaces; separate its tokens by dots"
    if "*" in text or ">" in text:
        return "* and > are for those who subscribe; name one subject to publish to"
    return None


def _subject_text_problem(text: str) -> str | None:
    problem = _subject_characters_problem(text)
    if problem is not None:
        return problem
    if text.startswith(("$", "_INBOX")):
        return "subjects that begin with $ or _INBOX are NATS's own; choose another name"
    if text.startswith(".") or ".." in text:
        return _EXTRA_DOT
    return None
