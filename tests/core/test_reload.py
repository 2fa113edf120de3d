"""What the config is read from becomes what is served, or not: without a disk or a clock."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from gateway.app import Blueprint, draw, load_contents
from gateway.brokers.base import BrokerOptionsError
from gateway.config import ConfigError, FileContent, GatewayConfig, load_config_text
from gateway.config.files import MAX_FILE, read_file
from gateway.config.interpolation import MAX_TOTAL
from gateway.config.load import MAX_FILE as MAX_CONFIG
from gateway.config.load import named_files
from gateway.server import redraw as redraw_module
from gateway.server import reload
from gateway.server.contents import Contents, ContentsReader, contents_of, is_followed, read_config
from gateway.server.redraw import Redrawn, loader, redraw
from gateway.server.reload import Reloader
from tests.canaries import OTHER_SECRET, SECRET, TOKEN
from tests.core.test_fanout import turns


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


TEXT = json.dumps(CONFIG)
NAME = "c.yaml"
NOW = 1_800_000_000.0
STALE = "config not reloaded: the last good one stays"


class Disk:
    """What each file holds, and a look at it by look at it."""

    def __init__(self) -> None:
        self.text = content(TEXT)
        self.files = {
            "/secret": GOOD,
            "/token": content(TOKEN),
            "/size": content("1MiB"),
            "/login": content("login"),
        }
        self.next: list[FileContent] = []
        """What `/secret` is at the coming looks, one after another."""
        self.next_texts: list[FileContent] = []
        self.slept: list[float] = []
        self.looks = 0

    def read(self, name: str) -> FileContent:
        if name == "/secret" and self.next:
            self.files[name] = self.next.pop(0)
        return self.files.get(name, FileContent(problem=f"{name} cannot be read"))

    def read_text(self, name: str) -> FileContent:
        assert name == NAME
        self.looks += 1
        if self.next_texts:
            self.text = self.next_texts.pop(0)
        return self.text

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


class Rig:
    """A reloader over a disk of the test's own, and what it applied and told."""

    def __init__(self, *, watch: bool = True, **sections: Any) -> None:
        self.disk = Disk()
        self.disk.text = content(json.dumps({**CONFIG, **sections}))
        self.applied: list[Blueprint] = []
        self.was_applied = asyncio.Event()
        self.refusal: Exception | None = None
        self.first = draw(load_contents(NAME, self.disk.text.text, self.disk.files, ENV))
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.now = NOW
        self.reloader = Reloader(
            self.first,
            self._apply,
            loader(NAME, ENV),
            ContentsReader(NAME, ENV, self.disk.read_text, self.disk.read),
            watch=watch,
            sleep=self.disk.sleep,
            clock=lambda: self.now,
        )
        self.reloader._log = self

    async def _apply(self, blueprint: Blueprint) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.applied.append(blueprint)
        self.was_applied.set()

    def info(self, what: str, **fields: Any) -> None:
        self.told.append((what, fields))

    warning = error = info

    @property
    def state(self) -> str:
        return self.reloader.health.state

    async def write(self, changed: dict[str, Any] | FileContent, times: int = 1) -> None:
        """Change the config file, and look: to other sections, or to what is no config."""
        if not isinstance(changed, FileContent):
            changed = content(json.dumps({**CONFIG, **changed}))
        self.disk.text = changed
        await self.look(times=times)

    def reloaded(self) -> list[dict[str, Any]]:
        return [fields for what, fields in self.told if what == "config reloaded"]

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

    def counted(self, outcome: str) -> float | None:
        return self.sample("reloads_total", outcome=outcome)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.reloader.metrics.registry.get_sample_value(f"gateway_config_{name}", labels)

    @property
    def stale(self) -> float | None:
        return self.sample("stale")


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
    told = {"generation": 2, "sections": ("sources",), "brokers": ()}
    assert rig.told == [("config reloaded", told)]
    assert (rig.state, rig.stale, rig.counted("applied")) == ("current", 0, 1)
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
    assert (rig.state, rig.stale, rig.counted("refused")) == ("stale", 1, 1)


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
    assert (rig.state, rig.stale) == ("current", 0)
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
    assert rig.state == "stale"
    rig.refusal = None
    await rig.reloader.look(asked=True)
    assert rig.secrets == [OTHER_SECRET]


