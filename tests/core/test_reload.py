"""What the files hold becomes what is served, or not: the rules, without a disk or a clock."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.app import Blueprint, draw, load_contents
from gateway.brokers.base import BrokerOptionsError
from gateway.config import FileContent, GatewayConfig
from gateway.config.files import MAX_FILE, read_file
from gateway.server import reload
from gateway.server.reload import Reloader
from tests.canaries import OTHER_SECRET, SECRET, TOKEN


def content(text: str) -> FileContent:
    return FileContent(SecretStr(text))


GOOD, BETTER = content(SECRET), content(OTHER_SECRET)
GONE = FileContent(problem="/secret cannot be read: No such file or directory")
GARBAGE = content("canary!")
CONFIG: dict[str, Any] = {
    "admin": {"token": "${file:/token}"},
    "server": {"max_body": "${file:/size}"},
    "sources": {"clerk": {"secrets": ["${file:/secret}"]}},
    "brokers": {
        "bus": {"kind": "nats", "servers": ["nats://localhost:4222"], "token": "${file:/login}"},
        "events": {"kind": "kafka", "servers": ["localhost:9092"]},
    },
    "routes": [
        {"name": "all", "events": ["*"], "targets": [{"broker": "events", "topic": "${V}"}]}
    ],
}
ENV = {"V": "clerk.events"}


class Disk:
    """What each file holds, and a look at it by look at it."""

    def __init__(self) -> None:
        self.files = {
            "/secret": GOOD,
            "/token": content(TOKEN),
            "/size": content("1MiB"),
            "/login": content("login"),
        }
        self.next: list[FileContent] = []
        """What `/secret` is at the coming looks, one after another."""
        self.slept: list[float] = []

    def read(self, name: str) -> FileContent:
        if name == "/secret" and self.next:
            self.files[name] = self.next.pop(0)
        return self.files[name]

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Rig:
    """A reloader over a disk of the test's own, and what it applied and told."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.applied: list[Blueprint] = []
        self.refusal: Exception | None = None
        loaded = load_contents("c.yaml", json.dumps(CONFIG), self.disk.files, ENV)
        self.first = draw(loaded)
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.reloader = Reloader(
            self.first, self._apply, ENV, read=self.disk.read, sleep=self.disk.sleep
        )
        self.reloader._log = self

    async def _apply(self, blueprint: Blueprint) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.applied.append(blueprint)

    def info(self, what: str, **fields: Any) -> None:
        self.told.append((what, fields))

    warning = error = info

    async def look(self, secret: FileContent | None = None, times: int = 1) -> None:
        if secret is not None:
            self.disk.files["/secret"] = secret
        for _ in range(times):
            await self.reloader.look()

    @property
    def secrets(self) -> list[str]:
        """What is served."""
        found = self.reloader.current.config.sources["clerk"].secrets
        return [secret.get_secret_value() for secret in found]

    def counted(self, outcome: str) -> float:
        value = self.reloader.metrics.registry.get_sample_value(
            "gateway_config_reloads_total", {"outcome": outcome}
        )
        assert value is not None
        return value

    @property
    def stale(self) -> float | None:
        return self.reloader.metrics.registry.get_sample_value("gateway_config_stale")


async def test_nothing_changed() -> None:
    rig = Rig()
    await rig.look(times=20)
    assert (rig.applied, rig.told, rig.disk.slept) == ([], [], [])


async def test_who_asks_is_told_that_nothing_changed() -> None:
    rig = Rig()
    await rig.reloader.look(asked=True)
    assert rig.told == [("config unchanged", {})]


async def test_a_changed_secret_is_applied_with_all_else_as_it_was() -> None:
    rig = Rig()
    await rig.look(BETTER)
    assert rig.secrets == [OTHER_SECRET]
    (applied,) = rig.applied
    assert rig.reloader.current is applied
    assert applied.config.brokers == rig.first.config.brokers
    assert rig.told == [("config reloaded", {"brokers": ()})]
    assert (rig.reloader.state, rig.stale, rig.counted("applied")) == ("current", 0, 1)
    await rig.look(times=3)
    assert len(rig.applied) == 1


