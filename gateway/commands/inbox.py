"""`gateway inbox`: looks after events that were not delivered: dead letters and the inbox."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from gateway.brokers.letters import LettersError
from gateway.commands.inbox_batch import NotDone, Tally, run_batch, stopping
from gateway.commands.inbox_places import How, Place, open_places
from gateway.commands.inbox_read import LISTED, list_items, refuse_doubles, show_item, taken
from gateway.commands.inbox_select import STATES, Filter, filters
from gateway.commands.inbox_view import escaped
from gateway.commands.loading import load_blueprint
from gateway.delivery.inbox.letters import Item, ItemState
from gateway.delivery.inbox.store import InboxUnavailableError

__all__ = ["inbox_command"]

T = TypeVar("T")

_config = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(path_type=Path),
    required=True,
    help="The YAML file in use.",
)
_format = click.option(
    "--format",
    "style",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json is one object per line.",
)


@click.group("inbox")
def inbox_command() -> None:
    """Look after events that were not delivered.

    They are in the dead letter of `delivery.dead_letter`, and in inbox mode in its store: pending,
    or parked where there is no dead letter.
    """


@inbox_command.command("list")
@_config
@filters
@click.option("--kept", is_flag=True, help="Also letters that are replayed or discarded.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"At most so many. Without it text shows {LISTED:,}, and json all.",
)
@_format
@click.pass_context
def list_command(
    context: click.Context,
    /,
    config: Path,
    limit: int | None,
    style: str,
    kept: bool,
    **given: Any,
) -> None:
    """List what was not delivered, without bodies.

    Exit code 0: fine. 1: the letters cannot be read. 2: bad usage. 3: a broker could not be
    reached.
    """
    wanted = _filter(given, kept=kept)
    _run(context, list_items(load_blueprint(config), wanted, limit, style))


@inbox_command.command("show")
@click.argument("name", metavar="ID")
@_config
@click.option(
    "--state", type=click.Choice(STATES), help="Where the id is, when it is in two places."
)
@click.option("--body", is_flag=True, help="Show the body too: it holds personal data.")
@_format
@click.pass_context
def show_command(
    context: click.Context,
    /,
    name: str,
    config: Path,
    state: ItemState | None,
    body: bool,
    style: str,
) -> None:
    """Show one item with all its headers; its body with --body only.

    Exit code 0: fine. 1: there is none with this id. 2: bad usage. 3: a broker could not be
    reached.
    """
    _run(context, show_item(load_blueprint(config), name, state, style, body=body))


def _changing(command: Callable[..., None]) -> Callable[..., None]:
    """Add what `replay` and `discard` share."""
    options = (
        click.argument("ids", nargs=-1, metavar="[ID]..."),
        _config,
        click.option("--all", "every", is_flag=True, help="All that the filters take."),
        filters,
        click.option("--limit", type=click.IntRange(1), help="At most so many, the first ones."),
        click.option("--yes", is_flag=True, help="Do not ask."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@inbox_command.command("replay")
@_changing
@click.option(
    "--reroute",
    is_flag=True,
    help="Where the config does not lead the event to its target any more: resolve its targets "
    "anew, with the config as it is now.",
)
@click.option("--again", is_flag=True, help="Also what was replayed or discarded; needs IDs.")
@click.option("--dry-run", is_flag=True, help="Say what would be published, and publish nothing.")
@click.pass_context
def replay_command(
    context: click.Context, /, reroute: bool, again: bool, dry_run: bool, **given: Any
) -> None:
    """Deliver once more what was not delivered.

    A letter goes to its own target, as the config renders it now; what is parked goes as it was
    rendered when it came. One that is replayed is not replayed again, so the command may be
    repeated, and Ctrl-C may end it at any time.

    Exit code 0: all were replayed. 1: something was not. 2: bad usage. 3: a broker could not be
    reached.
    """
    if again and not given["ids"]:
        raise click.UsageError("--again needs the IDs of what is to be replayed once more")
    job = _Job(given, How(reroute, again))
    if dry_run:
        _run(context, job.rehearse())
    _change(context, job, "replay", "replayed", ask=job.every)


@inbox_command.command("discard")
@_changing
@click.pass_context
def discard_command(context: click.Context, /, **given: Any) -> None:
    """Drop for good what was not delivered; asks before it does.

    On Kafka the letters leave by the topic's retention; until then they are passed over.

    Exit code 0: all were discarded. 1: something was not. 2: bad usage. 3: a broker could not be
    reached.
    """
    _change(context, _Job(given, How()), "discard", "discarded", ask=True)


class _Job:
    """What `replay` or `discard` was told to do."""

    def __init__(self, given: dict[str, Any], how: How) -> None:
        self.ids: tuple[str, ...] = tuple(dict.fromkeys(given.pop("ids")))
        self.every: bool = given.pop("every")
        if bool(self.ids) == self.every:
            raise click.UsageError("give the IDs, or --all")
        self.limit: int | None = given.pop("limit")
        self.yes: bool = given.pop("yes")
        self.blueprint = load_blueprint(given.pop("config"))
        self.how = how
        # What is named and was dealt with before is told, and not passed over.
        self.wanted = _filter(given, kept=bool(self.ids))

    async def select(self) -> _Selection:
        """Find what the ids or the filters mean now."""
        async with open_places(self.blueprint, self.wanted.state, self.how) as places:
            found: list[tuple[str, list[str]]] = []
            counts: Counter[str] = Counter()
            for place in places:
                chosen: list[str] = []
                async for item in self._items(place):
                    if self.limit is not None and counts.total() >= self.limit:
                        break
                    counts[item.id] += 1
                    chosen.append(item.id)
                found.append((place.name, chosen))
        refuse_doubles(counts)
        missing = [one for one in self.ids if one not in counts]
        return _Selection(tuple(found), tuple(missing))

    async def rehearse(self) -> int:
        """Print what a replay would publish; give the exit code."""
        selection = await self.select()
        tally = Tally("replayed", selection.total, sys.stdout, sys.stderr)
        async with open_places(self.blueprint, self.wanted.state, self.how) as places:
            for place in places:
                async for item in place.items(selection.of(place)):
                    try:
                        targets = ", ".join(place.planned(item))
                        click.echo(f"{item.id}: {_named(item)} would go to {escaped(targets)}")
                    except NotDone as why:
                        tally.left_alone(item.id, why)
        selection.tell_missing(tally)
        return 1 if tally.failed else 0

    def _items(self, place: Place) -> AsyncGenerator[Item, None]:
        return taken(place.items(self.ids or None), self.wanted)


class _Selection(msgspec.Struct, frozen=True):
    """What was found, by place, and the ids that were not."""

    found: tuple[tuple[str, list[str]], ...]
    missing: tuple[str, ...]

    @property
    def total(self) -> int:
        """How many items a run is about, the missing ones too."""
        return sum(len(ids) for _, ids in self.found) + len(self.missing)

    def of(self, place: Place) -> frozenset[str]:
        """Give the ids of one place."""
        return frozenset(dict(self.found)[place.name])

    def tell_missing(self, tally: Tally) -> None:
        """Count and tell the ids that are nowhere, or that the filters leave out."""
        for one in self.missing:
            tally.left_alone(escaped(one, 60), NotDone("not_found", "nothing here has this id"))


def _change(context: click.Context, job: _Job, verb: str, done: str, *, ask: bool) -> None:
    """Select, ask, then do it, each with connections of its own; Ctrl-C ends each of them."""
    try:
        selection = _ended(context, job.select())
        if ask and not job.yes and selection.total > len(selection.missing):
            _ask(verb, selection)
    except (KeyboardInterrupt, click.Abort):
        click.echo(f"interrupted: nothing was {done}", err=True)
        context.exit(1)
    _run(context, _work(job, selection, verb, done))


def _ask(verb: str, selection: _Selection) -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on; give --yes")
    parts = [f"{len(ids):,} of {name}" for name, ids in selection.found if ids]
    click.confirm(f"{verb} {' and '.join(parts)}?", abort=True)


async def _work(job: _Job, selection: _Selection, verb: str, done: str) -> int:
    tally = Tally(done, selection.total, sys.stdout, sys.stderr)
    selection.tell_missing(tally)
    stop = asyncio.Event()
    try:
        with stopping(stop):
            async with open_places(job.blueprint, job.wanted.state, job.how) as places:
                for place in places:
                    ids = selection.of(place)
                    if not ids or stop.is_set():
                        continue
                    await place.prepare()
                    work = place.replay if verb == "replay" else place.discard
                    await run_batch(place.items(ids), work, tally, stop)
    except asyncio.CancelledError:
        click.echo("left what was on its way: it may be delivered", err=True)
    tally.summary()
    if tally.end is not None:
        click.echo(f"error: {tally.end}", err=True)
    return tally.code()


def _filter(given: dict[str, Any], *, kept: bool) -> Filter:
    return Filter(
        given["state"],
        given["event_type"],
        given["route"],
        given["source"],
        given["since"],
        given["until"],
        kept,
    )


def _named(item: Item) -> str:
    metadata = item.metadata
    return "" if metadata is None else escaped(f"{metadata.type} {metadata.id}", 300)


def _ended(context: click.Context, work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except (LettersError, InboxUnavailableError) as error:
        click.echo(f"error: {error}", err=True)
        context.exit(1)


def _run(context: click.Context, work: Coroutine[Any, Any, int]) -> None:
    context.exit(_ended(context, work))
