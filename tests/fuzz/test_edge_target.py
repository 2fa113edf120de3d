"""The fuzz target holds on its seeds, and fails for every fault that it is there to find."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import httptools
import msgspec
import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fuzz.edge import Target, main, target
from fuzz.judge import ViolationError
from fuzz.seeds import seeds
from gateway import ingress
from gateway.brokers.base import Message, Receipt
from gateway.ingress import Ingress
from gateway.observability.record import Outcome, Recorder
from gateway.routing import table
from gateway.routing.payload import render_payload
from gateway.server.protocol import _BoundedProtocol
from gateway.serving import Serving
from gateway.signature import Proof, SignatureError, Verifier

ROOT = Path(__file__).parents[2]
SEEDS = dict(seeds())
MODES = {"raw", "forged", "genuine"}

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.fixture
def run() -> Iterator[Target]:
    with target() as opened:
        yield opened


def run_all(run: Target, inputs: Iterable[bytes]) -> None:
    for data in inputs:
        run(data)


def test_every_seed_holds_and_together_they_reach_every_status(run: Target) -> None:
    run_all(run, SEEDS.values())
    answered = {int(key.split()[1]) for key in run.counts if " " in key}
    assert answered == {200, 400, 401, 404, 405, 408, 413, 422, 431, 503}
    assert sum(run.counts[mode] for mode in MODES) == len(SEEDS)
    forged = {key for key in run.counts if key.startswith("forged ")}
    assert forged == {"forged 401", "forged 413"}


def test_every_seed_is_told_apart_by_its_name() -> None:
    names = [name for name, _ in seeds()]
    assert len(names) == len(set(names)) > 200


@pytest.mark.parametrize("size", range(12))
def test_input_that_ends_early_is_an_input_too(run: Target, size: int) -> None:
    run_all(run, {data[:size] for data in SEEDS.values()})


def believe_all(patch: pytest.MonkeyPatch) -> None:
    """A verifier that accepts everything."""

    def verify(self: Verifier, headers: Any, body: bytes, now: float) -> Proof:
        return Proof("msg_2b", "1800000000", "v1,c2ln")

    patch.setattr(Verifier, "verify", verify)


def ignore_the_time(patch: pytest.MonkeyPatch) -> None:
    """A verifier that takes a signature of any age."""
    genuine = Verifier.__init__

    def init(self: Verifier, secrets: Any, tolerance: float) -> None:
        genuine(self, secrets, float("inf"))

    patch.setattr(Verifier, "__init__", init)


def allow_dots(patch: pytest.MonkeyPatch) -> None:
    """A verifier that takes ids with a dot."""
    patch.setattr("gateway.signature._ID", lambda value: value)


def take_the_last_header(patch: pytest.MonkeyPatch) -> None:
    """A verifier that lets a repeated header win over the first."""
    genuine = Verifier.verify

    def verify(self: Verifier, headers: Any, body: bytes, now: float) -> Proof:
        return genuine(
            self, {name[-4:]: (name, value) for name, value in headers}.values(), body, now
        )

    patch.setattr(Verifier, "verify", verify)


def raise_in_the_ingress(patch: pytest.MonkeyPatch) -> None:
    """An ingress that has a bug."""

    async def serve(self: Ingress, *_: Any) -> Any:
        raise KeyError("a bug")

    patch.setattr(Ingress, "_serve", serve)


def raise_on_odd_bytes(patch: pytest.MonkeyPatch) -> None:
    """A verifier that fails with another error than its own."""
    genuine = Verifier.verify

    def verify(self: Verifier, headers: Any, body: bytes, now: float) -> Proof:
        for _, value in headers:
            value.decode("ascii")
        return genuine(self, headers, body, now)

    patch.setattr(Verifier, "verify", verify)


def publish_first(patch: pytest.MonkeyPatch) -> None:
    """An ingress that publishes before it verifies, and then answers as it should."""
    genuine = Verifier.verify
    gateways: list[Ingress] = []
    early: list[asyncio.Future[Receipt]] = []
    serve = Ingress._serve

    async def remember(self: Ingress, *arguments: Any) -> Any:
        gateways[:] = [self]
        return await serve(self, *arguments)

    def verify(self: Verifier, headers: Any, body: bytes, now: float) -> Proof:
        message = Message("users", body, (), "early")
        early.append(gateways[0]._serving.outlets.brokers["events"].publish(message, 2000.0))
        return genuine(self, headers, body, now)

    patch.setattr(Ingress, "_serve", remember)
    patch.setattr(Verifier, "verify", verify)


def answer_500(patch: pytest.MonkeyPatch) -> None:
    """A refusal that becomes a 500."""
    genuine = ingress._rejected
    patch.setattr(
        ingress,
        "_rejected",
        lambda *given: msgspec.structs.replace(genuine(*given), http_status=500),
    )


def raise_out_of_the_application(patch: pytest.MonkeyPatch) -> None:
    """An application that raises, to which uvicorn answers 500."""

    async def send(*_: Any) -> None:
        raise SignatureError("missing_header")

    patch.setattr(ingress, "_send", send)


def answer_403(patch: pytest.MonkeyPatch) -> None:
    """A status of the right class that is not the contract's."""
    genuine = ingress._rejected
    patch.setattr(
        ingress,
        "_rejected",
        lambda *given: msgspec.structs.replace(genuine(*given), http_status=403),
    )