async def test_what_is_being_written_is_waited_for() -> None:
    rig = Rig()
    rig.disk.next = [content(""), content(OTHER_SECRET[:20]), BETTER, BETTER]
    await rig.look()
    assert rig.secrets == [OTHER_SECRET]
    assert rig.disk.slept == [reload._SETTLE] * 3
    assert len(rig.applied) == 1
    assert rig.counted("refused") == 0


async def test_a_moment_without_the_file_is_nothing_to_tell() -> None:
    rig = Rig()
    rig.disk.next = [GONE, GOOD]
    await rig.look()
    assert (rig.applied, rig.told) == ([], [])


@pytest.mark.parametrize("bad", [GONE, GARBAGE, content(""), content(" \n")])
async def test_what_is_bad_is_told_once_and_changes_nothing(bad: FileContent) -> None:
    rig = Rig()
    await rig.look(bad, times=10)
    assert rig.secrets == [SECRET]
    assert rig.applied == []
    ((what, fields),) = rig.told
    assert what.startswith("config not reloaded")
    (problem,) = fields["problems"]
    assert problem.startswith("c.yaml:1:")
    assert "canary" not in problem
    assert (rig.reloader.state, rig.stale, rig.counted("refused")) == ("stale", 1, 1)


async def test_another_cause_is_told_too() -> None:
    rig = Rig()
    await rig.look(GONE, times=3)
    await rig.look(GARBAGE, times=3)
    assert [what for what, _ in rig.told] == [rig.told[0][0]] * 2
    assert rig.counted("refused") == 2


@pytest.mark.parametrize("good", [GOOD, BETTER])
async def test_it_recovers(good: FileContent) -> None:
    rig = Rig()
    await rig.look(GONE)
    await rig.look(good)
    assert rig.secrets == [good.text.get_secret_value()]
    assert (rig.reloader.state, rig.stale) == ("current", 0)
    assert len(rig.told) == 2


async def test_what_was_refused_is_tried_again_after_a_while_or_when_asked() -> None:
    rig = Rig()
    rig.refusal = BrokerOptionsError("bus", "tls.ca_file", "/ca.pem cannot be read")
    await rig.look(BETTER, times=3)
    assert rig.told[0][1]["problems"] == ("brokers.bus.tls.ca_file: /ca.pem cannot be read",)
    assert rig.secrets == [SECRET]
    await rig.reloader.look(asked=True)
    assert [len(rig.told), rig.counted("refused")] == [2, 2], "who asks is told again"
    rig.refusal = None
    await rig.look(times=reload._AGAIN_AFTER)
    assert rig.secrets == [OTHER_SECRET]
    assert rig.counted("applied") == 1


async def test_a_bug_does_not_end_the_watch() -> None:
    rig = Rig()
    rig.refusal = ZeroDivisionError("canary")
    await rig.look(BETTER)
    assert "canary" not in str(rig.told)
    assert rig.reloader.state == "stale"
    rig.refusal = None
    await rig.reloader.look(asked=True)
    assert rig.secrets == [OTHER_SECRET]


async def test_only_the_broker_whose_login_changed_is_made_anew() -> None:
    rig = Rig()
    rig.disk.files["/login"] = content("other")
    await rig.look()
    assert rig.told == [("config reloaded", {"brokers": ("bus",)})]


async def test_the_admin_token_changes() -> None:
    rig = Rig()
    rig.disk.files["/token"] = content(TOKEN + "-2")
    assert rig.reloader.admin_token().get_secret_value() == TOKEN
    await rig.look()
    assert rig.reloader.admin_token().get_secret_value() == TOKEN + "-2"


async def test_an_empty_token_does_not_open_the_admin_port() -> None:
    rig = Rig()
    rig.disk.files["/token"] = content("")
    await rig.look()
    assert rig.reloader.admin_token().get_secret_value() == TOKEN
    assert rig.reloader.state == "stale"


