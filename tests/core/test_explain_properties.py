"""`gateway explain` against the gateway that runs, and both against what the pages say.

Random tables and events. The gateway side is a signed request through the real ingress and
fan-out to brokers in memory; the other side is the JSON that the command prints, and nothing else.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.address import Networks
from gateway.app import Blueprint, dead_letter_of, draw, load_contents
from gateway.brokers.fake import FakeBroker
from gateway.commands.explain import explained_json
from gateway.commands.explain_report import Inquiry, report
from gateway.delivery.fanout import FanOut, Outlets
from gateway.delivery.ledger import Ledger
from gateway.ingress import Ingress
from gateway.observability.metrics import Metrics
from gateway.observability.record import Recorder
from gateway.serving import Edge, Limits, Serving
from tests.core.builders import signed
from tests.core.service import AMPLE, RETENTION, Answer, drive
from tests.explaining.oracle import Expected, expected
from tests.explaining.tables import Config, Place, configs, requests

ID = "msg_explained"
OWN = ("svix-timestamp", "svix-signature", "gateway-received-at")
"""Headers that only a delivery has."""
Stored = tuple[str, str, str, tuple[tuple[str, str], ...], str, str]
"""Broker, topic or subject, key, headers, value, dedupe id."""
# A whole table takes minutes to shrink, and is read as it is.
_PHASES = (Phase.explicit, Phase.reuse, Phase.generate)

pytestmark = pytest.mark.shows_payload("`gateway explain` shows values of the event by contract")


def blueprint(config: Config) -> Blueprint:
    return draw(load_contents("config.yaml", json.dumps(config), {}, {}))


def explained(drawn: Blueprint, source: str, body: bytes) -> dict[str, Any]:
    """Give what the command prints."""
    endpoint = next(one for one in drawn.endpoints.values() if one.sender.name == source)
    inquiry = Inquiry(endpoint, "file", body, 1_700_000_000.0, ID)
    content: dict[str, Any] = json.loads(explained_json(report(drawn, inquiry)))
    return content


async def deliver(drawn: Blueprint, path: str, body: bytes) -> tuple[Answer, Counter[Stored]]:
    """What the gateway answers, and what its brokers then have."""
    brokers = {name: FakeBroker(name) for name in drawn.config.brokers}
    for broker in brokers.values():
        await broker.start()
    recorder = Recorder(Metrics())
    edge = Edge(drawn.endpoints, Limits(drawn.config.server.max_body, AMPLE, AMPLE), Networks(()))
    outlets = Outlets(brokers, dead_letter_of(drawn.config))
    serving = Serving(edge, drawn.table, drawn.config.unmatched, outlets)
    fan_out = FanOut(recorder, Ledger(RETENTION, recorder.evicted))
    ingress = Ingress(serving, fan_out, recorder)
    headers = [
        (b"host", b"gateway.example"),
        *signed(body, svix_id=ID, timestamp=int(time.time())),
    ]
    answer = await drive(ingress, [body], "whole", headers, {"path": path})
    stored = Counter(
        _stored(name, drawn.config.brokers[name].kind, one.message)
        for name, broker in brokers.items()
        for one in broker.stored()
    )
    for broker in brokers.values():
        await broker.close(0)
    return answer, stored


def _stored(name: str, kind: str, message: Any) -> Stored:
    headers = message.headers
    if kind == "nats":
        # As nats-py sends them; the end-to-end test of the same name holds this to a server.
        headers = (*headers, ("Nats-Msg-Id", message.dedupe_id))
        headers = tuple((field, value.strip()) for field, value in headers)
    value = message.value.decode()
    return name, message.destination, message.key, _shared(headers), value, message.dedupe_id


def _shared(headers: Any) -> tuple[tuple[str, str], ...]:
    return tuple((name, "…" if name in OWN else value) for name, value in headers)


def told(content: dict[str, Any]) -> Counter[Stored]:
    """The records that an explanation promises."""
    return Counter(
        (
            one["broker"],
            one["topic"] or one["subject"],
            one["key"],
            _shared(one["headers"]),
            one["value"],
            one["dedupe_id"],
        )
        for one in (*content["records"], *content["letters"])
    )


def promised(content: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What the answer's targets must say: routes, broker, status, reason; but for their order."""
    status = {"dead_letter": "dead_lettered", "failed": "failed"}
    targets = [
        (",".join(one["routes"]), one["broker"], "delivered", "") for one in content["records"]
    ]
    targets += [
        (",".join(one["routes"]), one["broker"], status[one["then"]], one["reason"])
        for one in content["refusals"]
    ]
    return sorted(targets)