async def test_a_bug_is_told_once_and_tried_again_after_a_while() -> None:
    rig = Rig()
    rig.refusal = ZeroDivisionError("canary")
    await rig.look(BETTER, times=5)
    assert [what for what, _ in rig.told] == ["bug", STALE]
    assert rig.counted("refused") == 1
    rig.refusal = None
    await rig.look(times=reload._AGAIN_AFTER)
    assert rig.secrets == [OTHER_SECRET]


async def test_what_never_comes_to_rest_is_told_and_waited_for() -> None:
    """Written again and again, such as by two who do not know of each other."""
    rig = Rig()
    rig.disk.next = [GOOD if at % 2 else BETTER for at in range(1, 200)] + [BETTER]
    rig.disk.next.insert(0, GARBAGE)
    await rig.look()
    assert rig.state == "current", "every other look finds what is served"

    rig.disk.next = [content(f"{OTHER_SECRET}{at}") for at in range(200)] + [BETTER]
    await rig.look()
    words = (f"the files changed at each of {reload._RESTLESS} looks, and are waited for",)
    assert [fields["problems"] for what, fields in rig.told if "problems" in fields] == [words]
    assert rig.state == "stale"
    assert len(rig.disk.next) > 100, "a look has an end"
    while rig.disk.next:
        await rig.look()
    assert rig.counted("refused") == 1, "told once"
    await rig.look()
    assert (rig.state, rig.secrets) == ("current", [OTHER_SECRET])


async def test_only_the_broker_whose_login_changed_is_made_anew() -> None:
    rig = Rig()
    rig.disk.files["/login"] = content("other")
    await rig.look()
    told = {"generation": 2, "sections": ("brokers",), "brokers": ("bus",)}
    assert rig.told == [("config reloaded", told)]


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
    assert rig.state == "stale"


async def test_what_needs_a_restart_waits_and_the_rest_counts() -> None:
    rig = Rig()
    rig.disk.files |= {"/size": content("2MiB"), "/secret": BETTER}
    await rig.look()
    assert rig.secrets == [OTHER_SECRET]
    assert rig.reloader.current.config.server == rig.first.config.server
    assert rig.told[1] == ("config needs a restart", {"sections": ("server",)})
    assert rig.state == "needs_restart"
    rig.disk.files["/size"] = content("1MiB")
    await rig.look()
    assert rig.state == "current"


async def test_where_the_ledger_is_waits_for_a_restart_and_how_long_it_remembers_counts() -> None:
    rig = Rig()
    ledger = {"store": "nats-kv", "broker": "bus", "bucket": "${file:/bucket}"}
    delivery = {"ledger": {**ledger, "incomplete_for": "${file:/kept}"}}
    text = json.dumps({**CONFIG, "delivery": delivery})
    files = {**rig.disk.files, "/bucket": content("ONE"), "/kept": content("1h")}
    current = draw(load_contents(NAME, text, files, ENV))
    changed = {**files, "/kept": content("2h")}
    redrawn = redrawn_by(current, text, changed)
    assert redrawn.needs_restart == ()
    assert redrawn.blueprint.config.delivery.ledger.incomplete_for == 7200
    redrawn = redrawn_by(current, text, {**changed, "/bucket": content("TWO")})
    assert redrawn.needs_restart == ("delivery.ledger",)
    assert redrawn.blueprint.config.delivery.ledger.bucket == "ONE"
    assert redrawn.blueprint.config.delivery.ledger.incomplete_for == 7200


def redrawn_by(current: Blueprint, text: str, files: dict[str, FileContent]) -> Redrawn:
    return redraw(current, Contents(content(text), files), loader(NAME, ENV), 2)


def test_the_broker_of_the_ledger_cannot_go_before_the_ledger_has_moved() -> None:
    files = Disk().files
    ledger = {"store": "nats-kv", "broker": "bus"}
    current = draw(
        load_contents(NAME, json.dumps({**CONFIG, "delivery": {"ledger": ledger}}), files, ENV)
    )
    brokers = {name: one for name, one in CONFIG["brokers"].items() if name != "bus"}
    moved = {**CONFIG, "brokers": brokers, "delivery": {"ledger": {"store": "memory"}}}
    with pytest.raises(ConfigError, match='no broker is called "bus"'):
        redrawn_by(current, json.dumps(moved), files)


