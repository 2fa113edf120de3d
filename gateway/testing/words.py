"""Values of a test's event as they are printed: on one line, short, and harmless to a terminal."""

from __future__ import annotations

import json
import re
from typing import Any, Final

__all__ = ["HIDDEN", "inline", "printable", "shown"]

HIDDEN: Final = "a value that came from ${…} and is not shown"

_MAX_SHOWN: Final = 300
"""Characters of one value."""
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.]*(?:-[A-Za-z0-9_.]+)*")
_WORDS: Final = frozenset({"true", "false", "null", "y", "yes", "on", "n", "no", "off"})


def shown(value: Any) -> str:
    """Give a value as JSON, cut where it is long."""
    try:
        text = printable(json.dumps(value, ensure_ascii=False))
    except (RecursionError, ValueError):
        return "a value that is nested too deep, or too large a number"
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}… ({len(text)} characters)"


def inline(text: str) -> str:
    """Give a text as YAML has it between braces: in quotes where it needs them."""
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return printable(json.dumps(text, ensure_ascii=False))


def printable(text: str) -> str:
    r"""Write what steers a terminal, or hides in it, as `\u` and its number."""
    return "".join(one if one.isprintable() else _escaped(one) for one in text)


def _escaped(one: str) -> str:
    number = ord(one)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
