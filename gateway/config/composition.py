"""From YAML text to a tree of bounded size, with the place of everything in it.

libyaml parses, by way of PyYAML, and gives events; the tree is made of them here, so that its depth
and size are bounded before they cost anything. Of libyaml's marks the index alone is used: it
counts characters, and a test holds it to the parser that PyYAML has in Python.
"""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import msgspec
import yaml

from gateway import GatewayError
from gateway.config.syntax import SyntaxFault, explain

try:
    from yaml._yaml import CParser as _Parser
except ImportError:  # pragma: no cover - every wheel of PyYAML has it
    _Parser = None  # type: ignore[assignment,misc]  # a class, where there is libyaml

__all__ = ["MAX_DEPTH", "MAX_NODES", "Node", "compose"]

MAX_DEPTH: Final = 32
"""Levels of mappings and lists."""
MAX_NODES: Final = 100_000
"""Keys and values; the builder counts each alias as what it stands for."""

# YAML 1.2.2, section 5.1. libyaml itself would stop at one only where it gets to it.
_NOT_PRINTABLE: Final = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)
MAX_DIRECTIVES: Final = 16
"""libyaml compares each with all others."""
_DIRECTIVE: Final = re.compile("(?:^|[\n\r\x85\u2028\u2029])%")


class LibyamlMissingError(GatewayError):
    """PyYAML was built without libyaml; its parser in Python has no bounds, so it is not used."""

    def __init__(self) -> None:
        super().__init__(
            "PyYAML was built without libyaml, which reads the config file; install PyYAML from"
            " a wheel, or build it with libyaml's headers there"
        )


class Node(msgspec.Struct, frozen=True):
    """A scalar, list or mapping. An alias is the node that it names, so this can be a graph."""

    kind: Literal["scalar", "list", "mapping"]
    value: Any
    """Text, nodes, or pairs of a key's node and a value's."""
    start: int
    """Index of its first character in the text."""
    end: int
    """Index after a scalar's last character."""
    style: str
    """What a scalar is quoted with, or begins its block; empty where it is plain."""


def compose(text: str) -> Node:
    """Parse the one document of `text`. Raises `SyntaxFault`."""
    if _Parser is None:  # pragma: no cover - as above
        raise LibyamlMissingError
    unprintable = _NOT_PRINTABLE.search(text)
    if unprintable is not None:
        problem = "a control character that YAML does not allow; remove it"
        raise SyntaxFault(problem, unprintable.start())
    for number, directive in enumerate(_DIRECTIVE.finditer(text)):
        if number >= MAX_DIRECTIVES:
            problem = f"more than {MAX_DIRECTIVES} lines that begin with %; remove them"
            raise SyntaxFault(problem, directive.end() - 1)
    # libyaml does not count a byte order mark at the beginning.
    body = text.removeprefix("\ufeff")
    skipped = len(text) - len(body)
    try:
        return _Composer(body, skipped).document()
    except yaml.YAMLError as error:
        raise explain(error, text, skipped) from None
    except (ValueError, OverflowError):
        # A directive with a number of 5000 digits, `"\UFFFFFFFF"`.
        raise SyntaxFault("not YAML: a character or number that cannot be", 0) from None


class _Composer:
    """Makes one tree of the events of one text."""

    def __init__(self, text: str, skipped: int) -> None:
        self._text = text
        self._next = _Parser(text).get_event
        self._skipped = skipped
        self._anchors: dict[str, Node] = {}
        self._count = 0
        self._end = 0
        """Index after what was read last."""

    def document(self) -> Node:
        self._next()
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise SyntaxFault("the file is empty; `gateway init` writes one", 0)
        root = self._node(self._next(), 1)
        self._next()
        after: Any = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            problem = "a second document; a config file has one, remove the ---"
            raise self._fault(problem, after)
        return root

    def _node(self, event: Any, depth: int) -> Node:
        self._count += 1
        if type(event) is yaml.AliasEvent:
            self._read_to(event)
            return self._alias(event)
        if event.tag is not None:
            raise self._fault("tags such as !name are not used here; remove it", event)
        if depth > MAX_DEPTH:
            raise self._fault(f"nested more than {MAX_DEPTH} levels deep", event)
        if self._count > MAX_NODES:
            raise self._fault(f"more than {MAX_NODES} keys and values", event)
        start = event.start_mark.index + self._skipped
        if type(event) is yaml.ScalarEvent:
            self._read_to(event)
            node = Node("scalar", event.value, start, self._end, event.style or "")
            self._remember(event, node)
            return node
        children: list[Any] = []
        is_list = type(event) is yaml.SequenceStartEvent
        node = Node("list" if is_list else "mapping", children, start, start, "")
        self._remember(event, node)
        (self._entries if is_list else self._pairs)(children, depth + 1)
        return node

    def _read_to(self, event: Any) -> None:
        self._end = event.end_mark.index + self._skipped

    def _entries(self, into: list[Any], depth: int) -> None:
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            into.append(self._node(event, depth))
        self._read_to(event)

    def _pairs(self, into: list[Any], depth: int) -> None:
        while type(event := self._next()) is not yaml.MappingEndEvent:
            key = self._node(event, depth)
            end = self._end
            into.append((key, self._behind_colon(end, self._node(self._next(), depth))))
        self._read_to(event)

    def _behind_colon(self, key_end: int, value: Node) -> Node:
        """Put a value that is not there where PyYAML does, and not before the next token."""
        if value.start != value.end or value.kind != "scalar":
            return value
        colon = self._text.find(":", key_end - self._skipped, value.start - self._skipped)
        if colon < 0:
            return value
        at = colon + 1 + self._skipped
        return Node("scalar", "", at, at, "")

    def _alias(self, event: Any) -> Node:
        node = self._anchors.get(event.anchor)
        if node is None:
            raise self._fault("an alias of nothing; quote a value that begins with *", event)
        if self._count > MAX_NODES:
            raise self._fault(f"more than {MAX_NODES} keys and values", event)
        return node

    def _remember(self, event: Any, node: Node) -> None:
        if event.anchor is None:
            return
        if event.anchor in self._anchors:
            raise self._fault("an anchor that is here twice; give it another name", event)
        self._anchors[event.anchor] = node

    def _fault(self, problem: str, event: Any) -> SyntaxFault:
        return SyntaxFault(problem, event.start_mark.index + self._skipped)
