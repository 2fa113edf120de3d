"""`gateway check`: every fault of a config at once, and with `--connect` of its brokers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.app import Blueprint, draw, load, make_broker
from gateway.brokers.base import BrokerOptionsError, Finding, Need
from gateway.clerk.catalogue import ALSO_SEEN, CATALOGUE
from gateway.commands.loading import deep_check, print_problems
from gateway.inboxes import check_inbox
from gateway.ledgers import make_leases
from gateway.svix.addresses import names, published

if TYPE_CHECKING:
    from gateway.config.models import SourceConfig

__all__ = ["check_command"]

_TIMEOUT = 20.0
"""Seconds for one broker, whatever it does."""


@click.command("check")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The YAML file to check.",
)
@click.option(
    "--connect", is_flag=True, help="Also reach the brokers, and look at topics and streams."
)
@click.option(
    "--strict", is_flag=True, help="Exit with 1 where there are warnings about the file; for CI."
)
@click.pass_context
def check_command(context: click.Context, config: Path, connect: bool, strict: bool) -> None:
    """Print every fault as file:line:col, and what would be right.

    Of a file that loads it tells what is odd about its routes: what never matches, always fails,
    adds nothing, or reads a field that there is not.

    Exit code 0: fine, though there may be warnings. 1: `--connect` found something wrong, or
    `--strict` a warning. 2: the config is wrong. 3: a broker could not be reached.
    """
    loaded = load(config, os.environ)
    blueprint = draw(loaded)
    problems = deep_check(blueprint)
    print_problems(loaded, problems)
    warnings = sum(problem.severity == "warning" for problem in problems)
    code = asyncio.run(_connect(blueprint)) if connect else 0
    if strict and warnings:
        click.echo(f"{config}: {_count(warnings, 'warning')}, and --strict allows none", err=True)
        code = max(code, 1)
    if code == 0:
        if _names_svix(blueprint):
            listed = published()
            click.echo(
                f"{config}: allow_from: svix is the list of {listed.source} as of {listed.read}"
            )
        if loaded.config.delivery.mode == "direct":
            click.echo(f"{config}: ledger: {_ledger(blueprint)}")
        click.echo(f"{config}: {_summary(blueprint, warnings)}")
    context.exit(code)


def _names_svix(blueprint: Blueprint) -> bool:
    sources = blueprint.config.sources.values()
    return any(entry in names() for source in sources for entry in source.allow_from)


def _ledger(blueprint: Blueprint) -> str:
    ledger = blueprint.config.delivery.ledger
    if ledger.store == "memory":
        return "the workers of one gateway share it, replicas do not; they would by nats-kv"
    return f"replicas share the bucket {ledger.bucket} of {ledger.broker}"


def _summary(blueprint: Blueprint, warnings: int) -> str:
    config = blueprint.config
    parts = (
        _count(len(config.sources), "source"),
        _count(len(config.brokers), "broker"),
        _count(len(config.routes), "route"),
    )
    return f"fine: {', '.join(parts)}" + (f"; {_count(warnings, 'warning')}" if warnings else "")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


async def _connect(blueprint: Blueprint) -> int:
    """Check all brokers at the same time and print what was found; give the exit code."""
    names = list(blueprint.config.brokers)
    needs = blueprint.needs(_types(blueprint.config.sources))
    looks = [
        *(_findings(blueprint, name, needs.get(name, ())) for name in names),
        _inbox(blueprint),
    ]
    names.append(blueprint.config.delivery.inbox.broker or "inbox")
    leases = make_leases(blueprint.config)
    if leases is not None:
        names.append(blueprint.config.delivery.ledger.broker or "")
        looks.append(leases.bucket.check())
    found = await asyncio.gather(*looks)
    for name, findings in zip(names, found, strict=True):
        for finding in findings:
            click.echo(f"{finding.severity:>11}  {name}: {finding.about}: {finding.message}")
    return _exit_code(finding for findings in found for finding in findings)


def _types(sources: Mapping[str, SourceConfig]) -> dict[str, tuple[str, ...]]:
    """Give the types that are known to come from each source that calls them `type`."""
    catalogue = (*CATALOGUE, *ALSO_SEEN)
    return {
        name: catalogue if source.kind == "clerk" else ()
        for name, source in sources.items()
        if source.type == "type"
    }


async def _findings(blueprint: Blueprint, name: str, needs: Sequence[Need]) -> list[Finding]:
    config = blueprint.config.brokers[name]
    try:
        broker = make_broker(name, config, needs, lambda _name, _state: None)
        async with asyncio.timeout(_TIMEOUT):
            return await broker.check(needs)
    except TimeoutError:
        return [Finding("unreachable", name, f"gave no answer within {_TIMEOUT:g} s")]
    except BrokerOptionsError as error:
        return [Finding("error", error.setting, str(error))]


async def _inbox(blueprint: Blueprint) -> list[Finding]:
    try:
        return await check_inbox(blueprint.config)
    except BrokerOptionsError:
        return []  # told of the broker itself


def _exit_code(findings: Iterable[Finding]) -> int:
    severities = {finding.severity for finding in findings}
    if "unreachable" in severities:
        return 3
    return 1 if "error" in severities else 0