@given(st.data())
@settings(max_examples=80, phases=_PHASES)
def test_what_is_explained_is_what_the_gateway_does(data: st.DataObject) -> None:
    config = data.draw(configs(Place()), "config")
    drawn = blueprint(config)
    for source, body in data.draw(requests(config, 4), "requests"):
        content = explained(drawn, source, body)
        path = config["sources"][source]["path"]
        answer, stored = asyncio.run(deliver(drawn, path, body))
        assert stored == told(content)
        assert_answered(answer, content)


def assert_answered(answer: Answer, content: dict[str, Any]) -> None:
    """Assert that an answer is the one that an explanation promises."""
    promise = content["answer"]
    assert answer.word == (promise["http_status"], promise["status"])
    reason = answer.body.get("reason", answer.body.get("error", "").replace(" ", "_"))
    assert reason == promise["reason"]
    telling = {"retry-after", "webhook-delivery"}
    shown = {name: value for name, value in answer.headers.items() if name in telling}
    assert shown == dict(promise["headers"])
    if answer.status in {400, 413} or "targets_left_out" in answer.body:
        return
    targets = [
        (one["route"], one["broker"], one["status"], one.get("reason", ""))
        for one in answer.body["targets"]
    ]
    assert sorted(targets) == promised(content)


def meant(content: dict[str, Any], config: Config) -> Expected:
    """An explanation in the words of the oracle."""
    extras = {
        name
        for route in config["routes"]
        for one in route["targets"]
        for name in one.get("headers", ())
    }
    records: Counter[tuple[Any, ...]] = Counter()
    for one in content["records"]:
        headers = tuple(sorted((n, v) for n, v in one["headers"] if n in extras))
        value = one["value"]
        if one["payload"] != "original":
            value = json.loads(value)
            value = value["data"] if one["payload"] == "cloudevents" else value
        place = (one["broker"], one["topic"] or one["subject"], one["key"], ",".join(one["routes"]))
        records[(*place, headers, json.dumps(value, sort_keys=True))] += 1
    answer = content["answer"]
    return Expected(
        answer["http_status"],
        answer["status"],
        {one["name"]: _verdict(one) for one in content["routes"]},
        records,
        Counter((one["broker"], one["reason"]) for one in content["refusals"]),
    )


def _verdict(route: dict[str, Any]) -> str:
    failed = route["when"] is not None and route["when"]["result"] == "failed"
    verdict: str = "failed" if failed else route["verdict"]
    return verdict


@given(st.data())
@settings(max_examples=80, phases=_PHASES)
def test_what_is_explained_is_what_the_pages_say(data: st.DataObject) -> None:
    config = data.draw(configs(Place()), "config")
    drawn = blueprint(config)
    for source, body in data.draw(requests(config, 4), "requests"):
        found = meant(explained(drawn, source, body), config)
        says = expected(config, source, body, ID)
        assert found.verdicts == says.verdicts
        assert _unblanked(found.records) == _unblanked(says.records)
        assert found.refusals == says.refusals
        assert (found.status, found.word) == (says.status, says.word)


def _unblanked(records: Counter[tuple[Any, ...]]) -> Counter[tuple[Any, ...]]:
    return Counter(
        {
            (*place, tuple((n, v.strip()) for n, v in headers), value): count
            for (*place, headers, value), count in records.items()
        }
    )
