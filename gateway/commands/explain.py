"""`gateway explain`: what a config makes of one event, without a broker and without sending it."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import msgspec

from gateway.app import Blueprint, draw, load
from gateway.clerk.catalogue import CATALOGUE
from gateway.clerk.samples import sample
from gateway.commands.explain_model import Explained, Origin
from gateway.commands.explain_report import Inquiry, report
from gateway.commands.explain_text import explained_lines
from gateway.commands.loading import print_warnings
from gateway.commands.sample_options import note_type, set_option
from gateway.config.names import closest
from gateway.serving import Endpoint
from gateway.signature import is_message_id
from gateway.specimen import SVIX_ID

__all__ = ["explain_command", "explained_json"]

_LIKE_A_PATH = re.compile(r".*/|.*\.(?:json|jsonl|ya?ml|txt|body)\Z|[.~]", re.IGNORECASE).match
"""No type has a slash, and a file's name most often ends in what it is."""


def _message_id(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if not is_message_id(value.encode("utf-8", "replace")):
        raise click.BadParameter("a message id is visible ASCII without dots, at most 256")
    return value


@click.command("explain")
@click.argument("what", metavar="(EVENT_TYPE | FILE | -)")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The YAML file to explain.",
)
@click.option("--source", help="The source it comes to. Default: the only one there is.")
@set_option
@click.option(
    "--id",
    "svix_id",
    default=SVIX_ID,
    show_default=True,
    callback=_message_id,
    metavar="MSG",
    help="The svix-id that it comes with.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json has every value whole. Both hold personal data where the event does, and what"
    " headers and conditions take from ${…}.",
)
@click.pass_context
def explain_command(
    context: click.Context,
    /,
    what: str,
    config: Path,
    source: str | None,
    style: str,
    **given: Any,
) -> None:
    """Tell what the gateway would make of an event: each route, each record, the answer.

    EVENT_TYPE is one of Clerk's, such as user.created, or any other, and gives a sample. FILE, or -
    for standard input, is a body as it would arrive, byte for byte.

    Exit code 0: it would be delivered, or goes where the config says. 1: it would not be: the
    answer is no 200, or a target is parked. 2: bad usage, or the config is wrong.
    """
    overrides: Mapping[str, str] = given["overrides"]
    loaded = load(config, os.environ)
    blueprint = draw(loaded)
    endpoint = _endpoint(blueprint, source, context)
    now = time.time()
    origin, body = _body(what, blueprint.config.server.max_body, now, overrides)
    if origin == "sample":
        note_type(what)
        _note_type_path(endpoint)
    print_warnings(loaded)
    explained = report(blueprint, Inquiry(endpoint, origin, body, now, given["svix_id"]))
    lines = [explained_json(explained)] if style == "json" else explained_lines(explained)
    for line in lines:
        click.echo(line)
    context.exit(1 if explained.is_lost else 0)


def explained_json(explained: Explained) -> str:
    """Give one line of JSON, ASCII only: nothing in it steers a terminal."""
    content = json.dumps(msgspec.to_builtins(explained), separators=(",", ":"))
    return content.replace("\x7f", "\\u007f")


def _endpoint(blueprint: Blueprint, source: str | None, context: click.Context) -> Endpoint:
    endpoints = {one.sender.name: one for one in blueprint.endpoints.values()}
    names = ", ".join(endpoints)
    if source is None:
        if len(endpoints) == 1:
            return next(iter(endpoints.values()))
        message = f"the config has {len(endpoints)} sources: say --source with one of {names}"
        raise click.UsageError(message, context)
    found = endpoints.get(source)
    if found is None:
        near = closest(source, endpoints)
        hint = f"did you mean {near}?" if near else f"there is {names}"
        message = f"no source is called {source}; {hint}"
        raise click.BadParameter(message, context, param_hint="--source")
    return found


def _body(
    what: str, max_body: int, now: float, overrides: Mapping[str, str]
) -> tuple[Origin, bytes]:
    """Read the body, one byte more than is allowed at the most, or make the sample."""
    path = None if what == "-" else _file(what)
    if what != "-" and path is None:
        return "sample", sample(what, int(now * 1000), overrides)
    if overrides:
        raise click.UsageError("--set changes a sample: give an event type with it, not a body")
    if path is None:
        return "stdin", sys.stdin.buffer.read(max_body + 1)
    try:
        with path.open("rb") as file:
            return "file", file.read(max_body + 1)
    except OSError as error:
        raise click.UsageError(f"cannot read {what}: {error.strerror}") from error


def _file(what: str) -> Path | None:
    """Give the file that is meant, or None for an event type."""
    if not what:
        raise click.UsageError("an event type, a file or - is missing")
    path = Path(what)
    try:
        if path.is_dir() and what not in CATALOGUE:
            raise click.UsageError(f"{what} is a directory; give a file, or an event type")
        if path.exists() and not path.is_dir():
            return path
    except OSError:
        return None  # too long for a name of a file
    if _LIKE_A_PATH(what):
        raise click.UsageError(f"there is no file {what}; give a file, an event type, or -")
    return None


def _note_type_path(endpoint: Endpoint) -> None:
    expression = endpoint.sender.type
    if expression.source != "type":
        click.echo(
            f"note: the source {endpoint.sender.name} reads the type by `{expression.source}`,"
            " and a sample has it in `type`; give a body in a FILE instead",
            err=True,
        )