def count_twice(patch: pytest.MonkeyPatch) -> None:
    """A recorder that counts a rejection two times."""
    genuine = ingress._rejected

    def rejected(*given: Any) -> Any:
        count_twice_recorder[0].ended(COUNTED, 0.0)
        return genuine(*given)

    count_twice_recorder: list[Recorder] = []
    serve = Ingress._serve

    async def remember(self: Ingress, *arguments: Any) -> Any:
        count_twice_recorder[:] = [self._recorder]
        return await serve(self, *arguments)

    patch.setattr(Ingress, "_serve", remember)
    patch.setattr(ingress, "_rejected", rejected)


COUNTED = Outcome("rejected", 401, "missing_header", "", 0.0)


def count_nothing(patch: pytest.MonkeyPatch) -> None:
    """A recorder that forgets to count what it logs."""
    patch.setattr(Recorder, "ended", lambda *_: None)


def tell_the_body(patch: pytest.MonkeyPatch) -> None:
    """An answer that quotes what was sent."""
    genuine = ingress._rejected
    patch.setattr(
        ingress,
        "_rejected",
        lambda *given: msgspec.structs.replace(
            genuine(*given), body=b'{"status":"rejected","error":"x","sent":"{}"}'
        ),
    )


def log_the_secret(patch: pytest.MonkeyPatch) -> None:
    """A log line with a secret in it."""
    genuine = ingress._rejected

    def rejected(rejection: Any, endpoint: Any) -> Any:
        if endpoint is not None:
            import base64  # noqa: PLC0415 - for this fault only

            from gateway.observability.logs import EventLog  # noqa: PLC0415 - as configured now

            key = base64.b64encode(endpoint.verifier._keys[0]).decode()
            EventLog().write("warning", {"secret": key})
        return genuine(rejection, endpoint)

    patch.setattr(ingress, "_rejected", rejected)


def hold_every_header(patch: pytest.MonkeyPatch) -> None:
    """A protocol without a bound on the head."""
    patch.setattr(_BoundedProtocol, "_is_head_too_large", lambda _: False)
    patch.setattr(_BoundedProtocol, "_bound_head", lambda _: None)
    patch.setattr(_BoundedProtocol, "on_header", HttpToolsProtocol.on_header)


def raise_in_the_protocol(patch: pytest.MonkeyPatch) -> None:
    """A protocol whose callback raises into the event loop."""
    genuine = _BoundedProtocol.data_received

    def data_received(self: Any, data: bytes) -> None:
        genuine(self, data)
        if b"\xff" in data:
            raise httptools.HttpParserError

    patch.setattr(_BoundedProtocol, "data_received", data_received)


def wait_for_ever(patch: pytest.MonkeyPatch) -> None:
    """A protocol that arms no timer for what comes too slowly."""
    patch.setattr(_BoundedProtocol, "_head_expired", lambda _: None)
    patch.setattr(_BoundedProtocol, "_body_expired", lambda *_: None)