async def test_a_file_system_that_hangs_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "_SLOW", 0.0)
    rig = Rig()
    await rig.look(BETTER)
    assert rig.told[0][1]["problems"] == ("the files could not be read within 0 s",)
    assert rig.secrets == [OTHER_SECRET], "late is not never"
    assert rig.state == "current"


async def test_a_file_system_that_is_always_slow_is_told_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reload, "_SLOW", 0.0)
    rig = Rig()
    await rig.look(times=5)
    assert [what for what, _ in rig.told] == [STALE]
    assert rig.counted("refused") == 1
    assert rig.state == "current", "what was read late is what is served"
    await rig.look(GARBAGE, times=3)
    assert [what for what, _ in rig.told] == [STALE, STALE], "a fault is told once, too"
    monkeypatch.setattr(reload, "_SLOW", 5.0)
    await rig.look(GOOD)
    monkeypatch.setattr(reload, "_SLOW", 0.0)
    await rig.look()
    assert rig.counted("refused") == 3, "it was quick meanwhile"


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
    kept, told = redraw_module._keep(before, after)
    assert told == needs_restart
    inbox = kept.delivery.inbox
    assert (inbox.store, inbox.path, inbox.broker) == ("sqlite", "./gateway-inbox.db", None)
    assert (inbox.max_bytes, inbox.max_age) == (
        after.delivery.inbox.max_bytes,
        after.delivery.inbox.max_age,
    )
    kept, told = redraw_module._keep(before, loaded({}, "direct"))
    assert (kept.delivery.mode, told) == ("inbox", ("delivery.mode",))


ELSEWHERE = {
    "routes": [
        {"name": "new", "events": ["*"], "targets": [{"broker": "events", "topic": "clerk.new"}]}
    ]
}


async def test_a_changed_text_is_applied() -> None:
    rig = Rig()
    rig.now += 60
    await rig.write(ELSEWHERE)
    (applied,) = rig.applied
    assert [route.name for route in applied.table.routes] == ["new"]
    assert rig.reloaded() == [{"generation": 2, "sections": ("routes",), "brokers": ()}]
    assert (applied.generation, rig.sample("generation")) == (2, 2)
    assert rig.sample("last_reload_success_timestamp_seconds") == NOW + 60
    await rig.look(times=3)
    assert len(rig.applied) == 1


async def test_the_start_counts_as_the_last_success() -> None:
    rig = Rig()
    assert (rig.sample("generation"), rig.sample("needs_restart")) == (1, 0)
    await rig.write(GARBAGE)
    assert rig.sample("last_reload_success_timestamp_seconds") == NOW
    assert rig.sample("generation") == 1


async def test_a_text_that_is_being_written_is_waited_for() -> None:
    rig = Rig()
    whole = json.dumps({**CONFIG, **ELSEWHERE})
    rig.disk.next_texts = [content(""), content(whole[:50]), content(whole), content(whole)]
    await rig.look()
    assert len(rig.applied) == 1
    assert rig.counted("refused") == 0


async def test_new_files_come_with_the_text_and_others_go() -> None:
    rig = Rig()
    rig.disk.files["/other"] = BETTER
    sources = {"clerk": {"secrets": ["${file:/other}"]}}
    await rig.write({"sources": sources})
    assert rig.secrets == [OTHER_SECRET]
    del rig.disk.files["/secret"]  # nothing names it any more
    await rig.look(times=3)
    assert (rig.state, len(rig.applied)) == ("current", 1)
    rig.disk.files["/other"] = GOOD
    await rig.look()
    assert rig.secrets == [SECRET]


async def test_a_text_whose_file_is_not_there_yet_counts_once_it_is() -> None:
    rig = Rig()
    await rig.write({"sources": {"clerk": {"secrets": ["${file:/other}"]}}}, times=3)
    assert (rig.state, rig.secrets, rig.counted("refused")) == ("stale", [SECRET], 1)
    rig.disk.files["/other"] = BETTER
    await rig.look()
    assert (rig.state, rig.secrets) == ("current", [OTHER_SECRET])


