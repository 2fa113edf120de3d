"""`gateway send`: signs and posts sample events, and prints what the gateway answers."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import time
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click
from pydantic import SecretStr

from gateway import GatewayError
from gateway.clerk.samples import sample
from gateway.commands.answers import Answer, answer_line, plain
from gateway.commands.sample_options import note_type, set_option

if TYPE_CHECKING:
    from gateway.commands.posting import Poster

__all__ = ["SECRET_FILE", "SendOptions", "send", "send_command"]

DEFAULT_URL: Final = "http://127.0.0.1:8080/webhooks/clerk"
ENV_VARIABLE: Final = "CLERK_WEBHOOK_SIGNING_SECRET"
SECRET_FILE: Final = Path(".gateway/secret")
"""Where `gateway dev` leaves its secret, seen from the directory it runs in."""

_MAX_SECRET_FILE: Final = 4096
_MAX_COUNT: Final = 1_000_000
_MAX_RATE: Final = 10_000.0
_MAX_IN_FLIGHT: Final = 256
_LINES: Final = 20
"""With more messages than this, a summary stands for the lines."""


@dataclass(frozen=True, slots=True)
class SendOptions:
    """What to send, where, how often."""

    event_type: str
    secret: SecretStr
    url: str = DEFAULT_URL
    count: int = 1
    rate: float | None = None
    """Messages a second, whether answers come or not; None sends the next after the answer."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """See `gateway.clerk.samples.sample`."""
    forge: bool = False
    found_in: str = "the options"
    """Where the secret was found, in words, for the one who wonders about a 401."""


class _Report:
    """Counts the answers, and prints them or their summary."""

    def __init__(self, options: SendOptions, out: TextIO) -> None:
        self._options = options
        self._out = out
        self._counts: Counter[tuple[str, str]] = Counter()
        self._seconds = array("d")
        self._started = time.monotonic()
        self.unreachable: str | None = None
        """Why no connection could be made; sending stops then."""

    def add(self, answer: Answer, seconds: float) -> None:
        if answer.unreachable:
            self.unreachable = answer.problem
            return
        self._counts[answer.outcome] += 1
        self._seconds.append(seconds)
        if self._options.count <= _LINES:
            self._out.write(answer_line(self._options.event_type, answer) + "\n")
            self._out.flush()

    def summary(self) -> str:
        elapsed = time.monotonic() - self._started
        total = self._counts.total()
        lines = [f"{n:>9}  {status} {word}" for (status, word), n in self._counts.most_common()]
        p50, p99 = (_percentile(self._seconds, share) * 1000 for share in (0.5, 0.99))
        lines.append(
            f"{total} {self._options.event_type} in {elapsed:.2f} s ({total / elapsed:.0f}/s), "
            f"latency p50 {p50:.1f} ms, p99 {p99:.1f} ms"
        )
        return "\n".join(lines)

    def statuses(self) -> set[str]:
        return {status for status, _ in self._counts}


async def send(options: SendOptions, out: TextIO, err: TextIO | None = None) -> int:
    """Send, print to `out` one line per answer (a summary for more than 20) and return exit code.

    0: every answer was a 2xx, or with `forge` every answer was the 401 it must be. 1: one was not,
    or did not come within 15 s. 3: no connection could be made, and sending stopped.
    `err` (standard error) gets what explains a code that is not 0. Raises `GatewayError` for
    options that cannot work, before anything is sent.
    """
    # svix takes over half a second to import, and no other command has need of it.
    from gateway.commands.posting import Poster  # noqa: PLC0415

    sample(options.event_type, 0, options.overrides)
    report = _Report(options, out)
    connections = _MAX_IN_FLIGHT if options.rate else 1
    poster = Poster(options.url, options.secret, forge=options.forge, connections=connections)
    async with poster:
        if options.rate:
            await _paced(poster, options, report, 1 / options.rate)
        else:
            await _one_by_one(poster, options, report)
    if options.count > _LINES and report.statuses():
        out.write(report.summary() + "\n")
    code, remark = _verdict(options, report, poster.url)
    if remark:
        (out if code == 0 else err or sys.stderr).write(remark + "\n")
    return code


async def _one_by_one(poster: Poster, options: SendOptions, report: _Report) -> None:
    for _ in range(options.count):
        await _post(poster, options, report, time.monotonic())
        if report.unreachable:
            return


async def _paced(poster: Poster, options: SendOptions, report: _Report, interval: float) -> None:
    """Start a message every `interval` seconds: a slow answer delays no other message.

    Beyond 256 in flight the next one waits, and its latency counts from when it was due.
    """
    slots = asyncio.Semaphore(_MAX_IN_FLIGHT)
    started = time.monotonic()

    async def one(due: float) -> None:
        try:
            await _post(poster, options, report, due)
        finally:
            slots.release()

    try:
        async with asyncio.TaskGroup() as group:
            for number in range(options.count):
                due = started + number * interval
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await slots.acquire()
                if report.unreachable:
                    return
                group.create_task(one(due))
    except ExceptionGroup as group_error:
        # click ends quietly when the reader of a pipe is gone, but not inside a group.
        raise group_error.exceptions[0] from None


async def _post(poster: Poster, options: SendOptions, report: _Report, due: float) -> None:
    body = sample(options.event_type, time.time_ns() // 1_000_000, options.overrides)
    answer = await poster.post(body)
    report.add(answer, time.monotonic() - due)


def _verdict(options: SendOptions, report: _Report, url: str) -> tuple[int, str]:
    if report.unreachable:
        why = f"could not reach {url}: {plain(report.unreachable)}"
        return 3, f"{why}. Is the gateway running? `gateway dev` starts one."
    statuses = report.statuses()
    if options.forge:
        if statuses == {"401"}:
            return 0, "every forged signature was refused with 401, as it must be"
        return 1, "a forged signature was not refused with 401"
    if all(status.startswith("2") for status in statuses):
        return 0, ""
    if "401" in statuses:
        return 1, f"401: is this the gateway's own secret? It came from {options.found_in}."
    return 1, ""


def _percentile(seconds: Sequence[float], share: float) -> float:
    """Nearest rank; `seconds` is not empty."""
    ordered = sorted(seconds)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _secret(given: SecretStr | None) -> tuple[SecretStr, str]:
    """The secret, and where it was found. Raises `click.UsageError` when it is nowhere."""
    if given is not None:
        return given, "--secret"
    if secret := os.environ.get(ENV_VARIABLE):
        return SecretStr(secret), f"the environment ({ENV_VARIABLE})"
    try:
        kept = read_secret_file()
    except FileNotFoundError:
        raise click.UsageError(
            f"no signing secret: give --secret, or set {ENV_VARIABLE}, or run where "
            f"`gateway dev` runs, which leaves its secret in {SECRET_FILE}"
        ) from None
    return kept, str(SECRET_FILE)


def read_secret_file() -> SecretStr:
    """Give what `gateway dev` left. Raises `FileNotFoundError` and `click.UsageError`."""
    try:
        with SECRET_FILE.open("rb") as file:
            return SecretStr(file.read(_MAX_SECRET_FILE).decode().strip())
    except FileNotFoundError:
        raise
    except UnicodeDecodeError:
        raise click.UsageError(f"{SECRET_FILE} holds no secret: it is not text") from None
    except OSError as error:
        raise click.UsageError(f"cannot read the secret in {SECRET_FILE}: {error}") from error


def _wrap(_ctx: click.Context, _param: click.Parameter, value: str | None) -> SecretStr | None:
    return None if value is None else SecretStr(value)


def _number(_ctx: click.Context, _param: click.Parameter, rate: float | None) -> float | None:
    # No range catches it: not-a-number is neither below nor above any bound.
    if rate is not None and math.isnan(rate):
        raise click.BadParameter("nan is not a number of messages a second")
    return rate


@click.command("send")
@click.argument("event_type")
@click.option("--url", default=DEFAULT_URL, show_default=True, help="Where to post.")
@click.option(
    "--secret",
    callback=_wrap,
    help=f"Signing secret (whsec_…). Others can see it in the list of processes; better: the "
    f"variable {ENV_VARIABLE}. Without both, {SECRET_FILE} of `gateway dev` is read.",
)
@click.option(
    "--count", type=click.IntRange(1, _MAX_COUNT), default=1, help="How many, each with a new id."
)
@click.option(
    "--rate",
    type=click.FloatRange(0.001, _MAX_RATE),
    callback=_number,
    metavar="PER_SECOND",
    help="Send at this pace and do not wait for answers. Without it: one after the other.",
)
@set_option
@click.option("--forge", is_flag=True, help="Spoil the signature; a 401 is then the right answer.")
@click.pass_context
def send_command(ctx: click.Context, /, secret: SecretStr | None, **given: Any) -> None:
    """Sign and post a sample event, and print the answer.

    EVENT_TYPE is one of Clerk's 45 types, such as user.created, or any other.

    Exit code 0: every answer was a 2xx (with --forge: a 401). 1: one was not. 2: bad usage.
    3: the gateway could not be reached.
    """
    found, found_in = _secret(secret)
    options = SendOptions(secret=found, found_in=found_in, **given)
    note_type(options.event_type)
    try:
        code = asyncio.run(send(options, sys.stdout, sys.stderr))
    except GatewayError as error:
        raise click.UsageError(str(error)) from error
    ctx.exit(code)
