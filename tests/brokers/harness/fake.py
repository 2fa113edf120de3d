"""The fake: told to do what a test does to a server's process."""

from __future__ import annotations

import uuid

from gateway.brokers.base import Broker, Receipt, Refused
from gateway.brokers.fake import FakeBroker, Stored
from tests.brokers.harness.base import Harness, Options, Place, Record, Subject, Traits, eventually


class FakeHarness(Harness):
    """A world in which every fake that is made is the same server."""

    traits = Traits(
        keyed=True,
        ordered_headers=True,
        deduplicates=True,
        missing=(Refused, "no_stream"),
    )

    def __init__(self) -> None:
        super().__init__()
        self._fakes: list[FakeBroker] = []
        self._reachable = True

    def make(self, options: Options, subject: Subject) -> Broker:
        fake = FakeBroker(
            "contract",
            max_in_flight=options.max_in_flight,
            max_in_flight_bytes=options.max_in_flight_bytes,
            request_timeout=options.request_timeout,
            on_state=subject.listen,
        )
        if not self._reachable:
            fake.go_down()
        self._fakes.append(fake)
        return fake

    async def destination(self, name: str | None = None) -> str:
        for fake in self._fakes:
            fake.obey()
        return name or uuid.uuid4().hex

    async def missing(self) -> str:
        name = uuid.uuid4().hex
        for fake in self._fakes:
            fake.refuse("no_stream", name)
        return name

    async def read(self, destination: str, at_least: int) -> list[Record]:
        def stored() -> list[Stored]:
            return [record for fake in self._fakes for record in fake.stored(destination)]

        await eventually(lambda: len(stored()) >= at_least)
        return [
            Record(
                record.message.value,
                record.message.headers,
                record.message.key,
                self.place(record.receipt),
            )
            for record in stored()
        ]

    def place(self, receipt: Receipt) -> Place | None:
        return receipt.stream, receipt.seq

    async def start_server(self) -> None:
        self._reachable = True
        for fake in self._fakes:
            fake.come_up()

    async def stop_server(self) -> None:
        await self.kill_server()

    async def kill_server(self) -> None:
        self._reachable = False
        for fake in self._fakes:
            fake.go_down()

    async def pause_server(self) -> None:
        for fake in self._fakes:
            fake.stall()

    async def resume_server(self) -> None:
        for fake in self._fakes:
            fake.resume()