@pytest.mark.parametrize(
    ("bad", "first"),
    [
        (content("sources: [\n"), "c.yaml:2:1"),
        (content("- a: b\n  : c: d"), "c.yaml:2:"),
        (content('{"sources": {}, "canary": 1}'), "c.yaml:1:"),
        (content("   \n"), "c.yaml"),
        (FileContent(problem="c.yaml: cannot be read: No such file or directory"), ""),
    ],
)
async def test_a_bad_text_is_told_once_and_changes_nothing(bad: FileContent, first: str) -> None:
    rig = Rig()
    await rig.write(bad, times=reload._AGAIN_AFTER + 5)
    assert rig.applied == []
    ((what, fields),) = rig.told
    assert what == "config not reloaded: the last good one stays"
    assert fields["problems"][0].startswith("c.yaml")
    assert rig.counted("refused") == 1
    health = rig.reloader.health
    assert (health.state, health.problems) == ("stale", fields["count"])
    assert health.first.startswith(first) or not health.first
    await rig.write({})
    assert (rig.state, rig.stale) == ("current", 0)
    assert rig.told[1:] == [("config unchanged", {})]


async def test_what_a_file_holds_counts_while_the_text_is_bad_only_with_a_good_one() -> None:
    rig = Rig()
    await rig.write(content("sources: ["))
    await rig.look(BETTER)
    assert rig.secrets == [SECRET], "all or nothing"
    rig.disk.text = content(TEXT)
    await rig.look()
    assert rig.secrets == [OTHER_SECRET]


async def test_how_much_is_wrong_is_counted() -> None:
    rig = Rig()
    await rig.write({f"unknown_{n}": 1 for n in range(20)})
    ((_, fields),) = rig.told
    assert (fields["count"], len(fields["problems"])) == (20, reload._MAX_PROBLEMS)
    assert rig.reloader.health.problems == 20


async def test_new_warnings_are_told_and_old_ones_are_not() -> None:
    rig = Rig()
    target = {"broker": "events", "topic": "t"}
    odd = [{"name": "all", "events": ["usr.created"], "targets": [target]}]
    await rig.write({"routes": odd})
    (fields,) = [fields for what, fields in rig.told if what == "config warnings"]
    assert fields["count"] == 1
    assert fields["problems"][0].startswith("c.yaml:1:")
    assert "user.created" in fields["problems"][0]
    rig.told.clear()
    await rig.write({"routes": odd, "unmatched": "reject"})
    assert [what for what, _ in rig.told] == ["config reloaded"]


async def test_sections_that_wait_for_a_restart_are_named_and_the_others_count() -> None:
    rig = Rig()
    await rig.write({**ELSEWHERE, "server": {"port": 9999}, "log": {"level": "debug"}})
    assert [route.name for route in rig.reloader.current.table.routes] == ["new"]
    assert rig.reloader.current.config.server == rig.first.config.server
    health = rig.reloader.health
    assert (health.state, health.needs_restart) == ("needs_restart", ("server", "log"))
    assert rig.sample("needs_restart") == 1
    await rig.write(GARBAGE)
    health = rig.reloader.health
    assert (health.state, health.needs_restart) == ("stale", ("server", "log"))
    await rig.write(ELSEWHERE)
    assert (rig.state, rig.sample("needs_restart")) == ("current", 0)


async def test_the_connection_of_an_inbox_in_a_stream_waits_for_a_restart() -> None:
    """Its store connects by the settings of the start; the broker's client gets the new ones."""
    place = {"store": "jetstream", "broker": "bus"}
    inbox: dict[str, Any] = {"delivery": {"mode": "inbox", "inbox": place}}
    rig = Rig(**inbox)
    rig.disk.files["/login"] = content("other")
    await rig.look()
    assert rig.reloaded()[0]["brokers"] == ("bus",)
    assert rig.reloader.health.needs_restart == ("delivery.inbox",)
    await rig.write({**inbox, "unmatched": "reject"})
    assert rig.reloader.health.needs_restart == ("delivery.inbox",)
    rig.disk.files["/login"] = content("login")
    await rig.look()
    assert rig.state == "current"


