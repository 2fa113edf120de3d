"""Files made to hurt whoever reads them, by class; each is to be refused, quickly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

from tests.config.conftest import SECTIONS

__all__ = ["FILES", "MIB", "at_most", "cut"]

MIB = 1024 * 1024

SOURCES, BROKERS, ROUTES = SECTIONS["sources"], SECTIONS["brokers"], SECTIONS["routes"]


def cut(unit: str, size: int = MIB, *, before: str = "", after: str = "") -> str:
    """Repeat `unit` as often as `size` bytes have room for it."""
    room = size - len((before + after).encode())
    return before + unit * (room // len(unit.encode())) + after


def at_most(
    make: Callable[[int], str], size: int = MIB, *, before: str = "", after: str = ""
) -> str:
    """Add `make(0)`, `make(1)`… as long as `size` bytes have room for them."""
    parts, room = [before], size - len((before + after).encode())
    for at in count():
        part = make(at)
        room -= len(part.encode())
        if room < 0:
            return "".join((*parts, after))
        parts.append(part)
    raise AssertionError


def _bomb(opening: str, entry: str, closing: str, levels: int = 9) -> str:
    lines = [f"a0: &a0 {opening}{entry.format(at=0, value='x')}{closing}\n"]
    for level in range(1, levels):
        entries = ", ".join(entry.format(at=at, value=f"*a{level - 1}") for at in range(10))
        lines.append(f"a{level}: &a{level} {opening}{entries}{closing}\n")
    return "".join(lines)


def _routes(make: Callable[[int], str], size: int = MIB) -> str:
    return at_most(make, size, before=SOURCES + BROKERS + "routes:\n")


ALIASES = {
    "alias-bomb-lists": _bomb("[", "{value}", "]"),
    "alias-bomb-maps": _bomb("{{".replace("{{", "{"), "k{at}: {value}", "}"),
    "alias-bomb-keys": "a: &a [x, x]\n" + at_most(lambda at: f"? {{*a : {at}, k: *a}}\n: *a\n"),
    "alias-of-itself": "a: &a [*a]\n",
    "alias-of-itself-in-a-map": "a: &a {b: {c: *a}}\n",
    "alias-of-itself-in-a-key": "a: &a\n  ? *a\n  : 1\n",
    "aliases-of-long-text": cut(
        "*t,", before=f"a: &t '{'x' * (MIB // 2)}'\nserver: [", after="]\n"
    ),
    "aliases-of-text-with-references": cut(
        "*t,", before=f"a: &t '{'${X:-}' * (MIB // 12)}'\nserver: [", after="]\n"
    ),
    "aliases-of-a-long-key": cut(
        "*t,", before=f"a: &t {{'{'x' * (MIB // 2)}': 1}}\nroutes: [", after="]\n"
    ),
    "aliases-of-a-faulty-list": cut(
        "*t,", before="a: &t [" + "yes," * 1000 + "]\nroutes: [", after="]\n"
    ),
    "anchors-without-end": cut("&a ", before="a: "),
    "anchor-of-one-mebibyte": cut("a", before="a: &", after=" x\n"),
    "alias-of-one-mebibyte": cut("a", before="a: *", after="\n"),
    "many-anchors": at_most(lambda at: f"k{at}: &a{at} x\n"),
    "many-aliases": cut("*a,", before="a: &a 1\nb: [", after="]\n"),
}

NESTING = {
    "nested-flow-lists": cut("["),
    "nested-flow-maps": cut("{a: "),
    "nested-block-lists": cut("- "),
    "nested-block-maps": at_most(lambda at: " " * at + f"k{at}:\n"),
    "nested-keys": cut("? "),
    "nested-flow-keys": cut("{? "),
    "nested-keys-and-lists": cut("? - "),
    "nested-and-closed": "a: " + "[" * (MIB // 2 - 8) + "]" * (MIB // 2 - 8) + "\n",
    "indentation-steps": at_most(lambda at: " " * (at % 700) + "- a\n"),
}

SCALARS = {
    "plain-scalar": cut("x", before="server: "),
    "plain-scalar-of-words": cut("x ", before="server: "),
    "plain-scalar-of-lines": cut(" x\n", before="server:\n"),
    "plain-scalar-of-colons": cut(":", before="server: "),
    "plain-scalar-of-number-signs": cut("x#", before="server: "),
    "double-quoted-unclosed": cut("x", before='server: "'),
    "single-quoted-unclosed": cut("x", before="server: '"),
    "double-quoted-lines-unclosed": cut("x\n", before='server: "'),
    "quotes-without-end": cut("'", before="server: "),
    "double-quotes-without-end": cut('""', before="server: "),
    "escapes": cut("\\x41", before='server: "', after='"\n'),
    "escaped-lines": cut("\\\n", before='server: "', after='"\n'),
    "unknown-escape-at-the-end": cut("x", before='server: "', after='\\q"\n'),
    "number-of-a-mebibyte": cut("9", before="server: {port: ", after="}\n"),
    "float-of-a-mebibyte": cut("9", before="log: {sample: 0.", after="}\n"),
    "numbers-of-thousands-of-digits": at_most(lambda at: f"k{at}: {'7' * 4000}\n"),
    "literal-block": cut(" x\n", before="server: |\n"),
    "folded-block": cut(" x\n\n", before="server: >\n"),
    "folded-block-of-blank-lines": cut("\n", before="server: >\n"),
    "literal-block-of-spaces": cut(" ", before="server: |\n"),
    "key-of-a-mebibyte": cut("k", after=": 1\n"),
    "quoted-key-of-a-mebibyte": cut("k", before='"', after='": 1\n'),
    "key-without-a-colon": cut("k", before="? "),
    "many-lines-without-a-colon": cut("k\n"),
    "blank-lines": cut("\n"),
    "carriage-returns": cut("\r"),
    "line-separators": cut("\u2028"),
    "spaces": cut(" "),
    "tabs": cut("\t"),
    "comment-of-a-mebibyte": cut("#"),
    "comments": cut("#\n"),
    "astral": cut("😀", before="server: "),
    "byte-order-marks": cut("\ufeff"),
}

COUNTS = {
    "values": cut("1,", before="server: [", after="]"),
    "empty-lists": cut("[],", before="routes: [", after="]"),
    "empty-routes": cut("{},", before="routes: [", after="]"),
    "empty-routes-just-below-the-bound": "routes: [" + "{}," * 90_000 + "]",
    "empty-entries": cut("- \n", before="routes:\n"),
    "unknown-keys": at_most(lambda at: f"k{at}: 1\n"),
    "unknown-keys-just-below-the-bound": at_most(lambda at: f"k{at}:\n", 440_000),
    "unknown-keys-like-known-ones": at_most(lambda at: f"  max_bod{at}: 1\n", before="server:\n"),
    "unknown-keys-in-brokers": at_most(
        lambda at: f"  b{at}: {{kind: kafka, serverz: [], linger_: 1}}\n", before="brokers:\n"
    ),
    "brokers-of-unknown-kinds": at_most(
        lambda at: f"  b{at}: {{kind: kafk{at}}}\n", before="brokers:\n"
    ),
    "values-of-no-kind": at_most(
        lambda at: f"  s{at}: {{kind: cler{at}, secrets: [x]}}\n", before="sources:\n"
    ),
    "duplicate-keys": cut("a: 1\n"),
    "duplicate-keys-just-below-the-bound": cut("a:\n", 147_000),
    "duplicate-keys-in-a-flow-map": cut("a: ,", before="server: {", after="}"),
    "keys-that-are-no-text": at_most(lambda at: f"{at}: x\n"),
    "complex-keys": at_most(lambda at: f"? [{at}]\n: x\n"),
    "disputed-values": cut("yes,", before="server: [", after="]"),
    "disputed-values-just-below-the-bound": "server: [" + "yes," * 99_000 + "]",
    "half-pairs": cut('"\\ud800",', before="server: [", after="]"),
    "merge-keys": cut("- <<: *a\n", before="x: &a {k: 1}\nroutes:\n"),
    "unknown-sources": _routes(
        lambda at: f"  - {{name: r{at}, events: ['*'], sources: [cler{at}], targets: []}}\n"
    ),
    "unknown-brokers": _routes(
        lambda at: (
            f"  - {{name: r{at}, events: ['*'], targets: [{{broker: event{at}, topic: t.x}}]}}\n"
        )
    ),
    "unknown-brokers-among-many": at_most(
        lambda at: f"  b{at}: {{kind: nats, servers: [h]}}\n",
        MIB // 2,
        before=SOURCES + "brokers:\n",
    )
    + at_most(
        lambda at: (
            f"  - {{name: r{at}, events: ['*'], targets: [{{broker: bb{at}, subject: t.x}}]}}\n"
        ),
        MIB // 2 - 200,
        before="routes:\n",
    ),
    "unknown-sources-among-many": at_most(
        lambda at: f"  s{at}: {{path: /{at}, secrets: [whsec_aGVsbG9oZWxsb2hlbGxvaGVsbG8=]}}\n",
        MIB // 2,
        before=BROKERS + "sources:\n",
    )
    + at_most(
        lambda at: f"  - {{name: r{at}, events: ['*'], sources: [ss{at}], targets: []}}\n",
        MIB // 2 - 200,
        before="routes:\n",
    ),
    "misspelt-types": _routes(
        lambda at: f"  - {{name: r{at}, events: [usr.create{at}, user.updatd], targets: []}}\n"
    ),
    "misspelt-types-in-one-route": at_most(
        lambda at: f"usr.create{at},",
        before=SOURCES + BROKERS + "routes: [{name: a, targets: [], events: [",
        after="]}]\n",
    ),
    "names-that-are-there-twice": _routes(
        lambda _: "  - {name: r, events: ['*'], targets: [{broker: events, topic: t.x}]}\n"
    ),
    "destinations-that-collide": _routes(
        lambda at: (
            f"  - {{name: r{at}, events: [x], targets: [{{broker: bus, subject: t,key: k{at}}}]}}\n"
        )
    ),
    "expressions-that-fail": _routes(
        lambda at: f"  - {{name: r{at}, events: [x], when: 'a.b[{at}', targets: []}}\n"
    ),
    "long-expressions": _routes(
        lambda at: f"  - {{name: r{at}, events: [x], when: 'a{at}{'[0]' * 300}', targets: []}}\n"
    ),
    "one-expression-of-a-mebibyte": cut(
        "!a",
        before=SOURCES + BROKERS + "routes: [{name: a, events: [x], targets: [], when: '",
        after="'}]\n",
    ),
    "one-template-of-placeholders": cut(
        "{a}",
        before=SOURCES + BROKERS + "routes: [{name: a, events: [x], targets: ["
        "{broker: nope, subject: 's.",
        after="'}]}]\n",
    ),
    "one-template-of-braces": cut(
        "{",
        before=SOURCES + BROKERS + "routes: [{name: a, events: [x], targets: ["
        "{broker: bus, subject: 's.",
        after="'}]}]\n",
    ),
    "one-literal-template": cut(
        "{{",
        before=SOURCES + BROKERS + "routes: [{name: a, events: [x], targets: ["
        "{broker: bus, subject: 's.",
        after="'}]}]\n",
    ),
    "headers-with-bad-names": at_most(
        lambda at: f"'ce_{at}': x, ",
        before=SOURCES + BROKERS + "routes: [{name: a, events: [x], targets: ["
        "{broker: bus, subject: s, headers: {",
        after="}}]}]\n",
    ),
    "servers": at_most(
        lambda at: f"'http://h{at}',",
        before=SOURCES + ROUTES + "brokers: {events: {kind: kafka, servers: [",
        after="]}}\n",
    ),
    "addresses": at_most(
        lambda at: f"10.0.{at}/99,", before="server: {trusted_proxies: [", after="]}\n"
    ),
    "secrets": at_most(
        lambda at: f"whsec_{at},", before="sources: {clerk: {secrets: [", after="]}}\n"
    ),
    "a-list-where-text-is-wanted": cut("'x',", before="unmatched: [", after="]\n"),
}

REFERENCES = {
    "unclosed-reference": cut("${", before="server: '", after="'\n"),
    "nested-references": "server: '" + "${A:-" * 100_000 + "}" * 100_000 + "'\n",
    "references-to-nothing": cut("${X}", before="server: '", after="'\n"),
    "references-without-a-name": cut("${}", before="server: '", after="'\n"),
    "references-in-many-values": cut("'${X}',", before="server: [", after="]\n"),
    "reference-with-a-long-name": cut("X", before="server: '${", after="}'\n"),
    "reference-with-a-long-message": cut("X", before="server: '${X:?", after="}'\n"),
    "reference-with-a-long-file": cut("X", before="server: '${file:", after="}'\n"),
    "dollars": cut("$", before="server: '", after="'\n"),
    "defaults": cut("${X:-x}", before="server: '", after="'\n"),
    "many-files": at_most(
        lambda at: f"'${{file:/nowhere/{at}}}',", before="server: [", after="]\n"
    ),
    "file-dev-zero": "server: {host: '${file:/dev/zero}'}\n",
    "file-dev-stdin": "server: {host: '${file:/dev/stdin}'}\n",
    "file-dev-tty": "server: {host: '${file:/dev/tty}'}\n",
    "file-directory": "server: {host: '${file:/proc}'}\n",
    "file-nul": 'server: {host: "${file:/\\0}"}\n',
    "file-proc-endless": "server: {host: '${file:/proc/self/mem}'}\n",
}

TAGS = {
    "tag-python-apply": "a: !!python/object/apply:os.system [id]\n",
    "tag-python-new": "!!python/object/new:tuple [[1]]\n",
    "tag-python-name": "a: !!python/name:os.system\n",
    "tag-python-module": "a: !!python/module:os\n",
    "tag-binary": "a: !!binary aGVsbG8=\n",
    "tag-set": "a: !!set {x, y}\n",
    "tag-omap": "a: !!omap [x: 1]\n",
    "tag-verbatim": "a: !<tag:yaml.org,2002:python/object/apply:os.system> [id]\n",
    "tag-local": "a: !x y\n",
    "tag-on-a-key": "!!python/name:os.system a: 1\n",
    "tag-with-a-handle": "%TAG ! tag:yaml.org,2002:python/\n---\na: !name:os.system x\n",
    "tag-of-a-mebibyte": cut("a", before="a: !", after=" x\n"),
    "tag-of-escapes": cut("%41", before="a: !", after=" x\n"),
    "tags": cut("!x ", before="a: "),
    "merge-key": "x: &x {a: 1}\nserver:\n  <<: *x\n",
}

DOCUMENTS = {
    "directive-unknown": "%FOO bar\n---\na: 1\nx: yes\n",
    "directive-of-a-mebibyte": cut("a", before="%", after="\n---\na: 1\n"),
    "directive-version-of-digits": cut("9", before="%YAML 1.", after="\n---\na: 1\n"),
    "directive-version-2": "%YAML 2.0\n---\na: 1\n",
    "directives": at_most(lambda at: f"%TAG !a{at}! x\n", after="---\na: yes\n"),
    "directives-alone": cut("%YAML 1.1\n"),
    "documents": cut("---\n"),
    "document-ends": cut("...\n"),
    "second-document": "a: 1\n---\nb: 2\n",
    "second-document-after-its-end": "a: 1\n...\n---\nb: 2\n",
    "no-document": "",
    "comment-only": "# nothing\n",
    "a-list": "- 1\n",
    "text": "x\n",
    "control-character": "server: {host: 'a\x1bb'}\n",
    "control-character-at-the-end": cut("x", before="server: ", after="\x07"),
    "delete-character": "server: \x7f\n",
    "nul": "server: a\x00b\n",
    "nul-bytes": cut("\x00"),
    "not-a-character": "server: \ufffe\n",
}

BYTES: dict[str, bytes] = {
    "invalid-utf-8": b"server: {port: 1}\nlog: \xff\n",
    "invalid-utf-8-at-the-end": b"#" * (MIB - 1) + b"\xff",
    "invalid-utf-8-everywhere": b"\xff" * MIB,
    "truncated-utf-8": "server: é".encode()[:-1],
    "overlong-utf-8": b"server: \xc0\xaf\n",
    "surrogate-in-utf-8": b"server: \xed\xa0\x80\n",
    "utf-16-le": "server: {port: 1}\n".encode("utf-16"),
    "utf-16-be": b"\xfe\xff" + "server: {port: 1}\n".encode("utf-16-be"),
    "utf-16-of-a-mebibyte": ("x" * (MIB // 2 - 1)).encode("utf-16"),
    "utf-32": "server: {port: 1}\n".encode("utf-32"),
    "utf-7": b"+AGE-: 1\n",
    "random-bytes": bytes((at * 7919 + (at >> 3)) % 256 for at in range(MIB)),
    "random-ascii": bytes(32 + (at * at * 31 + (at >> 5)) % 95 for at in range(MIB)),
}

TEXTS = ALIASES | NESTING | SCALARS | COUNTS | REFERENCES | TAGS | DOCUMENTS

FILES: dict[str, bytes] = {name: text.encode() for name, text in TEXTS.items()} | BYTES
"""What each hostile file holds, by name."""