async def test_what_needs_a_restart_waits_and_the_rest_counts() -> None:
    rig = Rig()
    rig.disk.files |= {"/size": content("2MiB"), "/secret": BETTER}
    await rig.look()
    assert rig.secrets == [OTHER_SECRET]
    assert rig.reloader.current.config.server == rig.first.config.server
    assert rig.told[1] == ("config needs a restart", {"sections": ("server",)})
    assert str(rig.reloader.state) == "needs_restart"
    rig.disk.files["/size"] = content("1MiB")
    await rig.look()
    assert rig.reloader.state == "current"


async def test_where_the_ledger_is_waits_for_a_restart_and_how_long_it_remembers_counts() -> None:
    rig = Rig()
    ledger = {"store": "nats-kv", "broker": "bus", "bucket": "${file:/bucket}"}
    delivery = {"ledger": {**ledger, "incomplete_for": "${file:/kept}"}}
    text = json.dumps({**CONFIG, "delivery": delivery})
    files = {**rig.disk.files, "/bucket": content("ONE"), "/kept": content("1h")}
    current = draw(load_contents("c.yaml", text, files, ENV))
    changed = {**files, "/kept": content("2h")}
    redrawn = reload.redraw(current, changed, ENV)
    assert redrawn.needs_restart == ()
    assert redrawn.blueprint.config.delivery.ledger.incomplete_for == 7200
    redrawn = reload.redraw(current, {**changed, "/bucket": content("TWO")}, ENV)
    assert redrawn.needs_restart == ("delivery.ledger",)
    assert redrawn.blueprint.config.delivery.ledger.bucket == "ONE"
    assert redrawn.blueprint.config.delivery.ledger.incomplete_for == 7200


async def test_a_file_system_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "_SLOW", 0.0)
    rig = Rig()
    await rig.look(BETTER)
    assert rig.told[0][1]["problems"] == ("the files could not be read within 0 s",)
    assert rig.secrets == [OTHER_SECRET], "late is not never"
    assert rig.reloader.state == "current"


def test_the_content_of_a_file_is_in_no_repr() -> None:
    assert SECRET not in f"{GOOD} {GOOD!r} {[GOOD]} {Rig().first.loaded!r}"


def test_a_file_is_read_with_bounds(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("x" * MAX_FILE + "\n")
    assert read_file(str(path)).problem == f"{path} is larger than 64 KiB"
    path.write_text("x" * 10 + "\n")
    assert read_file(str(path)) == content("x" * 10)
    assert read_file(str(tmp_path)).problem == f"{tmp_path} is not a file"
    assert read_file("/dev/zero").problem == "/dev/zero is not a file"
    assert read_file("a\0b").problem == "${file:…} does not name a file"


@pytest.mark.parametrize(
    ("changed", "needs_restart"),
    [
        ({"max_bytes": "2MiB", "parked_max_bytes": "3MiB", "max_age": "1h"}, ()),
        ({"path": "./other.db", "max_age": "1h"}, ("delivery.inbox",)),
        ({"store": "jetstream", "broker": "bus"}, ("delivery.inbox",)),
    ],
)
def test_the_place_of_the_inbox_stays_and_its_bounds_change(
    changed: dict[str, str], needs_restart: tuple[str, ...]
) -> None:
    disk = Disk()

    def loaded(inbox: dict[str, str], mode: str = "inbox") -> GatewayConfig:
        content = {**CONFIG, "delivery": {"mode": mode, "inbox": inbox}}
        return load_contents("c.yaml", json.dumps(content), disk.files, ENV).config

    before, after = loaded({}), loaded(changed)
    kept, told = reload._keep(before, after)
    assert told == needs_restart
    inbox = kept.delivery.inbox
    assert (inbox.store, inbox.path, inbox.broker) == ("sqlite", "./gateway-inbox.db", None)
    assert (inbox.max_bytes, inbox.max_age) == (
        after.delivery.inbox.max_bytes,
        after.delivery.inbox.max_age,
    )
    kept, told = reload._keep(before, loaded({}, "direct"))
    assert (kept.delivery.mode, told) == ("inbox", ("delivery.mode",))
