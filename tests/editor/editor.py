"""What an editor shows of a config, by the language server that most editors have for YAML.

`make editor` runs it. It is not collected by `make test`, which does without Node.js.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.config.models import RouteConfig, ServerConfig
from tests.editor.language_server import ROOT, LanguageServer, language_server

EXAMPLE = ROOT / "config.example.yaml"
TEXT = EXAMPLE.read_text("utf-8")

BROKEN = {
    "port: 8080": ("port: eighty", 'Expected "integer"'),
    "max_head: 32KiB": ("max_hed: 32KiB", "Property max_hed is not allowed."),
    "max_body: 512KiB": ("max_body: 512 KiB", "such as 512KiB"),
    "header_timeout: 5s": ("header_timeout: 5", 'Expected "string"'),
    "body_timeout: 10s": ("body_timeout: 10x", "such as 10s"),
    "level: info": ("level: inf", '"debug", "info", "warning", "error"'),
    "sample: 1.0": ("sample: 2", "above the maximum of 1"),
    "path: /webhooks/clerk ": ("path: webhooks ", "begins with /"),
    "kind: nats": ("kind: rabbit", '"kafka", "nats"'),
    "linger: 0s": ("lingr: 0s", "Property lingr is not allowed."),
    "  - name: users\n": ("  - nam: users\n", 'Missing property "name".'),
    "{broker: events, topic: clerk.users}": ("{broker: events}", 'Missing property "topic"'),
    "unmatched: accept": ("unmatched: ${", '"accept", "dead_letter", "reject"'),
    "dedupe:": ("dedup:", "Property dedup is not allowed."),
    "duplicate_window: 2m": ("duplicate_window: ${V:2m}", "such as 10s"),
}
"""What is written in place of what, each on a line of its own, and a part of what must be told."""


@pytest_asyncio.fixture
async def server() -> AsyncIterator[LanguageServer]:
    async with language_server() as running:
        yield running


def place(text: str, wanted: str) -> tuple[int, int]:
    """Give line and character, 0-based, of the one place where `wanted` begins."""
    assert text.count(wanted) == 1, wanted
    before = text[: text.index(wanted)]
    return before.count("\n"), len(before) - (before.rfind("\n") + 1)


async def test_the_example_has_nothing_underlined(server: LanguageServer) -> None:
    assert await server.show(EXAMPLE, TEXT) == []
    # The schema was there, and not merely nothing to say.
    broken = TEXT.replace("port: 8080", "port: eighty")
    assert len(await server.show(EXAMPLE, broken)) == 1


async def test_every_fault_is_underlined_on_its_line(server: LanguageServer) -> None:
    for right, (wrong, words) in BROKEN.items():
        line, _ = place(TEXT, right)
        told = await server.show(EXAMPLE, TEXT.replace(right, wrong))
        assert told, wrong
        assert {each["range"]["start"]["line"] for each in told} == {line}, (wrong, told)
        assert any(words in each["message"] for each in told), (wrong, told)


async def test_all_faults_of_a_file_are_underlined_at_once(server: LanguageServer) -> None:
    broken = TEXT
    lines = set()
    for right, (wrong, _) in BROKEN.items():
        if right == "kind: nats":
            # Below a kind that is unknown nothing more is known.
            continue
        lines.add(place(TEXT, right)[0])
        broken = broken.replace(right, wrong)
    told = await server.show(EXAMPLE, broken)
    assert {each["range"]["start"]["line"] for each in told} == lines


async def test_a_variable_is_underlined_nowhere(server: LanguageServer) -> None:
    changed = TEXT
    for right in ("8080", "512KiB", "info", "kafka", "true", '["localhost:9092"]', "10s"):
        changed = re.sub(rf"(?<=: ){re.escape(right)}(?=\s)", f"'${{V:-{right[:2]}}}'", changed)
    assert changed.count("${V:-") > 8
    assert await server.show(EXAMPLE, changed) == []


async def test_a_route_is_completed_by_its_keys_each_with_its_description(
    server: LanguageServer,
) -> None:
    text = TEXT.replace("  - name: users\n", "  - name: users\n    \n")
    line, _ = place(text, "  - name: users\n    \n")
    await server.show(EXAMPLE, text)
    offered = await server.completions(EXAMPLE, line + 1, 4)
    # Those that the route has already are not offered again.
    for name in ("exclude", "sources", "when"):
        assert offered[name] == RouteConfig.model_fields[name].description


async def test_a_broker_is_completed_by_the_keys_of_its_kind(server: LanguageServer) -> None:
    for kind, own, of_the_other in (
        ("kafka", "compression", "streams"),
        ("nats", "streams", "compression"),
    ):
        head = TEXT.partition("\n")[0]
        text = f"{head}\nbrokers:\n  one:\n    kind: {kind}\n    \n"
        await server.show(EXAMPLE, text)
        offered = await server.completions(EXAMPLE, 4, 4)
        assert own in offered
        assert of_the_other not in offered
        assert "servers" in offered


async def test_the_words_of_a_choice_are_offered(server: LanguageServer) -> None:
    text = f"{TEXT.partition(chr(10))[0]}\nlog:\n  level: \n"
    await server.show(EXAMPLE, text)
    offered = await server.completions(EXAMPLE, 2, len("  level: "))
    assert set(offered) >= {"debug", "info", "warning", "error"}


@pytest.mark.parametrize("key", ["max_body", "deadline", "max_connections"])
async def test_a_key_shows_its_description_and_its_place(server: LanguageServer, key: str) -> None:
    await server.show(EXAMPLE, TEXT)
    line, character = place(TEXT, f"  {key}:")
    shown = await server.hover(EXAMPLE, line, character + 3)
    described = ServerConfig.model_fields[key].description
    assert described is not None
    assert described in shown.replace("\\", "")
    assert f"#### server.{key}\n" in shown.replace("\\", "")


async def test_a_file_that_names_no_schema_is_not_looked_at(
    server: LanguageServer, tmp_path: Path
) -> None:
    _, _, rest = TEXT.partition("\n")
    assert await server.show(tmp_path / "config.yaml", rest.replace("port: 8080", "port: x")) == []