def change_a_byte(patch: pytest.MonkeyPatch) -> None:
    """A record whose bytes are not those that were signed."""
    genuine = render_payload
    patch.setattr(table, "render_payload", lambda *given: genuine(*given).replace(b'":', b'": '))


def forget_a_target(patch: pytest.MonkeyPatch) -> None:
    """A table that leaves out a route that matches."""
    genuine = table.Table.candidates
    patch.setattr(
        table.Table,
        "candidates",
        lambda *given: [route for route in genuine(*given) if route.name != "users"],
    )


def forget_to_redact(patch: pytest.MonkeyPatch) -> None:
    """A payload with what should be left out of it."""
    genuine = render_payload
    patch.setattr(
        table, "render_payload", lambda event, kind, _, key: genuine(event, kind, (), key)
    )


def lead_astray(patch: pytest.MonkeyPatch) -> None:
    """A template that takes values as they are."""
    patch.setattr("gateway.routing.template.sanitise", lambda value: value)


def answer_before_the_broker(patch: pytest.MonkeyPatch) -> None:
    """A 200 for what no broker has."""
    genuine = ingress._delivered

    def delivered(serving: Serving, event: Any, delivery: Any) -> Any:
        well = tuple(
            msgspec.structs.replace(one, status="delivered", reason="")
            for one in delivery.settlements
        )
        return genuine(serving, event, type(delivery)("delivered", well))

    patch.setattr(ingress, "_delivered", delivered)


FAULTS: tuple[tuple[Plant, str], ...] = (
    (believe_all, "raw"),
    (believe_all, "forged"),
    (ignore_the_time, "forged"),
    (allow_dots, "forged"),
    (take_the_last_header, "forged"),
    (raise_in_the_ingress, "raw"),
    (raise_in_the_ingress, "forged"),
    (raise_in_the_ingress, "genuine"),
    (raise_on_odd_bytes, "raw"),
    (publish_first, "raw"),
    (publish_first, "forged"),
    (publish_first, "genuine"),
    (answer_500, "raw"),
    (answer_500, "forged"),
    (answer_500, "genuine"),
    (raise_out_of_the_application, "raw"),
    (raise_out_of_the_application, "forged"),
    (answer_403, "raw"),
    (answer_403, "forged"),
    (count_twice, "forged"),
    (tell_the_body, "raw"),
    (log_the_secret, "forged"),
    (hold_every_header, "raw"),
    (raise_in_the_protocol, "raw"),
    (wait_for_ever, "raw"),
    (change_a_byte, "genuine"),
    (forget_a_target, "genuine"),
    (forget_to_redact, "genuine"),
    (lead_astray, "genuine"),
    (answer_before_the_broker, "genuine"),
)


@pytest.mark.parametrize(("plant", "mode"), FAULTS)
def test_a_planted_fault_is_found_by_the_seeds_alone(
    plant: Plant, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    own = [data for name, data in SEEDS.items() if name.startswith(f"{mode}-")]
    with target() as run, pytest.raises(ViolationError):
        run_all(run, own)


def test_a_request_that_is_seen_and_not_counted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    count_nothing(monkeypatch)
    seed = SEEDS["forged-wrong_key-0-0"]
    with target() as run, pytest.raises(ViolationError, match="counted: 0"):
        run_all(run, [seed] * 256)


def test_replay_passes_what_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "one", tmp_path / "two"]
    for file, name in zip(files, ("raw-forged", "genuine-user.created"), strict=True):
        file.write_bytes(SEEDS[name])
    assert main(["--replay", *map(str, files)]) == 0
    assert "2 inputs replayed" in capsys.readouterr().out


def test_replay_shows_what_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "crash"
    file.write_bytes(SEEDS["raw-forged"])
    answer_500(monkeypatch)
    with pytest.raises(ViolationError, match="500"):
        main(["--replay", str(file)])


@pytest.mark.parametrize("module", ["fuzz.edge", "fuzz.run"])
def test_without_atheris_it_says_so_in_one_sentence_and_fails(module: str) -> None:
    hide = (
        "import runpy, sys; sys.modules['atheris'] = None; sys.argv = ['fuzz']; "
        f"runpy.run_module({module!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", hide], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith("atheris, which fuzzes, is for Linux only")
    assert done.stdout.count("\n") == 1