async def test_without_watching_only_who_asks_is_served() -> None:
    rig = Rig(watch=False)
    running = asyncio.create_task(rig.reloader.run())
    rig.disk.text = content(json.dumps({**CONFIG, **ELSEWHERE}))
    rig.disk.files["/secret"] = BETTER
    await turns()
    assert rig.disk.looks == 0
    rig.reloader.hang_up()
    async with asyncio.timeout(10):
        await rig.was_applied.wait()
    await turns()
    assert rig.secrets == [OTHER_SECRET]
    assert rig.disk.looks == 2, "two that agree"
    running.cancel()


async def test_a_process_that_missed_changes_makes_the_same_of_the_last_one() -> None:
    """A worker gets the last change only, and one that is restarted starts from the first text."""
    rig = Rig()
    changes: list[dict[str, Any]] = [
        {"server": {"port": 9999}, **ELSEWHERE},
        {"admin": {"token": "${file:/token}", "port": 1}},
        {"log": {"level": "debug"}, "delivery": {"mode": "inbox"}, "unmatched": "reject"},
    ]
    for change in changes:
        await rig.write(change)
    assert len(rig.applied) == len(changes)
    last = rig.applied[-1]
    missed = redraw(rig.first, contents_of(last.loaded), loader(NAME, ENV), 4).blueprint
    assert missed.config == last.config
    assert missed.generation == last.generation == 4


def test_a_config_is_read_again_with_bounds(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    assert read_config(str(path)).problem == f"{path}: cannot be read: No such file or directory"
    path.write_text("a: 1\n")
    assert read_config(str(path)) == content("a: 1\n")
    path.write_bytes(b"a: 1\nb: \xff")
    assert read_config(str(path)).problem.startswith(f"{path}:2:4: not UTF-8")
    path.write_text("#" * (MAX_CONFIG + 1))
    assert read_config(str(path)).problem.startswith(f"{path}: is larger than 1 MiB")
    assert read_config(str(tmp_path)).problem == f"{tmp_path}: is not a file"
    path.unlink()
    os.mkfifo(path)
    assert read_config(str(path)).problem == f"{path}: is not a file"


def test_the_files_of_a_text_are_read_with_a_bound_for_all() -> None:
    """One file has as many names as slashes; a text of 1 MiB has room for 80,000 of them."""
    names = [f"/{'/' * at}large" for at in range(200)]
    text = content(json.dumps({"routes": [f"${{file:{name}}}" for name in names]}))
    read: list[str] = []

    def read_large(name: str) -> FileContent:
        read.append(name)
        return content("x" * MAX_FILE)

    def load() -> None:
        load_config_text(text.text, NAME, {}, read=read_large)

    with pytest.raises(ConfigError, match="together give more than"):
        load()
    assert len(read) == MAX_TOTAL // MAX_FILE + 1, "at the start"
    read.clear()
    reader = ContentsReader(NAME, {}, lambda _: text, read_large)
    found = reader.read(Contents(text, {}))
    assert len(read) == MAX_TOTAL // MAX_FILE + 1, "at a reload"
    assert [*found.files] == names
    with pytest.raises(ConfigError, match="together give more than"):
        loader(NAME, {})(found)


def test_only_what_is_no_file_is_not_followed(tmp_path: Path) -> None:
    """Whoever removes a file and writes it anew may do so in the moment of the start."""
    assert is_followed(str(tmp_path / "removed"))
    (tmp_path / "file").touch()
    assert is_followed(str(tmp_path / "file"))
    os.mkfifo(tmp_path / "pipe")
    assert not is_followed(str(tmp_path / "pipe"))
    assert not is_followed("/dev/null")


def test_the_files_of_a_text_are_found_without_reading_one() -> None:
    text = 'a: "${file:/a} ${V} ${file:/b}"\nb: ["${file:/a}"]\nc: "${X:?no}"\nd: ${file:/c}\n'
    assert named_files(SecretStr(text), ENV) == ("/a", "/b", "/c")
    assert named_files(SecretStr("\ufeff" + text + "e: ["), ENV) in {("/a", "/b", "/c"), ()}
