"""Files made to hurt: each is refused at its place, and quickly. The table is in `hostile`."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

import gateway
from gateway.app import load
from gateway.config import ConfigError, Problem
from gateway.config.composition import Node, compose
from gateway.config.problems import MAX_PROBLEMS, render
from gateway.config.syntax import SyntaxFault
from tests.config.hostile import FILES, MIB

SECONDS = 8.0
"""Of CPU, for a busy machine. What takes longest, two or three seconds there, are 100,000 faulty
values that pydantic tells one by one."""
MEMORY = 256 * MIB
"""More than what the imports take."""
PLACE = re.compile(r"f\.yaml:[0-9]+:[0-9]+: \S")

CHILD = """
import resource, sys
from gateway.cli import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    main()
finally:
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print((after - before) * 1024, file=sys.stdout)
"""


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file_is_refused_at_a_place_and_quickly(name: str, tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(FILES[name])
    assert len(FILES[name]) <= MIB + 1
    started = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    taken = time.process_time() - started
    lines = str(caught.value).replace(str(path), "f.yaml").splitlines()
    assert PLACE.match(lines[0])
    assert len(lines) <= 101
    assert all(len(line) < 1200 for line in lines)
    assert taken < SECONDS


@pytest.mark.parametrize(
    "name",
    [
        *("alias-bomb-maps", "aliases-of-text-with-references", "nested-flow-maps", "unknown-keys"),
        *("double-quoted-lines-unclosed", "empty-routes-just-below-the-bound", "nul-bytes"),
        *("file-dev-zero", "file-dev-stdin", "tag-python-apply", "unknown-brokers-among-many"),
    ],
)
def test_the_command_refuses_it_as_well(name: str, tmp_path: Path) -> None:
    (tmp_path / "f.yaml").write_bytes(FILES[name])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "check", "--config", "f.yaml"],
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert PLACE.match(done.stderr)
    assert "Traceback" not in done.stderr
    assert int(done.stdout) < MEMORY


def test_a_config_that_never_ends_is_too_large() -> None:
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load("/dev/zero", {})


def test_a_directory_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path, {})


def test_the_first_hundred_problems_are_told_and_the_others_counted() -> None:
    problems = [Problem("error", (), line, 1, "x") for line in range(1, MAX_PROBLEMS + 1)]
    assert len(render("f", problems[:100])) == 100
    assert render("f", problems[:150])[100:] == ["f: and 50 more"]
    assert render("f", problems)[100:] == ["f: and at least 900 more"]
    assert len(render("f", [Problem("error", (), 1, 1, "x" * 5000)])[0]) < 1200


def test_only_events_of_the_parser_are_used_of_yaml() -> None:
    """No loader and no constructor: there is nothing that could make an object of a tag."""
    used = set(_yaml_names())
    assert used
    assert not {name for name in used if re.search("load|construct|unsafe", name, re.IGNORECASE)}


def _yaml_names() -> Iterator[str]:
    for path in Path(gateway.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                if node.value.id == "yaml":
                    yield node.attr
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("yaml"):
                yield from (alias.name for alias in node.names)


# --- positions are those of PyYAML's parser in Python

PIECES = [
    *"ab01 :-[]{}#&*!|>'\"%@`,?\n~.<=\\",
    *("\r\n", "\r", "\x85", "\u2028", "\u2029", "😀", "é", "\n  ", "\n- ", ": ", "- ", "? "),
    *("---\n", "...\n", "# c\n", "\n\n", "a: ", "{a: ", "[b, ", "&x ", "*x", '"\\t"', "|\n  "),
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
@example("? a: ")
@example("? [a]\n:\n\nb: 1")
@example("? a: 1\n:\n\nb: 1")
@example("? &x a\n: {*x : }\n")
def test_what_both_parsers_read_is_at_the_same_places(text: str) -> None:
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        expected = None if root is None else _places(root)
        found = _tree(compose(text))
    except (yaml.YAMLError, SyntaxFault, ValueError):
        return
    assert found == expected


def _places(node: yaml.Node) -> object:
    start = node.start_mark.index
    if isinstance(node, yaml.ScalarNode):
        return (node.value, start, node.end_mark.index) if node.value else ("", start)
    if isinstance(node, yaml.MappingNode):
        return start, [(_places(key), _places(value)) for key, value in node.value]
    return start, [_places(entry) for entry in node.value]


def _tree(node: Node) -> object:
    kind, value, start, end = node.kind, node.value, node.start, node.end
    if kind == "scalar":
        return (value, start, end) if value else ("", start)
    if kind == "mapping":
        return start, [(_tree(key), _tree(entry)) for key, entry in value]
    return start, [_tree(entry) for entry in value]
