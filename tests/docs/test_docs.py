"""What the pages say is what the code does."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft7Validator

from gateway.app import draw, load
from gateway.clerk.catalogue import KEY_PATHS, OTHER_KEY_PATHS
from gateway.cli import cli
from gateway.config import ConfigError, GatewayConfig
from gateway.config.json_schema import json_schema
from gateway.observability.metrics import AdminMetrics, ConfigMetrics, LedgerMetrics, Metrics
from gateway.routing.template import Template
from tests.canaries import DOCS_SECRET as SECRET
from tests.commands.command import in_process
from tests.config.documents import as_written_in
from tests.docs.pages import PAGES, PART, ROOT, Block, blocks, code, commands, section, table
from tests.e2e.test_wrong_keys import WORDS

VARIABLES = (
    "CLERK_WEBHOOK_SIGNING_SECRET",
    "CLERK_SECRET_OLD",
    "CLERK_SECRET_NEW",
    "BILLING_SECRET",
)
ENV = dict.fromkeys(VARIABLES, SECRET)
_FILE = re.compile(r"\$\{file:(/[^}]+)\}")
_REASON = re.compile(r"[a-z]+(_[a-z]+)+|deadline|destination|expression|unmatched|timeout|closing")

CONFIGS = [block for block in blocks("yaml") if block.text.startswith(("sources:", "server:"))]
WHOLE = [block for block in CONFIGS if "routes:" in block.text and not block.mark]


def warnings_of(text: str, directory: Path) -> tuple[object, ...]:
    """Load and compile a config, its secret files being made for it; give its warnings."""
    secret = directory / "secret"
    secret.write_text(SECRET)
    path = directory / "config.yaml"
    path.write_text(_FILE.sub(f"${{file:{secret}}}", text))
    return tuple(draw(load(path, ENV)).loaded.warnings)


@pytest.mark.parametrize("block", WHOLE, ids=str)
def test_every_config_on_the_pages_loads_without_a_warning(block: Block, tmp_path: Path) -> None:
    assert warnings_of(block.text, tmp_path) == ()


@pytest.mark.parametrize("block", WHOLE, ids=str)
def test_every_config_on_the_pages_fits_the_schema(block: Block) -> None:
    Draft7Validator(json_schema(GatewayConfig)).validate(as_written_in(block.text))


def test_the_pages_have_configs_to_load() -> None:
    pages = {block.page for block in WHOLE}
    assert {"README.md", "docs/configuration.md", "docs/routing.md"} <= pages


def test_what_is_half_a_config_is_right_as_far_as_it_goes(tmp_path: Path) -> None:
    halves = [block for block in CONFIGS if "routes:" not in block.text]
    assert halves
    rest = (
        "brokers: {bus: {kind: nats, servers: ['nats://localhost:4222']}}\n"
        "routes: [{name: all, events: ['*'], targets: [{broker: bus, subject: 'clerk.{type}'}]}]\n"
    )
    for block in halves:
        assert warnings_of(block.text + rest, tmp_path) == ()


def test_the_lock_of_every_row_loads_without_a_warning(tmp_path: Path) -> None:
    rows = table(section("docs/operations.md", "TLS and logins"))
    assert len(rows) == 9
    for lock, settings, _ in rows:
        kind, place = ("kafka", "topic") if lock.startswith("Kafka") else ("nats", "subject")
        broker = "".join(f"    {setting}\n" for setting in code(settings))
        text = (
            "sources: {clerk: {secrets: ['${CLERK_WEBHOOK_SIGNING_SECRET}']}}\n"
            f"brokers:\n  one:\n    kind: {kind}\n    servers: ['one:1']\n{broker}"
            f"routes: [{{name: all, events: ['*'], targets: [{{broker: one, {place}: all}}]}}]\n"
        )
        assert warnings_of(text, tmp_path) == (), lock


def test_the_words_about_wrong_keys_are_those_that_real_servers_cause() -> None:
    rows = table(section("docs/operations.md", "When a key does not open"))
    shown = [re.sub(r"brokers\.(events|bus)\.", "brokers.{}.", code(row[0])[0]) for row in rows]
    unfinished = {words.removesuffix("…") for words in WORDS.values() if words.endswith("…")}
    whole = set(WORDS.values())
    assert len(shown) == len(set(shown)) == len(whole)
    for words in shown:
        assert words in whole or any(words.startswith(start) for start in unfinished), words


def test_the_faults_on_the_page_are_those_that_are_found(tmp_path: Path) -> None:
    (faulty,) = [block for block in CONFIGS if block.mark == "faulty"]
    shown = next(b.text for b in blocks("text") if b.page == faulty.page and b.line > faulty.line)
    path = tmp_path / "config.bad.yaml"
    path.write_text(faulty.text)
    with pytest.raises(ConfigError) as found:
        load(path, {})
    assert str(found.value).replace(f"{tmp_path}/", "").strip() == shown.strip()


def deployed() -> dict[str, str]:
    """Give the text of each config that is there to be deployed."""
    found = {path.name: path.read_text() for path in ROOT.glob("deploy/*.config.yaml")}
    manifest = (ROOT / "deploy" / "kubernetes.yaml").read_text()
    _, _, config = manifest.partition("  config.yaml: |\n")
    config, _, _ = config.partition("\n---\n")
    return found | {"kubernetes.yaml": re.sub("^    ", "", config, flags=re.MULTILINE)}


@pytest.mark.parametrize("name", ["compose.config.yaml", "systemd.config.yaml", "kubernetes.yaml"])
def test_the_configs_to_deploy_load_and_fit_the_schema(name: str, tmp_path: Path) -> None:
    text = deployed()[name]
    assert warnings_of(text, tmp_path) == ()
    Draft7Validator(json_schema(GatewayConfig)).validate(as_written_in(text))


@pytest.mark.parametrize(("where", "words"), commands(), ids=lambda value: str(value)[:60])
def test_every_command_on_the_pages_exists_with_its_options(where: str, words: list[str]) -> None:
    command = cli.commands.get(words[0])
    assert command is not None, where
    if isinstance(command, click.Group) and len(words) > 1 and words[1] != PART:
        words = words[1:]
        command = command.commands.get(words[0])
        assert command is not None, where
    in_a_sentence = words[-1] == PART
    try:
        command.make_context(words[0], words[1:-1] if in_a_sentence else words[1:])
    except click.UsageError as error:
        left_out = (click.MissingParameter, click.exceptions.NoArgsIsHelpError)
        if not (in_a_sentence and isinstance(error, left_out)):
            pytest.fail(f"{where}: {error.format_message()}")


def test_what_init_writes_is_the_file_in_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_readme = [words for where, words in commands() if where.startswith("README")]
    (words,) = [words for words in of_readme if words[0] == "init" and words[-1] != PART]
    shown = next(b.text for b in blocks("console") if "gateway init" in b.text).splitlines()[1:]
    monkeypatch.chdir(tmp_path)
    done = in_process(*words)
    assert done.out.splitlines()[: len(shown)] == shown
    (config,) = [block for block in WHOLE if block.page == "README.md"]
    assert as_written_in((tmp_path / "config.yaml").read_text()) == as_written_in(config.text)
    (tests,) = [b for b in blocks("yaml") if b.page == "README.md" and b.text.startswith("tests:")]
    written = (tmp_path / "config.tests.yaml").read_text()
    assert written[written.index("tests:") :] == tests.text


def test_the_flags_of_init_on_the_page_are_all_there_are() -> None:
    rows = table(section("docs/configuration.md", "Begin a file"))
    shown = {flag for row in rows for flag in code(row[0])}
    flags = {
        flag
        for option in cli.commands["init"].params
        for flag in (*option.opts, *option.secondary_opts)
    }
    assert shown <= flags
    assert {flag.replace("--no-", "--") for flag in shown} == {
        flag.replace("--no-", "--") for flag in flags - {"--yes", "--force"}
    }


def test_every_make_target_on_the_pages_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    rules = re.findall(r"^([a-z][a-z -]*):", makefile, re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    used = {name for text in PAGES.values() for name in re.findall(r"\bmake ([a-z-]+)\b`", text)}
    used |= {
        name
        for block in blocks("sh")
        for name in re.findall(r"^make ([a-z-]+)", block.text, re.MULTILINE)
    }
    assert used
    assert used <= targets


def test_the_reference_of_keys_is_up_to_date() -> None:
    checked = subprocess.run(
        [sys.executable, "tools/config_reference.py", "--check"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert checked.returncode == 0, "run: python tools/config_reference.py"


def test_the_keys_of_entities_are_those_of_the_catalogue() -> None:
    shown = {row[0]: code(row[1]) for row in table(section("docs/consumers.md", "Keys"))}
    expected = {f"`{entity}.*`": list(paths) for entity, paths in KEY_PATHS.items()}
    assert shown == expected | {"any other": list(OTHER_KEY_PATHS)}


def test_the_metrics_are_those_that_are_exported() -> None:
    shown = {
        code(row[0])[0]: code(row[1]) for row in table(section("docs/operations.md", "Metrics"))
    }
    exported: dict[str, list[str]] = {}
    owners = (Metrics(), LedgerMetrics(), AdminMetrics(), ConfigMetrics())
    for value in (value for owner in owners for value in vars(owner).values()):
        if not hasattr(value, "_labelnames"):
            continue
        (family,) = value.describe()
        suffix = "_total" if family.type == "counter" else ""
        exported[family.name + suffix] = list(value._labelnames)
    assert shown == exported


def test_the_refusals_of_the_admin_port_are_those_that_the_code_gives() -> None:
    rows = table(section("docs/operations.md", "Refusals of the admin port"))
    shown = {code(row[0])[0]: int(row[1]) for row in rows}
    given: dict[str, int] = {}
    for path in ("server/admin/admission.py", "server/faults.py", "server/protocol.py"):
        for call in ast.walk(ast.parse((ROOT / "gateway" / path).read_text())):
            if not isinstance(call, ast.Call):
                continue
            match [getattr(call.func, "id", getattr(call.func, "attr", "")), *call.args]:
                case ["Denial" | "Fault", ast.Constant(int(status)), ast.Constant(str(reason)), *_]:
                    given[reason] = status
                case ["give_up", ast.Constant(str(reason))]:
                    given[reason] = 503
    assert shown == given


def test_what_is_sanitised_is_what_the_page_says() -> None:
    rows = table(section("docs/routing.md", "What is sanitised"))
    assert rows
    for template, value, expected in ([code(cell)[0] for cell in row] for row in rows):
        path = template.partition("{")[2].rstrip("}").split(".")
        scope: Mapping[str, Any] = (
            {path[0]: value} if len(path) == 1 else {path[0]: {path[1]: value}}
        )
        assert Template(template).destination(scope) == expected


def test_the_answers_on_the_page_are_json_with_the_contracts_fields() -> None:
    answers = [
        json.loads(line)
        for block in blocks("json")
        if block.page == "docs/http.md"
        for line in block.text.splitlines()
    ]
    assert {answer["status"] for answer in answers} == {
        "delivered",
        "stored",
        "duplicate",
        "failed",
        "dead_lettered",
        "unmatched",
        "rejected",
    }


def raised(tree: ast.AST) -> Iterator[str]:
    """Give the words that a module passes as a reason."""
    outcomes = {"Unavailable", "Refused", "Unknown"}
    makers = {"Rejection", "SignatureError", "EventError", "_refusal", "_turn_away", "Outcome"}
    makers |= {"Refusal", "_given_up", "failure_body", "_Answer", "_settlement", "_too_large"}
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "id", getattr(call.func, "attr", ""))
        names = {argument.id for argument in call.args if isinstance(argument, ast.Name)}
        if name in makers or names & outcomes:
            for argument in call.args:
                yield from _words(argument)


def _words(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.IfExp):
        yield from _words(node.body)
        yield from _words(node.orelse)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


def test_the_reasons_are_those_that_the_code_gives() -> None:
    rows = table(section("docs/http.md", "Reasons"))
    shown = {code(row[0])[0] for row in rows}
    assert len(shown) == len(rows)
    statuses = {"delivered", "duplicate", "dead_lettered", "failed", "rejected"}
    given = set[str]()
    sources = ""
    for path in (ROOT / "gateway").rglob("*.py"):
        if path.name != "fake.py":
            text = path.read_text()
            sources += text
            given.update(word for word in raised(ast.parse(text)) if _REASON.fullmatch(word))
    assert given - statuses - shown == set(), "the page does not have these"
    assert {word for word in shown if f'"{word}"' not in sources} == set(), "nothing gives these"


def test_imports_go_the_way_the_page_says() -> None:
    rows = table(section("docs/architecture.md", "Who may import whom"))
    allowed = {code(row[0])[0]: set(code(row[1])) for row in rows}
    used: dict[str, set[str]] = {name: set() for name in allowed}
    for path in (ROOT / "gateway").rglob("*.py"):
        parts = path.relative_to(ROOT / "gateway").with_suffix("").parts
        if parts[0] in {"__init__", "__main__"}:
            continue
        used[parts[0]] |= _imported(ast.parse(path.read_text())) - {parts[0]}
    assert {
        name: found - allowed[name] for name, found in used.items() if found - allowed[name]
    } == {}


def _imported(tree: ast.Module) -> set[str]:
    """Give the parts of the gateway that a module imports when it runs."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    modules = [n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module]
    return {name.split(".")[1] for name in modules if name.startswith("gateway.")}
