"""What a template may have behind its first placeholder, so that a broker can have what it renders.

What stands before it is a matter of the config's own rules, which know no templates.
"""

from __future__ import annotations

import re
from typing import Final, Literal

from gateway.routing.template import Template

__all__ = ["MAX_CHARACTERS", "behind_problem"]

MAX_CHARACTERS: Final = {"kafka": 249, "nats": 900}
"""Of a topic: `org.apache.kafka.common.internals.Topic`. Of a subject: a control line above 4,096
bytes closes the connection, and a character has up to 4."""

_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]*")
_BLANK: Final = re.compile(r"[\s\x00-\x1f\x7f]")


def behind_problem(template: Template, kind: Literal["kafka", "nats"]) -> str | None:
    """Say why no broker of a kind has what a destination's template renders, or give None."""
    behind = [part for part in template.parts[1:] if isinstance(part, str)]
    text = "".join(behind)
    if kind == "kafka":
        fits = _TOPIC.fullmatch(text)
        return None if fits else "a topic is made of letters, digits, dots, _ and -"
    if _BLANK.search(text):
        return "a subject has no spaces; separate its tokens by dots"
    if "*" in text or ">" in text:
        return "* and > are for those who subscribe; name one subject to publish to"
    if any(".." in part for part in behind):
        return "a subject has no empty token; remove the extra dot"
    if behind and behind[-1] is template.parts[-1] and behind[-1].endswith("."):
        return "a subject cannot end in a dot; remove it"
    return None
