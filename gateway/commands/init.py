"""`gateway init`: a first config with its tests, from a few questions or from flags."""

from __future__ import annotations

import base64
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.app import load_contents
from gateway.commands.init_text import (
    GROUPS,
    SECRET_VARIABLE,
    Answers,
    config_text,
    example,
    suite_text,
)
from gateway.commands.invocation import invocation
from gateway.config import ConfigError, GatewayConfig
from gateway.config.json_schema import as_text, json_schema
from gateway.testing.models import TestsFile

__all__ = ["init_command"]

_ALL: Final = "all"
_DEFAULTS: Final = Answers()


def _servers(_context: click.Context, option: click.Parameter, value: str | None) -> Any:
    return None if value is None else _reachable(str(option.name), value)


def _groups(_context: click.Context, _option: click.Parameter, value: str | None) -> Any:
    return None if value is None else _chosen(value)


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _reachable(name: str, text: str) -> tuple[str, ...]:
    """Read the servers of a broker: `kafka_servers` or `nats_servers`, as a config takes them."""
    servers = _split(text)
    answers: dict[str, Any] = {"brokers": name.removesuffix("_servers"), name: servers}
    fault = _fault("config.yaml", config_text(Answers(**answers), None))
    if fault is not None:
        raise click.BadParameter(fault)
    return servers


def _chosen(text: str) -> tuple[str, ...]:
    """Read `all` or names of groups; give them in the order of `GROUPS`, none for all."""
    names = _split(text)
    unknown = [name for name in names if name not in {*GROUPS, _ALL}]
    if unknown or not names:
        raise click.BadParameter(f"write {_ALL}, or some of {', '.join(GROUPS)}")
    return () if _ALL in names else tuple(group for group in GROUPS if group in names)


def _refuse_idle(given: Mapping[str, Any]) -> None:
    """Raise a usage error for servers of a kind of broker that is not wanted."""
    brokers = given.get("brokers", "both")
    for kind in ("kafka", "nats"):
        if f"{kind}_servers" in given and brokers not in {kind, "both"}:
            raise click.UsageError(
                f"--{kind}-servers: there is no such broker with --brokers {brokers}; write"
                f" --brokers both, or leave it out"
            )


@click.command("init")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("config.yaml"),
    show_default=True,
    help="The file to write; its tests and schemas go beside it.",
)
@click.option("--yes", is_flag=True, help="Ask nothing: defaults for what no flag says.")
@click.option("--force", is_flag=True, help="Overwrite files that are there.")
@click.option("--schema/--no-schema", default=True, help="Also write the schemas that editors use.")
@click.option(
    "--brokers",
    type=click.Choice(["kafka", "nats", "both"]),
    help="Where the events go.  [default: both]",
)
@click.option(
    "--kafka-servers",
    callback=_servers,
    help="Kafka's bootstrap servers, separated by commas.  [default: localhost:9092]",
)
@click.option(
    "--nats-servers",
    callback=_servers,
    help="NATS servers, separated by commas.  [default: nats://localhost:4222]",
)
@click.option(
    "--events",
    callback=_groups,
    help=f"all, or some of {', '.join(GROUPS)}, separated by commas.  [default: all]",
)
@click.option(
    "--layout",
    type=click.Choice(["entity", "single"]),
    help="A topic for each kind of entity, or one for all.  [default: entity]",
)
@click.option(
    "--create-topics/--no-create-topics",
    default=None,
    help="Create missing Kafka topics at start.  [default: no]",
)
@click.option(
    "--create-stream/--no-create-stream",
    default=None,
    help="Create the JetStream stream CLERK when it is missing.  [default: yes]",
)
@click.option(
    "--mode",
    type=click.Choice(["direct", "inbox"]),
    help="Answer once the brokers have the event, or once the inbox has.  [default: direct]",
)
@click.option(
    "--dead-letter/--no-dead-letter",
    default=None,
    help="A place for what is refused for good.  [default: yes]",
)
def init_command(*, config: Path, yes: bool, force: bool, schema: bool, **flags: Any) -> None:
    """Write a commented config, tests that reach all of it, and their schemas for editors.

    What no flag says is asked, where standard input is a terminal; else it has its default. A file
    that is there is never overwritten without --force, and none is written if one of them is there.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    _refuse_idle(given)
    files = _names(config, schema)
    _refuse_existing([*files.values()], force)
    answers = Answers(**given) if yes or not sys.stdin.isatty() else _ask(given)
    texts = _texts(answers, files)
    _prove(files["config"], texts["config"])
    for what, path in files.items():
        _write(path, texts[what], force)
        click.echo(f"wrote {path}")
    click.echo("\n".join(["", *_next_steps(config, example(answers), schema)]))


def _names(config: Path, schema: bool) -> dict[str, Path]:
    files = {"config": config, "tests": config.with_name(f"{config.stem}.tests.yaml")}
    if schema:
        files["config_schema"] = config.with_name(f"{config.stem}.schema.json")
        files["tests_schema"] = config.with_name(f"{config.stem}.tests.schema.json")
    return files


def _texts(answers: Answers, files: Mapping[str, Path]) -> dict[str, str]:
    schemas = [
        files[what].name if what in files else None for what in ("config_schema", "tests_schema")
    ]
    return {
        "config": config_text(answers, schemas[0]),
        "tests": suite_text(answers, schemas[1]),
        "config_schema": as_text(json_schema(GatewayConfig)),
        "tests_schema": as_text(json_schema(TestsFile, interpolated=False)),
    }


def _refuse_existing(paths: list[Path], force: bool) -> None:
    there = [str(path) for path in paths if os.path.lexists(path)]
    if there and not force:
        raise click.UsageError(
            f"{', '.join(there)}: there already, nothing was written; --force overwrites, and"
            " --config takes another name"
        )


def _prove(path: Path, text: str) -> None:
    """Load what is about to be written: a flag may hold what no config can."""
    fault = _fault(path.name, text)
    if fault is not None:
        raise click.UsageError(f"this would be no config: {fault}; nothing was written")


def _fault(name: str, text: str) -> str | None:
    """Load a config; give the first fault, if it has one."""
    made_up = "whsec_" + base64.b64encode(b"sixteen bytes and more").decode()
    try:
        load_contents(name, text, {}, {**os.environ, SECRET_VARIABLE: made_up})
    except ConfigError as error:
        return error.problems[0].message
    return None


def _write(path: Path, text: str, force: bool) -> None:
    """Put a whole file there, or none; without `force` never over another."""
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        made = Path(file.name)
        made.chmod(0o666 & ~_umask())
        _into_place(made, path, force)
    except FileExistsError:
        _refuse_existing([path], force)
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from None


def _into_place(made: Path, path: Path, force: bool) -> None:
    try:
        if force:
            made.replace(path)
        else:
            path.hardlink_to(made)
    finally:
        with suppress(FileNotFoundError):
            made.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _ask(given: Mapping[str, Any]) -> Answers:
    """Ask for what no flag says, and only for what matters with the answers so far."""
    said = dict(given)

    def ask(name: str, question: Callable[[], Any]) -> None:
        if name not in said:
            said[name] = question()

    ask("brokers", lambda: _choice("Publish to", ["kafka", "nats", "both"], "both"))
    if said["brokers"] != "nats":
        ask("kafka_servers", lambda: _listed("Kafka's bootstrap servers", "kafka_servers"))
        ask("create_topics", lambda: click.confirm("Create missing topics?", False))
    if said["brokers"] != "kafka":
        ask("nats_servers", lambda: _listed("NATS servers", "nats_servers"))
        ask("create_stream", lambda: click.confirm("Create the JetStream stream CLERK?", True))
    question = f"Events: {_ALL}, or some of {', '.join(GROUPS)}"
    ask("events", lambda: click.prompt(question, default=_ALL, value_proc=_chosen))
    ask(
        "layout",
        lambda: _choice("A topic per entity, or a single one", ["entity", "single"], "entity"),
    )
    ask("mode", lambda: _choice("Delivery", ["direct", "inbox"], "direct"))
    ask("dead_letter", lambda: click.confirm("A dead letter for what is refused for good?", True))
    return Answers(**said)


def _choice(question: str, words: list[str], default: str) -> str:
    return str(
        click.prompt(question, type=click.Choice(words, case_sensitive=False), default=default)
    )


def _listed(question: str, name: str) -> tuple[str, ...]:
    answer: tuple[str, ...] = click.prompt(
        question,
        default=",".join(getattr(_DEFAULTS, name)),
        value_proc=partial(_reachable, name),
    )
    return answer


def _next_steps(config: Path, event: str, schema: bool) -> list[str]:
    gateway, file = shlex.join(invocation()), shlex.quote(str(config))
    steps = [
        f"export {SECRET_VARIABLE}=whsec_...     # from the endpoint's page in Clerk's dashboard",
        f"{gateway} check --config {file}",
        f"{gateway} test --config {file} --coverage",
        f"{gateway} explain --config {file} {event}",
        f"{gateway} check --config {file} --connect     # and the brokers",
        f"{gateway} serve --config {file}",
    ]
    after = ["", "After an upgrade, for editors:"] if schema else []
    for what, stem in (
        (("config", config.stem), ("tests", f"{config.stem}.tests")) if schema else ()
    ):
        written = shlex.quote(str(config.with_name(f"{stem}.schema.json")))
        after.append(f"  {gateway} schema {what} > {written}")
    return ["Next:", *(f"  {step}" for step in steps), *after]
